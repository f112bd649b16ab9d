//! Policies of every kind, together: tiers, audits, annotations, ICMP, and what `namegate explain`
//! says of them.

use std::process::Output;

use api::{ExplainAnswer, ExplainVerdict};
use lab::client::ConnectAttempt;
use namegate_integration::{Scenario, ip, policy};

use super::plan;

const RECORDS: [&str; 3] = [
    "a.example 60 A 198.51.100.1",
    "b.example 60 A 198.51.100.2",
    "c.example 1 A 198.51.100.3",
];

/// A ClusterNetworkPolicy for every pod of `shop`.
fn cluster_policy(name: &str, tier: &str, priority: u16, egress: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {{name: {name}}}\nspec:\n  tier: {tier}\n  priority: {priority}\n  \
         subject: {{namespaces: {{matchLabels: {{kubernetes.io/metadata.name: shop}}}}}}\n  egress:\n{egress}"
    )
}

fn network_policy(name: &str, index: usize, egress: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         podSelector: {{matchLabels: {{app: pod{index}}}}}\n  policyTypes: [Egress]\n  egress:\n{egress}"
    )
}

fn connect(scenario: &Scenario, pod: usize, to: &str) -> ConnectAttempt {
    scenario.connect(pod, ip(to))
}

/// What `namegate explain` says, by the running agent.
fn explained(scenario: &Scenario, pod: &str, to: &str, port: &str) -> (ExplainAnswer, Option<i32>) {
    let arguments = ["--from", pod, "--to", to, "--port", port, "-o", "json"];
    let Output { status, stdout, stderr } = scenario.installation().inspect("explain", &arguments).unwrap();
    let told = serde_json::from_slice(&stdout);
    (
        told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&stderr))),
        status.code(),
    )
}

#[test]
fn tiers_decide_in_their_order() {
    let admin = "  - {name: never, action: Deny, to: [{networks: [198.51.100.9/32]}]}\n\
                 \x20 - {name: always, action: Accept, to: [{networks: [198.51.100.8/32]}]}\n\
                 \x20 - {name: by-name, action: Accept, to: [{domainNames: [a.example]}]}\n\
                 \x20 - {name: to-others, action: Pass, to: [{networks: [198.51.100.0/24]}]}\n\
                 \x20 - {name: nothing-else, action: Deny, to: [{networks: [0.0.0.0/0]}]}\n";
    let baseline = "  - {name: by-default, action: Deny, to: [{networks: [198.51.100.5/32]}]}\n";
    let scenario = plan()
        .object("admin.yaml", cluster_policy("admin", "Admin", 10, admin))
        .object("baseline.yaml", cluster_policy("baseline", "Baseline", 10, baseline))
        .object(
            "np.yaml",
            network_policy(
                "np",
                0,
                "  - to: [{ipBlock: {cidr: 198.51.100.9/32}}]\n  - to: [{ipBlock: {cidr: 198.51.100.5/32}}]\n",
            ),
        )
        .records(&RECORDS)
        .start();
    for (pod, to, passes, why) in [
        (
            0,
            "198.51.100.9",
            false,
            "tier Admin denies, whatever a NetworkPolicy allows",
        ),
        (
            0,
            "198.51.100.8",
            true,
            "tier Admin accepts, whatever a NetworkPolicy closes",
        ),
        (0, "198.51.100.5", true, "passed, and the NetworkPolicy allows it"),
        (0, "198.51.100.6", false, "passed, and the NetworkPolicy closes"),
        (1, "198.51.100.6", true, "passed, and nobody else speaks of it"),
        (1, "198.51.100.5", false, "passed, and tier Baseline denies"),
        (1, "192.0.2.1", false, "tier Admin denies what it does not pass"),
    ] {
        let attempt = connect(&scenario, pod, to);
        assert_eq!(
            (attempt.is_connected(), attempt.is_refused()),
            (passes, !passes),
            "{why}: {attempt:?}"
        );
        let (told, code) = explained(&scenario, &format!("shop/pod{pod}"), to, "443");
        assert_eq!(
            (told.verdict == ExplainVerdict::Allowed, code),
            (passes, Some(i32::from(!passes))),
            "{told:?}"
        );
    }
    let learned = scenario.learn(0, "a.example");
    assert!(
        scenario.connect(0, learned).is_connected(),
        "accepted by name, though the NetworkPolicy closes"
    );
}

#[test]
fn an_audited_policy_drops_nothing_and_lists_what_it_would_have() {
    let audited = policy("try", 0, "  egress:\n  - toFQDNs: [{matchName: a.example}]\n").replace(
        "namespace: shop}",
        "namespace: shop, annotations: {namegate.io/mode: audit}}",
    );
    let scenario = plan().object("try.yaml", audited).records(&RECORDS).start();
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });
    let allowed = scenario.learn(0, "a.example");
    let other = scenario.learn(0, "b.example");
    assert!(scenario.connect(0, allowed).is_connected());
    assert!(
        scenario.connect(0, other).is_connected(),
        "an audited policy never drops"
    );
    scenario.wait_until("it is listed", || !scenario.installation().drops().unwrap().is_empty());
    let rows = scenario.installation().drops().unwrap();
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row.verdict.as_str(),
                row.pod.as_deref(),
                row.destination,
                row.name.as_deref(),
                row.policy.as_deref(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [("audited", Some("shop/pod0"), other, Some("b.example"), Some("shop/try"))]
    );
    assert!(
        scenario
            .agent()
            .metric("namegate_audited_packets_total{direction=\"egress\",namespace=\"shop\"}")
            .unwrap()
            >= 1.0
    );
    let (told, code) = explained(&scenario, "shop/pod0", "b.example", "443");
    assert_eq!((told.verdict, code), (ExplainVerdict::Audited, Some(0)), "{told:?}");

    // Once it is enforced, it drops.
    scenario.write(
        "try.yaml",
        &policy("try", 0, "  egress:\n  - toFQDNs: [{matchName: a.example}]\n"),
    );
    scenario.wait_until("it is enforced", || connect(&scenario, 0, "198.51.100.7").is_refused());
    assert!(scenario.connect(0, allowed).is_connected());
}

#[test]
fn annotations_say_how_long_leases_are_and_what_a_refused_packet_gets() {
    let rules = "  egress:\n  - toFQDNs: [{matchName: c.example}]\n";
    let annotated = policy("own", 0, rules).replace(
        "namespace: shop}",
        "namespace: shop, annotations: {namegate.io/min-ttl: 5m, namegate.io/grace: 1s, namegate.io/deny-response: drop}}",
    );
    let scenario = plan()
        .object("own.yaml", annotated)
        .object("other.yaml", policy("other", 1, "  egress: [{}]\n"))
        .records(&RECORDS)
        .start();
    scenario.learn(0, "c.example");
    let [lease] = &scenario.leases("c.example")[..] else {
        panic!("one lease")
    };
    assert!((299_000..=301_000).contains(&lease.lease_left_ms), "{lease:?}");
    assert!(
        matches!(connect(&scenario, 0, "198.51.100.9"), ConnectAttempt::TimedOut),
        "dropped in silence"
    );
    assert!(
        connect(&scenario, 1, "198.51.100.9").is_refused(),
        "the other policy says nothing of it"
    );
}

#[test]
fn explain_tells_of_resolvers_of_a_pods_own_address_and_of_names_that_open_nothing() {
    let scenario = plan()
        .allow(0, &["a.example", "inner.example"])
        .flags("--dns-questions any")
        .records(&["a.example 60 A 198.51.100.1", "inner.example 60 A 169.254.169.254"])
        .start();
    let verdict = |to: &str, port: &str| {
        let (told, code) = explained(&scenario, "shop/pod0", to, port);
        assert_eq!(
            code,
            Some(i32::from(told.verdict == ExplainVerdict::Denied)),
            "{told:?}"
        );
        told.verdict
    };
    let lab = scenario.lab();
    let resolver = lab::RESOLVER.to_string();
    assert_eq!(verdict(&resolver, "53"), ExplainVerdict::Allowed, "lookups work");
    assert_eq!(verdict(&resolver, "54"), ExplainVerdict::Denied);
    assert_eq!(
        verdict(&lab.pods()[0].address4().to_string(), "80"),
        ExplainVerdict::Allowed
    );
    assert_eq!(verdict("shop/pod0", "80"), ExplainVerdict::Allowed);
    assert_eq!(verdict("shop/pod1", "80"), ExplainVerdict::Denied);

    assert_eq!(
        verdict("inner.example", "443"),
        ExplainVerdict::Allowed,
        "nobody has asked yet"
    );
    scenario.learn(0, "inner.example");
    let (told, _) = explained(&scenario, "shop/pod0", "inner.example", "443");
    assert_eq!(told.verdict, ExplainVerdict::Denied);
    assert_eq!(told.parts[0].address, Some(ip("169.254.169.254")));
    assert!(told.remarks[0].contains("link-local"), "{told:?}");
}

#[test]
fn explain_tells_of_leases_of_lookups_and_of_what_is_missing() {
    let scenario = plan()
        .allow(0, &["a.example", "*.wide.example"])
        .flags("--grace 0s --dns-questions any")
        .records(&["a.example 60 A 198.51.100.1", "a.b.wide.example 60 A 198.51.100.4"])
        .start();
    let (told, code) = explained(&scenario, "shop/pod0", "a.example", "443");
    assert_eq!((told.verdict, code), (ExplainVerdict::Allowed, Some(0)));
    assert_eq!(told.parts[0].address, None, "nobody has asked yet");
    scenario.learn(0, "a.example");
    let (told, _) = explained(&scenario, "shop/pod0", "a.example", "443");
    let part = &told.parts[0];
    assert_eq!(part.address, Some(ip("198.51.100.1")));
    assert!(
        part.lease_left_seconds.is_some_and(|left| (50..=60).contains(&left)),
        "{part:?}"
    );
    assert!(
        part.kernel.as_ref().is_some_and(|kernel| kernel.contains("443/TCP")),
        "{part:?}"
    );
    assert!(told.lookup.is_some_and(|lookup| lookup.allowed));

    let (told, code) = explained(&scenario, "shop/pod0", "a.example", "80");
    assert_eq!(code, Some(1));
    assert!(told.parts[0].nearest[0].contains("443/TCP"), "{told:?}");
    let (told, _) = explained(&scenario, "shop/pod0", "a.b.wide.example", "443");
    assert!(told.parts[0].nearest[0].contains("one or more"), "{told:?}");

    let unknown = scenario
        .installation()
        .inspect("explain", &["--from", "shop/none", "--to", "a.example"])
        .unwrap();
    assert_eq!(unknown.status.code(), Some(2), "{unknown:?}");
}

#[test]
fn a_lease_that_has_ended_is_explained() {
    let scenario = plan()
        .allow(0, &["c.example"])
        .flags("--grace 0s")
        .records(&RECORDS)
        .start();
    let address = scenario.learn(0, "c.example").to_string();
    scenario.wait_until("the lease ends", || scenario.leases("c.example").is_empty());
    scenario.wait_until("it is told", || {
        let (told, code) = explained(&scenario, "shop/pod0", &address, "443");
        code == Some(1)
            && told.parts[0]
                .nearest
                .iter()
                .any(|miss| miss.contains("whose lease on the address ended"))
    });
}

#[test]
fn icmp_is_opened_by_its_type() {
    let rules = "  egress:\n  - toCIDR: [198.51.100.0/24]\n    icmps: [{fields: [{type: 8, family: IPv4}]}]\n";
    let scenario = plan()
        .object("ping.yaml", policy("ping", 0, rules))
        .object("closed.yaml", policy("closed", 1, "  egress: [{}]\n"))
        .start();
    assert!(
        scenario.pod(0).ping([198, 51, 100, 1].into()).unwrap(),
        "echo requests are let through"
    );
    assert!(!scenario.pod(1).ping([198, 51, 100, 1].into()).unwrap());
    assert!(connect(&scenario, 0, "198.51.100.1").is_refused(), "and nothing else");
}
