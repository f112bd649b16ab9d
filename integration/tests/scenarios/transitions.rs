//! Pods that become governed, and cease to be, while they look up.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use hickory_proto::rr::RecordType;
use lab::client::{CONNECT_TIMEOUT, LookupTransport, StubResolver};
use lab::{RESOLVER, dns};
use namegate_integration::{SetOnDrop, ip, policy};

use super::plan;

/// How often the policy comes and goes.
const ROUNDS: u32 = 15;

const RECORDS: [&str; 2] = ["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"];

#[test]
fn every_lookup_is_answered_while_a_policy_comes_and_goes() {
    let scenario = plan().records(&RECORDS).start();
    let pod = scenario.pod(0).clone();
    let over = AtomicBool::new(false);
    let answered = AtomicU32::new(0);
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let asked = pod.resolve(dns(RESOLVER), "a.example", RecordType::A, LookupTransport::Udp);
                    match asked.as_ref().map(|reply| reply.address()) {
                        Ok(Some(_)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        _ => wrong.lock().unwrap().push(format!("{asked:?}")),
                    }
                }
            });
        }
        // Also when a wait fails: the scope waits for its threads.
        let _end = SetOnDrop(&over);
        let is_open = || scenario.connect(0, ip("198.51.100.2")).is_connected();
        for _ in 0..ROUNDS {
            scenario.allow(0, &["a.example"]);
            scenario.wait_until("the policy is in force", || !is_open());
            scenario.remove("allow-pod0.yaml");
            scenario.wait_until("the policy is gone", is_open);
        }
    });
    let (answered, wrong) = (answered.into_inner(), wrong.into_inner().unwrap());
    assert!(wrong.is_empty(), "{} of {answered}: {wrong:?}", wrong.len());
}

#[test]
fn a_pod_that_is_given_anothers_former_address_inherits_none_of_its_flows() {
    let scenario = plan().allow(0, &["a.example"]).records(&RECORDS).start();
    let to = SocketAddr::new(scenario.learn(0, "a.example"), 4000);
    let _echo = scenario.lab().internet().echo_udp(to).unwrap();
    let flow = scenario
        .pod(0)
        .namespace()
        .run(|| UdpSocket::bind("0.0.0.0:0"))
        .unwrap()
        .unwrap();
    flow.connect(to).unwrap();
    flow.set_read_timeout(Some(CONNECT_TIMEOUT)).unwrap();
    let exchange = || flow.send(b"?").and_then(|_| flow.recv(&mut [0; 8]));
    exchange().unwrap();
    scenario.write("closed.yaml", &policy("closed", 7, "  egress: [{}]\n"));
    // The lab's pod plays another one now.
    let pods = std::fs::read_to_string(scenario.installation().scratch("objects/pods.yaml")).unwrap();
    scenario.write("pods.yaml", &pods.replace("pod0", "pod7"));
    scenario.wait_until("the new pod is known", || {
        let status = scenario.installation().status().unwrap();
        status
            .endpoints
            .iter()
            .any(|row| row.endpoint == "shop/pod7" && row.program.is_some())
    });
    // What is on its way at that moment would make an entry again (docs/known-limits.md).
    scenario.wait_until("the former flows are forgotten", || {
        scenario.log().iter().any(|line| line.contains("forgot flows"))
    });
    assert!(exchange().is_err());
}

#[test]
fn a_stub_that_keeps_its_socket_is_answered_by_the_resolver_again_when_no_policy_selects_it_any_more() {
    let scenario = plan().allow(0, &["a.example"]).records(&RECORDS).start();
    let stub = scenario
        .pod(0)
        .namespace()
        .run(|| StubResolver::new(dns(RESOLVER)))
        .unwrap()
        .unwrap();
    let ask = || stub.ask("b.example", RecordType::A, true).unwrap().address();
    assert_eq!(ask(), None, "denied");
    scenario.remove("allow-pod0.yaml");
    scenario.wait_until("the resolver answers", || ask().is_some());
}
