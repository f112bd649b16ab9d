//! Lookups of honest resolvers: over every transport, in every shape.

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, RESOLVER6, ScriptedAnswer, Topology, UNTRUSTED_RESOLVER, dns};
use namegate_integration::{allow, ip, policy};

use super::plan;

const TRANSPORTS: [LookupTransport; 3] = [LookupTransport::Udp, LookupTransport::PlainUdp, LookupTransport::Tcp];
/// RFC 8914 §4.16.
const BLOCKED: u16 = 15;

#[test]
fn lookups_over_udp_and_tcp_in_both_families_are_intercepted_and_answered_from_the_asked_address() {
    let settings = [
        (Topology::Routed, "dnat"),
        (Topology::Bridged, "dnat"),
        (Topology::Routed, "tproxy"),
    ];
    for (topology, mode) in settings {
        let scenario = plan()
            .topology(topology)
            .flags(&format!("--intercept {mode}"))
            .allow(0, &["api.example"])
            .records(&["api.example 60 A 198.51.100.7", "other.example 60 A 198.51.100.8"])
            .start();
        for server in [dns(RESOLVER), dns(RESOLVER6)] {
            for over in TRANSPORTS {
                // The client's socket is connected: an answer from elsewhere would not reach it.
                let ask = |name| scenario.pod(0).resolve(server, name, RecordType::A, over).unwrap();
                let reply = ask("API.Example");
                assert_eq!(reply.addresses(), [ip("198.51.100.7")], "{mode} {server} {over:?}");
                assert_eq!(
                    reply.message.queries[0].name().to_string(),
                    "API.Example.",
                    "the question comes back as it was asked"
                );
                assert_eq!(
                    ask("other.example").code(),
                    ResponseCode::NXDomain,
                    "{mode} {server} {over:?}"
                );
            }
        }
        assert_eq!(
            scenario.lab().resolver().asked("other.example"),
            0,
            "a denied question never leaves the node"
        );
    }
}

/// CoreDNS with `autopath` walks the search list in the client's place, and answers the first
/// expansion with a CNAME to what it found.
#[test]
fn a_chain_from_a_search_expansion_to_its_own_bare_name_opens_what_that_may_open() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&[
            "api.example.shop.svc.cluster.local 60 CNAME api.example.",
            "api.example 60 A 198.51.100.7",
            "other.example.shop.svc.cluster.local 60 CNAME other.example.",
            "other.example 60 A 198.51.100.8",
            "api.example.elsewhere.svc.cluster.local 60 CNAME web.example.",
            "web.example 60 A 198.51.100.9",
        ])
        .start();
    for (name, address, opens) in [
        ("other.example.shop.svc.cluster.local", "198.51.100.8", false),
        ("api.example.elsewhere.svc.cluster.local", "198.51.100.9", false),
        ("api.example.shop.svc.cluster.local", "198.51.100.7", true),
    ] {
        // Twice: what a worker recalls of the first changes nothing.
        for _ in 0..2 {
            assert_eq!(
                scenario.ask(0, name, RecordType::A).addresses(),
                [ip(address)],
                "{name}"
            );
            assert_eq!(scenario.connect(0, ip(address)).is_refused(), !opens, "{name}");
        }
    }
}

#[test]
fn the_first_packet_after_an_answer_passes_and_nothing_else_does() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7", "api.example 60 AAAA 2001:db8:7::7"])
        .start();
    assert!(
        scenario.connect(0, ip("198.51.100.7")).is_refused(),
        "before the lookup"
    );
    let v4 = scenario.learn(0, "api.example");
    assert_eq!(
        scenario.pod(0).http_get(v4, 443, "api.example").unwrap(),
        "hello from 198.51.100.7"
    );
    assert!(
        scenario.connect(0, ip("2001:db8:7::7")).is_refused(),
        "only the A record was asked"
    );
    let v6 = scenario.ask(0, "api.example", RecordType::AAAA).address().unwrap();
    assert_eq!(
        scenario.pod(0).http_get(v6, 443, "api.example").unwrap(),
        "hello from 2001:db8:7::7"
    );
    assert!(
        scenario.connect(0, ip("198.51.100.8")).is_refused(),
        "a neighbour of the address"
    );
    assert!(
        scenario.pod(0).connect(v4, 80).unwrap().is_refused(),
        "a port that the policy does not name"
    );
    let names: Vec<_> = scenario
        .leases("api.example")
        .into_iter()
        .map(|row| (row.address, row.source))
        .collect();
    assert_eq!(names, [(v4, RESOLVER.into()), (v6, RESOLVER.into())]);
}

#[test]
fn a_denied_question_is_answered_with_the_reason() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["evil.example 60 A 198.51.100.66"])
        .start();
    let reply = scenario.ask(0, "evil.example", RecordType::A);
    let (code, text) = reply.extended_error().expect("an extended error");
    assert_eq!((reply.code(), code), (ResponseCode::NXDomain, BLOCKED));
    assert!(!text.is_empty());
    let plain = scenario
        .pod(0)
        .resolve(dns(RESOLVER), "evil.example", RecordType::A, LookupTransport::PlainUdp)
        .unwrap();
    assert!(plain.message.edns.is_none(), "no OPT where none was sent (RFC 6891 §7)");

    let scenario = plan().flags("--dns-denied refused").allow(0, &["api.example"]).start();
    assert_eq!(
        scenario.ask(0, "evil.example", RecordType::A).code(),
        ResponseCode::Refused
    );
}

#[test]
fn the_addresses_at_the_end_of_a_chain_belong_to_the_name_asked() {
    let scenario = plan()
        .allow(0, &["www.example"])
        .records(&[
            "www.example 60 CNAME edge.cdn.example.",
            "edge.cdn.example 60 CNAME pop1.cdn.example.",
            "pop1.cdn.example 60 A 203.0.113.1",
        ])
        .start();
    let reply = scenario.ask(0, "www.example", RecordType::A);
    assert_eq!(reply.aliases(), ["edge.cdn.example.", "pop1.cdn.example."]);
    assert!(scenario.connect(0, ip("203.0.113.1")).is_connected());
    assert_eq!(
        scenario.ask(0, "pop1.cdn.example", RecordType::A).code(),
        ResponseCode::NXDomain,
        "only the question counts"
    );
}

#[test]
fn a_broken_chain_is_servfail_and_opens_nothing() {
    let scenario = plan().allow(0, &["www.example"]).start();
    let broken = ["www.example 60 CNAME a.example.", "b.example 60 A 203.0.113.66"].map(str::to_owned);
    scenario
        .lab()
        .resolver()
        .script("www.example", ScriptedAnswer::Verbatim(broken.to_vec()))
        .unwrap();
    let reply = scenario.ask(0, "www.example", RecordType::A);
    assert_eq!((reply.code(), reply.addresses().len()), (ResponseCode::ServFail, 0));
    assert!(scenario.connect(0, ip("203.0.113.66")).is_refused());
    assert!(scenario.leases("www.example").is_empty());
}

#[test]
fn hints_of_an_https_record_are_opened_too() {
    let scenario = plan()
        .allow(0, &["www.example"])
        .records(&["www.example 60 HTTPS 1 . alpn=h2 ipv4hint=203.0.113.5 ipv6hint=2001:db8:5::5"])
        .start();
    assert_eq!(scenario.ask(0, "www.example", RecordType::HTTPS).answers().len(), 1);
    assert!(scenario.connect(0, ip("203.0.113.5")).is_connected());
    assert!(scenario.connect(0, ip("2001:db8:5::5")).is_connected());
}

#[test]
fn a_truncated_answer_is_had_over_tcp() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7"])
        .start();
    scenario
        .lab()
        .resolver()
        .script("api.example", ScriptedAnswer::Truncate)
        .unwrap();
    let reply = scenario.ask(0, "api.example", RecordType::A);
    assert!(reply.message.metadata.truncation || reply.address().is_some());
    let reply = scenario
        .pod(0)
        .resolve(dns(RESOLVER), "api.example", RecordType::A, LookupTransport::Tcp)
        .unwrap();
    assert_eq!(reply.addresses(), [ip("198.51.100.7")]);
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
}

#[test]
fn a_large_answer_passes_whole_where_the_client_has_room_for_it() {
    let lines: Vec<String> = (1..=60)
        .map(|last| format!("big.example 60 A 203.0.113.{last}"))
        .collect();
    let scenario = plan()
        .allow(0, &["big.example"])
        .records(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        .start();
    let ask = |over| {
        scenario
            .pod(0)
            .resolve(dns(RESOLVER), "big.example", RecordType::A, over)
            .unwrap()
    };
    assert!(
        ask(LookupTransport::PlainUdp).message.metadata.truncation,
        "60 addresses do not fit into 512 bytes"
    );
    for over in [LookupTransport::Udp, LookupTransport::Tcp] {
        let reply = ask(over);
        assert_eq!(
            (reply.addresses().len(), reply.message.metadata.truncation),
            (60, false),
            "{over:?}"
        );
    }
    for last in [1, 60] {
        assert!(scenario.connect(0, ip(&format!("203.0.113.{last}"))).is_connected());
    }
}

#[test]
fn a_resolver_that_nobody_configured_is_ordinary_egress_and_teaches_nothing() {
    let records = ["api.example 60 A 198.51.100.7"];
    let untrusted = dns(UNTRUSTED_RESOLVER);
    let scenario = plan().allow(0, &["api.example"]).records(&records).start();
    for over in [LookupTransport::Udp, LookupTransport::Tcp] {
        assert!(
            scenario
                .pod(0)
                .resolve(untrusted, "api.example", RecordType::A, over)
                .is_err(),
            "no policy allows it"
        );
    }

    let dns_rule =
        format!("  egress:\n  - toCIDR: ['{UNTRUSTED_RESOLVER}/32']\n    toPorts:\n    - ports: [{{port: '53'}}]\n");
    let scenario = plan()
        .allow(0, &["api.example"])
        .object("dns.yaml", policy("dns", 0, &dns_rule))
        .records(&records)
        .start();
    let reply = scenario
        .pod(0)
        .resolve(untrusted, "api.example", RecordType::A, LookupTransport::Udp)
        .unwrap();
    assert_eq!(reply.addresses(), [ip("198.51.100.7")]);
    assert!(scenario.leases("api.example").is_empty());
    assert!(scenario.connect(0, ip("198.51.100.7")).is_refused());
}

#[test]
fn a_policys_own_resolver_opens_nothing_for_pods_that_have_the_same_rules_without_it() {
    let egress = |rules: &str| {
        format!(
            "  egress:\n  - toCIDR: ['{UNTRUSTED_RESOLVER}/32']\n    toPorts:\n    - ports: [{{port: '53'}}]\n{rules}"
        )
    };
    let scenario = plan()
        .allow(0, &["api.example"])
        .allow(1, &["api.example"])
        .object(
            "own.yaml",
            policy("own", 0, &egress("      rules: {dns: [{matchPattern: '*'}]}\n")),
        )
        .object("same.yaml", policy("same", 1, &egress("")))
        .records(&["api.example 600 A 198.51.100.7"])
        .start();
    let ask_own = || {
        let own = scenario.pod(0).resolve(
            dns(UNTRUSTED_RESOLVER),
            "api.example",
            RecordType::A,
            LookupTransport::Udp,
        );
        assert_eq!(own.unwrap().addresses(), [ip("198.51.100.7")]);
    };
    ask_own();
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    assert!(scenario.connect(1, ip("198.51.100.7")).is_refused());

    // What a trusted resolver teaches counts by itself, whatever the private one says before and
    // after.
    scenario.set(&["api.example 60 A 198.51.100.7"]);
    scenario.learn(1, "api.example");
    scenario.set(&["api.example 600 A 198.51.100.7"]);
    ask_own();
    let leases = scenario.leases("api.example");
    let mut lengths: Vec<_> = leases
        .iter()
        .map(|row| (row.private, row.lease_left_ms / 100_000))
        .collect();
    lengths.sort_unstable();
    assert_eq!(lengths, [(false, 0), (true, 6)]);
    // The policy goes, and with it what only its resolver said.
    scenario.remove("own.yaml");
    assert!(scenario.connect(1, ip("198.51.100.7")).is_connected());
}

#[test]
fn a_plain_listener_serves_as_a_resolver() {
    let node = lab::NODE4;
    let scenario = plan()
        .flags(&format!("--intercept off --listen {node}"))
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7", "other.example 60 A 198.51.100.8"])
        .start();
    for over in TRANSPORTS {
        let ask = |name| scenario.pod(0).resolve(dns(node), name, RecordType::A, over).unwrap();
        assert_eq!(ask("api.example").addresses(), [ip("198.51.100.7")]);
        assert_eq!(ask("other.example").code(), ResponseCode::NXDomain);
    }
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
}

#[test]
fn metrics_and_status_tell_what_happened() {
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7"])
        .start();
    scenario.learn(0, "api.example");
    scenario
        .pod(0)
        .resolve(dns(RESOLVER), "other.example", RecordType::A, LookupTransport::Tcp)
        .unwrap();
    let metric = |series: &str| scenario.agent().metric(series).unwrap();
    let queries = |labels: &str| metric(&format!("namegate_dns_queries_total{{{labels}}}"));
    assert_eq!(queries(r#"transport="udp",type="A",verdict="allowed""#), 1.0);
    assert_eq!(queries(r#"transport="tcp",type="A",verdict="denied""#), 1.0);

    let status = scenario.installation().status().unwrap();
    assert!(status.ready && status.install_error.is_none());
    assert_eq!(
        (status.interception.as_str(), status.fail_mode.as_str()),
        ("dnat", "open")
    );
    let egress: Vec<_> = status
        .endpoints
        .iter()
        .map(|row| (row.endpoint.as_str(), row.egress.as_str()))
        .collect();
    assert_eq!(egress, [("shop/pod0", "default-deny"), ("shop/pod1", "unselected")]);
    assert_eq!((status.names, status.addresses), (1, 1));
}

#[test]
fn an_address_that_rotates_is_followed_at_the_next_lookup() {
    let scenario = plan()
        .object("allow.yaml", allow(0, &["api.example"]))
        .records(&["api.example 0 A 198.51.100.7"])
        .start();
    for last in 7..17 {
        let address = format!("198.51.100.{last}");
        assert!(scenario.connect(0, ip(&address)).is_refused());
        scenario.set(&[&format!("api.example 0 A {address}")]);
        assert_eq!(scenario.learn(0, "api.example"), ip(&address));
        assert!(scenario.connect(0, ip(&address)).is_connected());
    }
}

/// Firefox and Windows leave for DNS over HTTPS where they are not told to stay, and nothing is
/// learned there.
#[test]
fn clients_that_look_for_encrypted_dns_are_kept() {
    for (flags, canary, designated) in [
        ("", ResponseCode::NXDomain, ResponseCode::NoError),
        (
            "--encrypted-dns-discovery allow --dns-questions any",
            ResponseCode::NoError,
            ResponseCode::NoError,
        ),
    ] {
        let scenario = plan()
            .flags(flags)
            .allow(0, &["a.example", "use-application-dns.net"])
            .records(&[
                "a.example 60 A 198.51.100.1",
                "use-application-dns.net 60 A 198.51.100.2",
                "_dns.resolver.arpa 60 A 198.51.100.3",
            ])
            .start();
        let forwarded = !flags.is_empty();
        let reply = scenario.ask(0, "use-application-dns.net", RecordType::A);
        assert_eq!((reply.code(), reply.addresses().is_empty()), (canary, !forwarded));
        let reply = scenario.ask(0, "_dns.resolver.arpa", RecordType::A);
        assert_eq!((reply.code(), reply.addresses().is_empty()), (designated, !forwarded));
        let series = r#"namegate_dns_queries_total{transport="udp",type="A",verdict="discovery"}"#;
        let kept = scenario.agent().metric(series).unwrap();
        assert_eq!(kept, if forwarded { 0.0 } else { 2.0 });
        scenario.learn(0, "a.example");
    }
}
