use std::collections::BTreeSet;

use super::*;
use crate::endpoint::{self, EndpointId};
use crate::inventory::{InventoryPod, PodIndex};
use crate::labels::Labels;
use crate::{document, validate};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let own: Labels = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    endpoint::labels(&own, "n", &Labels::new(), "default", "default")
}

fn policies(texts: &[&str]) -> Vec<Policy> {
    let policy = |(number, rules): (usize, &&str)| {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{number}, namespace: n}}\nspec:\n  endpointSelector: {{matchLabels: {{app: web}}}}\n{rules}"
        );
        let (documents, errors) = document::parse(&text);
        assert_eq!(errors, []);
        let (verdict, diagnostics) = validate::validate(&documents[0]);
        verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
    };
    texts.iter().enumerate().map(policy).collect()
}

/// A pod `db` at 10.244.0.9.
fn inventory() -> Inventory {
    let pod = InventoryPod::new(labels(&[("app", "db")]), [IpAddr::from([10, 244, 0, 9])], Vec::new());
    let pods = PodIndex::from_iter([pod]);
    Inventory {
        pods,
        ..Inventory::default()
    }
}

fn explained_to(app: &str, texts: &[&str], peer: &KnownPeer) -> Explanation {
    explained_of(None, app, texts, peer)
}

fn explained_of(announced: Option<&KnownAnnouncement>, app: &str, texts: &[&str], peer: &KnownPeer) -> Explanation {
    let endpoint = Endpoint {
        id: EndpointId {
            namespace: "n".into(),
            name: "web-1".into(),
        },
        labels: labels(&[("app", app)]),
        addresses: BTreeSet::new(),
        ports: Vec::new(),
    };
    let policies = policies(texts);
    let policies: Vec<&Policy> = policies.iter().collect();
    let inventory = inventory();
    explain(
        ExplainContext {
            direction: Direction::Egress,
            endpoint: &endpoint,
            policies: &policies,
            inventory: &inventory,
            announced,
        },
        peer,
    )
}

fn explained(texts: &[&str], peer: &KnownPeer) -> Explanation {
    explained_to("web", texts, peer)
}

fn to_name(name: &str, port: u16) -> KnownPeer {
    KnownPeer {
        address: None,
        names: vec![KnownName {
            name: Name::parse(name).unwrap(),
            lease: LeaseState::Assumed,
        }],
        traffic: Some((Protocol::Tcp, port)),
    }
}

fn to_address(address: [u8; 4], place: AddressZone, names: &[(&str, LeaseState)]) -> KnownPeer {
    let known = |(name, lease): &(&str, LeaseState)| KnownName {
        name: Name::parse(name).unwrap(),
        lease: *lease,
    };
    KnownPeer {
        address: Some((address.into(), place)),
        names: names.iter().map(known).collect(),
        traffic: Some((Protocol::Tcp, 443)),
    }
}

const HTTPS: &str = "    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n";

fn names(entries: &str) -> String {
    format!("  egress:\n  - toFQDNs: [{entries}]\n{HTTPS}")
}

/// The decision and the nearest miss.
fn told(explanation: &Explanation) -> (ExplainOutcome, String, String) {
    let miss = explanation
        .near_misses
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    (explanation.outcome, explanation.decision.to_string(), miss)
}

#[test]
fn the_rule_that_decides_is_named() {
    let rules = names("{matchPattern: '*.a.example'}");
    let (outcome, decision, miss) = told(&explained(&["  egress: [{}]\n", &rules], &to_name("x.a.example", 443)));
    assert_eq!(outcome, ExplainOutcome::Allowed);
    assert_eq!(
        decision,
        "CiliumNetworkPolicy n/p1, spec.egress[0] allows 443/TCP (the name x.a.example matches *.a.example)"
    );
    assert_eq!(miss, "");
}

#[test]
fn a_denial_wins_and_is_named() {
    let allow = names("{matchPattern: '**.a.example'}");
    let deny = "  egressDeny:\n  - toFQDNs: [{matchName: x.a.example}]\n";
    let (outcome, decision, miss) = told(&explained(&[&allow, deny], &to_name("x.a.example", 443)));
    assert_eq!((outcome, miss.as_str()), (ExplainOutcome::Denied, ""));
    assert!(
        decision.starts_with("CiliumNetworkPolicy n/p1, spec.egressDeny[0] denies every port"),
        "{decision}"
    );
}

#[test]
fn what_nothing_allows_is_closed_and_the_nearest_miss_is_told() {
    let one_star = names("{matchPattern: '*.a.example'}");
    let exact = names("{matchName: a.example}");
    for (rules, peer, miss) in [
        (
            &one_star,
            to_name("x.a.example", 80),
            "matches the destination, but only with 443/TCP",
        ),
        (
            &one_star,
            to_name("x.y.a.example", 443),
            "`**.a.example` stands for one or more",
        ),
        (&one_star, to_name("a.example", 443), "does not match a.example itself"),
        (
            &exact,
            to_name("x.a.example", 443),
            "add `matchPattern: \"**.a.example\"`",
        ),
    ] {
        let (outcome, decision, told) = told(&explained(&[rules], &peer));
        assert_eq!(outcome, ExplainOutcome::Denied);
        assert_eq!(
            decision,
            "no rule allows it, and egress is closed by CiliumNetworkPolicy n/p0"
        );
        assert!(told.contains(miss), "{told}");
        assert!(told.starts_with("CiliumNetworkPolicy n/p0, spec.egress[0]: "), "{told}");
    }
    let (_, _, miss) = told(&explained(&[&exact], &to_name("unlike.example", 443)));
    assert_eq!(miss, "");
}

#[test]
fn a_lease_that_ended_is_the_nearest_miss() {
    let rules = names("{matchName: a.example}");
    let held = |lease| to_address([192, 0, 2, 1], AddressZone::World, &[("a.example", lease)]);
    let live = explained(&[&rules], &held(LeaseState::Remaining(Duration::from_secs(30))));
    assert_eq!(live.outcome, ExplainOutcome::Allowed);
    assert!(live.decision.to_string().contains("30 s left"), "{}", live.decision);
    let (outcome, _, miss) = told(&explained(
        &[&rules],
        &held(LeaseState::Expired(Duration::from_secs(12))),
    ));
    assert_eq!(outcome, ExplainOutcome::Denied);
    assert!(miss.contains("ended 12 s ago"), "{miss}");
}

#[test]
fn labels_and_zones_that_are_missing_are_told() {
    let endpoints = format!("  egress:\n  - toEndpoints: [{{matchLabels: {{app: cache}}}}]\n{HTTPS}");
    let prefix = format!("  egress:\n  - toCIDR: [10.0.0.0/8]\n{HTTPS}");
    let database = to_address([10, 244, 0, 9], AddressZone::Cluster, &[]);
    for (app, rules, miss) in [
        ("web", &endpoints, "would match if the destination's pod had app=cache"),
        (
            "web",
            &prefix,
            "means destinations outside the cluster, and the address lies inside the cluster",
        ),
    ] {
        let (outcome, _, told) = told(&explained_to(app, &[rules], &database));
        assert_eq!(outcome, ExplainOutcome::Denied);
        assert!(told.contains(miss), "{told}");
    }
}

#[test]
fn a_pod_that_nothing_selects_may_do_anything() {
    let explanation = explained_to("other", &["  egress: [{}]\n"], &to_name("a.example", 443));
    assert_eq!(explanation.outcome, ExplainOutcome::Allowed);
    assert_eq!(explanation.decision, Decision::Unselected(Direction::Egress));
}

#[test]
fn a_policy_that_lacks_one_label_of_the_pod_is_told() {
    let rules = names("{matchName: a.example}");
    let mut policies = policies(&[&rules, "  egress: [{}]\n"]);
    policies[1].specs[0].subject = crate::labels::LabelSelector::default();
    let endpoint = Endpoint {
        id: EndpointId {
            namespace: "n".into(),
            name: "web-1".into(),
        },
        labels: labels(&[]),
        addresses: BTreeSet::new(),
        ports: Vec::new(),
    };
    let policies: Vec<&Policy> = policies.iter().collect();
    let context = ExplainContext {
        direction: Direction::Egress,
        endpoint: &endpoint,
        policies: &policies,
        inventory: &Inventory::default(),
        announced: None,
    };
    let (outcome, _, miss) = told(&explain(context, &to_name("a.example", 443)));
    assert_eq!(outcome, ExplainOutcome::Denied);
    assert_eq!(
        miss,
        "CiliumNetworkPolicy n/p0, spec.egress[0]: would select the pod if it had app=web"
    );
}

#[test]
fn what_only_an_audited_policy_refuses_passes_and_is_said() {
    let mut policies = policies(&["  egress: [{}]\n"]);
    policies[0].extensions.audit = true;
    let endpoint = Endpoint {
        id: EndpointId {
            namespace: "n".into(),
            name: "web-1".into(),
        },
        labels: labels(&[("app", "web")]),
        addresses: BTreeSet::new(),
        ports: Vec::new(),
    };
    let policies: Vec<&Policy> = policies.iter().collect();
    let context = ExplainContext {
        direction: Direction::Egress,
        endpoint: &endpoint,
        policies: &policies,
        inventory: &Inventory::default(),
        announced: None,
    };
    let explanation = explain(context, &to_name("a.example", 443));
    assert_eq!(explanation.outcome, ExplainOutcome::Audited);
    assert!(matches!(explanation.decision, Decision::Closed { .. }));
}

#[test]
fn a_rule_that_looks_into_connections_is_the_nearest_miss_as_long_as_nobody_does() {
    let rules = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}], serverNames: [a.example]}]\n";
    let (outcome, decision, miss) = told(&explained(&[rules], &to_name("a.example", 443)));
    assert_eq!(outcome, ExplainOutcome::Denied);
    assert!(decision.starts_with("no rule allows it"), "{decision}");
    assert_eq!(
        miss,
        "CiliumNetworkPolicy n/p0, spec.egress[0]: lets through TLS to a.example, where the agent looks into connections (--inspect on)"
    );
    let (_, _, miss) = told(&explained(&[rules], &to_name("a.example", 80)));
    assert_eq!(
        miss,
        "CiliumNetworkPolicy n/p0, spec.egress[0]: matches the destination, but only with 443/TCP"
    );
}

#[test]
fn what_a_connection_announces_decides_where_that_is_asked_for() {
    let rules = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts:\n    - {ports: [{port: '443', protocol: TCP}], serverNames: ['*.example']}\n    - {ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET, path: /users}]}}\n";
    let of = |announced: &KnownAnnouncement, port| {
        told(&explained_of(
            Some(announced),
            "web",
            &[rules],
            &to_name("a.example", port),
        ))
    };
    let tls = |name| KnownAnnouncement::Tls(Name::parse(name).unwrap());
    let (outcome, decision, _) = of(&tls("a.example"), 443);
    assert_eq!(outcome, ExplainOutcome::Allowed);
    assert!(decision.contains("spec.egress[0] allows 443/TCP"), "{decision}");
    let (outcome, _, miss) = of(&tls("a.test"), 443);
    assert_eq!(outcome, ExplainOutcome::Denied);
    assert!(
        miss.ends_with("lets through TLS to *.example: it lists other names in `serverNames`"),
        "{miss}"
    );
    let get = |path: &str| KnownAnnouncement::Http {
        method: "GET".into(),
        path: path.into(),
        host: "a.example".into(),
    };
    assert_eq!(of(&get("/users"), 80).0, ExplainOutcome::Allowed);
    let (outcome, _, miss) = of(&get("/users?all=1"), 80);
    assert_eq!(outcome, ExplainOutcome::Denied);
    assert!(
        miss.ends_with("GET /users: it has no HTTP entry that matches the request"),
        "{miss}"
    );
}
