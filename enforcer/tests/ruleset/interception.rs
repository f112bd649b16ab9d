//! Lookups on their way to the proxy, or past it.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU32;

use enforcer::routing::{self, LISTEN_V4, LISTEN_V6};
use enforcer::ruleset::frame;
use enforcer::{DesiredState, FailMode, Interception, ResolverBinding};
use policy::{PortSet, ProgramId, Zone};
use socket2::{Domain, Socket, Type};

use crate::lab::{Lab, NODE_V4, Outcome, POD_V4, POD_V6, echo_tcp, ip, tagged};
use crate::programs::{Program, Rules, desired, governs, prefix_rule};

const ID: ProgramId = ProgramId(7);
const RESOLVERS: [&str; 2] = ["10.88.0.1", "fd88::1"];
const TPROXY: Interception = Interception::Tproxy {
    mark: NonZeroU32::new(0x20_0000).unwrap(),
    routing_table: 2053,
    port: 10053,
};

#[test]
fn dnat_brings_lookups_to_the_listener_and_answers_come_from_the_resolver() {
    let Some(lab) = lab_with(Interception::Dnat, FailMode::Closed) else {
        return;
    };
    for resolver in RESOLVERS {
        // The sockets of the lab are connected: an answer from another address would never arrive.
        assert_eq!(lab.pod.ask_udp(resolver, 53, "a?").unwrap(), "proxy: a?");
        assert_eq!(lab.pod.ask_tcp(resolver, 53, "a?").unwrap(), "proxy: a?");
    }
}

#[test]
fn dnat_leaves_other_ports_other_servers_and_other_pods_alone() {
    let Some(lab) = lab_with(Interception::Dnat, FailMode::Closed) else {
        return;
    };
    assert_eq!(lab.pod.tries("10.88.0.1", 54), Outcome::Refused);
    assert_eq!(lab.pod.tries("10.88.0.2", 53), Outcome::Refused);
    assert_eq!(lab.other.ask_udp("10.88.0.1", 53, "a?").unwrap(), "outside: a?");
    assert_eq!(lab.other.ask_tcp("fd88::1", 53, "a?").unwrap(), "outside: a?");
}

#[test]
fn the_port_of_the_listener_tells_which_resolver_was_asked() {
    let Some(lab) = Lab::new() else { return };
    routing_set_up(&lab, Interception::Dnat);
    let mut desired = governed(Interception::Dnat, FailMode::Closed);
    for (resolver, port, tag) in [("10.88.0.1", 10_001, "first"), ("10.88.0.2", 10_002, "second")] {
        let binding = ResolverBinding {
            asked: (ip(resolver), 53).into(),
            listener: (LISTEN_V4, port).into(),
        };
        desired.resolvers.push(binding);
        lab.node.echo(binding.listener, tag);
    }
    lab.install(&desired, &[]);
    assert_eq!(lab.pod.ask_udp("10.88.0.1", 53, "a?").unwrap(), "first: a?");
    assert_eq!(lab.pod.ask_tcp("10.88.0.2", 53, "a?").unwrap(), "second: a?");
}

#[test]
fn in_fail_mode_open_lookups_fall_through_while_nothing_else_does() {
    for interception in [Interception::Dnat, TPROXY] {
        let Some(lab) = lab_with(interception, FailMode::Open) else {
            return;
        };
        for resolver in RESOLVERS {
            assert_eq!(
                lab.pod.ask_udp(resolver, 53, "a?").unwrap(),
                "outside: a?",
                "{interception:?}"
            );
            assert_eq!(
                lab.pod.ask_tcp(resolver, 53, "a?").unwrap(),
                "outside: a?",
                "{interception:?}"
            );
            assert_eq!(lab.pod.tries(resolver, 54), Outcome::Refused);
        }
        lab.nft("add element inet namegate alive { tcp timeout 1h, udp timeout 1h }");
        for resolver in RESOLVERS {
            assert_eq!(
                lab.pod.ask_udp(resolver, 53, "a?").unwrap(),
                "proxy: a?",
                "{interception:?}"
            );
            assert_eq!(
                lab.pod.ask_tcp(resolver, 53, "a?").unwrap(),
                "proxy: a?",
                "{interception:?}"
            );
        }
        lab.nft("flush set inet namegate alive");
        assert_eq!(lab.pod.ask_udp("10.88.0.1", 53, "a?").unwrap(), "outside: a?");
        assert_eq!(lab.pod.ask_tcp("fd88::1", 53, "a?").unwrap(), "outside: a?");
    }
}

#[test]
fn installing_again_keeps_the_heartbeat() {
    let Some(lab) = lab_with(Interception::Dnat, FailMode::Open) else {
        return;
    };
    lab.nft("add element inet namegate alive { tcp timeout 1h, udp timeout 1h }");
    let desired = with_resolvers(governed(Interception::Dnat, FailMode::Open));
    let mut replaced = lab.existing();
    replaced.sets.clear();
    replaced.chains.retain(|chain| !chain.starts_with("ep"));
    lab.apply(&frame(&desired, &replaced));
    assert_eq!(lab.pod.ask_udp("10.88.0.1", 53, "a?").unwrap(), "proxy: a?");
}

#[test]
fn in_fail_mode_closed_lookups_are_refused_when_nobody_listens_although_a_policy_allows_the_port() {
    for interception in [Interception::Dnat, TPROXY] {
        let Some(lab) = Lab::new() else { return };
        lab.serve_outside(&[53, 54]);
        routing_set_up(&lab, interception);
        let mut desired = with_resolvers(governed(interception, FailMode::Closed));
        let everything = ["0.0.0.0/0", "::/0"].map(|all| prefix_rule(Zone::Anywhere, all, PortSet::All));
        let program = Program {
            closed: true,
            allow: Rules {
                prefixes: everything.to_vec(),
                names: vec![],
            },
            ..Program::default()
        };
        desired = governs(desired, [POD_V4, POD_V6], ID, program);
        lab.install(&desired, &[]);
        for resolver in RESOLVERS {
            assert_eq!(lab.pod.tries(resolver, 53), Outcome::Refused, "{interception:?}");
            assert!(lab.pod.ask_udp(resolver, 53, "a?").is_err());
            assert_eq!(lab.pod.tries(resolver, 54), Outcome::Connected);
        }
    }
}

#[test]
fn tproxy_brings_lookups_to_the_listener_on_a_node_that_validates_marks_too() {
    for validates_marks in [false, true] {
        let Some(lab) = lab_with(TPROXY, FailMode::Closed) else {
            return;
        };
        if validates_marks {
            lab.node.sysctl("net.ipv4.conf.all.src_valid_mark=1");
            lab.node.sysctl("net.ipv4.conf.all.rp_filter=1");
        }
        for resolver in RESOLVERS {
            // Twice over one flow: its later packets must keep being caught.
            let mut flow = lab.pod.connect(resolver, 53).unwrap();
            assert_eq!(crate::lab::say(&mut flow, "a?").unwrap(), "proxy: a?");
            assert_eq!(crate::lab::say(&mut flow, "b?").unwrap(), "proxy: b?");
            assert_eq!(lab.pod.ask_udp(resolver, 53, "a?").unwrap(), "proxy: a?");
        }
        assert_eq!(lab.other.ask_udp("10.88.0.1", 53, "a?").unwrap(), "outside: a?");
    }
}

#[test]
fn both_modes_take_what_a_service_translation_would_send_elsewhere() {
    for interception in [Interception::Dnat, TPROXY] {
        for fail_mode in [FailMode::Closed, FailMode::Open] {
            let Some(lab) = lab_with(interception, fail_mode) else {
                return;
            };
            // The pod asks a service address; the node translates it to a backend, as kube-proxy
            // does.
            lab.nft(
                "add table ip services
                 add chain ip services prerouting { type nat hook prerouting priority dstnat; policy accept; }
                 add rule ip services prerouting ip daddr 10.96.0.10 dnat to 10.88.0.2",
            );
            let mut desired = governed(interception, fail_mode);
            desired.resolvers = vec![ResolverBinding {
                asked: (ip("10.96.0.10"), 53).into(),
                listener: (LISTEN_V4, 10053).into(),
            }];
            lab.install(&desired, &[]);
            if fail_mode == FailMode::Open {
                // Nobody lives: the original destination is what counts, not the backend.
                assert_eq!(lab.pod.ask_tcp("10.96.0.10", 53, "a?").unwrap(), "outside: a?");
                assert_eq!(lab.pod.tries("10.88.0.2", 53), Outcome::Refused);
                lab.nft("add element inet namegate alive { tcp timeout 1h, udp timeout 1h }");
            }
            assert_eq!(
                lab.pod.ask_tcp("10.96.0.10", 53, "a?").unwrap(),
                "proxy: a?",
                "{interception:?}"
            );
        }
    }
}

#[test]
fn tproxy_takes_what_a_service_translation_sends_to_a_resolver() {
    let Some(lab) = lab_with(TPROXY, FailMode::Closed) else {
        return;
    };
    // The service is no resolver that is known, and its backend is one.
    lab.nft(
        "add table ip services
         add chain ip services prerouting { type nat hook prerouting priority dstnat; policy accept; }
         add rule ip services prerouting ip daddr 10.96.0.10 dnat to 10.88.0.1",
    );
    assert_eq!(lab.pod.ask_tcp("10.96.0.10", 53, "a?").unwrap(), "proxy: a?");
    assert_eq!(lab.pod.ask_udp("10.96.0.10", 53, "a?").unwrap(), "proxy: a?");
    assert_eq!(lab.other.ask_udp("10.96.0.10", 53, "a?").unwrap(), "outside: a?");
}

#[test]
fn pods_may_ask_the_listeners_themselves_by_any_own_address_where_none_is_given() {
    for listening in [NODE_V4, "0.0.0.0"] {
        let Some(lab) = Lab::new() else { return };
        let mut desired = governed(Interception::Off, FailMode::Open);
        desired.host = [ip(NODE_V4)].into();
        desired.listening = vec![(ip(listening), 53).into()];
        lab.node.echo((ip(NODE_V4), 53).into(), "proxy");
        lab.node.echo((ip(NODE_V4), 54).into(), "other");
        lab.install(&desired, &[]);
        assert_eq!(lab.pod.ask_udp(NODE_V4, 53, "a?").unwrap(), "proxy: a?");
        assert_eq!(lab.pod.ask_tcp(NODE_V4, 53, "a?").unwrap(), "proxy: a?");
        assert_eq!(lab.pod.tries(NODE_V4, 54), Outcome::Refused);
        assert_eq!(lab.pod.tries("10.88.0.1", 53), Outcome::Refused);
    }
}

#[test]
fn the_mode_can_change_in_one_transaction() {
    let Some(lab) = lab_with(Interception::Dnat, FailMode::Closed) else {
        return;
    };
    let tproxy = with_resolvers(governed(TPROXY, FailMode::Closed));
    lab.install(&tproxy, &[]);
    assert!(!lab.existing().chains.contains("intercept-dnat"));
    let off = governed(Interception::Off, FailMode::Closed);
    lab.install(&off, &[]);
    assert!(!lab.existing().chains.contains("intercept-tproxy"));
    assert_eq!(lab.pod.tries("10.88.0.1", 53), Outcome::Refused);
}

/// A lab with a proxy, and the outside answering on ports 53 and 54.
fn lab_with(interception: Interception, fail_mode: FailMode) -> Option<Lab> {
    let lab = Lab::new()?;
    lab.serve_outside(&[53, 54]);
    routing_set_up(&lab, interception);
    match interception {
        Interception::Tproxy { port, .. } => lab.node.enter(|| serve_transparently(port)),
        _ => {
            lab.node.echo((LISTEN_V4, 10053).into(), "proxy");
            lab.node.echo((LISTEN_V6, 10053).into(), "proxy");
        }
    }
    let desired = with_resolvers(governed(interception, fail_mode));
    lab.install(&desired, &[]);
    Some(lab)
}

fn routing_set_up(lab: &Lab, interception: Interception) {
    lab.node.enter(|| routing::set_up(&interception)).unwrap();
}

fn governed(interception: Interception, fail_mode: FailMode) -> DesiredState {
    let closed = Program {
        closed: true,
        ..Program::default()
    };
    let mut desired = governs(desired(), [POD_V4, POD_V6], ID, closed);
    desired.interception = interception;
    desired.fail_mode = fail_mode;
    desired
}

fn with_resolvers(mut desired: DesiredState) -> DesiredState {
    desired.resolvers = RESOLVERS
        .map(|resolver| ResolverBinding {
            asked: (ip(resolver), 53).into(),
            listener: match ip(resolver).is_ipv4() {
                true => (LISTEN_V4, 10053).into(),
                false => (LISTEN_V6, 10053).into(),
            },
        })
        .to_vec();
    desired
}

/// Echoes at a port whatever address was asked, as the proxy does in mode tproxy.
fn serve_transparently(port: u16) {
    for (any, resolver) in [("0.0.0.0", RESOLVERS[0]), ("::", RESOLVERS[1])] {
        let any: SocketAddr = (ip(any), port).into();
        let tcp = transparent(any, Type::STREAM);
        tcp.listen(16).unwrap();
        echo_tcp(TcpListener::from(tcp), "proxy");

        let asked = UdpSocket::from(transparent(any, Type::DGRAM));
        let reply = UdpSocket::from(transparent((ip(resolver), 53).into(), Type::DGRAM));
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = asked.recv_from(&mut buffer) {
                let _ = reply.send_to(&tagged("proxy", &buffer[..length]), from);
            }
        });
    }
}

fn transparent(at: SocketAddr, kind: Type) -> Socket {
    let socket = Socket::new(Domain::for_address(at), kind, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    match at {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true).unwrap(),
        SocketAddr::V6(_) => {
            socket.set_only_v6(true).unwrap();
            socket.set_ip_transparent_v6(true).unwrap();
        }
    }
    socket.bind(&at.into()).unwrap();
    socket
}
