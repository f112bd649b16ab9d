//! Tiers, set classes, port ranges, ICMP, zones, audit and deny responses, with real packets.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use enforcer::layout::elements;
use enforcer::{DesiredState, Element, KernelTiers};
use names::Pattern;
use policy::Protocol::{Icmp, Icmpv6, Tcp};
use policy::classifier::{AddressContext, Classifier, ClassifierEntry, SetClass};
use policy::labels::LabelSelector;
use policy::{
    Action, AddressZone, DenyResponse, LeaseTerms, NameGroup, ObjectSelector, Peer, PortSet, ProgramId, Tiers, Zone,
};

use crate::lab::{Lab, NODE_V4, Outcome, POD_V4, POD_V6, ip};
use crate::programs::{desired, evaluation, governs_by, learn_at, origin, ports, range, rule, single};

const ID: ProgramId = ProgramId(0x0bad_cafe_0123_4567);
const AUDITED: ProgramId = ProgramId(0x0bad_cafe_0000_0001);
const MINUTE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Peer {
    Peer::Name(Pattern::name(text).unwrap())
}

fn prefix(zone: Zone, text: &str) -> Peer {
    Peer::Prefix(zone, text.parse().unwrap())
}

fn pods() -> Peer {
    let requirements = vec![];
    Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }))
}

fn closed(network: Vec<policy::Rule>) -> Tiers {
    Tiers {
        network,
        closed_by: vec![origin()],
        ..Tiers::default()
    }
}

fn governed(tiers: &Tiers) -> (DesiredState, KernelTiers) {
    let enforced = evaluation(ID, tiers);
    (
        governs_by(desired(), [POD_V4, POD_V6], ID, enforced.clone(), None, None),
        enforced,
    )
}

fn learned(evaluation: &KernelTiers, names: &[(&str, &str)]) -> Vec<(Element, Duration)> {
    let of = |(name, address): &(&str, &str)| learn_at(evaluation, name, ip(address), AddressZone::World, MINUTE);
    names.iter().flat_map(of).collect()
}

/// The elements of an address that every rule about objects means.
fn member(evaluation: &KernelTiers, address: &str) -> BTreeSet<Element> {
    let classifier = &evaluation.classifier;
    let objects: Vec<_> = classifier
        .object_rules()
        .map(|(index, rule)| (index, rule.ports.clone()))
        .collect();
    let at = AddressContext {
        address: ip(address),
        zone: AddressZone::World,
        objects: &objects,
    };
    let entries = classifier.entries_for_objects(at);
    entries
        .iter()
        .flat_map(|entry| elements(evaluation.id, classifier.layout(), at.address, entry))
        .collect()
}

#[test]
fn a_class_decides_before_those_after_it_and_before_prefixes() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let web = ports([single(Tcp, 80)]);
    let tiers = Tiers {
        admin: vec![rule(Action::Allow, name("admin.example"), web.clone())],
        network: vec![
            rule(Action::Deny, name("denied.example"), PortSet::All),
            rule(Action::Allow, name("allowed.example"), PortSet::All),
            rule(Action::Allow, prefix(Zone::World, "10.77.0.0/16"), PortSet::All),
        ],
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    let (desired, evaluation) = governed(&tiers);
    let teaching = [
        ("admin.example", "10.88.0.1"),
        ("denied.example", "10.88.0.1"),
        ("allowed.example", "10.88.0.1"),
        ("denied.example", "10.77.0.2"),
        ("allowed.example", "fd88::1"),
        ("admin.example", "fd88::2"),
    ];
    lab.install(&desired, &learned(&evaluation, &teaching));
    let open = |address, port| lab.pod.tries(address, port) == Outcome::Connected;
    assert!(open("10.88.0.1", 80) && !open("10.88.0.1", 443));
    assert!(!open("10.77.0.2", 80) && !open("10.77.0.2", 443));
    assert!(open("fd88::1", 80) && open("fd88::1", 443));
    assert!(open("fd88::2", 80) && !open("fd88::2", 443));
    assert!(!open("10.88.0.2", 80));
}

#[test]
fn a_shared_rule_is_found_where_nothing_of_its_program_decides_before_it() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let tiers = closed(vec![
        rule(Action::Deny, name("denied.example"), ports([single(Tcp, 80)])),
        rule(Action::Allow, pods(), PortSet::All),
        rule(Action::Allow, name("allowed.example"), ports([range(Tcp, 400, 500)])),
    ]);
    let enforced = KernelTiers {
        id: ID,
        classifier: Arc::new(Classifier::sharing(&tiers)),
    };
    let mut desired = governs_by(desired(), [POD_V4, POD_V6], ID, enforced.clone(), None, None);
    let [shared] = enforced.classifier.shared() else {
        panic!("{enforced:?}")
    };
    let everything = ClassifierEntry {
        class: SetClass::Allow,
        ports: PortSet::All,
    };
    let member = |address| elements(shared.id, &shared.layout, ip(address), &everything).collect::<Vec<_>>();
    let members = ["10.88.0.1", "10.88.0.2", "fd88::1"].into_iter().flat_map(member);
    desired.members = [(shared.id, members.collect())].into();
    let teaching = [("denied.example", "10.88.0.1"), ("allowed.example", "10.77.0.2")];
    lab.install(&desired, &learned(&enforced, &teaching));
    let open = |address, port| lab.pod.tries(address, port) == Outcome::Connected;
    assert!(!open("10.88.0.1", 80) && open("10.88.0.1", 443));
    assert!(open("10.88.0.2", 80) && open("10.88.0.2", 443) && open("fd88::1", 80));
    assert!(!open("10.77.0.2", 80) && open("10.77.0.2", 443));
}

fn group(name: &str, ports: PortSet) -> NameGroup {
    NameGroup {
        is_admin: false,
        patterns: [Pattern::name(name).unwrap()].into(),
        lease: LeaseTerms::default(),
        ports,
    }
}

/// The elements of addresses of names that are shared.
fn learned_by_all(evaluation: &KernelTiers, names: &[(&str, &str)]) -> Vec<(Element, Duration)> {
    let alone = |tiers: &Tiers| KernelTiers::new(tiers);
    let shared = evaluation.classifier.shared_names().iter();
    shared
        .flat_map(|shared| learned(&alone(&shared.tiers), names))
        .collect()
}

#[test]
fn shared_names_are_open_on_the_ports_of_the_program_and_where_no_prefix_denies_before_them() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443, 8000, 8443]);
    let groups = vec![
        group("one.example", ports([single(Tcp, 80)])),
        group("some.example", ports([single(Tcp, 80), single(Tcp, 8443)])),
        group("range.example", ports([single(Tcp, 443), range(Tcp, 8000, 8100)])),
        group("echo.example", ports([single(Icmp, 8), single(Icmpv6, 128)])),
    ];
    let allow = |group: &NameGroup| {
        let pattern = group.patterns.first().unwrap();
        rule(Action::Allow, Peer::Name(pattern.clone()), group.ports.clone())
    };
    let mut network = vec![
        rule(
            Action::Deny,
            prefix(Zone::World, "10.77.0.0/16"),
            ports([single(Tcp, 80)]),
        ),
        rule(Action::Deny, prefix(Zone::World, "fd77::/64"), PortSet::All),
    ];
    network.extend(groups.iter().map(allow));
    let tiers = Tiers {
        name_groups: groups,
        ..closed(network)
    };
    let enforced = KernelTiers {
        id: ID,
        classifier: Arc::new(Classifier::sharing(&tiers)),
    };
    assert_eq!(enforced.classifier.shared_names().len(), 4);
    let desired = governs_by(desired(), [POD_V4, POD_V6], ID, enforced.clone(), None, None);
    let teaching = [
        ("one.example", "10.88.0.1"),
        ("one.example", "fd88::1"),
        ("some.example", "10.88.0.2"),
        ("range.example", "fd88::2"),
        ("some.example", "10.77.0.2"),
        ("some.example", "fd77::2"),
        ("echo.example", "10.88.0.2"),
        ("echo.example", "fd88::2"),
        ("echo.example", "fd77::2"),
    ];
    let elements = learned_by_all(&enforced, &teaching);
    assert_eq!(elements.len(), teaching.len(), "one for each, whatever the ports");
    lab.install(&desired, &elements);
    let open = |address| [80, 443, 8000, 8443].map(|port| lab.pod.tries(address, port) == Outcome::Connected);
    assert_eq!(open("10.88.0.1"), [true, false, false, false]);
    assert_eq!(open("fd88::1"), [true, false, false, false]);
    assert_eq!(open("10.88.0.2"), [true, false, false, true]);
    assert_eq!(open("fd88::2"), [false, true, true, false]);
    assert_eq!(open("10.77.0.2"), [false, false, false, true]);
    assert_eq!(open("fd77::2"), [false; 4]);
    let answers = ["10.88.0.2", "fd88::2", "10.88.0.1", "fd77::2"].map(|to| lab.pod.ping(to).is_ok());
    assert_eq!(answers, [true, true, false, false]);
}

/// One set, which each program asks about its own ports.
#[test]
fn two_programs_ask_one_set_of_names_about_different_ports() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    const OTHER: ProgramId = ProgramId(0x0bad_cafe_0000_0002);
    let of = |id, port| {
        let ports = ports([single(Tcp, port)]);
        let tiers = Tiers {
            name_groups: vec![group("a.example", ports.clone())],
            ..closed(vec![rule(Action::Allow, name("a.example"), ports)])
        };
        KernelTiers {
            id,
            classifier: Arc::new(Classifier::sharing(&tiers)),
        }
    };
    let (four, six) = (of(ID, 80), of(OTHER, 443));
    let desired = governs_by(desired(), [POD_V4], ID, four.clone(), None, None);
    let desired = governs_by(desired, [POD_V6], OTHER, six.clone(), None, None);
    let teaching = [("a.example", "10.88.0.1"), ("a.example", "fd88::1")];
    let elements = learned_by_all(&four, &teaching);
    assert_eq!(elements, learned_by_all(&six, &teaching));
    lab.install(&desired, &elements);
    let open = |address, port| lab.pod.tries(address, port) == Outcome::Connected;
    assert!(open("10.88.0.1", 80) && !open("10.88.0.1", 443));
    assert!(!open("fd88::1", 80) && open("fd88::1", 443));
}

#[test]
fn what_objects_are_refused_for_want_of_a_rule_comes_before_what_prefixes_allow() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let tiers = Tiers {
        baseline: vec![rule(Action::Deny, pods(), ports([single(Tcp, 80)]))],
        ..Tiers::default()
    };
    let (mut desired, evaluation) = governed(&tiers);
    let members = member(&evaluation, "10.88.0.1");
    assert!(members.iter().all(|element| element.set.class == SetClass::Rest));
    desired.members = [(ID, members.into_iter().collect())].into();
    lab.install(&desired, &[]);
    let open = |address, port| lab.pod.tries(address, port) == Outcome::Connected;
    assert!(!open("10.88.0.1", 80) && open("10.88.0.1", 443));
    assert!(open("10.88.0.2", 80) && open("fd88::1", 80));

    desired.members.clear();
    lab.install(&desired, &[]);
    assert!(
        open("10.88.0.1", 80),
        "another process has found it, and nobody desires it"
    );
}

#[test]
fn wide_ranges_of_several_rules_are_told_apart_in_each_class() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443, 8000, 8500, 8999]);
    let tiers = closed(vec![
        rule(Action::Deny, name("middle.example"), ports([range(Tcp, 8400, 8600)])),
        rule(
            Action::Allow,
            name("wide.example"),
            ports([range(Tcp, 8000, 8999), single(Tcp, 443)]),
        ),
        rule(Action::Allow, name("all.example"), PortSet::All),
    ]);
    let (desired, evaluation) = governed(&tiers);
    let teaching = [
        ("wide.example", "10.88.0.1"),
        ("middle.example", "10.88.0.1"),
        ("all.example", "fd88::1"),
        ("middle.example", "fd88::1"),
        ("wide.example", "10.88.0.2"),
    ];
    lab.install(&desired, &learned(&evaluation, &teaching));
    let open =
        |address: &str| [80, 443, 8000, 8500, 8999].map(|port| lab.pod.tries(address, port) == Outcome::Connected);
    assert_eq!(open("10.88.0.1"), [false, true, true, false, true]);
    assert_eq!(open("fd88::1"), [true, true, true, false, true]);
    assert_eq!(open("10.88.0.2"), [false, true, true, true, true]);
    assert_eq!(open("fd88::2"), [false; 5]);
}

#[test]
fn types_of_icmp_messages_are_looked_up_as_ports_are() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let echo = || ports([single(Icmp, 8), single(Icmpv6, 128)]);
    let other = || ports([range(Icmp, 9, 10), range(Icmpv6, 129, 130)]);
    let tiers = closed(vec![
        rule(Action::Deny, name("silent.example"), echo()),
        rule(Action::Allow, name("echo.example"), echo()),
        rule(Action::Allow, name("other.example"), other()),
        rule(Action::Allow, name("silent.example"), PortSet::All),
        rule(Action::Allow, prefix(Zone::World, "10.77.0.2/32"), echo()),
        rule(Action::Allow, prefix(Zone::World, "fd77::/64"), other()),
    ]);
    let (desired, evaluation) = governed(&tiers);
    let teaching = [
        ("echo.example", "10.88.0.1"),
        ("echo.example", "fd88::1"),
        ("silent.example", "10.88.0.2"),
        ("other.example", "fd88::2"),
    ];
    lab.install(&desired, &learned(&evaluation, &teaching));
    let answers =
        ["10.88.0.1", "10.88.0.2", "10.77.0.2", "fd88::1", "fd88::2", "fd77::2"].map(|to| lab.pod.ping(to).is_ok());
    assert_eq!(answers, [true, false, true, true, false, false]);
    let connects = ["10.88.0.1", "10.88.0.2", "10.77.0.2"].map(|to| lab.pod.tries(to, 80) == Outcome::Connected);
    assert_eq!(connects, [false, true, false]);
}

#[test]
fn prefixes_may_allow_what_the_rest_is_refused_and_except_some_ports_again() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let tiers = closed(vec![
        rule(
            Action::Deny,
            prefix(Zone::Anywhere, "10.88.0.0/31"),
            ports([single(Tcp, 443), single(Icmp, 8)]),
        ),
        rule(Action::Allow, prefix(Zone::Anywhere, "10.88.0.0/30"), PortSet::All),
        rule(
            Action::Allow,
            prefix(Zone::Anywhere, "fd88::1/128"),
            ports([single(Tcp, 443)]),
        ),
    ]);
    let (desired, _) = governed(&tiers);
    lab.install(&desired, &[]);
    let open = |address| [80, 443].map(|port| lab.pod.tries(address, port) == Outcome::Connected);
    assert_eq!(open("10.88.0.1"), [true, false]);
    assert_eq!(open("10.88.0.2"), [true, true]);
    assert_eq!(open("fd88::1"), [false, true]);
    assert_eq!(open("10.77.0.2"), [false, false]);
    assert!(lab.pod.ping("10.88.0.1").is_err() && lab.pod.ping("10.88.0.2").is_ok());
}

#[test]
fn each_place_has_its_own_prefixes_wherever_they_differ() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    lab.node.echo((ip(NODE_V4), 80).into(), "node");
    // World, cluster, host.
    for number in 0..8u64 {
        let open = [number & 1 != 0, number & 2 != 0, number & 4 != 0];
        let (world, cluster, host) = (Zone::World, Zone::Cluster, Zone::Host);
        let mut network = Vec::new();
        let mut add = |action, zone| network.push(rule(action, prefix(zone, "0.0.0.0/0"), PortSet::All));
        if open[1] != open[2] && !open[2] {
            add(Action::Deny, host);
        }
        for (opens, zone) in [(open[0], world), (open[1], cluster), (open[2], host)] {
            if opens {
                add(Action::Allow, zone);
            }
        }
        let id = ProgramId(number);
        let evaluation = evaluation(id, &closed(network));
        let mut desired = governs_by(desired(), [POD_V4], id, evaluation, None, None);
        desired.cluster = vec!["10.88.0.1/32".parse().unwrap()];
        desired.host = [ip(NODE_V4)].into();
        lab.install(&desired, &[]);
        let reached = ["10.88.0.2", "10.88.0.1", NODE_V4].map(|to| lab.pod.tries(to, 80) == Outcome::Connected);
        assert_eq!(reached, open);
    }
}

#[test]
fn what_only_audited_policies_refuse_passes_and_is_counted() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443, 8500]);
    let denied = || rule(Action::Deny, name("denied.example"), PortSet::All);
    let enforced = Tiers {
        network: vec![
            denied(),
            rule(Action::Allow, name("wide.example"), ports([range(Tcp, 8000, 8999)])),
        ],
        ..Tiers::default()
    };
    let all = closed(vec![
        denied(),
        rule(Action::Allow, name("web.example"), ports([single(Tcp, 80)])),
    ]);
    let (enforced, audited) = (evaluation(ID, &enforced), evaluation(AUDITED, &all));
    let desired = governs_by(
        desired(),
        [POD_V4, POD_V6],
        ID,
        enforced.clone(),
        Some(audited.clone()),
        None,
    );
    let teaching = [
        ("denied.example", "10.88.0.2"),
        ("web.example", "10.88.0.1"),
        ("web.example", "fd88::1"),
        ("wide.example", "10.77.0.2"),
    ];
    let learned = [learned(&enforced, &teaching), learned(&audited, &teaching)].concat();
    lab.install(&desired, &learned);
    let counts = || (lab.audited(), lab.refused());
    assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Connected);
    assert_eq!(lab.pod.tries("fd88::1", 80), Outcome::Connected);
    assert_eq!(counts(), (0, 0));
    assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Connected);
    assert_eq!(lab.pod.tries("fd88::1", 443), Outcome::Connected);
    assert_eq!(
        lab.pod.tries("10.77.0.2", 8500),
        Outcome::Connected,
        "from within the chain of a range"
    );
    assert_eq!(counts(), (3, 0));
    assert_eq!(lab.pod.tries("10.88.0.2", 80), Outcome::Refused);
    assert_eq!(counts(), (3, 1));
}

#[test]
fn a_program_may_say_what_refused_packets_get() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let nothing = evaluation(ID, &closed(vec![]));
    let silent = governs_by(desired(), [POD_V4], ID, nothing.clone(), None, Some(DenyResponse::Drop));
    let loud = ProgramId(1);
    let loud = governs_by(
        silent,
        [POD_V6],
        loud,
        evaluation(loud, &closed(vec![])),
        None,
        Some(DenyResponse::Reject),
    );
    for refusal in [policy::DenyResponse::Drop, policy::DenyResponse::Reject] {
        let desired = DesiredState {
            refusal,
            ..loud.clone()
        };
        lab.install(&desired, &[]);
        assert_eq!(lab.pod.tries("fd88::1", 80), Outcome::Refused);
        lab.pod.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            let to: std::net::SocketAddr = (ip("10.88.0.1"), 80).into();
            let error = socket
                .connect_timeout(&to.into(), Duration::from_millis(200))
                .unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        });
    }
}

#[test]
fn samples_of_refused_and_audited_packets_go_to_the_group() {
    let Some(lab) = Lab::new() else { return };
    let (mut desired, _) = governed(&closed(vec![]));
    lab.install(&desired, &[]);
    assert!(!lab.nft("list table inet namegate").contains("log "));
    desired.records = Some(78);
    lab.install(&desired, &[]);
    for (chain, recorder, prefix) in [
        ("refuse", "record-refused", "namegate refused"),
        ("refuse-drop", "record-refused", "namegate refused"),
        ("audited", "record-audited", "namegate audited"),
        ("refuse-in", "record-refused-in", "namegate refused in"),
        ("refuse-in-reject", "record-refused-in", "namegate refused in"),
        ("audited-in", "record-audited-in", "namegate audited in"),
    ] {
        let listing = lab.nft(&format!("list chain inet namegate {chain}"));
        assert!(listing.contains(&format!("jump {recorder}\n")), "{listing}");
        let listing = lab.nft(&format!("list chain inet namegate {recorder}"));
        let log = format!("log prefix \"{prefix}\" group 78");
        assert!(listing.contains(&log), "{listing}");
        let verdict = prefix.split(' ').nth(1).unwrap();
        let metered = format!("update @recorded-{verdict}4 {{ ip saddr }} return");
        assert!(listing.contains(&metered), "{listing}");
    }
    let set = lab.nft("list set inet namegate recorded-refused4");
    assert!(
        set.contains("limit rate over 200/second") && set.contains("size 16384"),
        "{set}"
    );
}

/// What people see who look at the node.
#[test]
fn chains_read_well_in_a_listing() {
    let Some(lab) = Lab::new() else { return };
    let tiers = closed(vec![
        rule(
            Action::Deny,
            prefix(Zone::World, "198.51.100.0/24"),
            ports([single(Tcp, 25)]),
        ),
        rule(
            Action::Allow,
            name("a.example"),
            ports([single(Tcp, 443), range(Tcp, 8000, 8999), single(Icmp, 8)]),
        ),
        rule(Action::Allow, name("b.example"), PortSet::All),
        rule(Action::Allow, prefix(Zone::World, "198.51.100.0/24"), PortSet::All),
        rule(
            Action::Allow,
            prefix(Zone::Cluster, "10.0.0.0/8"),
            ports([single(Tcp, 80)]),
        ),
    ]);
    let (desired, _) = governed(&tiers);
    lab.install(&desired, &[]);
    let chain = |name: &str| {
        let listing = lab.nft(&format!("list chain inet namegate {name}"));
        let lines = listing.lines().map(str::trim).filter(|line| !line.is_empty());
        lines
            .skip(2)
            .take_while(|line| *line != "}")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let id = ID.to_string();
    let lines = chain(&format!("ep4-{id}"));
    assert_eq!(lines[0], format!("meta l4proto icmp goto ep4-{id}-icmp"));
    for line in [
        format!("ip daddr . meta l4proto . th dport @allow4-{id} return"),
        format!("ip daddr @allow4-{id}-all return"),
        format!("goto ep4-{id}-prefixes"),
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:#?}");
    }
    let by_range = lines
        .iter()
        .find(|line| line.starts_with("meta l4proto . th dport vmap"));
    let (_, goto) = by_range.unwrap().split_once("tcp . 8000-8999 : goto ").unwrap();
    let (range, _) = goto.split_once(',').unwrap();
    let number = range.strip_prefix(&format!("ep4-{id}-")).unwrap();
    let of_range = chain(range);
    for line in [
        format!("ip daddr @allow4-{id}-{number} return"),
        format!("ip daddr @allow4-{id}-all return"),
        format!("goto ep4-{id}-prefixes"),
    ] {
        assert!(of_range.contains(&line), "{line} is not in {of_range:#?}");
    }
    let prefixes = chain(&format!("ep4-{id}-prefixes"));
    for line in [
        format!("ip daddr @cluster4 goto ep4-{id}-cluster"),
        "ip daddr . meta l4proto . th dport { 198.51.100.0/24 . tcp . 25 } goto refuse".to_owned(),
        "ip daddr { 198.51.100.0/24 } return".to_owned(),
        "goto refuse".to_owned(),
    ] {
        assert!(prefixes.contains(&line), "{line} is not in {prefixes:#?}");
    }
    let cluster = chain(&format!("ep4-{id}-cluster"));
    assert_eq!(
        cluster,
        [
            "ip daddr . meta l4proto . th dport { 10.0.0.0/8 . tcp . 80 } return",
            "goto refuse"
        ]
    );
}
