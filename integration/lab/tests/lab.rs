//! The lab without an agent: everything in it answers, and misbehaves, as it is told. Needs root.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::{ConnectAttempt, LookupTransport};
use lab::hostile::{self, HostileReply};
use lab::{BAD_RESOLVER, DEAD_RESOLVER, Lab, NumberedNames, RESOLVER, RESOLVER6, ScriptedAnswer, Topology, dns};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn pods_resolve_and_reach_the_internet_over_both_families_in_both_topologies() {
    for topology in [Topology::Routed, Topology::Bridged] {
        let lab = Lab::builder().topology(topology).build().unwrap();
        lab.resolver()
            .set(&["api.example 60 A 198.51.100.7", "api.example 60 AAAA 2001:db8:7::7"])
            .unwrap();
        for pod in lab.pods() {
            for over in [LookupTransport::Udp, LookupTransport::PlainUdp, LookupTransport::Tcp] {
                let reply = pod.resolve(dns(RESOLVER), "api.example", RecordType::A, over).unwrap();
                assert_eq!(reply.address(), Some(ip("198.51.100.7")));
                let reply = pod
                    .resolve(dns(RESOLVER6), "API.example", RecordType::AAAA, over)
                    .unwrap();
                assert_eq!(reply.address(), Some(ip("2001:db8:7::7")));
            }
            for address in ["198.51.100.7", "2001:db8:7::7", "198.19.255.255"] {
                let body = pod.http_get(ip(address), 443, "api.example").unwrap();
                assert_eq!(body, format!("hello from {address}"));
            }
        }
        assert_eq!(lab.resolver().asked("api.example"), 12);
        let peer = lab.pod(1).address4();
        let attempt = lab.pod(0).connect(peer, 80).unwrap();
        assert!(
            matches!(attempt, ConnectAttempt::Refused(libc::ECONNREFUSED)),
            "pods reach each other: {attempt:?}"
        );
    }
}

#[test]
fn a_connection_serves_request_after_request() {
    let lab = Lab::builder().pods(1).build().unwrap();
    let ConnectAttempt::Connected(mut connection) = lab.pod(0).connect(ip("203.0.113.9"), 80).unwrap() else {
        panic!("refused")
    };
    for _ in 0..3 {
        assert_eq!(connection.get("x").unwrap(), "hello from 203.0.113.9");
    }
}

#[test]
fn udp_is_echoed_where_asked() {
    let lab = Lab::builder().pods(1).build().unwrap();
    for address in ["198.51.100.1:4000", "[2001:db8::1]:4000"] {
        let address: SocketAddr = address.parse().unwrap();
        let _echo = lab.internet().echo_udp(address).unwrap();
        assert_eq!(lab.pod(0).exchange_udp(address, b"ping").unwrap(), b"ping");
    }
}

#[test]
fn the_zone_changes_while_the_resolver_runs() {
    let lab = Lab::builder().pods(1).build().unwrap();
    let ask = |name: &str| {
        lab.pod(0)
            .resolve(dns(RESOLVER), name, RecordType::A, LookupTransport::Udp)
            .unwrap()
    };
    assert_eq!(ask("a.example").code(), ResponseCode::NXDomain);
    lab.resolver().set(&["a.example 60 A 198.51.100.1"]).unwrap();
    assert_eq!(ask("a.example").address(), Some(ip("198.51.100.1")));
    lab.resolver().set(&["a.example 60 A 198.51.100.2"]).unwrap();
    assert_eq!(ask("a.example").addresses(), [ip("198.51.100.2")]);
    lab.resolver().remove("a.example").unwrap();
    assert_eq!(ask("a.example").code(), ResponseCode::NXDomain);
    lab.resolver().synthesize(NumberedNames {
        suffix: "race.example".into(),
        ttl: 60,
        addresses: 1,
        first4: "198.18.0.0".parse().unwrap(),
        first6: "2001:db8:1::".parse().unwrap(),
    });
    assert_eq!(ask("n70000.race.example").address(), Some(ip("198.19.17.112")));
}

#[test]
fn scripts_bend_single_names() {
    let lab = Lab::builder().pods(1).build().unwrap();
    let names: Vec<String> = (0..60)
        .map(|last| format!("big.example 60 A 203.0.113.{last}"))
        .collect();
    lab.resolver()
        .set(&names.iter().map(String::as_str).collect::<Vec<_>>())
        .unwrap();
    lab.resolver().set(&["a.example 60 A 198.51.100.1"]).unwrap();
    let ask = |name: &str, over| lab.pod(0).resolve(dns(RESOLVER), name, RecordType::A, over).unwrap();

    lab.resolver()
        .script("a.example", ScriptedAnswer::Delay(Duration::from_millis(200)))
        .unwrap();
    assert!(ask("a.example", LookupTransport::Udp).took >= Duration::from_millis(200));
    lab.resolver()
        .script("a.example", ScriptedAnswer::Code(ResponseCode::ServFail))
        .unwrap();
    assert_eq!(ask("a.example", LookupTransport::Udp).code(), ResponseCode::ServFail);
    lab.resolver().script("a.example", ScriptedAnswer::Truncate).unwrap();
    assert!(ask("a.example", LookupTransport::Udp).message.metadata.truncation);
    assert_eq!(ask("a.example", LookupTransport::Tcp).addresses().len(), 1);
    let broken = ["a.example 60 CNAME b.example.", "c.example 60 A 198.51.100.9"].map(str::to_owned);
    lab.resolver()
        .script("a.example", ScriptedAnswer::Verbatim(broken.to_vec()))
        .unwrap();
    assert_eq!(ask("a.example", LookupTransport::Udp).answers().len(), 2);
    lab.resolver().script("a.example", None).unwrap();
    assert_eq!(ask("a.example", LookupTransport::Udp).addresses().len(), 1);

    // Truncation as servers do it: 60 addresses do not fit into 512 bytes, but into 1,232.
    assert!(
        ask("big.example", LookupTransport::PlainUdp)
            .message
            .metadata
            .truncation
    );
    assert_eq!(ask("big.example", LookupTransport::Udp).addresses().len(), 60);
}

#[test]
fn a_hostile_responder_sends_what_it_wants_and_dead_resolvers_refuse() {
    let lab = Lab::builder().pods(1).build().unwrap();
    let _hostile = lab
        .hostile(dns(BAD_RESOLVER), |query| {
            let good = hostile::reply(query, &["198.51.100.1".parse().unwrap()]);
            let mut wrong = hostile::reply(query, &["198.51.100.66".parse().unwrap()]);
            wrong.metadata.id ^= 1;
            let elsewhere = hostile::reply(query, &["198.51.100.77".parse().unwrap()]);
            vec![
                HostileReply::Honest(wrong),
                HostileReply::OtherPort(elsewhere),
                HostileReply::Honest(good),
            ]
        })
        .unwrap();
    let ask = |server| {
        lab.pod(0)
            .resolve(dns(server), "a.example", RecordType::A, LookupTransport::Udp)
    };
    assert_eq!(ask(BAD_RESOLVER).unwrap().address(), Some(ip("198.51.100.1")));
    let started = Instant::now();
    assert_eq!(ask(DEAD_RESOLVER).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
    // Not after the client's own deadline.
    patience::assert_took("a dead resolver refuses", started.elapsed(), Duration::from_secs(4));
}
