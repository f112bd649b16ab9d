//! What governs the local pods: the stage of a plan that knows only them, the policies, CIDR
//! groups, and where other clusters are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::EndpointRow;
use cluster::index::Cluster;
use policy::{
    CidrGroup, Direction, Endpoint, Inventory, OtherClusters, PerDirection, Policy, Program, ProgramId, Tiers,
};
use settings::Settings;

use super::address_conflicts::{self, AddressConflict, AddressConflicts};
use super::compiling::{Compiled, CompiledProgram, Compiler};
use super::governed::Governed;

/// Which program governs whom.
#[derive(Debug)]
pub(super) struct Governance {
    pub(super) local: Arc<[Endpoint]>,
    pub(super) policies: Arc<[Arc<Policy>]>,
    cidr_groups: Arc<[CidrGroup]>,
    other_clusters: Option<Arc<OtherClusters>>,
    /// What each local endpoint compiles to; `None` where no policy governs it.
    pub(super) compiled: Arc<[Option<Compiled>]>,
    /// The programs of both directions.
    pub(super) programs: Arc<BTreeMap<ProgramId, Arc<Program>>>,
    pub(super) governed: Arc<BTreeMap<IpAddr, Arc<Governed>>>,
    /// Which program governs each address of a local endpoint.
    pub(super) dispatch: PerDirection<BTreeMap<IpAddr, ProgramId>>,
    pub(super) conflicts: Arc<[AddressConflict]>,
    /// The endpoints, for people.
    pub(super) rows: Arc<[EndpointRow]>,
}

impl Governance {
    /// Computes it anew if it follows from something else than `known`. The second value tells
    /// whether it does.
    pub(super) fn update(
        known: &mut Option<Arc<Self>>,
        compiler: &mut Compiler,
        cluster: &Cluster,
        inventory: &Inventory,
        settings: &Settings,
    ) -> (Arc<Self>, bool) {
        let (local, policies) = (cluster.endpoints(), Arc::clone(cluster.policies()));
        let cidr_groups = Arc::clone(&inventory.cidr_groups);
        let other_clusters = inventory.other_clusters.clone();
        let is_same = known.as_ref().is_some_and(|known| {
            Arc::ptr_eq(&known.local, &local)
                && Arc::ptr_eq(&known.policies, &policies)
                && Arc::ptr_eq(&known.cidr_groups, &cidr_groups)
                && known.other_clusters == other_clusters
        });
        let now = match known.take() {
            Some(known) if is_same => known,
            _ => {
                let compiled = compiler.compile(&local, &policies, inventory, settings);
                let now = Self::new(local, policies, cidr_groups, compiled);
                Arc::new(Self { other_clusters, ..now })
            }
        };
        (Arc::clone(known.insert(now)), !is_same)
    }

    fn new(
        local: Arc<[Endpoint]>,
        policies: Arc<[Arc<Policy>]>,
        cidr_groups: Arc<[CidrGroup]>,
        compiled: Vec<Option<Compiled>>,
    ) -> Self {
        let AddressConflicts {
            governed,
            dispatch,
            conflicts,
        } = address_conflicts::settle(&local, &compiled);
        let mut programs = distinct_programs(&compiled);
        if conflicts.iter().any(|conflict| conflict.closed) {
            let nothing = address_conflicts::refuse_all();
            programs.entry(nothing.id()).or_insert_with(|| Arc::new(nothing));
        }
        let rows = local.iter().zip(&compiled);
        let rows = rows.map(|(endpoint, compiled)| endpoint_row(endpoint, compiled.as_ref(), &conflicts));
        Self {
            rows: rows.collect(),
            dispatch,
            governed: Arc::new(governed),
            programs: Arc::new(programs),
            conflicts: conflicts.into(),
            compiled: compiled.into(),
            local,
            policies,
            cidr_groups,
            other_clusters: None,
        }
    }
}

/// Programs in use by id. Of programs that differ only in origins, the names' origins are united.
fn distinct_programs(compiled: &[Option<Compiled>]) -> BTreeMap<ProgramId, Arc<Program>> {
    let mut programs: BTreeMap<ProgramId, Arc<Program>> = BTreeMap::new();
    let each = compiled.iter().flatten().flat_map(|compiled| compiled.programs.iter());
    for CompiledProgram { id, program } in each.filter_map(|(_, program)| program.as_ref()) {
        programs
            .entry(*id)
            .and_modify(|known| {
                if !Arc::ptr_eq(known, program) && **known != **program {
                    unite_origins(Arc::make_mut(known), program);
                }
            })
            .or_insert_with(|| Arc::clone(program));
    }
    programs
}

fn unite_origins(into: &mut Program, other: &Program) {
    unite_origins_of_tiers(&mut into.enforced, &other.enforced);
    if let (Some(into), Some(other)) = (&mut into.audited, &other.audited) {
        unite_origins_of_tiers(into, other);
    }
}

fn unite_origins_of_tiers(into: &mut Tiers, other: &Tiers) {
    let rules = into.admin.iter_mut().chain(&mut into.network).chain(&mut into.baseline);
    for (into, other) in rules.zip(other.rules()) {
        let all: BTreeSet<_> = into.origins.drain(..).chain(other.origins.iter().cloned()).collect();
        into.origins = all.into_iter().collect();
    }
}

fn endpoint_row(endpoint: &Endpoint, compiled: Option<&Compiled>, conflicts: &[AddressConflict]) -> EndpointRow {
    let contested = conflicts
        .iter()
        .any(|conflict| conflict.closed && conflict.claimants.contains(&endpoint.id));
    let of = |direction| compiled.and_then(|compiled| compiled.programs[direction].as_ref());
    let state = |direction| match of(direction) {
        _ if contested => "contested",
        None => "unselected",
        Some(CompiledProgram { program, .. }) if program.enforced.closed() => "default-deny",
        Some(CompiledProgram { program, .. }) if program.audited.is_some() => "audit",
        Some(_) => "allow",
    };
    let id = |direction| of(direction).map(|compiled| compiled.id.to_string());
    EndpointRow {
        endpoint: endpoint.id.to_string(),
        addresses: endpoint.addresses.iter().copied().collect(),
        egress: state(Direction::Egress).into(),
        ingress: state(Direction::Ingress).into(),
        program: id(Direction::Egress),
        ingress_program: id(Direction::Ingress),
        policies: compiled
            .iter()
            .flat_map(|compiled| compiled.policies.iter())
            .map(|policy| policy.id.to_string())
            .collect(),
    }
}
