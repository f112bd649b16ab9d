//! Flows that policies do not allow any more are cut, both ways, and others go on.

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use enforcer::conntrack::ConntrackEntry;
use enforcer::revocation::{Flow, FlowJudge, FlowVerdict};
use enforcer::{DesiredState, Enforcer, InstallError, Renewal, conntrack};
use policy::Protocol::{Tcp, Udp};
use policy::{Direction, ProgramId, Zone};

use crate::lab::{Lab, POD_V4, POD_V6, ip, say};
use crate::programs::{Program, Rules, desired, evaluation, governs, ports, prefix_rule, receives, single};

const BEFORE: ProgramId = ProgramId(0x5555_cafe_0123_4567);
const AFTER: ProgramId = ProgramId(0x6666_cafe_0123_4567);
const KEPT: u16 = 80;
const WITHDRAWN: u16 = 81;

/// Only a failing test waits that long.
const WAIT: Duration = Duration::from_secs(20);

fn patience() -> Duration {
    patience::scaled(WAIT)
}

/// Allows these ports, whoever is at the other end.
fn allowing(served: &[u16]) -> Program {
    let both = |port: &u16| ports([single(Tcp, *port), single(Udp, *port)]);
    let everybody = |port| ["0.0.0.0/0", "::/0"].map(|all| prefix_rule(Zone::Anywhere, all, both(port)));
    Program {
        closed: true,
        allow: Rules {
            prefixes: served.iter().flat_map(everybody).collect(),
            names: vec![],
        },
        ..Program::default()
    }
}

/// The pod's program in one direction.
fn governed(direction: Direction, id: ProgramId, served: &[u16]) -> DesiredState {
    let program = allowing(served);
    match direction {
        Direction::Egress => governs(desired(), [POD_V4, POD_V6], id, program),
        Direction::Ingress => receives(desired(), [POD_V4, POD_V6], id, evaluation(id, &program.tiers()), None),
    }
}

fn start() -> Result<Enforcer, InstallError> {
    Enforcer::start_with("namegate", Renewal::Refresh)
}

/// The flows of these addresses that a state does not allow.
fn denied(desired: &DesiredState, addresses: &[&str]) -> Vec<ConntrackEntry> {
    let addresses: HashSet<IpAddr> = addresses.iter().map(|address| ip(address)).collect();
    let judge = FlowJudge::new(desired, &|_| false, &|_, _| None);
    let mut flows = conntrack::flows_of(&addresses).unwrap();
    flows.retain(|entry| matches!(judge.verdict(&Flow::of(entry)), FlowVerdict::Denied(_)));
    flows
}

/// Puts a state in force and cuts what it does not allow, as an agent does. How many flows.
fn revoke(lab: &Lab, desired: &DesiredState) -> usize {
    lab.with_enforcer(start, async |enforcer| {
        enforcer.install(desired.clone(), Vec::new).await.unwrap();
        let denied = denied(desired, &[POD_V4, POD_V6]);
        let cut = enforcer.cut(&denied).unwrap();
        assert_eq!(cut, denied.len());
        cut
    })
}

/// Both ends of a flow that the first one opened.
enum Ends {
    Tcp(TcpStream, TcpStream),
    Udp(UdpSocket, UdpSocket),
}

impl Ends {
    /// Opens a flow between the pod and the outside, in the way in which the pod is governed.
    fn open(lab: &Lab, direction: Direction, is_tcp: bool, at: &str, port: u16) -> Self {
        let (from, to) = match direction {
            Direction::Egress => (&lab.pod, &lab.outside),
            Direction::Ingress => (&lab.outside, &lab.pod),
        };
        let at = SocketAddr::new(ip(at), port);
        if is_tcp {
            let listener = to.enter(|| TcpListener::bind(at).unwrap());
            let opener = from.enter(|| TcpStream::connect_timeout(&at, patience()).unwrap());
            return Self::Tcp(opener, listener.accept().unwrap().0);
        }
        let other = to.enter(|| UdpSocket::bind(at).unwrap());
        let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let opener = from.enter(|| {
            let opener = UdpSocket::bind(any).unwrap();
            opener.connect(at).unwrap();
            opener
        });
        opener.send(b"first").unwrap();
        let (_, peer) = other.recv_from(&mut [0; 8]).unwrap();
        to.enter(|| other.connect(peer).unwrap());
        other.send(b"answer").unwrap();
        opener.recv(&mut [0; 8]).unwrap();
        Self::Udp(opener, other)
    }

    fn reversed(self) -> Self {
        match self {
            Self::Tcp(opener, other) => Self::Tcp(other, opener),
            Self::Udp(opener, other) => Self::Udp(other, opener),
        }
    }

    /// The first end sends. `true`: it arrives. `false`: nothing does, and the first end is told.
    fn passes(&mut self) -> bool {
        match self {
            Self::Tcp(sender, receiver) => {
                sender.write_all(b"said").unwrap();
                sender.set_read_timeout(Some(patience())).unwrap();
                receiver.set_nonblocking(true).unwrap();
                let told = loop {
                    match receiver.read(&mut [0; 8]) {
                        Ok(4) => return true,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        other => panic!("{other:?}"),
                    }
                    sender.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                    match sender.read(&mut [0; 8]) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        told => break told,
                    }
                };
                assert_eq!(told.unwrap_err().kind(), ErrorKind::ConnectionReset);
                false
            }
            Self::Udp(sender, receiver) => {
                sender.send(b"said").unwrap();
                receiver.set_nonblocking(true).unwrap();
                sender.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                let told = loop {
                    match receiver.recv(&mut [0; 8]) {
                        Ok(4) => return true,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        other => panic!("{other:?}"),
                    }
                    match sender.recv(&mut [0; 8]) {
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        told => break told,
                    }
                };
                // The prohibition, in the words of either family.
                let told = told.unwrap_err().raw_os_error();
                assert!(
                    [Some(libc::EHOSTUNREACH), Some(libc::EACCES)].contains(&told),
                    "{told:?}"
                );
                false
            }
        }
    }
}

/// Eight flows of each family and direction: over TCP and UDP, of which one end speaks first after
/// the change, allowed still or not. All of them are idle while policies change.
#[test]
fn flows_are_cut_both_ways_where_policies_do_not_allow_them_any_more() {
    for direction in Direction::BOTH {
        let Some(lab) = Lab::new() else { return };
        lab.install(&governed(direction, BEFORE, &[KEPT, WITHDRAWN]), &[]);
        let addresses = match direction {
            Direction::Egress => ["10.88.0.1", "fd88::1", "10.88.0.2", "fd88::2"],
            Direction::Ingress => [POD_V4, POD_V6, POD_V4, POD_V6],
        };
        let mut flows = Vec::new();
        for (address, opener_speaks) in addresses.into_iter().zip([true, true, false, false]) {
            for is_tcp in [true, false] {
                for port in [KEPT, WITHDRAWN] {
                    // The pod's socket of the flow before has the port.
                    if direction == Direction::Ingress && !is_tcp && !opener_speaks {
                        continue;
                    }
                    let ends = Ends::open(&lab, direction, is_tcp, address, port);
                    let ends = if opener_speaks { ends } else { ends.reversed() };
                    flows.push((format!("{address} tcp {is_tcp} first {opener_speaks}"), port, ends));
                }
            }
        }
        let withdrawn = flows.iter().filter(|(_, port, _)| *port == WITHDRAWN).count();
        assert_eq!(revoke(&lab, &governed(direction, AFTER, &[KEPT])), withdrawn);
        for (what, port, ends) in &mut flows {
            assert_eq!(ends.passes(), *port == KEPT, "{direction} {what} {port}");
        }
        // Whoever was not told yet is told with what it sends.
        for (what, port, ends) in flows {
            if port == KEPT || matches!(ends, Ends::Udp(..)) {
                assert_eq!(
                    ends.reversed().passes(),
                    port == KEPT,
                    "{direction} {what} {port}, back"
                );
            }
        }
        let chains = lab.existing().chains;
        assert!(
            chains.contains("cut-forward") && chains.contains("cut-input"),
            "{chains:?}"
        );
    }
}

#[test]
fn flows_between_the_pod_and_this_node_are_cut_both_ways() {
    let Some(lab) = Lab::new() else { return };
    lab.install(&governed(Direction::Egress, BEFORE, &[KEPT, WITHDRAWN]), &[]);
    let node = crate::lab::NODE_V4;
    let open = |port| {
        let at = SocketAddr::new(ip(node), port);
        let listener = lab.node.enter(|| TcpListener::bind(at).unwrap());
        let opener = lab.pod.enter(|| TcpStream::connect_timeout(&at, patience()).unwrap());
        Ends::Tcp(opener, listener.accept().unwrap().0)
    };
    let (mut kept, mut withdrawn, pushes) = (open(KEPT), open(WITHDRAWN), open(WITHDRAWN));
    assert_eq!(revoke(&lab, &governed(Direction::Egress, AFTER, &[KEPT])), 2);
    assert!(kept.passes());
    assert!(!withdrawn.passes());
    // What the node itself sends is refused where it leaves, and comes back to it as an error.
    let Ends::Tcp(mut pod, mut at_node) = pushes else {
        unreachable!()
    };
    at_node.write_all(b"pushed").unwrap();
    pod.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(
        pod.read(&mut [0; 8]).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "nothing came"
    );
}

#[test]
fn the_chains_go_when_nothing_is_cut_any_more_and_outlive_an_agent_till_then() {
    let Some(lab) = Lab::new() else { return };
    lab.node.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream=6");
    lab.node.sysctl("net.netfilter.nf_conntrack_udp_timeout=6");
    lab.install(&governed(Direction::Egress, BEFORE, &[KEPT, WITHDRAWN]), &[]);
    let mut flow = Ends::open(&lab, Direction::Egress, false, "10.88.0.1", WITHDRAWN);
    let after = governed(Direction::Egress, AFTER, &[KEPT]);
    assert_eq!(revoke(&lab, &after), 1);
    // The agent has gone, and the next one writes all rules anew.
    lab.install(&after, &[]);
    assert!(!flow.passes());
    assert!(lab.existing().chains.contains("cut-forward"));
    lab.with_enforcer(start, async |enforcer| {
        enforcer.install(after.clone(), Vec::new).await.unwrap();
        let stands = || lab.existing().chains.iter().any(|chain| chain.starts_with("cut-"));
        assert!(patience::wait(WAIT, Duration::from_millis(100), || !stands()).is_some());
        assert!(!lab.existing().sets.iter().any(|set| set.starts_with("cut")));
    });
}

/// Who has ports of his own (NTP, IPsec, a tunnel) begins the same flow anew when it is allowed.
#[test]
fn what_is_allowed_again_is_cut_no_more() {
    let Some(lab) = Lab::new() else { return };
    let before = governed(Direction::Egress, BEFORE, &[KEPT, WITHDRAWN]);
    let after = governed(Direction::Egress, AFTER, &[KEPT]);
    lab.install(&before, &[]);
    let mut flows = ["10.88.0.1", "fd88::1"].map(|to| Ends::open(&lab, Direction::Egress, false, to, WITHDRAWN));
    lab.with_enforcer(start, async |enforcer| {
        enforcer.install(after.clone(), Vec::new).await.unwrap();
        let denied = conntrack::flows_of(&[POD_V4, POD_V6].map(ip).into()).unwrap();
        assert_eq!(enforcer.cut(&denied).unwrap(), 2);
        assert!(!flows[0].passes() && !flows[1].passes());
        enforcer.install(before.clone(), Vec::new).await.unwrap();
        enforcer.end_cut(&denied[..1]).unwrap();
        assert!(
            lab.existing().chains.contains("cut-forward"),
            "the other one is cut still"
        );
        // Also one that is none any more.
        enforcer.end_cut(&denied).unwrap();
        let stands = || lab.existing().chains.contains("cut-forward");
        assert!(patience::wait(WAIT, Duration::from_millis(20), || !stands()).is_some());
        enforcer.end_cut(&denied).unwrap();
    });
    assert!(flows[0].passes() && flows[1].passes());
}

/// What somebody has removed comes back: the table with what was cut, and the chains.
#[test]
fn what_is_cut_is_cut_in_a_table_that_is_made_again() {
    let Some(lab) = Lab::new() else { return };
    lab.install(&governed(Direction::Egress, BEFORE, &[KEPT, WITHDRAWN]), &[]);
    let mut pushes = Ends::open(&lab, Direction::Egress, false, "10.88.0.1", WITHDRAWN).reversed();
    let mut kept = Ends::open(&lab, Direction::Egress, true, "10.88.0.1", KEPT);
    let after = governed(Direction::Egress, AFTER, &[KEPT]);
    lab.with_enforcer(
        || Enforcer::start_guarded("namegate"),
        async |enforcer| {
            enforcer.install(after.clone(), Vec::new).await.unwrap();
            let denied = denied(&after, &[POD_V4]);
            assert_eq!(enforcer.cut(&denied).unwrap(), 1);
            let refuses = || {
                let rules = lab
                    .node
                    .run("nft", &["list", "chain", "inet", "namegate", "cut-forward"], "");
                rules.is_ok_and(|rules| rules.contains("goto refuse-cut"))
            };
            for damage in [
                "delete table inet namegate",
                "flush chain inet namegate cut-forward",
                "flush chain inet namegate cut-forward; delete chain inet namegate cut-forward",
            ] {
                lab.nft(damage);
                assert!(
                    patience::wait(WAIT, Duration::from_millis(20), refuses).is_some(),
                    "{damage}"
                );
            }
        },
    );
    assert!(!pushes.passes());
    assert!(kept.passes());
}

#[test]
fn nothing_is_cut_where_everything_is_allowed() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[KEPT]);
    lab.install(&governed(Direction::Egress, BEFORE, &[KEPT]), &[]);
    let mut flow = lab.pod.connect("10.88.0.1", KEPT).unwrap();
    assert_eq!(revoke(&lab, &governed(Direction::Egress, AFTER, &[KEPT, WITHDRAWN])), 0);
    assert_eq!(revoke(&lab, &desired()), 0);
    assert_eq!(say(&mut flow, "still").unwrap(), "outside: still");
    assert!(!lab.existing().chains.iter().any(|chain| chain.starts_with("cut-")));
}
