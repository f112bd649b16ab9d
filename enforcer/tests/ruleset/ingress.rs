//! Ingress through the rules, with real packets in namespaces: who may reach the pod.

mod nat;

use std::time::Duration;

use enforcer::layout::elements;
use enforcer::{DesiredState, Element, KernelTiers, LocalHost};
use policy::Protocol::{Icmp, Icmpv6, Tcp, Udp};
use policy::classifier::AddressContext;
use policy::labels::LabelSelector;
use policy::{Action, AddressZone, ObjectSelector, Peer, PortSet, ProgramId, Rule, Tiers, Zone};

use crate::lab::{Lab, NODE_V4, Namespace, OTHER_V4, OTHER_V6, Outcome, POD_V4, POD_V6, ip, say};
use crate::programs::{
    Program, Rules, desired, evaluation, governs, origin, ports, prefix_rule, range, receives, rule, single,
};

const ID: ProgramId = ProgramId(0x1111_cafe_0123_4567);
const NEXT: ProgramId = ProgramId(0x2222_cafe_0123_4567);
const AUDITED: ProgramId = ProgramId(0x3333_cafe_0123_4567);
const SENDER: ProgramId = ProgramId(0x4444_cafe_0123_4567);

fn prefix(zone: Zone, text: &str) -> Peer {
    Peer::Prefix(zone, text.parse().unwrap())
}

fn from(text: &str, ports: PortSet) -> Rule {
    rule(Action::Allow, prefix(Zone::Anywhere, text), ports)
}

fn tcp(port: u16) -> PortSet {
    ports([single(Tcp, port)])
}

fn closed<const N: usize>(network: [Rule; N]) -> Tiers {
    Tiers {
        network: network.into(),
        closed_by: vec![origin()],
        ..Tiers::default()
    }
}

/// The pod gets what the tiers allow.
fn receiver<const N: usize>(network: [Rule; N]) -> DesiredState {
    let tiers = evaluation(ID, &closed(network));
    receives(desired(), [POD_V4, POD_V6], ID, tiers, None)
}

/// Both addresses of the pod answer on these ports.
fn serve(lab: &Lab, served: &[u16]) {
    for address in [POD_V4, POD_V6] {
        for port in served {
            lab.pod.echo((ip(address), *port).into(), "pod");
        }
    }
}

fn reached(from: &Namespace, port: u16) -> [Outcome; 2] {
    [POD_V4, POD_V6].map(|address| from.tries(address, port))
}

const YES: [Outcome; 2] = [Outcome::Connected, Outcome::Connected];
const NO: [Outcome; 2] = [Outcome::Refused, Outcome::Refused];

#[test]
fn who_may_send_is_told_by_prefix_and_by_the_receivers_port() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80, 81, 8000, 8999, 9000]);
    let web = || ports([single(Tcp, 80), range(Tcp, 8000, 8999), single(Udp, 81)]);
    let desired = receiver([from("10.66.1.0/24", web()), from("fd66:0:0:1::/64", web())]);
    lab.install(&desired, &[]);
    for port in [80, 8000, 8999] {
        assert_eq!(reached(&lab.other, port), YES, "{port}");
        assert_eq!(reached(&lab.outside, port), NO, "{port}");
    }
    for port in [81, 9000] {
        assert_eq!(reached(&lab.other, port), NO, "{port}");
    }
    assert_eq!(lab.other.ask_udp(POD_V4, 81, "x").unwrap(), "pod: x");
    assert_eq!(lab.other.ask_udp(POD_V6, 81, "x").unwrap(), "pod: x");
    let prohibited = |address| lab.outside.ask_udp(address, 81, "x").unwrap_err().raw_os_error();
    assert_eq!(prohibited(POD_V4), Some(libc::EHOSTUNREACH));
    assert_eq!(prohibited(POD_V6), Some(libc::EACCES));
    assert_eq!(lab.counted("refused-in"), 2 * (3 + 2) + 2);
    assert_eq!(lab.counted("refused4") + lab.counted("refused6"), 0, "of egress");
}

#[test]
fn objects_are_told_by_their_addresses() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80, 81, 8500]);
    let requirements = vec![];
    let pods = Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }));
    let web = ports([single(Tcp, 80), range(Tcp, 8000, 8999)]);
    let tiers = evaluation(ID, &closed([rule(Action::Allow, pods, web)]));
    let mut desired = receives(desired(), [POD_V4, POD_V6], ID, tiers.clone(), None);
    let members = [OTHER_V4, OTHER_V6].map(|address| member(&tiers, address));
    desired.members.insert(ID, members.into_iter().flatten().collect());
    lab.install(&desired, &[]);
    for port in [80, 8500] {
        assert_eq!(reached(&lab.other, port), YES, "{port}");
        assert_eq!(reached(&lab.outside, port), NO, "{port}");
    }
    assert_eq!(reached(&lab.other, 81), NO);
}

/// The elements of an address that every rule about objects means.
fn member(evaluation: &KernelTiers, address: &str) -> Vec<Element> {
    let classifier = &evaluation.classifier;
    let objects: Vec<_> = classifier
        .object_rules()
        .map(|(index, rule)| (index, rule.ports.clone()))
        .collect();
    let address = ip(address);
    let entries = classifier.entries_for_objects(AddressContext {
        address,
        zone: AddressZone::Cluster,
        objects: &objects,
    });
    let elements = entries
        .iter()
        .flat_map(|entry| elements(evaluation.id, classifier.layout(), address, entry));
    elements.collect()
}

#[test]
fn types_of_icmp_are_told_apart_and_every_port_includes_them() {
    let Some(lab) = Lab::new() else { return };
    let echo = || ports([single(Icmp, 8), single(Icmpv6, 128)]);
    let pings = |from: &Namespace| [POD_V4, POD_V6].map(|to| from.ping(to).is_ok());
    for (everyone, expected) in [(echo(), true), (PortSet::All, true), (tcp(80), false)] {
        let desired = receiver([from("0.0.0.0/0", everyone.clone()), from("::/0", everyone.clone())]);
        lab.install(&desired, &[]);
        assert_eq!(pings(&lab.other), [expected; 2], "{everyone:?}");
    }
    lab.install(
        &receiver([from("10.66.1.0/24", echo()), from("fd66:0:0:1::/64", echo())]),
        &[],
    );
    assert_eq!((pings(&lab.other), pings(&lab.outside)), ([true; 2], [false; 2]));
}

#[test]
fn both_ends_decide() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    for sends in [true, false] {
        for gets in [true, false] {
            let to_pod = [POD_V4, POD_V6].map(|pod| {
                let length = if pod == POD_V4 { 32 } else { 128 };
                prefix_rule(Zone::Anywhere, &format!("{pod}/{length}"), tcp(80))
            });
            let program = Program {
                closed: true,
                allow: Rules {
                    prefixes: to_pod.into_iter().filter(|_| sends).collect(),
                    names: vec![],
                },
                ..Program::default()
            };
            let sources = match gets {
                true => ["10.66.1.2/32", "fd66:0:0:1::2/128"],
                false => ["10.66.7.0/24", "fd66:0:0:7::/64"],
            };
            let desired = receiver(sources.map(|source| from(source, tcp(80))));
            lab.install(&governs(desired, [OTHER_V4, OTHER_V6], SENDER, program), &[]);
            let expected = if sends && gets { YES } else { NO };
            let before = [lab.counted("refused-in"), lab.counted("refused")];
            assert_eq!(reached(&lab.other, 80), expected, "sends {sends}, gets {gets}");
            let refused = lab.counted("refused-in") - before[0];
            assert_eq!(refused, if sends && !gets { 2 } else { 0 }, "the sender is asked first");
            let refused = lab.counted("refused") - before[1];
            assert_eq!(refused, if sends && gets { 0 } else { 2 }, "once");
        }
    }
}

#[test]
fn who_is_not_governed_is_reached_and_whoever_is_may_open_flows_himself() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    serve(&lab, &[80]);
    lab.other.echo((ip(OTHER_V4), 80).into(), "other");
    lab.install(&receiver([]), &[]);
    assert_eq!(reached(&lab.outside, 80), NO);
    assert_eq!(lab.outside.tries(OTHER_V4, 80), Outcome::Connected);
    // Its own flows, and what comes back on them.
    assert_eq!(lab.pod.ask_tcp("10.88.0.1", 80, "x").unwrap(), "outside: x");
    assert_eq!(lab.pod.ask_udp("fd88::1", 80, "x").unwrap(), "outside: x");
    assert_eq!(lab.pod.ask_tcp(OTHER_V4, 80, "x").unwrap(), "other: x");
    // An error that is related to such a flow.
    let unreachable = lab.pod.ask_udp("10.88.0.1", 9, "x").unwrap_err();
    assert_eq!(unreachable.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn this_node_always_reaches_its_pods_unless_policies_decide_about_it_too() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    serve(&lab, &[80, 81]);
    lab.node.echo((ip(NODE_V4), 80).into(), "node");
    let own = [ip(NODE_V4), ip("fd66:0:0:0::1")];
    let host = ["0.0.0.0/0", "::/0"].map(|all| rule(Action::Allow, prefix(Zone::Host, all), tcp(80)));
    for (allowed, decides, expected) in [
        (false, LocalHost::Always, [YES, YES]),
        (false, LocalHost::Policy, [NO, NO]),
        (true, LocalHost::Policy, [YES, NO]),
        (false, LocalHost::Always, [YES, YES]),
    ] {
        let mut desired = match allowed {
            true => receiver(host.clone()),
            false => receiver([]),
        };
        desired.host = own.into();
        desired.local_host = decides;
        lab.install(&desired, &[]);
        assert_eq!([80, 81].map(|port| reached(&lab.node, port)), expected, "{decides:?}");
        assert_eq!(reached(&lab.other, 80), NO, "{decides:?}");
        // The node answers its pods, tells them of errors, finds its neighbours, and reaches
        // others.
        assert_eq!(lab.pod.ask_tcp(NODE_V4, 80, "x").unwrap(), "node: x");
        assert_eq!(lab.pod.tries(NODE_V4, 9), Outcome::Refused);
        assert!(lab.pod.ping("fd66:0:0:0::1").is_ok());
        lab.node.ip(&["neigh", "flush", "dev", "pod"]);
        assert_eq!(lab.node.tries("fd77::2", 80), Outcome::Connected);
        assert_eq!(lab.pod.ask_tcp("fd88::1", 80, "x").unwrap(), "outside: x");
        let chains = lab.existing().chains;
        assert_eq!(chains.contains("output"), decides == LocalHost::Policy, "{chains:?}");
    }
}

#[test]
fn what_only_audited_policies_refuse_passes_and_is_counted_as_ingress() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80, 81]);
    let denied = || rule(Action::Deny, prefix(Zone::Anywhere, "10.66.1.0/24"), tcp(81));
    let enforced = Tiers {
        network: vec![denied()],
        ..Tiers::default()
    };
    let all = closed([denied(), from("10.77.0.2/32", tcp(80))]);
    let (enforced, audited) = (evaluation(ID, &enforced), evaluation(AUDITED, &all));
    lab.install(&receives(desired(), [POD_V4], ID, enforced, Some(audited)), &[]);
    let counts = || [lab.counted("audited-in"), lab.counted("refused-in")];
    assert_eq!(lab.outside.tries(POD_V4, 80), Outcome::Connected);
    assert_eq!(counts(), [0, 0]);
    assert_eq!(lab.other.tries(POD_V4, 80), Outcome::Connected);
    assert_eq!(counts(), [1, 0]);
    assert_eq!(lab.other.tries(POD_V4, 81), Outcome::Refused);
    assert_eq!(counts(), [1, 1]);
    assert_eq!(lab.counted("audited4") + lab.counted("refused4"), 0, "of egress");
}

#[test]
fn destinations_that_may_become_a_pods_are_refused_as_such_sources_are() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    let mut desired = desired();
    lab.install(&desired, &[]);
    assert_eq!(reached(&lab.other, 80), YES);
    desired.unknown = vec!["10.66.0.2/31".parse().unwrap(), "fd66::/112".parse().unwrap()];
    lab.install(&desired, &[]);
    assert_eq!(reached(&lab.other, 80), NO);
    assert_eq!(reached(&lab.node, 80), YES, "the kubelet knows it");
    assert_eq!(lab.counted("refused-in"), 2);
    // It becomes known: governed for what it gets, and then by nobody.
    let tiers = evaluation(ID, &closed([from("0.0.0.0/0", tcp(80)), from("::/0", tcp(80))]));
    let governed = receives(desired.clone(), [POD_V4, POD_V6], ID, tiers, None);
    lab.install(&governed, &[]);
    assert_eq!(reached(&lab.other, 80), YES);
    desired.unknown = vec!["10.66.0.4/31".parse().unwrap()];
    lab.install(&desired, &[]);
    assert_eq!(reached(&lab.other, 80), YES);
}

#[test]
fn a_receiver_whose_program_is_missing_gets_nothing() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    let mut desired = receiver([from("0.0.0.0/0", PortSet::All)]);
    desired.programs.clear();
    lab.install(&desired, &[]);
    assert_eq!(reached(&lab.other, 80), NO);
}

#[test]
fn an_edit_takes_over_whole_and_flows_go_on() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80, 81]);
    lab.install(&receiver([from("10.66.1.0/24", tcp(80))]), &[]);
    let mut flow = lab.other.connect(POD_V4, 80).unwrap();
    let tiers = evaluation(NEXT, &closed([from("10.66.1.0/24", tcp(81))]));
    lab.install(&receives(desired(), [POD_V4, POD_V6], NEXT, tiers, None), &[]);
    assert_eq!(lab.other.tries(POD_V4, 81), Outcome::Connected);
    assert_eq!(lab.other.tries(POD_V4, 80), Outcome::Refused);
    assert_eq!(say(&mut flow, "still").unwrap(), "pod: still");
    assert!(!lab.nft("list table inet namegate").contains(&ID.to_string()));
    lab.install(&desired(), &[]);
    assert_eq!(reached(&lab.outside, 81), YES);
    assert!(!lab.nft("list table inet namegate").contains(&NEXT.to_string()));
}

/// Chains are written where a dispatch leads to them, and nowhere else; what both directions look
/// up is one set.
#[test]
fn a_program_of_both_directions_has_chains_for_each_and_sets_once() {
    let Some(lab) = Lab::new() else { return };
    serve(&lab, &[80]);
    lab.serve_outside(&[80]);
    let program = Program {
        closed: true,
        allow: Rules {
            prefixes: vec![prefix_rule(Zone::Anywhere, "10.88.0.1/32", tcp(80))],
            names: vec![],
        },
        ..Program::default()
    };
    let chains = |lab: &Lab| {
        let chains = lab.existing().chains.into_iter();
        let of_program = chains.filter_map(|name| name.strip_suffix(&format!("-{ID}")).map(str::to_owned));
        of_program.collect::<Vec<_>>()
    };
    let egress = governs(desired(), [POD_V4, POD_V6], ID, program.clone());
    lab.install(&egress, &[]);
    assert_eq!(chains(&lab), ["ep4", "ep6"]);
    let both = receives(egress, [POD_V4], ID, evaluation(ID, &program.tiers()), None);
    lab.install(&both, &[]);
    assert_eq!(chains(&lab), ["ep4", "ep6", "in4", "in6"]);
    assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Connected);
    assert_eq!(lab.pod.tries("10.88.0.2", 80), Outcome::Refused);
    let from = |address: &str| {
        let pod = ip(POD_V4);
        lab.outside.enter(|| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&std::net::SocketAddr::new(ip(address), 0).into()).unwrap();
            let to: std::net::SocketAddr = (pod, 80).into();
            socket
                .connect_timeout(&to.into(), patience::scaled(Duration::from_secs(10)))
                .is_ok()
        })
    };
    assert!(from("10.88.0.1") && !from("10.88.0.2"));
    let mut ingress = both;
    ingress.dispatch.egress.clear();
    lab.install(&ingress, &[]);
    assert_eq!(chains(&lab), ["in4", "in6"]);
}
