//! Desired states and elements, written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use enforcer::layout::{IpFamily, SetKind};
use enforcer::pod_links::PodLinks;
use enforcer::{
    DesiredState, Element, ElementKey, FailMode, Interception, KernelProgram, KernelTiers, LocalHost, SetId,
};
use names::Pattern;
use policy::classifier::{Classifier, SetClass};
use policy::{
    Action, DenyResponse, LeaseTerms, Origin, Peer, PerDirection, PolicyId, PolicyKind, PortRange, PortSet, ProgramId,
    Protocol, Rule, Tiers,
};

pub(crate) const ONE: ProgramId = ProgramId(1);
pub(crate) const TWO: ProgramId = ProgramId(2);

/// A closed program for each id, with one name on UDP port 443 and one on every port.
pub(crate) fn desired<const N: usize>(programs: [ProgramId; N], capacity: u32) -> DesiredState {
    let rule = |name: &str, ports| Rule {
        action: Action::Allow,
        peer: Peer::Name(Pattern::name(name).unwrap()),
        ports,
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    };
    let single = PortSet::Ranges(vec![PortRange::single(Protocol::Udp, 443)]);
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    let tiers = Tiers {
        network: vec![rule("all.example", PortSet::All), rule("one.example", single)],
        closed_by: vec![Origin {
            policy,
            rule: String::new(),
        }],
        ..Tiers::default()
    };
    let classifier = Arc::new(Classifier::new(&tiers));
    let pods = (1..).map(|host: u8| IpAddr::from([10, 66, 0, host]));
    DesiredState {
        table: "namegate".to_owned(),
        // The same tiers under several names.
        programs: programs.map(|id| (id, folded(id, &classifier))).into(),
        members: BTreeMap::new(),
        dispatch: PerDirection::of_egress(pods.zip(programs).collect::<BTreeMap<_, _>>()),
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
        capacity: NonZeroU32::new(capacity).unwrap(),
    }
}

fn folded(id: ProgramId, classifier: &Arc<Classifier>) -> Arc<KernelProgram> {
    Arc::new(KernelProgram {
        enforced: KernelTiers {
            id,
            classifier: Arc::clone(classifier),
        },
        audited: None,
        response: None,
    })
}

pub(crate) fn exact(program: ProgramId) -> SetId {
    SetId {
        program,
        class: SetClass::Allow,
        kind: SetKind::Exact,
        family: IpFamily::V4,
    }
}

pub(crate) fn group(program: ProgramId, family: IpFamily) -> SetId {
    SetId {
        program,
        class: SetClass::Allow,
        kind: SetKind::All,
        family,
    }
}

/// UDP port 443 of an address of 10.99.0.0/16.
pub(crate) fn element(program: ProgramId, number: u16) -> Element {
    let [high, low] = number.to_be_bytes();
    Element {
        set: exact(program),
        key: ElementKey {
            address: [10, 99, high, low].into(),
            port: Some((Protocol::Udp, 443)),
        },
    }
}

/// Every port of an address.
pub(crate) fn whole(program: ProgramId, address: &str) -> Element {
    let address: IpAddr = address.parse().unwrap();
    Element {
        set: group(program, IpFamily::of(address)),
        key: ElementKey { address, port: None },
    }
}
