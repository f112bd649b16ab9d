//! Flows that policies do not allow any more are cut, and others go on.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use api::{ExplainAnswer, FlowFate};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use namegate_integration::{Scenario, SetOnDrop};

use super::plan;

/// Policies allow the names of a pod on this port, over TCP and UDP.
const PORT: u16 = 4000;

/// Only a failing test waits that long.
fn patience() -> Duration {
    patience::scaled(Duration::from_secs(20))
}

/// Names that a pod may reach, and what they resolve to. Each flow has an address of its own.
const KEPT: [&str; 4] = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];
const WITHDRAWN: [&str; 4] = ["203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4"];

fn scenario(flags: &str, ttl: u32) -> Scenario {
    let records = |name: &str, addresses: [&str; 4]| addresses.map(|address| format!("{name} {ttl} A {address}"));
    let new = ["new.example 60 A 198.51.100.9".to_owned()];
    let records = [
        &records("kept.example", KEPT)[..],
        &records("withdrawn.example", WITHDRAWN),
        &new,
    ]
    .concat();
    let scenario = plan()
        .flags(flags)
        .allow(0, &["kept.example", "withdrawn.example"])
        .records(&records.iter().map(String::as_str).collect::<Vec<_>>())
        .start();
    scenario.learn(0, "kept.example");
    scenario.learn(0, "withdrawn.example");
    scenario
}

/// Both ends of a flow, the one first that speaks after the change.
enum Ends {
    Tcp(TcpStream, TcpStream),
    Udp(UdpSocket, UdpSocket),
}

impl Ends {
    /// A flow from the pod.
    fn open(scenario: &Scenario, address: &str, is_tcp: bool, pod_speaks: bool) -> Self {
        let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), PORT);
        let (pod, internet) = (scenario.pod(0).namespace(), scenario.lab().internet().namespace());
        if is_tcp {
            let listener = internet.run(|| TcpListener::bind(to).unwrap()).unwrap();
            let opener = pod
                .run(|| TcpStream::connect_timeout(&to, patience()).unwrap())
                .unwrap();
            let other = listener.accept().unwrap().0;
            return match pod_speaks {
                true => Self::Tcp(opener, other),
                false => Self::Tcp(other, opener),
            };
        }
        let other = internet.run(|| UdpSocket::bind(to).unwrap()).unwrap();
        let opener = pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        opener.connect(to).unwrap();
        opener.send(b"first").unwrap();
        let (_, from) = other.recv_from(&mut [0; 8]).unwrap();
        other.connect(from).unwrap();
        other.send(b"answer").unwrap();
        opener.recv(&mut [0; 8]).unwrap();
        match pod_speaks {
            true => Self::Udp(opener, other),
            false => Self::Udp(other, opener),
        }
    }

    /// The four kinds, to these addresses.
    fn of_all_kinds(scenario: &Scenario, addresses: [&str; 4]) -> Vec<Self> {
        let kinds = [(true, true), (true, false), (false, true), (false, false)];
        let of_kind = |(address, (is_tcp, pod_speaks))| Self::open(scenario, address, is_tcp, pod_speaks);
        addresses.into_iter().zip(kinds).map(of_kind).collect()
    }

    /// The first end sends. Whether it arrives; otherwise that end was told.
    fn passes(&mut self) -> bool {
        let pause = Some(Duration::from_millis(5));
        let begun = Instant::now();
        let mut heard = [0; 8];
        let said = match self {
            Self::Tcp(sender, _) => sender.write_all(b"said"),
            Self::Udp(sender, _) => sender.send(b"said").map(drop),
        };
        if said.is_err() {
            return false;
        }
        loop {
            let (arrived, told) = match self {
                Self::Tcp(sender, receiver) => {
                    sender.set_read_timeout(pause).unwrap();
                    receiver.set_read_timeout(pause).unwrap();
                    (receiver.read(&mut heard), sender.read(&mut heard))
                }
                Self::Udp(sender, receiver) => {
                    sender.set_read_timeout(pause).unwrap();
                    receiver.set_read_timeout(pause).unwrap();
                    (receiver.recv(&mut heard), sender.recv(&mut heard))
                }
            };
            if arrived.is_ok_and(|length| length > 0) {
                return true;
            }
            match told {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return false,
                Ok(length) => panic!("{length} octets came the other way"),
            }
            assert!(begun.elapsed() < patience(), "nothing came, and nobody was told");
        }
    }
}

fn cut(scenario: &Scenario) -> f64 {
    let series = "namegate_flows_cut_total{direction=\"egress\"}";
    scenario.agent().metric(series).unwrap()
}

/// Eight flows, all idle while the policy changes: over TCP and UDP, of which the pod or the server
/// speaks first afterwards, allowed still or not.
#[test]
fn an_edit_cuts_the_flows_that_it_withdraws_and_no_others() {
    let scenario = scenario("", 60);
    let mut kept = Ends::of_all_kinds(&scenario, KEPT);
    let mut withdrawn = Ends::of_all_kinds(&scenario, WITHDRAWN);
    let begun = Instant::now();
    scenario.allow(0, &["kept.example"]);
    scenario.wait_until("flows are cut", || cut(&scenario) >= 4.0);
    patience::assert_took("from the edit to the cut", begun.elapsed(), Duration::from_secs(5));
    assert_eq!(withdrawn.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [false; 4]);
    assert_eq!(kept.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [true; 4]);
    assert_eq!(cut(&scenario), 4.0);
    // What is allowed again begins anew, also with the ports of a flow that was cut.
    scenario.allow(0, &["kept.example", "withdrawn.example"]);
    scenario.wait_until("the name is allowed again", || {
        let is_answered = scenario.ask(0, "withdrawn.example", RecordType::A).code() == ResponseCode::NoError;
        is_answered
            && scenario
                .connect(0, "203.0.113.1".parse::<IpAddr>().unwrap())
                .is_connected()
    });
    let mut over_udp = withdrawn.remove(2);
    scenario.wait_until("the same ports are open again", || over_udp.passes());
    assert_eq!(kept.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [true; 4]);
}

#[test]
fn what_changed_while_no_agent_ran_is_cut_by_the_next_one() {
    let mut scenario = scenario("", 60);
    let mut kept = Ends::of_all_kinds(&scenario, KEPT);
    let mut withdrawn = Ends::of_all_kinds(&scenario, WITHDRAWN);
    scenario.terminate();
    // What the policy opens now has no names, so that nothing has to be remembered.
    let peer = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: allow-pod0, namespace: shop}\n\
        spec:\n  endpointSelector: {}\n  egress:\n  - toCIDR: [198.51.100.0/24]\n";
    scenario.write("allow-pod0.yaml", peer);
    scenario.start();
    scenario.wait_until("flows are cut", || cut(&scenario) >= 4.0);
    assert_eq!(withdrawn.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [false; 4]);
    assert_eq!(kept.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [true; 4]);
}

#[test]
fn a_lease_that_ended_cuts_nothing_until_its_name_is_withdrawn() {
    let scenario = scenario("--grace 1s", 1);
    let mut flow = Ends::open(&scenario, WITHDRAWN[0], true, true);
    scenario.wait_until("the lease has ended", || {
        scenario.leases("withdrawn.example").is_empty()
    });
    assert!(flow.passes());
    // Another program, under which every flow is judged.
    scenario.allow(0, &["kept.example", "withdrawn.example", "new.example"]);
    scenario.wait_until("it is in force", || {
        scenario.ask(0, "new.example", RecordType::A).code() == ResponseCode::NoError
    });
    std::thread::sleep(Duration::from_millis(500));
    assert!(flow.passes());
    assert_eq!(cut(&scenario), 0.0);
    scenario.allow(0, &["kept.example"]);
    scenario.wait_until("the flow is cut", || cut(&scenario) >= 1.0);
    assert!(!flow.passes());
}

/// Half of the flows stay allowed and are used all the time; the others are withdrawn and allowed
/// again by turns.
#[test]
#[allow(clippy::print_stdout, reason = "the figures are part of what the test shows")]
fn of_a_thousand_live_flows_every_edit_cuts_those_and_loses_no_packet_of_the_others() {
    const FLOWS: usize = 500;
    const EDITS: usize = 10;
    let scenario = scenario("", 600);
    let at = |address: &str| SocketAddr::new(address.parse::<IpAddr>().unwrap(), PORT);
    let servers = [KEPT[0], WITHDRAWN[0]].map(|address| scenario.lab().internet().echo_udp(at(address)).unwrap());
    let clients = |address: &str| -> Vec<UdpSocket> {
        let client = || {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.connect(at(address)).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            client
        };
        let all = || std::iter::repeat_with(client).take(FLOWS).collect();
        scenario.pod(0).namespace().run(all).unwrap()
    };
    // Each packet says something else, so that no late echo passes for another.
    let number = AtomicU32::new(0);
    let say = |client: &UdpSocket| {
        let said = number.fetch_add(1, Relaxed).to_be_bytes();
        // What comes back as an error is that of an earlier packet.
        let _ = client.send(&said);
        said
    };
    let hears = |client: &UdpSocket, said: [u8; 4]| {
        let mut heard = [0; 4];
        while client.recv(&mut heard).is_ok() {
            if heard == said {
                return true;
            }
        }
        false
    };
    let echoes = |client: &UdpSocket| hears(client, say(client));
    // A loaded machine may take longer.
    let is_heard = |client: &UdpSocket| {
        let said = say(client);
        patience::wait(Duration::from_secs(20), Duration::ZERO, || hears(client, said)).is_some()
    };
    let (kept, withdrawn) = (clients(KEPT[0]), clients(WITHDRAWN[0]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut said = 0;
            while !stop.load(Relaxed) {
                for client in &kept {
                    assert!(is_heard(client), "a packet of a flow that is allowed was lost");
                    said += 1;
                }
            }
            said
        });
        // Stops the traffic also where an assertion fails.
        let _end = SetOnDrop(&stop);
        let mut took = Vec::new();
        for edit in 1..=EDITS {
            for client in &withdrawn {
                assert!(is_heard(client), "it is allowed");
            }
            let begun = Instant::now();
            scenario.allow(0, &["kept.example"]);
            let expected = f64::from(u32::try_from(edit * FLOWS).unwrap());
            scenario.wait_until("flows are cut", || cut(&scenario) >= expected);
            took.push(begun.elapsed());
            let said: Vec<_> = withdrawn.iter().map(say).collect();
            std::thread::sleep(Duration::from_millis(200));
            for (client, said) in withdrawn.iter().zip(said) {
                client.set_nonblocking(true).unwrap();
                assert!(!hears(client, said), "it is cut");
                client.set_nonblocking(false).unwrap();
            }
            assert_eq!(cut(&scenario), expected);
            scenario.allow(0, &["kept.example", "withdrawn.example"]);
            scenario.wait_until("they are allowed again", || {
                scenario.ask(0, "withdrawn.example", RecordType::A).code() == ResponseCode::NoError
                    && withdrawn.iter().all(echoes)
            });
        }
        stop.store(true, Relaxed);
        let said: usize = traffic.join().unwrap();
        took.sort_unstable();
        println!(
            "{EDITS} edits cut {} flows, {:?} at the median and {:?} at worst from edit to count; of {said} packets \
             on {FLOWS} other flows none was lost",
            EDITS * FLOWS,
            took[EDITS / 2],
            took[EDITS - 1]
        );
    });
    drop(servers);
}

#[test]
fn flows_outlive_their_permission_where_that_is_asked_for() {
    let scenario = scenario("--revoke off", 60);
    let mut flows = Ends::of_all_kinds(&scenario, WITHDRAWN);
    scenario.allow(0, &["kept.example"]);
    scenario.wait_until("new flows are refused", || {
        scenario
            .connect(0, "203.0.113.1".parse::<IpAddr>().unwrap())
            .is_refused()
    });
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(flows.iter_mut().map(Ends::passes).collect::<Vec<_>>(), [true; 4]);
}

#[test]
fn explain_says_of_a_live_flow_whether_it_goes_on_and_why() {
    let scenario = scenario("--revoke off", 60);
    let _flows = [KEPT[0], WITHDRAWN[0]].map(|address| Ends::open(&scenario, address, true, true));
    let told = |address: &str| -> Vec<(FlowFate, String)> {
        let port = PORT.to_string();
        let arguments = ["--from", "shop/pod0", "--to", address, "--port", &port, "-o", "json"];
        let told = scenario.installation().inspect("explain", &arguments).unwrap();
        let answer: ExplainAnswer = serde_json::from_slice(&told.stdout).unwrap();
        answer.flows.into_iter().map(|flow| (flow.fate, flow.reason)).collect()
    };
    for address in [KEPT[0], WITHDRAWN[0]] {
        assert_eq!(
            told(address),
            [(FlowFate::Kept, "no policy denies it".to_owned())],
            "{address}"
        );
    }
    assert_eq!(told(KEPT[1]), [], "nobody is connected to it");
    scenario.allow(0, &["kept.example"]);
    scenario.wait_until("it is told that the flow outlives its permission", || {
        let told = told(WITHDRAWN[0]);
        assert_eq!((told.len(), told[0].0), (1, FlowFate::Kept));
        told[0].1.contains("`--revoke off` leaves it alone")
    });
    assert_eq!(told(KEPT[0]), [(FlowFate::Kept, "no policy denies it".to_owned())]);
}
