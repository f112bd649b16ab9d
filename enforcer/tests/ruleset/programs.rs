//! Programs and desired states, written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use enforcer::layout::elements;
use enforcer::pod_links::PodLinks;
use enforcer::{DesiredState, Element, FailMode, Interception, KernelProgram, KernelTiers, LocalHost};
use ipnet::IpNet;
use names::Pattern;
use policy::classifier::{AddressContext, Classifier};
use policy::{
    Action, AddressZone, DenyResponse, LeaseTerms, Origin, Peer, PerDirection, PolicyId, PolicyKind, PortRange,
    PortSet, ProgramId, Protocol, Rule, Tiers, Zone,
};

/// Tiers without those of ClusterNetworkPolicies, as people think of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub(crate) closed: bool,
    pub(crate) deny: Rules,
    pub(crate) allow: Rules,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    pub(crate) prefixes: Vec<PrefixRule>,
    pub(crate) names: Vec<NameRule>,
}

#[derive(Debug, Clone)]
pub(crate) struct PrefixRule {
    pub(crate) zone: Zone,
    pub(crate) prefix: IpNet,
    pub(crate) ports: PortSet,
}

#[derive(Debug, Clone)]
pub(crate) struct NameRule {
    pub(crate) pattern: Pattern,
    pub(crate) ports: PortSet,
}

impl Program {
    pub(crate) fn tiers(&self) -> Tiers {
        let rules = |action, rules: &Rules| {
            let prefixes = rules
                .prefixes
                .iter()
                .map(|rule| (Peer::Prefix(rule.zone, rule.prefix), &rule.ports));
            let names = rules
                .names
                .iter()
                .map(|rule| (Peer::Name(rule.pattern.clone()), &rule.ports));
            let all = prefixes.chain(names).map(|(to, ports)| rule(action, to, ports.clone()));
            all.collect::<Vec<_>>()
        };
        Tiers {
            network: [rules(Action::Deny, &self.deny), rules(Action::Allow, &self.allow)].concat(),
            closed_by: self.closed.then(origin).into_iter().collect(),
            ..Tiers::default()
        }
    }
}

pub(crate) fn rule(action: Action, peer: Peer, ports: PortSet) -> Rule {
    Rule {
        action,
        peer,
        ports,
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    }
}

pub(crate) fn origin() -> Origin {
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    Origin {
        policy,
        rule: String::new(),
    }
}

/// Nothing governed, nothing intercepted.
pub(crate) fn desired() -> DesiredState {
    DesiredState {
        table: "namegate".to_owned(),
        programs: BTreeMap::new(),
        members: BTreeMap::new(),
        dispatch: PerDirection::default(),
        local_host: LocalHost::Always,
        intercepted: BTreeSet::new(),
        resolvers: Vec::new(),
        listening: Vec::new(),
        interception: Interception::Off,
        fail_mode: FailMode::Closed,
        cluster: Vec::new(),
        host: BTreeSet::new(),
        pod_links: PodLinks::default(),
        servers: BTreeSet::new(),
        unknown: Vec::new(),
        refusal: DenyResponse::Reject,
        handover: None,
        inspected_services: PerDirection::default(),
        records: None,
        capacity: NonZeroU32::new(1000).unwrap(),
    }
}

/// The same with a program for these addresses, whose lookups are intercepted.
pub(crate) fn governs<const N: usize>(
    desired: DesiredState,
    addresses: [&str; N],
    id: ProgramId,
    program: Program,
) -> DesiredState {
    governs_by(desired, addresses, id, evaluation(id, &program.tiers()), None, None)
}

pub(crate) fn governs_by<const N: usize>(
    mut desired: DesiredState,
    addresses: [&str; N],
    id: ProgramId,
    enforced: KernelTiers,
    audited: Option<KernelTiers>,
    response: Option<DenyResponse>,
) -> DesiredState {
    let program = KernelProgram {
        enforced,
        audited,
        response,
    };
    desired.programs.insert(id, Arc::new(program));
    for address in addresses {
        let address = address.parse().unwrap();
        desired.dispatch.egress.insert(address, id);
        desired.intercepted.insert(address);
    }
    desired
}

/// The same with a program for what these addresses get.
pub(crate) fn receives<const N: usize>(
    mut desired: DesiredState,
    addresses: [&str; N],
    id: ProgramId,
    enforced: KernelTiers,
    audited: Option<KernelTiers>,
) -> DesiredState {
    let program = KernelProgram {
        enforced,
        audited,
        response: None,
    };
    desired.programs.insert(id, Arc::new(program));
    let addresses = addresses.map(|address| (address.parse().unwrap(), id));
    desired.dispatch.ingress.extend(addresses);
    desired
}

/// Tiers under a name of the test's choice.
pub(crate) fn evaluation(id: ProgramId, tiers: &Tiers) -> KernelTiers {
    KernelTiers {
        id,
        classifier: Arc::new(Classifier::new(tiers)),
    }
}

/// The elements of addresses that a name taught.
pub(crate) fn learn(
    id: ProgramId,
    program: &Program,
    name: &str,
    addresses: &[&str],
    lease: Duration,
) -> Vec<(Element, Duration)> {
    let each = addresses.iter().map(|address| address.parse().unwrap());
    let evaluation = evaluation(id, &program.tiers());
    each.flat_map(|address| learn_at(&evaluation, name, address, AddressZone::World, lease))
        .collect()
}

/// The elements of an address in a place that a name taught.
pub(crate) fn learn_at(
    evaluation: &KernelTiers,
    name: &str,
    address: IpAddr,
    place: AddressZone,
    lease: Duration,
) -> Vec<(Element, Duration)> {
    let pattern = Pattern::name(name).unwrap();
    let (id, classifier) = (evaluation.id, &evaluation.classifier);
    let at = AddressContext {
        address,
        zone: place,
        objects: &[],
    };
    let of_name = classifier.name_rules().filter(|(_, of)| **of == pattern);
    let entries: Vec<_> = of_name
        .flat_map(|(index, _)| classifier.entries_for_name(index, at))
        .collect();
    let elements = entries
        .iter()
        .flat_map(|entry| elements(id, classifier.layout(), address, entry));
    elements.map(|element| (element, lease)).collect()
}

pub(crate) fn name_rule(name: &str, ports: PortSet) -> NameRule {
    NameRule {
        pattern: Pattern::name(name).unwrap(),
        ports,
    }
}

pub(crate) fn prefix_rule(zone: Zone, prefix: &str, ports: PortSet) -> PrefixRule {
    PrefixRule {
        zone,
        prefix: prefix.parse().unwrap(),
        ports,
    }
}

/// Sorted, disjoint ranges.
pub(crate) fn ports<const N: usize>(ranges: [PortRange; N]) -> PortSet {
    PortSet::Ranges(ranges.to_vec())
}

pub(crate) fn single(protocol: Protocol, port: u16) -> PortRange {
    PortRange::single(protocol, port)
}

pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}
