//! Endpoints → programs. What did not change is not compiled again.

use std::collections::HashMap;
use std::sync::Arc;

use names::Name;
use policy::compile::{gather_selected, names_ports_of_subject};
use policy::inventory::ContainerPort;
use policy::labels::{LabelSelector, Labels};
use policy::question::Questions;
use policy::{
    CidrGroup, Direction, Endpoint, Inventory, OtherClusters, PerDirection, Policy, Program, ProgramId, QuestionRules,
};
use settings::Settings;

use super::spec_index::{SpecIndex, SpecKey, key_of};

/// What the specs that govern an endpoint compile to; shared by all endpoints that the same ones
/// govern.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    /// The program of each direction; `None` where no policy says anything of that direction.
    pub(super) programs: PerDirection<Option<CompiledProgram>>,
    /// What may be asked, by the egress rules.
    pub(super) question_rules: Arc<QuestionRules>,
    pub(super) questions: Arc<Questions>,
    /// The policies, in order.
    pub(super) policies: Arc<[Arc<Policy>]>,
}

/// A program with its id, which takes a look at each rule.
#[derive(Debug, Clone)]
pub(super) struct CompiledProgram {
    pub(super) id: ProgramId,
    pub(super) program: Arc<Program>,
}

/// The programs that were compiled last time.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    specs: SpecIndex,
    /// What governs endpoints with these labels; `None` where no policy does.
    governing: HashMap<Labels, Option<Arc<GoverningSpecs>>>,
    known: HashMap<CompileKey, Compiled>,
    cidr_groups: Arc<[CidrGroup]>,
    other_clusters: Option<Arc<OtherClusters>>,
}

/// The specs that govern endpoints with the same labels.
#[derive(Debug, PartialEq, Eq, Hash)]
struct GoverningSpecs {
    /// The endpoints' namespace, which gives the search list of their questions.
    namespace: String,
    /// In the order of the policies.
    specs: Vec<SpecKey>,
    /// Whether one of them speaks of ports by the names that the endpoint's containers give them.
    name_ports: bool,
}

/// What a compiled program depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CompileKey {
    governing: Arc<GoverningSpecs>,
    /// The ports that the endpoint's containers name, where some of the specs speak of them.
    ports: Vec<ContainerPort>,
}

impl Compiler {
    /// Compiles every endpoint; `None` where no policy governs. It takes a look at each endpoint,
    /// and at the specs that may select one whose labels are new. `policies` are ordered by id.
    pub(super) fn compile(
        &mut self,
        endpoints: &[Endpoint],
        policies: &Arc<[Arc<Policy>]>,
        inventory: &Inventory,
        settings: &Settings,
    ) -> Vec<Option<Compiled>> {
        if self.cidr_groups != inventory.cidr_groups || self.other_clusters != inventory.other_clusters {
            self.known.clear();
            self.cidr_groups.clone_from(&inventory.cidr_groups);
            self.other_clusters.clone_from(&inventory.other_clusters);
        }
        let differ = self.specs.update(policies);
        let subjects = differ.iter().flat_map(|policy| &policy.specs).map(|spec| &spec.subject);
        let subjects: Vec<&LabelSelector> = subjects.collect();
        let mut governing_before = std::mem::take(&mut self.governing);
        governing_before.retain(|labels, _| !subjects.iter().any(|subject| subject.matches(labels)));
        let mut before = std::mem::take(&mut self.known);
        let compiled = endpoints.iter().map(|endpoint| {
            let governing = match self.governing.get(&endpoint.labels) {
                Some(governing) => governing.clone(),
                None => {
                    let known = governing_before.remove_entry(&endpoint.labels);
                    let (labels, governing) =
                        known.unwrap_or_else(|| (endpoint.labels.clone(), self.governing_specs(endpoint)));
                    self.governing.insert(labels, governing.clone());
                    governing
                }
            };
            let governing = governing?;
            let ports = match governing.name_ports {
                true => endpoint.ports.clone(),
                false => Vec::new(),
            };
            let key = CompileKey { governing, ports };
            if let Some(known) = self.known.get(&key) {
                return Some(known.clone());
            }
            let compiled = match before.remove(&key) {
                Some(known) => known,
                None => compile_one(endpoint, &self.specs.governing(endpoint), inventory, settings)?,
            };
            self.known.insert(key, compiled.clone());
            Some(compiled)
        });
        compiled.collect()
    }

    /// The specs that govern an endpoint; `None` where none does.
    fn governing_specs(&self, endpoint: &Endpoint) -> Option<Arc<GoverningSpecs>> {
        let governing = self.specs.governing(endpoint);
        let names_ports = |(policy, number): &(&Arc<Policy>, usize)| names_ports_of_subject(&policy.specs[*number]);
        (!governing.is_empty()).then(|| {
            Arc::new(GoverningSpecs {
                namespace: endpoint.id.namespace.clone(),
                specs: governing.iter().map(key_of).collect(),
                name_ports: governing.iter().any(names_ports),
            })
        })
    }
}

fn compile_one(
    endpoint: &Endpoint,
    governing: &[(&Arc<Policy>, usize)],
    inventory: &Inventory,
    settings: &Settings,
) -> Option<Compiled> {
    let specs = governing
        .iter()
        .map(|(policy, number)| (&***policy, &policy.specs[*number]));
    let compiled = gather_selected(specs, &endpoint.ports, inventory)?.merged();
    let search = search_list(&endpoint.id.namespace, &settings.cluster_domain);
    let questions = Questions::new(&compiled, settings.questions, &settings.cluster_domains(), &search);
    let mut policies: Vec<_> = governing.iter().map(|(policy, _)| Arc::clone(policy)).collect();
    policies.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let of = |_, program: Option<Program>| {
        program.map(|program| CompiledProgram {
            id: program.id(),
            program: Arc::new(program),
        })
    };
    Some(Compiled {
        programs: compiled.programs.map(of),
        question_rules: Arc::new(compiled.questions),
        questions: Arc::new(questions),
        policies: policies.into(),
    })
}

impl Compiled {
    /// The id of the program of one direction.
    pub(super) fn id(&self, direction: Direction) -> Option<ProgramId> {
        self.programs[direction].as_ref().map(|it| it.id)
    }
}

/// The search list that the kubelet writes for a pod, longest first.
fn search_list(namespace: &str, cluster_domain: &Name) -> Vec<Name> {
    [
        format!("{namespace}.svc.{cluster_domain}"),
        format!("svc.{cluster_domain}"),
        cluster_domain.to_string(),
    ]
    .iter()
    // A namespace that is no DNS label has no search list; the API server does not let one in.
    .filter_map(|suffix| Name::parse(suffix).ok())
    .collect()
}
