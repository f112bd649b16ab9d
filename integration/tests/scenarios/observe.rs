//! What happens on the node, as `namegate observe` and `drops` show it.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{EventQuery, EventRow, ask};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, dns};
use namegate_integration::{Scenario, SetOnDrop, ip};

use super::plan;

/// What `namegate observe -o json` shows with these flags.
fn observed(scenario: &Scenario, flags: &[&str]) -> Vec<EventRow> {
    let output = scenario
        .installation()
        .inspect("observe", &[&["-o", "json"], flags].concat())
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn wait_until_recorded(scenario: &Scenario) {
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });
}

#[test]
fn a_refused_lookup_and_a_refused_connection_are_shown_with_policy_and_reason() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    wait_until_recorded(&scenario);
    let reply = scenario.ask(0, "other.example", RecordType::A);
    assert_eq!(reply.code(), ResponseCode::NXDomain);
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
    let flags = ["--pod", "shop/pod0", "--verdict", "refused"];
    scenario.wait_until("both are observed", || observed(&scenario, &flags).len() == 2);

    let rows = observed(&scenario, &flags);
    let lookup = rows.iter().find(|row| row.kind == "lookup").unwrap();
    assert_eq!(lookup.lookup.as_ref().unwrap().name, "other.example");
    assert!(
        lookup.reason.as_ref().unwrap().contains("no toFQDNs selector"),
        "{lookup:?}"
    );
    let flow = rows.iter().find(|row| row.kind == "flow").unwrap();
    let destination = flow.destination.as_ref().unwrap();
    assert_eq!(
        (destination.address, destination.port),
        (Some(ip("198.51.100.2")), Some(443))
    );
    for row in [lookup, flow] {
        assert_eq!(row.policies, ["shop/allow-pod0"], "{row:?}");
        let source = row.source.as_ref().unwrap();
        let pod = (source.namespace.as_deref(), source.pod.as_deref());
        assert_eq!(pod, (Some("shop"), Some("pod0")));
        assert!(source.labels.iter().any(|label| label.contains("pod0")), "{row:?}");
        assert!(row.time.starts_with("20") && row.time.ends_with('Z'), "{row:?}");
    }

    let denied = scenario
        .agent()
        .metric("namegate_denied_lookups_total{namespace=\"shop\"}");
    assert_eq!(denied.unwrap(), 1.0);

    // Filters run in the agent.
    assert_eq!(
        observed(&scenario, &["--to-fqdn", "*.example", "--type", "lookup"]).len(),
        1
    );
    assert_eq!(observed(&scenario, &["--to-ip", "198.51.100.0/24"]).len(), 1);
    assert_eq!(observed(&scenario, &["--port", "25"]), []);
    assert_eq!(observed(&scenario, &["--pod", "shop/pod1"]), []);
    let policies = observed(&scenario, &["--type", "policy", "--since", "1h"]);
    let says = |row: &EventRow| {
        row.reason
            .as_ref()
            .is_some_and(|why| why.contains("in force for shop/pod0"))
    };
    assert!(policies.iter().any(says), "{policies:?}");

    let lookups = scenario.installation().refused_lookups().unwrap();
    let told: Vec<_> = lookups.iter().map(|row| (row.name.as_str(), row.seen.count)).collect();
    assert_eq!(told, [("other.example", 1)]);
}

#[test]
fn who_follows_sees_what_is_allowed_while_it_happens() {
    let scenario = plan()
        .allow(0, &["*.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    scenario.learn(0, "a.example");
    assert_eq!(
        observed(&scenario, &["--type", "lookup"]),
        [],
        "nobody watched, so that nothing was recorded"
    );
    let client = scenario.installation().api();
    let is_seen = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let follower = threads.spawn(|| {
            let query = EventQuery {
                kind: "lookup".into(),
                follow: true,
                ..EventQuery::default()
            };
            let mut first = None;
            ask(client.events(&query, |row| {
                is_seen.store(true, Ordering::Relaxed);
                first = Some(row);
                ControlFlow::Break(())
            }))
            .unwrap()
            .unwrap();
            first.unwrap()
        });
        scenario.wait_until("the follower has seen a lookup", || {
            scenario.learn(0, "a.example");
            is_seen.load(Ordering::Relaxed)
        });
        let row = follower.join().unwrap();
        let lookup = row.lookup.as_ref().unwrap();
        assert_eq!((row.verdict.as_str(), lookup.name.as_str()), ("allowed", "a.example"));
        assert_eq!(lookup.addresses, [ip("198.51.100.1")]);
    });
}

/// Whether the agent has subscribed to flows: a socket of its network namespace has the groups of
/// conntrack (`NFNLGRP_CONNTRACK_NEW` and `_DESTROY` of family 12).
fn hears_of_flows(scenario: &Scenario) -> bool {
    let sockets = fs::read_to_string(format!("/proc/{}/net/netlink", scenario.agent().pid())).unwrap();
    sockets.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(1) == Some(&"12") && columns.get(3) == Some(&"00000005")
    })
}

/// Pod 0 is governed, pod 1 audited. Whoever follows sees each flow begin and end; the kernel tells
/// of flows for as long as somebody does.
#[test]
fn flows_are_shown_as_they_begin_and_end_while_somebody_watches() {
    let audited = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {name: audited, namespace: shop, annotations: {namegate.io/mode: audit}}\n\
         spec:\n  endpointSelector: {matchLabels: {app: pod1}}\n  egress:\n  - {}\n";
    let scenario = plan()
        .allow(0, &["a.example"])
        .object("audited.yaml", audited)
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    wait_until_recorded(&scenario);
    let node = scenario.lab().node();
    for (sysctl, value) in [
        ("nf_conntrack_acct", "1"),
        ("nf_conntrack_tcp_timeout_time_wait", "1"),
        ("nf_conntrack_tcp_timeout_close", "1"),
    ] {
        node.set_sysctl(&format!("netfilter/{sysctl}"), value).unwrap();
    }
    scenario.nft(
        "add table ip service; \
         add chain ip service to { type nat hook prerouting priority -100; }; \
         add rule ip service to ip daddr 10.96.0.7 tcp dport 8443 dnat to 198.51.100.1:443",
    );
    let a = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, a).is_connected());
    assert!(!hears_of_flows(&scenario), "nobody watches");

    let client = scenario.installation().api();
    let seen: Mutex<Vec<EventRow>> = Mutex::default();
    let of_pod = |row: &EventRow, pod: &str| row.source.as_ref().is_some_and(|end| end.pod.as_deref() == Some(pod));
    let has_ended = |rows: &[EventRow], pod: &str, is_asked: bool| {
        let mut ends = rows.iter().filter(|row| of_pod(row, pod) && row.totals.is_some());
        ends.any(|row| row.nat.as_ref().is_some_and(|nat| nat.asked.is_some()) == is_asked)
    };
    let is_complete = |rows: &[EventRow]| {
        has_ended(rows, "pod0", false) && has_ended(rows, "pod0", true) && has_ended(rows, "pod1", false)
    };
    std::thread::scope(|threads| {
        let follower = threads.spawn(|| {
            let query = EventQuery {
                kind: "flow".into(),
                follow: true,
                ..EventQuery::default()
            };
            ask(client.events(&query, |row| {
                let mut seen = seen.lock().unwrap();
                seen.push(row);
                match is_complete(&seen) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            }))
            .unwrap()
            .unwrap();
        });
        scenario.wait_until("the agent listens", || hears_of_flows(&scenario));
        assert!(scenario.connect(0, a).is_connected());
        assert!(scenario.pod(0).connect(ip("10.96.0.7"), 8443).unwrap().is_connected());
        assert!(scenario.connect(1, ip("198.51.100.2")).is_connected());
        scenario.wait_until("all have ended", || is_complete(&seen.lock().unwrap()));
        follower.join().unwrap();
    });
    scenario.wait_until("the agent listens no more", || !hears_of_flows(&scenario));

    let seen = seen.into_inner().unwrap();
    let told: Vec<_> = seen
        .iter()
        .map(|row| {
            let destination = row.destination.as_ref().unwrap();
            let pod = row.source.as_ref().unwrap().pod.as_deref().unwrap();
            let asked = row.nat.as_ref().and_then(|nat| nat.asked);
            (
                pod,
                row.totals.is_some(),
                row.verdict.as_str(),
                asked,
                destination.address,
                row.policies.join(","),
            )
        })
        .collect();
    let service = Some("10.96.0.7:8443".parse::<SocketAddr>().unwrap());
    for has_ended in [false, true] {
        for (pod, verdict, asked, to, policy) in [
            ("pod0", "allowed", None, "198.51.100.1", "shop/allow-pod0"),
            ("pod0", "allowed", service, "198.51.100.1", "shop/allow-pod0"),
            ("pod1", "audited", None, "198.51.100.2", "shop/audited"),
        ] {
            let row = (pod, has_ended, verdict, asked, Some(ip(to)), policy.to_owned());
            let times = told.iter().filter(|it| **it == row).count();
            assert_eq!(times, 1, "{row:?} in {told:#?}");
        }
    }
    assert_eq!(told.len(), 6, "{told:#?}");
    for row in &seen {
        let names = &row.destination.as_ref().unwrap().names;
        assert_eq!(names.as_slice() == ["a.example"], of_pod(row, "pod0"), "{row:?}");
        let Some(totals) = &row.totals else { continue };
        // Of a handshake and a greeting at least.
        assert!(totals.packets.unwrap() >= 4 && totals.bytes.unwrap() >= 160, "{row:?}");
    }
}

/// A pod that floods hides nothing of its neighbour: of ten lookups and ten connections that are
/// refused all twenty are seen.
#[test]
fn a_pod_that_floods_hides_nothing_of_its_neighbours() {
    let scenario = plan().allow(0, &["a.example"]).allow(1, &["a.example"]).start();
    wait_until_recorded(&scenario);
    let stop = AtomicBool::new(false);
    let query = flood_query();
    std::thread::scope(|threads| {
        // Also when an assertion fails: the scope waits for the flood.
        let end = SetOnDrop(&stop);
        let flood = |to: SocketAddr, payload: Vec<u8>| {
            let (scenario, stop) = (&scenario, &stop);
            move || {
                let inside = || {
                    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                    let mut sent = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        // What is refused is told by ICMP, as an error of the next call.
                        let _ = socket.send_to(&payload, to);
                        sent += 1;
                    }
                    sent
                };
                scenario.pod(0).namespace().run(inside).unwrap()
            }
        };
        let packets = threads.spawn(flood("198.51.100.2:9".parse().unwrap(), vec![0; 16]));
        let lookups = threads.spawn(flood(dns(RESOLVER), query));
        let loud = ["--pod", "shop/pod0", "--last", "5000"];
        scenario.wait_until("the flood is recorded", || {
            let rows = observed(&scenario, &loud);
            ["lookup", "flow"]
                .iter()
                .all(|kind| rows.iter().filter(|row| row.kind == *kind).count() > 100)
        });

        for number in 0..10 {
            let name = format!("n{number}.other.example");
            // The flood fills the queue that both send to. A resolver asks again, too.
            scenario.wait_until("the lookup is refused", || {
                let asked = scenario
                    .pod(1)
                    .resolve(dns(RESOLVER), &name, RecordType::A, LookupTransport::Udp);
                asked.is_ok_and(|reply| reply.code() == ResponseCode::NXDomain)
            });
            let attempt = scenario.pod(1).connect(ip("198.51.100.2"), 1000 + number).unwrap();
            assert!(!attempt.is_connected());
        }
        let quiet = ["--pod", "shop/pod1", "--verdict", "refused", "--last", "5000"];
        let seen = || {
            let rows = observed(&scenario, &quiet);
            let names: std::collections::BTreeSet<String> = rows
                .iter()
                .filter_map(|row| row.lookup.as_ref().map(|lookup| lookup.name.clone()))
                .collect();
            let ports: std::collections::BTreeSet<u16> = rows
                .iter()
                .filter_map(|row| row.destination.as_ref().and_then(|end| end.port))
                .collect();
            (names.len(), ports.len())
        };
        scenario.wait_until("all twenty are observed", || seen() == (10, 10));
        // And they stay, however long the flood goes on.
        let loudest = || observed(&scenario, &loud).last().map(|row| row.sequence);
        let then = loudest().unwrap();
        scenario.wait_until("the flood goes on", || loudest().is_some_and(|now| now > then + 200));
        assert_eq!(seen(), (10, 10));
        drop(end);
        let (packets, lookups) = (packets.join().unwrap(), lookups.join().unwrap());
        eprintln!("flooded with {packets} packets and {lookups} lookups");
    });

    let lost: u64 = observed(&scenario, &["--last", "5000"])
        .iter()
        .filter_map(|row| row.lost)
        .sum();
    assert!(lost > 0, "what the flood lost is said");
    let of_quiet = |pod: &Option<String>| pod.as_deref() == Some("shop/pod1");
    let drops = scenario.installation().drops().unwrap();
    let ports = drops.iter().filter(|row| of_quiet(&row.pod)).filter_map(|row| row.port);
    assert_eq!(ports.collect::<std::collections::BTreeSet<_>>().len(), 10);
    let lookups = scenario.installation().refused_lookups().unwrap();
    assert_eq!(lookups.iter().filter(|row| of_quiet(&row.pod)).count(), 10);
}

/// A question for a name that nobody allows.
fn flood_query() -> Vec<u8> {
    let mut query = hickory_proto::op::Message::query();
    let name = hickory_proto::rr::Name::from_ascii("flood.example.").unwrap();
    query.add_query(hickory_proto::op::Query::query(name, RecordType::A));
    query.metadata.recursion_desired = true;
    query.to_vec().unwrap()
}

/// Audited → suggested → enforced.
#[test]
fn what_was_suggested_from_an_audit_is_enough_once_it_is_enforced() {
    let audited = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {name: audited, namespace: shop, annotations: {namegate.io/mode: audit}}\n\
         spec:\n  endpointSelector: {matchLabels: {app: pod0}}\n  egress:\n  - {}\n";
    let scenario = plan()
        .object("audited.yaml", audited)
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
        .start();
    wait_until_recorded(&scenario);
    let suggest = |flags: &[&str]| {
        let flags = [&["--pod", "shop/pod0"], flags].concat();
        scenario.installation().inspect("suggest", &flags).unwrap()
    };
    let nothing = suggest(&[]);
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert!(
        nothing.status.code() == Some(2) && said.contains("nothing of the kind"),
        "{nothing:?}"
    );

    let a = scenario.ask(0, "a.example", RecordType::A).address().unwrap();
    assert!(scenario.connect(0, a).is_connected());
    assert!(
        scenario.connect(0, ip("198.51.100.9")).is_connected(),
        "an audit refuses nothing"
    );
    scenario.wait_until("both are recorded", || {
        observed(&scenario, &["--verdict", "audited"]).len() >= 2
    });
    let suggested = suggest(&["--from", "audited"]);
    let policy = String::from_utf8(suggested.stdout.clone()).unwrap();
    assert_eq!(suggested.status.code(), Some(0), "{suggested:?}");
    for part in [
        "matchName: \"a.example\"",
        "{port: \"443\", protocol: TCP}",
        "\"app\": \"pod0\"",
        "# - toCIDR: [\"198.51.100.9/32\"]",
    ] {
        assert!(policy.contains(part), "{part} is missing in\n{policy}");
    }

    scenario.write("suggested.yaml", &policy);
    scenario.remove("audited.yaml");
    scenario.wait_until("the suggestion is enforced", || {
        scenario.ask(0, "b.example", RecordType::A).code() == ResponseCode::NXDomain
    });
    let a = scenario.ask(0, "a.example", RecordType::A).address().unwrap();
    assert!(scenario.connect(0, a).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.9")).is_refused());
    // And of what is refused now, the next suggestion is made.
    let refused = suggest(&["--from", "refused"]);
    let policy = String::from_utf8(refused.stdout.clone()).unwrap();
    assert!(policy.contains("matchName: \"b.example\""), "{refused:?}");
    assert!(
        !policy.contains("a.example"),
        "nothing that was not asked for: {policy}"
    );
}
