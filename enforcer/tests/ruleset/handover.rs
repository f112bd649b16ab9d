//! Connections that are looked into: how they reach who does, and what that may send in their
//! place. A relay that looks at nothing plays the part.

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use enforcer::{DesiredState, Element, Handover, Interception, routing};
use policy::Protocol::Tcp;
use policy::classifier::AddressContext;
use policy::{Action, AddressZone, Peer, PortSet, ProgramId, Rule, Tiers, Verdict, Zone};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRng, TestRunner};
use socket2::{Domain, Socket, Type};

use crate::lab::{Lab, Namespace, OTHER_V4, OTHER_V6, OUTSIDE, Outcome, POD_V4, POD_V6, ip, say};
use crate::programs::{desired, evaluation, governs_by, learn_at, origin, ports, range, receives, rule, single};

const ID: ProgramId = ProgramId(0x1111_0000_0123_4567);
const SENDER: ProgramId = ProgramId(0x2222_0000_0123_4567);

const PORT: u16 = 15_001;
const MARK: u32 = 0x2_0000;

/// On `lo` of the node.
fn listening() -> [IpAddr; 2] {
    [routing::HANDOVER_V4.into(), routing::HANDOVER_V6.into()]
}

fn handover() -> Handover {
    Handover {
        listeners: listening().map(|address| (address, PORT).into()).to_vec(),
        mark: NonZeroU32::new(MARK).unwrap(),
        reply_mark: NonZeroU32::new(0x4_0000).unwrap(),
        routing_table: 177,
        zone: 77,
    }
}

/// Accepts at the listeners until it is dropped, and passes on what comes, from the client's own
/// address and port.
struct Relay {
    /// How many connections were handed over.
    count: Arc<AtomicUsize>,
    /// How many of them it could not pass on.
    refused: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Relay {
    /// `dial` says where to for what the client asked.
    fn start(lab: &Lab, dial: fn(SocketAddr) -> SocketAddr) -> Self {
        let (count, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = lab.node.enter(|| {
            let listening = handover().listeners.into_iter().map(|at| {
                let listener = TcpListener::bind(at).unwrap();
                listener.set_nonblocking(true).unwrap();
                let (count, refused, stop) = (Arc::clone(&count), Arc::clone(&refused), Arc::clone(&stop));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        match listener.accept() {
                            Ok((client, _)) => {
                                count.fetch_add(1, Ordering::Relaxed);
                                let refused = Arc::clone(&refused);
                                std::thread::spawn(move || {
                                    if pass_on(client, dial).is_err() {
                                        refused.fetch_add(1, Ordering::Relaxed);
                                    }
                                });
                            }
                            Err(_) => std::thread::sleep(Duration::from_millis(2)),
                        }
                    }
                })
            });
            listening.collect()
        });
        Self {
            count,
            refused,
            stop,
            threads,
        }
    }

    fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Waits until so many were not passed on.
    fn refuses(&self, count: usize) -> bool {
        let limit = Duration::from_secs(10);
        patience::wait(limit, Duration::from_millis(5), || {
            self.refused.load(Ordering::Relaxed) == count
        })
        .is_some()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn pass_on(mut client: TcpStream, dial: fn(SocketAddr) -> SocketAddr) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let from = client.peer_addr()?;
    let socket = socket2::SockRef::from(&client);
    let asked = match from {
        SocketAddr::V4(_) => socket.original_dst_v4()?,
        SocketAddr::V6(_) => socket.original_dst_v6()?,
    };
    let asked = asked.as_socket().unwrap();
    let upstream = Socket::new(Domain::for_address(from), Type::STREAM, None)?;
    upstream.set_reuse_address(true)?;
    match from {
        SocketAddr::V4(_) => upstream.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => upstream.set_ip_transparent_v6(true)?,
    }
    upstream.set_mark(MARK)?;
    upstream.bind(&from.into())?;
    upstream.connect_timeout(&dial(asked).into(), patience::scaled(Duration::from_secs(10)))?;
    let mut upstream = TcpStream::from(upstream);
    let (mut there, mut back) = (client.try_clone()?, upstream.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut there, &mut back);
        let _ = back.shutdown(Shutdown::Write);
    });
    io::copy(&mut upstream, &mut client)?;
    Ok(())
}

/// Tells everyone who connects from where, until the process ends.
fn tell_sources(at: &Namespace, address: &str, port: u16) {
    let listener = at.enter(|| TcpListener::bind((ip(address), port)).unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, from)) = listener.accept() {
            std::thread::spawn(move || {
                if let Ok(1..) = stream.read(&mut [0; 64]) {
                    let _ = stream.write_all(from.to_string().as_bytes());
                }
            });
        }
    });
}

/// Whether the other end sees the connection come from where it was opened.
fn keeps_source(from: &Namespace, to: &str, port: u16) -> bool {
    let mut stream = from.connect(to, port).unwrap();
    let own = stream.local_addr().unwrap().to_string();
    say(&mut stream, "who am I?").unwrap() == own
}

fn looked_into(peer: Peer, ports: PortSet) -> Rule {
    Rule {
        through: Some(Arc::default()),
        ..rule(Action::Allow, peer, ports)
    }
}

fn prefix(text: &str) -> Peer {
    Peer::Prefix(Zone::Anywhere, text.parse().unwrap())
}

fn name(text: &str) -> Peer {
    Peer::Name(names::Pattern::name(text).unwrap())
}

fn tcp(port: u16) -> PortSet {
    ports([single(Tcp, port)])
}

fn closed(mut network: Vec<Rule>) -> Tiers {
    network.sort_by_key(|rule| (rule.action, rule.through.is_some()));
    Tiers {
        network,
        closed_by: vec![origin()],
        ..Tiers::default()
    }
}

/// The pod may reach what is looked into at port 80 of two prefixes and of the addresses of
/// b.example, and anything at port 443 of a.example.
fn egress() -> (DesiredState, Vec<(Element, Duration)>) {
    let tiers = closed(vec![
        rule(Action::Allow, name("a.example"), tcp(443)),
        looked_into(prefix("10.88.0.1/32"), tcp(80)),
        looked_into(prefix("fd88::1/128"), tcp(80)),
        looked_into(name("b.example"), tcp(80)),
    ]);
    let tiers = evaluation(ID, &tiers);
    let learned = [
        ("a.example", "10.77.0.2"),
        ("a.example", "fd77::2"),
        ("b.example", "10.88.0.2"),
        ("b.example", "fd88::2"),
    ];
    let hour = Duration::from_secs(3600);
    let learned = learned
        .iter()
        .flat_map(|(name, address)| learn_at(&tiers, name, ip(address), AddressZone::World, hour))
        .collect();
    let mut desired = governs_by(desired(), [POD_V4, POD_V6], ID, tiers, None, None);
    desired.handover = Some(handover());
    // Lookups have listeners and a conntrack zone of their own.
    desired.interception = Interception::Dnat;
    (desired, learned)
}

const LOOKED_INTO: [&str; 4] = ["10.88.0.1", "10.88.0.2", "fd88::1", "fd88::2"];
const ALLOWED: [&str; 2] = ["10.77.0.2", "fd77::2"];

#[test]
fn what_is_looked_into_is_handed_over_and_keeps_its_source_and_nothing_else_is() {
    let Some(lab) = Lab::new() else { return };
    for address in OUTSIDE {
        tell_sources(&lab.outside, address, 80);
        tell_sources(&lab.outside, address, 443);
    }
    let (desired, learned) = egress();
    lab.install(&desired, &learned);
    let relay = Relay::start(&lab, |asked| asked);
    for (count, address) in (1..).zip(LOOKED_INTO) {
        assert!(keeps_source(&lab.pod, address, 80), "{address}");
        assert_eq!(relay.count(), count, "{address}");
        assert_eq!(lab.pod.tries(address, 443), Outcome::Refused, "{address}");
    }
    for address in ALLOWED {
        assert!(keeps_source(&lab.pod, address, 443), "{address}");
        assert_eq!(lab.pod.tries(address, 80), Outcome::Refused, "{address}");
    }
    // A pod that nothing governs is not asked.
    assert!(keeps_source(&lab.other, "10.88.0.1", 80));
    assert_eq!(relay.count(), LOOKED_INTO.len());
}

#[test]
fn with_nobody_there_what_is_looked_into_is_refused_at_once_and_nothing_else_is() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let (mut desired, learned) = egress();
    for handover in [desired.handover.clone(), None] {
        desired.handover = handover;
        lab.install(&desired, &learned);
        for address in LOOKED_INTO {
            assert_eq!(lab.pod.tries(address, 80), Outcome::Refused, "{address}");
        }
        for address in ALLOWED {
            assert_eq!(lab.pod.tries(address, 443), Outcome::Connected, "{address}");
        }
    }
}

#[test]
fn nothing_but_what_was_handed_over_reaches_the_listener() {
    let Some(lab) = Lab::new() else { return };
    let (mut desired, learned) = egress();
    // Even where the program lets everything through.
    desired.dispatch = Default::default();
    lab.install(&desired, &learned);
    let relay = Relay::start(&lab, |asked| asked);
    for from in [&lab.pod, &lab.other, &lab.node] {
        for address in listening() {
            assert_eq!(from.tries(&address.to_string(), PORT), Outcome::Refused, "{address}");
        }
    }
    assert_eq!(relay.count(), 0);
}

#[test]
fn who_looks_into_connections_can_open_nothing_that_no_rule_names() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let (desired, learned) = egress();
    lab.install(&desired, &learned);
    let elsewhere = |asked: SocketAddr| match asked {
        SocketAddr::V4(_) => (ip("10.77.0.2"), 80).into(),
        SocketAddr::V6(_) => (ip("fd77::2"), 80).into(),
    };
    let relay = Relay::start(&lab, elsewhere);
    for (count, address) in (1..).zip(LOOKED_INTO) {
        let answer = lab.pod.ask_tcp(address, 80, "hello");
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
        assert_eq!(relay.count(), count);
        assert!(relay.refuses(count), "{address}");
    }
}

#[test]
fn what_reaches_a_pod_is_handed_over_and_its_sender_is_judged_too() {
    let Some(lab) = Lab::new() else { return };
    for address in [POD_V4, POD_V6] {
        tell_sources(&lab.pod, address, 80);
        tell_sources(&lab.pod, address, 443);
    }
    let receiver = closed(vec![
        rule(Action::Allow, prefix("10.66.1.0/24"), tcp(443)),
        looked_into(prefix("10.66.1.2/32"), tcp(80)),
        looked_into(prefix(&format!("{OTHER_V6}/128")), tcp(80)),
    ]);
    let mut desired = receives(desired(), [POD_V4, POD_V6], ID, evaluation(ID, &receiver), None);
    desired.handover = Some(handover());
    lab.install(&desired, &[]);
    let relay = Relay::start(&lab, |asked| asked);
    for (count, address) in [(1, POD_V4), (2, POD_V6)] {
        assert!(keeps_source(&lab.other, address, 80), "{address}");
        assert_eq!(relay.count(), count, "{address}");
    }
    assert!(keeps_source(&lab.other, POD_V4, 443));
    assert_eq!(lab.outside.tries(POD_V4, 80), Outcome::Refused);
    assert_eq!(relay.count(), 2);

    // A sender that may not go there does not get there by what looks into connections.
    let sender = evaluation(SENDER, &closed(Vec::new()));
    let judged = governs_by(desired, [OTHER_V4, OTHER_V6], SENDER, sender, None, None);
    lab.install(&judged, &[]);
    for (count, address) in [(1, POD_V4), (2, POD_V6)] {
        let answer = lab.other.ask_tcp(address, 80, "hello");
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
        assert!(relay.refuses(count), "{address}");
    }
}

/// Translates what passes through the node, and what it sends itself, as kube-proxy does.
fn translate(lab: &Lab, services: &[(&str, u16, &str)]) {
    let mut script = String::from("table inet kube {\n");
    for (chain, hook, priority) in [("in", "prerouting", "dstnat"), ("out", "output", "-100")] {
        script += &format!("chain {chain} {{ type nat hook {hook} priority {priority};\n");
        for (service, port, backend) in services {
            let family = if ip(service).is_ipv4() { "ip" } else { "ip6" };
            script += &format!("{family} daddr {service} tcp dport {port} dnat {family} to {backend}\n");
        }
        script += "}\n";
    }
    lab.node.run("nft", &["-f", "-"], &(script + "}\n")).unwrap();
}

#[test]
fn a_service_is_handed_over_and_its_backend_found_and_judged() {
    let Some(lab) = Lab::new() else { return };
    let services = [("10.96.0.1", "10.88.0.1:80"), ("fd96::1", "[fd88::1]:80")];
    translate(&lab, &services.map(|(service, backend)| (service, 88, backend)));
    for (range, via) in [("10.96.0.0/16", "10.77.0.2"), ("fd96::/64", "fd77::2")] {
        lab.node.ip(&["route", "add", range, "via", via]);
    }
    for (_, backend) in services {
        let backend: SocketAddr = backend.parse().unwrap();
        tell_sources(&lab.outside, &backend.ip().to_string(), 80);
    }
    let (mut desired, learned) = egress();
    desired.inspected_services.egress = services.map(|(service, _)| (ip(service), 88).into()).into();
    lab.install(&desired, &learned);
    let relay = Relay::start(&lab, |asked| asked);
    for (count, (service, backend)) in (1..).zip(services) {
        let mut stream = lab.pod.connect(service, 88).unwrap();
        let own = stream.local_addr().unwrap();
        assert_eq!(say(&mut stream, "who am I?").unwrap(), own.to_string());
        assert_eq!(relay.count(), count, "{service}");
        let asked = (ip(service), 88).into();
        let found = lab
            .node
            .enter(|| enforcer::conntrack::translated(own, asked, handover().zone));
        assert_eq!(found.unwrap(), Some(backend.parse().unwrap()));
        let nobody = lab
            .node
            .enter(|| enforcer::conntrack::translated(own, asked, handover().zone + 1));
        assert_eq!(nobody.unwrap(), None);
    }
    // Another port of it, and another pod: kube-proxy alone decides.
    assert_ne!(lab.pod.tries("10.96.0.1", 89), Outcome::Connected);
    assert!(keeps_source(&lab.other, "10.96.0.1", 88));
    assert_eq!(relay.count(), services.len());

    // What is behind it must be looked into by the program: a fault in who looks opens nothing.
    let elsewhere = [("10.96.0.2", "10.77.0.2:80"), ("fd96::2", "[fd77::2]:80")];
    lab.node.run("nft", &["delete", "table", "inet", "kube"], "").unwrap();
    translate(&lab, &elsewhere.map(|(service, backend)| (service, 88, backend)));
    desired.inspected_services.egress = elsewhere.map(|(service, _)| (ip(service), 88).into()).into();
    lab.install(&desired, &learned);
    for (count, (service, _)) in (1..).zip(elsewhere) {
        let answer = lab.pod.ask_tcp(service, 88, "hello");
        assert!(answer.as_ref().map_or(true, String::is_empty), "{answer:?}");
        assert!(relay.refuses(count), "{service}");
    }
}

#[test]
fn what_comes_to_a_port_of_the_node_for_a_pod_is_handed_over() {
    let Some(lab) = Lab::new() else { return };
    let node = ["10.77.0.1", "fd77::1"];
    translate(
        &lab,
        &[
            (node[0], 30_080, &format!("{POD_V4}:80")),
            (node[1], 30_080, &format!("[{POD_V6}]:80")),
        ],
    );
    for address in [POD_V4, POD_V6] {
        tell_sources(&lab.pod, address, 80);
    }
    let receiver = closed(vec![
        looked_into(prefix("10.77.0.0/16"), tcp(80)),
        looked_into(prefix("fd77::/64"), tcp(80)),
    ]);
    let mut desired = receives(desired(), [POD_V4, POD_V6], ID, evaluation(ID, &receiver), None);
    desired.handover = Some(handover());
    desired.inspected_services.ingress = node.map(|node| (ip(node), 30_080).into()).into();
    lab.install(&desired, &[]);
    let relay = Relay::start(&lab, |asked| asked);
    for (count, address) in (1..).zip(node) {
        assert!(keeps_source(&lab.outside, address, 30_080), "{address}");
        assert_eq!(relay.count(), count, "{address}");
    }
}

const PORTS: [u16; 3] = [80, 85, 443];
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
const PREFIXES: [&str; 6] = [
    "0.0.0.0/0",
    "10.88.0.0/31",
    "10.88.0.2/32",
    "10.77.0.0/16",
    "::/0",
    "fd88::/127",
];

#[derive(Debug, Clone)]
struct Case {
    rules: Vec<Rule>,
    taught: Vec<(&'static str, &'static str)>,
}

fn case() -> impl Strategy<Value = Case> {
    let peer = || {
        prop_oneof![
            prop::sample::select(PREFIXES.to_vec()).prop_map(prefix),
            prop::sample::select(NAMES.to_vec()).prop_map(name),
        ]
    };
    let ports = || {
        prop_oneof![
            prop::sample::select(PORTS.to_vec()).prop_map(tcp),
            Just(ports([range(Tcp, 80, 90)])),
            Just(ports([range(Tcp, 60, 500)])),
        ]
    };
    let one = (peer(), ports(), 0_u8..6).prop_map(|(peer, ports, kind)| match kind {
        0 => rule(Action::Deny, peer, ports),
        1 | 2 => rule(Action::Allow, peer, ports),
        _ => looked_into(peer, ports),
    });
    let taught = (
        prop::sample::select(NAMES.to_vec()),
        prop::sample::select(OUTSIDE.to_vec()),
    );
    (prop::collection::vec(one, 1..6), prop::collection::vec(taught, 0..6))
        .prop_map(|(rules, taught)| Case { rules, taught })
}

#[test]
fn the_kernel_hands_over_what_the_program_looks_into() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&PORTS);
    lab.node.enter(|| routing::set_up_handover(&handover())).unwrap();
    for listener in handover().listeners {
        lab.node.echo(listener, "handed over");
    }
    let next_id = Cell::new(1);
    let config = Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    };
    // The same programs every time.
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
        .run(&case(), |case| {
            let id = ProgramId(next_id.replace(next_id.get() + 1));
            let tiers = evaluation(id, &closed(case.rules.clone()));
            let hour = Duration::from_secs(3600);
            let at = |address| AddressContext {
                address,
                zone: AddressZone::World,
                objects: &[],
            };
            let learned: Vec<_> = case
                .taught
                .iter()
                .flat_map(|(name, address)| learn_at(&tiers, name, ip(address), AddressZone::World, hour))
                .collect();
            let classifier = Arc::clone(&tiers.classifier);
            let mut desired = governs_by(desired(), [POD_V4, POD_V6], id, tiers, None, None);
            desired.handover = Some(handover());
            lab.install(&desired, &learned);
            for address in OUTSIDE {
                let taught = case.taught.iter().filter(|(_, taught)| *taught == address);
                let entries: Vec<_> = taught
                    .flat_map(|(taught, _)| {
                        let matching = classifier
                            .name_rules()
                            .filter(|(_, pattern)| pattern.to_string() == *taught);
                        matching.flat_map(|(index, _)| classifier.entries_for_name(index, at(ip(address))))
                    })
                    .collect();
                for port in PORTS {
                    let traffic = Some((Tcp, port));
                    let verdict = classifier.verdict(ip(address), AddressZone::World, entries.iter(), traffic);
                    let seen = match lab.pod.ask_tcp(address, port, "x") {
                        Ok(answer) if answer.starts_with("handed over") => Verdict::Inspect,
                        Ok(answer) if answer.starts_with("outside") => Verdict::Allow,
                        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Verdict::Deny,
                        other => return Err(TestCaseError::fail(format!("{address} {port}: {other:?}"))),
                    };
                    prop_assert_eq!(seen, verdict, "{} {}", address, port);
                }
            }
            Ok(())
        })
        .unwrap();
}
