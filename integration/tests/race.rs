//! The one promise, measured: an answer is never ahead of the kernel. Needs root.

// Clippy's exceptions for tests do not reach the functions that they share.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::rr::RecordType;
use lab::client::{ConnectAttempt, StubResolver, connect};
use lab::internet::CLOSE_PORT;
use lab::{NumberedNames, Pod, RESOLVER, RESOLVER6, dns};
use namegate_integration::{Scenario, ScenarioBuilder};

const LOOKUPS: u32 = 20_000;
const CLIENTS_PER_POD: usize = 3;

/// Both pods, one port: one kernel element for each address.
const POLICY: &str = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: race, namespace: shop}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchPattern: '*.race.example'}]
    toPorts: [{ports: [{port: '9', protocol: TCP}]}]
";

/// Of one client: how often it connected and was refused, and the time from question to connection.
#[derive(Default)]
struct Tally {
    connected: u32,
    refused: Vec<String>,
    times: Vec<Duration>,
}

#[test]
fn a_connection_right_after_its_answer_is_never_refused() {
    let scenario = ScenarioBuilder::new(env!("CARGO_BIN_EXE_namegate-under-test"))
        .object("race.yaml", POLICY)
        .start();
    scenario.lab().resolver().synthesize(NumberedNames {
        suffix: "race.example".into(),
        ttl: 300,
        addresses: 1,
        first4: Ipv4Addr::new(198, 18, 0, 0),
        first6: Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0),
    });
    // Connections are over at once, and the node's conntrack table need not remember them for two
    // minutes.
    for state in ["time_wait", "close", "last_ack", "close_wait"] {
        scenario
            .lab()
            .node()
            .set_sysctl(&format!("netfilter/nf_conntrack_tcp_timeout_{state}"), "1")
            .unwrap();
    }

    let next = AtomicU32::new(0);
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let clients = (0..2 * CLIENTS_PER_POD).map(|client| {
            let (pod, next) = (scenario.pod(client % 2), &next);
            scope.spawn(move || run_client(pod, client, next))
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    report(&scenario, tallies);
}

/// Takes numbers until none is left; each is a name nobody has asked and an address nobody has
/// seen.
fn run_client(pod: &Pod, client: usize, next: &AtomicU32) -> Tally {
    // Two of three ask and connect over IPv4, one over IPv6.
    let (server, kind): (IpAddr, _) = if client / 2 == 2 {
        (RESOLVER6.into(), RecordType::AAAA)
    } else {
        (RESOLVER.into(), RecordType::A)
    };
    let work = || {
        let stub = StubResolver::new(dns(server)).unwrap();
        let mut tally = Tally::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= LOOKUPS {
                return tally;
            }
            let name = format!("n{number}.race.example");
            let started = Instant::now();
            let reply = stub
                .ask(&name, kind, true)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let address = reply.address().unwrap_or_else(|| panic!("{name}: {:?}", reply.message));
            match connect(SocketAddr::new(address, CLOSE_PORT)).unwrap() {
                ConnectAttempt::Connected(_) => tally.connected += 1,
                failed => tally.refused.push(format!("{name} {address} {failed:?}")),
            }
            tally.times.push(started.elapsed());
        }
    };
    pod.namespace().run(work).unwrap()
}

fn report(scenario: &Scenario, tallies: Vec<Tally>) {
    let connected: u32 = tallies.iter().map(|tally| tally.connected).sum();
    let refused: Vec<&String> = tallies.iter().flat_map(|tally| &tally.refused).collect();
    let mut times: Vec<Duration> = tallies.iter().flat_map(|tally| tally.times.iter().copied()).collect();
    times.sort();
    let median = times[times.len() / 2].as_micros();
    println!(
        "race: {LOOKUPS} lookups, {connected} connected, {} refused, {median} µs median",
        refused.len()
    );
    assert!(refused.is_empty(), "{:?}", &refused[..refused.len().min(5)]);
    assert_eq!(connected, LOOKUPS);
    assert!(scenario.lab().resolver().asked_in_all() >= LOOKUPS.into());
}
