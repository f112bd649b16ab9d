//! Endpoints → programs. What did not change is not compiled again.

use std::collections::HashMap;
use std::sync::Arc;

use names::Name;
use policy::compile::{gather_selected, governs, names_ports_of_subject};
use policy::inventory::ContainerPort;
use policy::question::Questions;
use policy::{CidrGroup, Direction, Endpoint, Inventory, PerDirection, Policy, Program, ProgramId, QuestionRules};
use settings::Settings;

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
    known: HashMap<CompileKey, Compiled>,
    cidr_groups: Arc<[CidrGroup]>,
}

/// What a compiled program depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CompileKey {
    /// The endpoint's namespace, which gives the search list of its questions.
    namespace: String,
    /// The specs that govern the endpoint, in order.
    ///
    /// A spec is told by the address of its policy's allocation and its index in the policy. A
    /// policy that changes gets another allocation. `Compiled::policies` keeps those of a key alive
    /// as long as the key, so that no other policy can come to lie at the same address.
    specs: Vec<(usize, usize)>,
    /// The ports that the endpoint's containers name, where some of the specs speak of them.
    ports: Vec<ContainerPort>,
}

impl Compiler {
    /// Compiles every endpoint; `None` where no policy governs.
    pub(super) fn compile(
        &mut self,
        endpoints: &[Endpoint],
        policies: &[Arc<Policy>],
        inventory: &Inventory,
        settings: &Settings,
    ) -> Vec<Option<Compiled>> {
        if self.cidr_groups != inventory.cidr_groups {
            self.known.clear();
            self.cidr_groups.clone_from(&inventory.cidr_groups);
        }
        let mut before = std::mem::take(&mut self.known);
        let compiled = endpoints.iter().map(|endpoint| {
            let governing = governing(endpoint, policies);
            if governing.is_empty() {
                return None;
            }
            let pointers = governing
                .iter()
                .map(|(policy, number)| (Arc::as_ptr(policy).addr(), *number));
            let names_ports = governing
                .iter()
                .any(|(policy, number)| names_ports_of_subject(&policy.specs[*number]));
            let key = CompileKey {
                namespace: endpoint.id.namespace.clone(),
                specs: pointers.collect(),
                ports: if names_ports {
                    endpoint.ports.clone()
                } else {
                    Vec::new()
                },
            };
            let known = self.known.get(&key).cloned().or_else(|| before.remove(&key));
            let compiled = match known {
                Some(known) => known,
                None => compile_one(endpoint, &governing, inventory, settings)?,
            };
            self.known.insert(key, compiled.clone());
            Some(compiled)
        });
        compiled.collect()
    }
}

fn governing<'a>(endpoint: &Endpoint, policies: &'a [Arc<Policy>]) -> Vec<(&'a Arc<Policy>, usize)> {
    let specs = policies
        .iter()
        .flat_map(|policy| (0..policy.specs.len()).map(move |number| (policy, number)));
    specs
        .filter(|(policy, number)| governs(&policy.specs[*number], endpoint))
        .collect()
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
    let questions = Questions::new(&compiled, settings.questions, &settings.cluster_domain, &search);
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
