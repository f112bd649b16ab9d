use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use names::Pattern;
use policy::classifier::Classifier;
use policy::labels::LabelSelector;
use policy::{
    Action, DenyResponse, LeaseTerms, NameGroup, ObjectSelector, Origin, Peer, PerDirection, PolicyId, PolicyKind,
    PortRange, Program, Rule, Tiers, Zone,
};

use crate::desired::{ElementSet, FailMode, Handover, Interception, KernelProgram, ResolverBinding};
use crate::layout::elements;
use crate::pod_links::PodLinks;

use super::*;

const POD: &str = "10.0.0.1";
const OTHER: &str = "10.0.0.2";
const NODE: &str = "10.0.0.254";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn tcp(port: u16) -> PortSet {
    PortSet::Ranges(vec![PortRange::single(Protocol::Tcp, port)])
}

fn rule(action: Action, peer: Peer, ports: PortSet) -> Rule {
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

fn name(text: &str) -> Peer {
    Peer::Name(Pattern::name(text).unwrap())
}

fn prefix(text: &str) -> Peer {
    Peer::Prefix(Zone::Anywhere, text.parse().unwrap())
}

fn pods() -> Peer {
    let requirements = vec![];
    Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }))
}

fn closed<const N: usize>(network: [Rule; N]) -> Tiers {
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    let origin = Origin {
        policy,
        rule: String::new(),
    };
    Tiers {
        network: network.into(),
        closed_by: vec![origin],
        ..Tiers::default()
    }
}

fn nothing() -> DesiredState {
    let binding = ResolverBinding {
        asked: "10.96.0.10:53".parse().unwrap(),
        listener: "169.254.53.53:5301".parse().unwrap(),
    };
    DesiredState {
        table: "namegate".to_owned(),
        programs: BTreeMap::new(),
        members: BTreeMap::new(),
        dispatch: PerDirection::default(),
        local_host: LocalHost::Always,
        intercepted: [ip(POD)].into(),
        resolvers: vec![binding],
        listening: Vec::new(),
        interception: Interception::Dnat,
        fail_mode: FailMode::Open,
        cluster: vec!["10.0.0.0/16".parse::<IpNet>().unwrap()],
        host: [ip(NODE)].into(),
        pod_links: PodLinks::default(),
        servers: BTreeSet::new(),
        unknown: Vec::new(),
        refusal: DenyResponse::Reject,
        handover: None,
        inspected_services: PerDirection::default(),
        records: None,
        capacity: NonZeroU32::new(10).unwrap(),
    }
}

/// [`POD`] with these tiers in one direction. The addresses of objects are `members`.
fn governed(mut desired: DesiredState, direction: Direction, tiers: Tiers, members: &[&str]) -> DesiredState {
    let program = Program {
        enforced: tiers,
        ..Program::default()
    };
    let mut folded = KernelProgram::new(&program);
    // As the planner makes them.
    folded.enforced.classifier = Arc::new(Classifier::sharing(&program.enforced));
    let shared = folded.enforced.classifier.shared().iter();
    let shared: Vec<KernelTiers> = shared.map(|shared| KernelTiers::new(&shared.tiers)).collect();
    let id = program.id();
    for tiers in std::iter::once(folded.enforced.clone()).chain(shared) {
        desired.members.insert(tiers.id, elements_of_objects(&tiers, members));
    }
    desired.programs.insert(id, Arc::new(folded));
    desired.dispatch[direction].insert(ip(POD), id);
    desired
}

/// The elements of tiers where these are the addresses of all their objects.
fn elements_of_objects(tiers: &KernelTiers, members: &[&str]) -> ElementSet {
    let KernelTiers { id, classifier } = tiers;
    let objects: Vec<_> = classifier
        .object_rules()
        .map(|(index, rule)| (index, rule.ports.clone()))
        .collect();
    let of = |address: &&str| {
        let at = AddressContext {
            address: ip(address),
            zone: policy::AddressZone::Cluster,
            objects: &objects,
        };
        let entries = classifier.entries_for_objects(at);
        let of_entry = entries
            .iter()
            .flat_map(|entry| elements(*id, classifier.layout(), at.address, entry));
        of_entry.collect::<Vec<_>>()
    };
    members.iter().flat_map(of).collect()
}

fn flow(protocol: Protocol, source: &str, destination: &str, port: u16) -> Flow {
    let has_ports = protocol.has_ports();
    let destination = SocketAddr::new(ip(destination), if has_ports { port } else { 0 });
    Flow {
        source: SocketAddr::new(ip(source), if has_ports { 40_000 } else { 0 }),
        destination,
        asked: destination,
        protocol: protocol.number(),
        icmp_type: (!has_ports).then(|| u8::try_from(port).unwrap()),
        is_expected: false,
        zone: 0,
    }
}

fn judged(desired: &DesiredState, flow: &Flow) -> FlowVerdict {
    FlowJudge::new(desired, &|_| false, &|_, _| None).verdict(flow)
}

const DENIED_EGRESS: FlowVerdict = FlowVerdict::Denied(Direction::Egress);
const DENIED_INGRESS: FlowVerdict = FlowVerdict::Denied(Direction::Ingress);

#[test]
fn prefixes_and_objects_decide_as_they_do_for_a_first_packet() {
    let range = PortSet::Ranges(vec![PortRange {
        protocol: Protocol::Tcp,
        first: 8000,
        last: 8999,
    }]);
    let tiers = closed([
        rule(Action::Deny, prefix("198.51.100.7/32"), PortSet::All),
        rule(Action::Allow, prefix("198.51.100.0/24"), tcp(443)),
        rule(Action::Allow, pods(), tcp(80)),
        rule(Action::Allow, pods(), range),
    ]);
    let desired = governed(nothing(), Direction::Egress, tiers, &[OTHER]);
    for (destination, port, expected) in [
        ("198.51.100.1", 443, FlowVerdict::Allowed),
        ("198.51.100.1", 80, DENIED_EGRESS),
        ("198.51.100.7", 443, DENIED_EGRESS),
        ("203.0.113.1", 443, DENIED_EGRESS),
        (OTHER, 80, FlowVerdict::Allowed),
        (OTHER, 8500, FlowVerdict::Allowed),
        (OTHER, 9000, DENIED_EGRESS),
    ] {
        let flow = flow(Protocol::Tcp, POD, destination, port);
        assert_eq!(judged(&desired, &flow), expected, "{destination} {port}");
    }
    assert_eq!(judged(&desired, &flow(Protocol::Udp, POD, OTHER, 80)), DENIED_EGRESS);
    let of_others = flow(Protocol::Tcp, OTHER, "203.0.113.1", 443);
    assert_eq!(judged(&desired, &of_others), FlowVerdict::Allowed, "nobody governs it");
}

#[test]
fn both_ends_decide_and_the_own_node_passes_ingress() {
    let tiers = closed([rule(Action::Allow, pods(), tcp(80))]);
    let mut desired = governed(nothing(), Direction::Ingress, tiers, &[OTHER]);
    assert_eq!(
        judged(&desired, &flow(Protocol::Tcp, OTHER, POD, 80)),
        FlowVerdict::Allowed
    );
    assert_eq!(judged(&desired, &flow(Protocol::Tcp, OTHER, POD, 81)), DENIED_INGRESS);
    assert_eq!(
        judged(&desired, &flow(Protocol::Tcp, "203.0.113.1", POD, 80)),
        DENIED_INGRESS
    );
    // The pod's own flows are egress, which nobody governs.
    assert_eq!(
        judged(&desired, &flow(Protocol::Tcp, POD, OTHER, 81)),
        FlowVerdict::Allowed
    );
    let probe = flow(Protocol::Tcp, NODE, POD, 81);
    assert_eq!(judged(&desired, &probe), FlowVerdict::Allowed);
    desired.local_host = LocalHost::Policy;
    assert_eq!(judged(&desired, &probe), DENIED_INGRESS);
    // The sender is asked first.
    let mut both = governed(desired, Direction::Egress, closed([]), &[]);
    let id = both.dispatch.egress[&ip(POD)];
    both.dispatch.egress = [(ip(OTHER), id)].into();
    assert_eq!(judged(&both, &flow(Protocol::Tcp, OTHER, POD, 81)), DENIED_EGRESS);
    both.programs.remove(&id);
    assert_eq!(
        judged(&both, &flow(Protocol::Tcp, OTHER, POD, 80)),
        DENIED_EGRESS,
        "its program is missing"
    );
}

#[test]
fn the_translated_destination_is_judged() {
    let tiers = closed([rule(Action::Allow, pods(), tcp(8080))]);
    let desired = governed(nothing(), Direction::Egress, tiers, &[OTHER]);
    let mut through_service = flow(Protocol::Tcp, POD, OTHER, 8080);
    through_service.asked = "10.96.7.7:80".parse().unwrap();
    assert_eq!(judged(&desired, &through_service), FlowVerdict::Allowed);
}

#[test]
fn types_of_icmp_and_protocols_without_ports_are_judged_as_the_rules_do() {
    let echo = PortSet::Ranges(vec![PortRange::single(Protocol::Icmp, 8)]);
    let tiers = closed([
        rule(Action::Allow, prefix("198.51.100.0/24"), echo),
        rule(Action::Allow, prefix("203.0.113.0/24"), PortSet::All),
    ]);
    let desired = governed(nothing(), Direction::Egress, tiers, &[]);
    for (kind, expected) in [(8, FlowVerdict::Allowed), (13, DENIED_EGRESS)] {
        let flow = flow(Protocol::Icmp, POD, "198.51.100.1", kind);
        assert_eq!(judged(&desired, &flow), expected);
    }
    let gre = |destination| Flow {
        protocol: 47,
        icmp_type: None,
        ..flow(Protocol::Icmp, POD, destination, 0)
    };
    assert_eq!(judged(&desired, &gre("203.0.113.1")), FlowVerdict::Allowed);
    assert_eq!(judged(&desired, &gre("198.51.100.1")), DENIED_EGRESS);
}

#[test]
fn a_lease_that_ended_cuts_nothing_and_a_name_that_was_withdrawn_does() {
    let of = |patterns: &[&str]| {
        let mut tiers = closed([rule(Action::Allow, prefix("10.9.0.0/16"), tcp(443))]);
        let names = patterns
            .iter()
            .map(|pattern| rule(Action::Allow, name(pattern), tcp(443)));
        tiers.network.extend(names);
        governed(nothing(), Direction::Egress, tiers, &[])
    };
    let address = "198.51.100.1";
    let flow = flow(Protocol::Tcp, POD, address, 443);
    let verdict = |desired: &DesiredState, is_leased: bool, told: Option<&str>| {
        let told = told.map(|name| Name::parse(name).unwrap());
        let told = |pod, peer| told.clone().filter(|_| (pod, peer) == (ip(POD), ip(address)));
        FlowJudge::new(
            desired,
            &|element| is_leased && element.key.address == ip(address),
            &told,
        )
        .verdict(&flow)
    };
    let both = of(&["a.example", "b.example"]);
    assert_eq!(verdict(&both, true, None), FlowVerdict::Allowed);
    assert_eq!(
        verdict(&both, false, Some("a.example")),
        FlowVerdict::Allowed,
        "expired"
    );
    assert_eq!(verdict(&both, false, Some("c.example")), DENIED_EGRESS);
    assert_eq!(verdict(&both, false, None), FlowVerdict::Unattributed);
    let one = of(&["b.example"]);
    assert_eq!(verdict(&one, false, Some("a.example")), DENIED_EGRESS, "withdrawn");
    let none = of(&[]);
    assert_eq!(verdict(&none, false, None), DENIED_EGRESS, "no name may open anything");
}

#[test]
fn no_name_opens_another_port_nor_what_is_denied_before_it() {
    let tiers = closed([
        rule(Action::Deny, prefix("198.51.100.0/24"), PortSet::All),
        rule(Action::Allow, name("a.example"), tcp(443)),
    ]);
    let desired = governed(nothing(), Direction::Egress, tiers, &[]);
    for (destination, port, expected) in [
        ("203.0.113.1", 443, FlowVerdict::Unattributed),
        ("203.0.113.1", 80, DENIED_EGRESS),
        ("198.51.100.1", 443, DENIED_EGRESS),
    ] {
        assert_eq!(
            judged(&desired, &flow(Protocol::Tcp, POD, destination, port)),
            expected,
            "{destination} {port}"
        );
    }
}

#[test]
fn lookups_and_what_was_expected_of_other_flows_are_left_alone() {
    let mut desired = governed(nothing(), Direction::Egress, closed([]), &[]);
    let lookup = |protocol, asked: &str, destination: &str| Flow {
        asked: asked.parse().unwrap(),
        destination: destination.parse().unwrap(),
        ..flow(protocol, POD, "10.96.0.10", 53)
    };
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        for destination in ["169.254.53.53:5301", "10.0.3.3:53"] {
            assert_eq!(
                judged(&desired, &lookup(protocol, "10.96.0.10:53", destination)),
                FlowVerdict::Allowed
            );
        }
    }
    let elsewhere = lookup(Protocol::Udp, "203.0.113.53:53", "203.0.113.53:53");
    assert_eq!(judged(&desired, &elsewhere), DENIED_EGRESS);
    let to_listener = lookup(Protocol::Udp, "10.0.0.254:5353", "10.0.0.254:5353");
    assert_eq!(judged(&desired, &to_listener), DENIED_EGRESS);
    desired.listening = vec!["0.0.0.0:5353".parse().unwrap()];
    assert_eq!(judged(&desired, &to_listener), FlowVerdict::Allowed);
    let expected = Flow {
        is_expected: true,
        ..elsewhere
    };
    assert_eq!(judged(&desired, &expected), FlowVerdict::Allowed);
}

#[test]
fn only_what_may_deny_more_is_a_reason_to_judge_flows() {
    let open = governed(
        nothing(),
        Direction::Egress,
        closed([rule(Action::Allow, pods(), tcp(80))]),
        &[OTHER],
    );
    assert!(may_deny_more(&nothing(), &open), "it was not governed");
    assert!(!may_deny_more(&open, &open));
    assert!(!may_deny_more(&open, &nothing()), "nobody is governed any more");
    let tiers = |members: &[&str]| {
        governed(
            nothing(),
            Direction::Egress,
            closed([rule(Action::Allow, pods(), tcp(80))]),
            members,
        )
    };
    assert!(!may_deny_more(&open, &tiers(&[OTHER, "10.0.0.3"])), "a peer comes");
    assert!(may_deny_more(&open, &tiers(&[])), "a peer goes");
    let other = governed(nothing(), Direction::Egress, closed([]), &[]);
    assert!(may_deny_more(&open, &other), "another program");
    let denying = |members: &[&str]| {
        let denied = closed([rule(Action::Deny, pods(), PortSet::All)]);
        governed(nothing(), Direction::Ingress, denied, members)
    };
    assert!(
        may_deny_more(&denying(&[]), &denying(&[OTHER])),
        "one comes that is denied"
    );
    assert!(!may_deny_more(&denying(&[OTHER]), &denying(&[])));
    let moved = DesiredState {
        cluster: vec![],
        ..open.clone()
    };
    assert!(
        may_deny_more(&open, &moved),
        "what lies outside the cluster has changed"
    );
}

#[test]
fn members_of_rules_that_programs_share_decide_too() {
    for action in [Action::Allow, Action::Deny] {
        let mut tiers = closed([rule(action, pods(), tcp(80))]);
        if action == Action::Deny {
            tiers
                .network
                .push(rule(Action::Allow, prefix("10.0.0.0/16"), PortSet::All));
        }
        assert_eq!(Classifier::sharing(&tiers).shared().len(), 1);
        let desired = governed(nothing(), Direction::Egress, tiers, &[OTHER]);
        let (at_member, elsewhere) = match action {
            Action::Allow => (FlowVerdict::Allowed, DENIED_EGRESS),
            _ => (DENIED_EGRESS, FlowVerdict::Allowed),
        };
        assert_eq!(judged(&desired, &flow(Protocol::Tcp, POD, OTHER, 80)), at_member);
        assert_eq!(judged(&desired, &flow(Protocol::Tcp, POD, "10.0.0.3", 80)), elsewhere);
    }
}

#[test]
fn who_looks_into_connections_judges_them_and_what_began_before_is_cut() {
    let through = Rule {
        through: Some(Arc::default()),
        ..rule(Action::Allow, prefix("203.0.113.1/32"), tcp(80))
    };
    let mut desired = governed(nothing(), Direction::Egress, closed([through]), &[]);
    let listener: SocketAddr = "169.254.53.53:15001".parse().unwrap();
    let before = flow(Protocol::Tcp, POD, "203.0.113.1", 80);
    let resumed = Flow { zone: 77, ..before };
    let handed_over = Flow {
        destination: listener,
        ..before
    };
    // To the agent that this one has followed.
    let to_the_former = Flow {
        destination: "169.254.53.53:15000".parse().unwrap(),
        ..before
    };
    for flow in [&before, &resumed, &handed_over, &to_the_former] {
        assert_eq!(judged(&desired, flow), DENIED_EGRESS, "nobody looks into connections");
    }
    desired.handover = Some(Handover {
        listeners: vec![listener],
        mark: NonZeroU32::new(1).unwrap(),
        reply_mark: NonZeroU32::new(2).unwrap(),
        routing_table: 1,
        zone: 77,
    });
    assert_eq!(judged(&desired, &before), DENIED_EGRESS);
    for flow in [&resumed, &handed_over, &to_the_former] {
        assert_eq!(judged(&desired, flow), FlowVerdict::Allowed);
    }
}

#[test]
fn names_that_programs_share_are_judged_on_the_programs_ports_and_behind_prefixes_that_deny() {
    let pattern = Pattern::name("a.example").unwrap();
    let mut tiers = closed([
        rule(Action::Deny, prefix("198.51.100.0/24"), tcp(443)),
        rule(Action::Allow, Peer::Name(pattern.clone()), tcp(443)),
    ]);
    tiers.name_groups = vec![NameGroup {
        is_admin: false,
        patterns: [pattern].into(),
        lease: LeaseTerms::default(),
        ports: tcp(443),
    }];
    let classifier = Classifier::sharing(&tiers);
    let [names] = classifier.shared_names() else {
        panic!("{classifier:?}")
    };
    let set = names.id;
    let desired = governed(nothing(), Direction::Egress, tiers, &[]);
    let learned = |element: &Element| element.set.program == set && element.key.port.is_none();
    let judge =
        |to: &str, port| FlowJudge::new(&desired, &learned, &|_, _| None).verdict(&flow(Protocol::Tcp, POD, to, port));
    assert_eq!(judge("203.0.113.1", 443), FlowVerdict::Allowed);
    assert_eq!(judge("203.0.113.1", 80), DENIED_EGRESS, "another port");
    assert_eq!(judge("198.51.100.1", 443), DENIED_EGRESS, "a prefix");
    let unlearned = judged(&desired, &flow(Protocol::Tcp, POD, "203.0.113.1", 443));
    assert_eq!(unlearned, FlowVerdict::Unattributed, "the name might lead there");
}
