//! What policies open, and what they do not.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::{RESOLVER, UNTRUSTED_RESOLVER, dns};
use namegate_integration::{Scenario, allow, ip, policy};

use super::plan;

#[test]
fn what_one_pod_learns_is_not_open_to_another() {
    let scenario = plan()
        .pods(3)
        .allow(0, &["a.example"])
        .allow(1, &["b.example"])
        .allow(2, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
        .start();
    let (a, b) = (scenario.learn(0, "a.example"), scenario.learn(1, "b.example"));
    assert!(scenario.connect(0, a).is_connected() && scenario.connect(1, b).is_connected());
    assert!(scenario.connect(1, a).is_refused() && scenario.connect(0, b).is_refused());
    assert!(
        scenario.connect(2, a).is_connected(),
        "pods that are governed alike share what was learned"
    );
    assert_eq!(
        scenario.ask(1, "a.example", RecordType::A).code(),
        ResponseCode::NXDomain
    );
}

#[test]
fn a_pod_that_no_policy_selects_is_left_alone() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "z.example 60 A 198.51.100.26"])
        .start();
    assert_eq!(scenario.learn(1, "z.example"), ip("198.51.100.26"));
    for address in ["203.0.113.77", "2001:db8:77::1"] {
        assert!(scenario.connect(1, ip(address)).is_connected());
    }
    let reply = scenario
        .pod(1)
        .resolve(
            dns(UNTRUSTED_RESOLVER),
            "z.example",
            RecordType::A,
            LookupTransport::Udp,
        )
        .unwrap();
    assert_eq!(reply.code(), ResponseCode::NoError);
    assert!(scenario.connect(0, ip("198.51.100.26")).is_refused());
}

#[test]
fn a_leading_star_is_one_label_and_two_stars_are_one_or_more_and_neither_is_the_apex() {
    let names = [
        "x.example",
        "a.x.example",
        "b.a.x.example",
        "y.example",
        "a.y.example",
        "b.a.y.example",
        "ay.example",
    ];
    let records: Vec<String> = names
        .iter()
        .zip(1..)
        .map(|(name, last)| format!("{name} 60 A 198.51.100.{last}"))
        .collect();
    let scenario = plan()
        .allow(0, &["*.x.example", "**.y.example"])
        .records(&records.iter().map(String::as_str).collect::<Vec<_>>())
        .start();
    for name in names {
        let allowed = ["a.x.example", "a.y.example", "b.a.y.example"].contains(&name);
        let reply = scenario.ask(0, name, RecordType::A);
        assert_eq!(reply.code() == ResponseCode::NoError, allowed, "{name}");
        if let Some(address) = reply.address() {
            assert!(scenario.connect(0, address).is_connected(), "{name}");
        }
    }
}

#[test]
fn a_name_never_opens_addresses_of_the_node_the_cluster_or_the_link() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: kubernetes, namespace: default}\n\
        spec: {clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1], ports: [{port: 443, protocol: TCP}]}\n";
    let scenario = plan()
        .allow(0, &["evil.example"])
        .object("service.yaml", service)
        .records(&[
            "evil.example 60 A 169.254.169.254",
            "evil.example 60 A 127.0.0.1",
            "evil.example 60 A 10.244.0.1",
            "evil.example 60 A 10.244.0.11",
            "evil.example 60 A 10.96.0.1",
            "evil.example 60 A 0.0.0.0",
            "evil.example 60 A 224.0.0.251",
            "evil.example 60 AAAA fd00:10:244::b",
            "evil.example 60 AAAA ::ffff:169.254.169.254",
            "evil.example 60 AAAA fe80::1",
        ])
        .start();
    // The API server's address works for those who may use it, so that a refusal means something.
    scenario.nft("add table ip proxy; add chain ip proxy pre { type nat hook prerouting priority dstnat; }; add rule ip proxy pre ip daddr 10.96.0.1 tcp dport 443 dnat to 203.0.113.4");
    let peer = SocketAddr::new(scenario.pod(1).address4().into(), 443);
    let _listener = scenario
        .pod(1)
        .namespace()
        .run(|| TcpListener::bind(peer))
        .unwrap()
        .unwrap();
    assert!(scenario.connect(1, ip("10.96.0.1")).is_connected());

    scenario.ask(0, "evil.example", RecordType::A);
    scenario.ask(0, "evil.example", RecordType::AAAA);
    let rows = scenario.leases("evil.example");
    assert!(rows.is_empty(), "{rows:?}");
    for address in [
        "169.254.169.254",
        "10.244.0.1",
        "10.244.0.11",
        "10.96.0.1",
        "fd00:10:244::b",
    ] {
        assert!(!scenario.connect(0, ip(address)).is_connected(), "{address}");
    }
}

#[test]
fn rebinding_is_allowed_where_the_configuration_says_so() {
    let scenario = plan()
        .flags("--allow-rebind 10.244.0.11/32")
        .allow(0, &["peer.example"])
        .records(&["peer.example 60 A 10.244.0.11"])
        .start();
    let peer = SocketAddr::new(scenario.pod(1).address4().into(), 443);
    let _listener = scenario
        .pod(1)
        .namespace()
        .run(|| TcpListener::bind(peer))
        .unwrap()
        .unwrap();
    assert!(scenario.connect(0, peer.ip()).is_refused());
    let address = scenario.learn(0, "peer.example");
    assert!(scenario.connect(0, address).is_connected());
}

#[test]
fn deny_wins_over_every_allow() {
    let deny = "  egress:\n  - toFQDNs: [{matchName: a.example}, {matchName: c.example}]\n    toPorts: [{ports: [{port: '443'}]}]\n  \
        egressDeny:\n  - toCIDR: [198.51.100.0/28]\n  - toFQDNs: [{matchName: c.example}]\n";
    let scenario = plan()
        .object("deny.yaml", policy("deny", 0, deny))
        .object("allow.yaml", allow(0, &["a.example", "b.example", "c.example"]))
        .records(&[
            "a.example 60 A 198.51.100.1",
            "b.example 60 A 198.51.100.31",
            "c.example 60 A 198.51.100.32",
        ])
        .start();
    let a = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, a).is_refused(), "a denied prefix");
    let b = scenario.learn(0, "b.example");
    assert!(scenario.connect(0, b).is_connected());
    assert_eq!(
        scenario.ask(0, "c.example", RecordType::A).code(),
        ResponseCode::NXDomain,
        "a denied name"
    );
    assert!(scenario.connect(0, ip("198.51.100.32")).is_refused());
}

#[test]
fn refusals_are_immediate_and_say_so() {
    let scenario = plan().allow(0, &["a.example"]).start();
    for address in ["198.51.100.9", "2001:db8::9"] {
        is_immediate(&format!("TCP to {address}"), || {
            let attempt = scenario.connect(0, ip(address));
            assert!(
                matches!(attempt, lab::client::ConnectAttempt::Refused(libc::ECONNREFUSED)),
                "{address}: {attempt:?}"
            );
        });
        is_immediate(&format!("UDP to {address}"), || {
            let error = scenario
                .pod(0)
                .exchange_udp(SocketAddr::new(ip(address), 4000), b"x")
                .unwrap_err();
            let errno = error.raw_os_error().unwrap_or(0);
            assert!(
                [libc::EHOSTUNREACH, libc::EACCES].contains(&errno),
                "{address}: {error}"
            );
        });
    }

    let scenario = plan().flags("--deny-response drop").allow(0, &["a.example"]).start();
    let attempt = scenario.connect(0, ip("198.51.100.9"));
    assert!(matches!(attempt, lab::client::ConnectAttempt::TimedOut), "{attempt:?}");
}

/// Refuses five times. The fastest is less than the second after which a client sends its first
/// packet again; how long the others take is the machine's load.
fn is_immediate(what: &str, refuse: impl Fn()) {
    let took = (0..5).map(|_| {
        let started = Instant::now();
        refuse();
        started.elapsed()
    });
    let fastest = took.min().unwrap();
    patience::assert_took(&format!("{what} is refused"), fastest, Duration::from_millis(900));
}

#[test]
fn udp_is_governed_like_tcp() {
    let scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    let address = SocketAddr::new(scenario.learn(0, "a.example"), 4000);
    let _echo = scenario.lab().internet().echo_udp(address).unwrap();
    assert_eq!(scenario.pod(0).exchange_udp(address, b"ping").unwrap(), b"ping");
}

#[test]
fn an_edit_closes_within_a_second_what_only_it_had_opened() {
    let scenario = plan()
        .allow(0, &["a.example", "b.example", "c.example"])
        .records(&[
            "a.example 60 A 198.51.100.1",
            "a.example 60 A 198.51.100.2",
            "b.example 60 A 198.51.100.2",
            "c.example 60 A 198.51.100.3",
        ])
        .start();
    for name in ["a.example", "b.example", "c.example"] {
        assert!(scenario.ask(0, name, RecordType::A).address().is_some());
    }
    let open = |last: u8| scenario.connect(0, ip(&format!("198.51.100.{last}"))).is_connected();
    assert!((1..=3).all(open));
    scenario.allow(0, &["a.example"]);
    let took = scenario.wait_until("the address of c is closed", || !open(3));
    patience::assert_took("an edit closes what only it had opened", took, Duration::from_secs(10));
    assert!(
        open(1) && open(2),
        "what a.example opened stays open, b.example's share of it too"
    );
    scenario.wait_until("c.example is denied", || {
        scenario.ask(0, "c.example", RecordType::A).code() == ResponseCode::NXDomain
    });

    scenario.allow(0, &["a.example", "c.example"]);
    scenario.wait_until("the address of c is open again without a lookup", || open(3));
    scenario.remove("allow-pod0.yaml");
    scenario.wait_until("the pod is not governed any more", || open(99));
}

#[test]
fn a_file_that_breaks_changes_nothing_and_is_reported() {
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    scenario.expect_errors("cluster::directory");
    let a = scenario.learn(0, "a.example");
    scenario.write(
        "allow-pod0.yaml",
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: [oops\n",
    );
    scenario.write(
        "new.yaml",
        &policy(
            "new",
            0,
            "  egress:\n  - toFQDNs: [{matchName: 'spaces are not allowed'}]\n",
        ),
    );
    let state = |scenario: &Scenario, file: &str| {
        let status = scenario.installation().status().unwrap();
        let rows = status
            .reports
            .into_iter()
            .filter(|row| row.file.as_deref().is_some_and(|path| path.ends_with(file)));
        rows.filter(|row| !row.findings.is_empty()).map(|row| row.state).next()
    };
    scenario.wait_until("status reports the broken file", || {
        state(&scenario, "allow-pod0.yaml").as_deref() == Some("kept-last-good")
    });
    scenario.wait_until("status reports the new file", || {
        state(&scenario, "new.yaml").as_deref() == Some("rejected")
    });
    assert!(scenario.connect(0, a).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
    assert_eq!(scenario.learn(0, "a.example"), a);
    scenario.allow(0, &["a.example"]);
    scenario.wait_until("status is clean again", || {
        state(&scenario, "allow-pod0.yaml").is_none()
    });
}

#[test]
fn a_refused_policy_closes_its_endpoints_until_it_is_mended() {
    let policy_allowing = |name: &str| {
        policy(
            "new",
            1,
            &format!("  egress:\n  - toFQDNs: [{{matchName: '{name}'}}]\n"),
        )
    };
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .object("new.yaml", policy_allowing("two words"))
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    scenario.expect_errors("cluster::directory");
    assert_eq!(scenario.states("new.yaml"), ["rejected"]);
    let closed = |scenario: &Scenario| {
        for address in ["198.51.100.1", "2001:db8::1"] {
            assert!(scenario.connect(1, ip(address)).is_refused(), "{address}");
        }
        assert_eq!(
            scenario.ask(1, "a.example", RecordType::A).code(),
            ResponseCode::NXDomain
        );
    };
    closed(&scenario);
    let a = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, a).is_connected(), "others are left alone");

    // What stands in is no last good version, after a crash either.
    scenario.wait_saved("a.example");
    scenario.kill();
    scenario.start();
    assert_eq!(scenario.states("new.yaml"), ["rejected"]);
    closed(&scenario);

    scenario.write("new.yaml", &policy_allowing("a.example"));
    scenario.wait_until("the mended policy is in force", || {
        scenario.connect(1, a).is_connected()
    });
    assert_eq!(scenario.states("new.yaml"), ["accepted"]);
}

#[test]
fn an_address_that_two_pods_claim_is_closed_until_one_of_them_gives_it_up() {
    let claimant = |more: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: another, namespace: shop{more}}}\nstatus: {{podIP: 10.244.0.10}}\n"
        )
    };
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1"])
        .start();
    scenario.expect_errors("is claimed by shop/another and shop/pod0");
    let a = scenario.learn(0, "a.example");
    scenario.write("another.yaml", &claimant(""));
    scenario.wait_until("nothing is let through", || scenario.connect(0, a).is_refused());
    scenario.wait_until("nothing may be asked, which says nothing of the name", || {
        scenario.ask(0, "a.example", RecordType::A).code() == ResponseCode::ServFail
    });
    assert_eq!(scenario.states("another.yaml"), ["partial"]);

    // As the API server marks what is being deleted.
    scenario.write("another.yaml", &claimant(", deletionTimestamp: '2026-01-01T00:00:00Z'"));
    scenario.wait_until("the other has the address again", || {
        scenario.connect(0, a).is_connected()
    });
    assert_eq!(scenario.states("another.yaml"), ["accepted"]);
}

#[test]
fn a_lease_ends_for_new_connections_and_not_for_established_ones() {
    let scenario = plan()
        .flags("--grace 1s")
        .allow(0, &["a.example"])
        .records(&["a.example 1 A 198.51.100.1"])
        .start();
    let a = scenario.learn(0, "a.example");
    let lab::client::ConnectAttempt::Connected(mut connection) = scenario.connect(0, a) else {
        panic!("refused")
    };
    let took = scenario.wait_until("the lease has ended", || scenario.connect(0, a).is_refused());
    // Far from the half minute of grace that is usual.
    patience::assert_took("one second of TTL and one of grace", took, Duration::from_secs(15));
    scenario.wait_until("the ledger has forgotten it", || {
        scenario.leases("a.example").is_empty()
    });
    assert_eq!(connection.get("a.example").unwrap(), "hello from 198.51.100.1");
    assert!(
        scenario
            .pod(0)
            .resolve(dns(RESOLVER), "a.example", RecordType::A, LookupTransport::Udp)
            .is_ok()
    );
    assert!(scenario.connect(0, a).is_connected());
}

#[test]
fn a_pod_that_no_object_names_yet_is_closed_if_that_is_asked_for() {
    let mut scenario = plan().flags("--unknown-pods deny --node here").build();
    let pods: Vec<_> = [0, 1].map(|pod| scenario.pod(pod).address4()).into();
    let node = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: here}}\nspec: {{podCIDRs: [{}/32, {}/32]}}\n",
        pods[0], pods[1]
    );
    let pod = |index: usize| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{index}, namespace: shop}}\nspec: {{containers: []}}\nstatus: {{podIPs: [{{ip: {}}}]}}\n",
            pods[index]
        )
    };
    scenario.write("node.yaml", &node);
    scenario.write("pods.yaml", &pod(0));
    scenario.start();
    let outside = ip("198.51.100.9");
    assert!(
        scenario.connect(0, outside).is_connected(),
        "it is known, and no policy selects it"
    );
    assert!(scenario.connect(1, outside).is_refused(), "nobody knows it");
    // The kernel limits the rate of its ICMP errors, so it is told by DNS; and not that there is no
    // such name.
    for _ in 0..20 {
        let reply = scenario.ask(1, "a.example", RecordType::A);
        assert_eq!(reply.code(), ResponseCode::ServFail);
    }
    scenario.write("pods.yaml", &format!("{}---\n{}", pod(0), pod(1)));
    scenario.wait_until("its object is known", || scenario.connect(1, outside).is_connected());
}
