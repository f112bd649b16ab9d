//! The CustomResourceDefinitions: the API server refuses what the agent would refuse, and takes
//! what it takes.

use crate::shared;

/// The part of a policy below `spec`, and what the refusal speaks of.
const REFUSED: [(&str, &str); 20] = [
    ("endpointSelector: {}", "no rule in any direction"),
    (
        "endpointSelector: {}, egress: [], ingress: []",
        "no rule in any direction",
    ),
    ("endpointSelector: {}, egress: null", "no rule in any direction"),
    ("egress: [{}]", "endpointSelector"),
    (
        "nodeSelector: {}, endpointSelector: {}, egress: [{}]",
        "nodes are in none",
    ),
    ("endpointSelector: {}, egress: {}", "egress"),
    (
        "endpointSelector: {}, egress: [{toFQDNs: [{matchName: a, matchPattern: b}]}]",
        "toFQDNs[0]",
    ),
    (
        "endpointSelector: {}, egress: [{toFQDNs: [{matchName: 'a b'}]}]",
        "matchName",
    ),
    (
        "endpointSelector: {}, egress: [{toFQDNs: [{matchName: '*.a'}]}]",
        "matchName",
    ),
    (
        "endpointSelector: {}, egress: [{toFQDNs: [{matchPattern: 'a/b'}]}]",
        "matchPattern",
    ),
    ("endpointSelector: {}, egress: [{toCIDR: [nowhere]}]", "toCIDR[0]"),
    (
        "endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.1}]}]",
        "cidr",
    ),
    ("endpointSelector: {}, egress: [{toEntities: [moon]}]", "moon"),
    (
        "endpointSelector: {}, egress: [{toEntities: [world], toCIDR: [10.0.0.0/8]}]",
        "two kinds of destinations",
    ),
    (
        "endpointSelector: {}, egress: [{toGroups: [{aws: {region: x}}]}]",
        "cloud provider",
    ),
    (
        "endpointSelector: {}, egress: [{icmps: [{fields: [{type: 8}]}], toPorts: [{ports: [{port: '1'}]}]}]",
        "icmps",
    ),
    (
        "endpointSelector: {}, egress: [{toPorts: [{ports: [{protocol: TCP}]}]}]",
        "port",
    ),
    (
        "endpointSelector: {}, egress: [{toPorts: [{ports: [{port: 443}]}]}]",
        "port",
    ),
    (
        "endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '1', protocol: ICMP}]}]}]",
        "protocol",
    ),
    (
        "endpointSelector: {matchExpressions: [{key: a, operator: Is}]}",
        "operator",
    ),
];

const ACCEPTED: [&str; 13] = [
    "endpointSelector: {}, egress: [{toEntities: [cluster-mesh], toPorts: [{ports: [{protocol: GRE}, {port: '0', protocol: esp}, {protocol: IPIP}]}]}]",
    "endpointSelector: {}, enableDefaultDeny: {egress: true}",
    "endpointSelector: {matchLabels: {'k8s:app': web}}, egress: [{}]",
    "endpointSelector: {}, egress: [], ingress: [{}]",
    "endpointSelector: {}, egress: [{toFQDNs: [{matchName: a.example.}, {matchPattern: '**.a'}, {}]}]",
    "endpointSelector: {}, egress: [{toFQDNs: []}], egressDeny: [{toFQDNs: [{matchName: a}]}]",
    "endpointSelector: {}, egress: [{toCIDR: [192.0.2.1, '2001:db8::/32'], toPorts: [{ports: [{port: '1', endPort: 9, protocol: udp}]}]}]",
    "endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidrGroupRef: g}]}]",
    "endpointSelector: {}, egress: [{toEntities: [world, kube-apiserver], toCIDR: []}]",
    "endpointSelector: {}, egress: [{toServices: [{k8sService: {serviceName: s, namespace: shop}}]}, {toNodes: [{}]}]",
    "endpointSelector: {}, egress: [{icmps: [{fields: [{family: IPv4, type: EchoRequest}, {type: 8}]}]}]",
    "endpointSelector: {}, egress: [{toPorts: [{ports: [{port: http}]}, {ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchName: a, matchPattern: '*'}]}}]}]",
    "endpointSelector: {}, egressDeny: [{}], enableDefaultDeny: {egress: false}, description: text, labels: [{key: a, value: b}]",
];

#[test]
fn what_the_agent_would_refuse_is_refused_with_the_reason() {
    let Some(cluster) = shared() else { return };
    for (spec, reason) in REFUSED {
        let output = cluster.try_feed(&["create", "--dry-run=server"], &policy(spec));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{spec}");
        assert!(said.contains(reason), "{spec}: {said}");
        assert!(
            !agent_accepts(spec),
            "the agent takes what the definition refuses: {spec}"
        );
    }
}

#[test]
fn what_the_agent_takes_is_taken() {
    let Some(cluster) = shared() else { return };
    for spec in ACCEPTED {
        let output = cluster.try_feed(&["create", "--dry-run=server"], &policy(spec));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{spec}: {said}");
        assert!(agent_accepts(spec), "{spec}");
    }
}

/// The part of a policy below `spec` that would say more without what is wrong in it, and a part of
/// what must reach the agent.
const KEPT: [(&str, &str); 12] = [
    (
        "endpointSelector: {}, egress: [{toFQDN: [{matchName: a.example}], toPorts: [{ports: [{port: '443'}]}]}]",
        "\"toFQDN\":",
    ),
    (
        "endpointSelector: {matchLabel: {app: web}}, egress: [{}]",
        "\"matchLabel\":",
    ),
    (
        "endpointSelector: {}, egress: [{}], egresDeny: [{toEntities: [world]}]",
        "\"egresDeny\":",
    ),
    (
        "endpointSelector: {}, egress: [{toEndpoints: [{matchLabel: {app: web}}]}]",
        "\"matchLabel\":",
    ),
    (
        "endpointSelector: {}, egress: [{toEntities: [world], toPorts: [{ports: [{port: '443', protocoll: TCP}]}]}]",
        "\"protocoll\":",
    ),
    (
        "endpointSelector: {}, egress: [{toCIDRSet: [{cidr: 10.0.0.0/8, excpt: [10.1.0.0/16]}]}]",
        "\"excpt\":",
    ),
    (
        "endpointSelector: {}, egress: [{toPorts: [{ports: [{port: '53'}], rules: {dnss: [{matchName: a}]}}]}]",
        "\"dnss\":",
    ),
    ("endpointSelector: {}, egress: [{}], planets: null", "\"planets\": null"),
    (
        "endpointSelector: {}, egress: [{toFQDNs: null, toPorts: [{ports: [{port: '443'}]}]}]",
        "\"toFQDNs\": null",
    ),
    (
        "endpointSelector: {}, egress: [{toEndpoints: [{matchLabels: null}]}]",
        "\"matchLabels\": null",
    ),
    (
        "endpointSelector: {}, egress: [{toEntities: [world], toPorts: null}]",
        "\"toPorts\": null",
    ),
    ("endpointSelector: {}, ingress: [{}], egress: null", "\"egress\": null"),
];

#[test]
fn what_would_widen_a_policy_if_it_were_dropped_reaches_the_agent_from_every_client() {
    let Some(cluster) = shared() else { return };
    for (spec, part) in KEPT {
        for validation in ["--validate=strict", "--validate=ignore"] {
            let stored = cluster.feed(&["create", "--dry-run=server", "-o", "json", validation], &policy(spec));
            assert!(stored.contains(part), "{validation} {spec}: {stored}");
            assert!(!accepts(&stored), "the agent takes what is left: {stored}");
        }
    }
}

#[test]
fn a_policy_needs_a_spec_or_specs() {
    let Some(cluster) = shared() else { return };
    let head = "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: p}\n";
    let neither = cluster.try_feed(&["create", "--dry-run=server"], head);
    assert!(String::from_utf8_lossy(&neither.stderr).contains("write `spec` or `specs`"));
    let both = format!(
        "{head}spec: {{endpointSelector: {{}}, egress: [{{}}]}}\nspecs: [{{endpointSelector: {{}}, egress: [{{}}]}}]\n"
    );
    cluster.feed(&["create", "--dry-run=server"], &both);
}

#[test]
fn kubectl_get_shows_the_conditions() {
    let Some(cluster) = shared() else { return };
    cluster.apply(&policy("endpointSelector: {}, egress: [{}]"));
    let status = r#"{"status": {"conditions": [
        {"type": "Valid", "status": "True", "reason": "Valid", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 1},
        {"type": "Programmed", "status": "Unknown"}]}}"#;
    cluster.kubectl([
        "patch",
        "cnp",
        "p",
        "-n",
        "shop",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ]);
    let shown = cluster.kubectl(["get", "cnp", "-n", "shop"]);
    let columns: Vec<&str> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns, ["NAME", "VALID", "PROGRAMMED", "AGE"]);
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["p", "True", "Unknown"]);
    let generation = cluster.kubectl(["get", "cnp", "p", "-n", "shop", "-o", "jsonpath={.metadata.generation}"]);
    assert_eq!(generation, "1", "a status is no change of the policy");
    cluster.kubectl(["delete", "cnp", "p", "-n", "shop"]);
}

/// The part of a ClusterNetworkPolicy below `spec`, and what the refusal speaks of.
const CLUSTER_REFUSED: [(&str, &str); 11] = [
    ("priority: 1, subject: {namespaces: {}}", "tier"),
    ("tier: Root, priority: 1, subject: {namespaces: {}}", "Admin"),
    ("tier: Admin, priority: 1001, subject: {namespaces: {}}", "priority"),
    ("tier: Admin, priority: 1, subject: {}", "subject"),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}",
        "subject",
    ),
    ("tier: Admin, priority: 1, subject: {pods: {}}", "podSelector"),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Allow, to: [{namespaces: {}}]}]",
        "action",
    ),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: []}]",
        "to",
    ),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{domainNames: [a.example]}]}]",
        "action Accept only",
    ),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ['*']}]}]",
        "domainNames",
    ),
    (
        "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{networks: [10.0.0.0]}]}]",
        "networks",
    ),
];

const CLUSTER_ACCEPTED: [&str; 4] = [
    "tier: Baseline, priority: 1, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: [a.example]}]}]",
    "tier: Baseline, priority: 0, subject: {namespaces: {}}",
    "tier: Admin, priority: 1000, subject: {pods: {podSelector: {matchLabels: {app: web}}}}, egress: [{name: some names, action: Accept, \
     to: [{domainNames: ['*.a.example', b.example.]}, {networks: [0.0.0.0/0, '::/0']}], protocols: [{tcp: {destinationPort: {number: 443}}}]}]",
    // Of a newer version of the API: it fails closed in the agent, which must see it.
    "tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{planets: [mars]}]}]",
];

#[test]
fn a_cluster_network_policy_is_refused_as_the_agent_would() {
    let Some(cluster) = shared() else { return };
    for (spec, reason) in CLUSTER_REFUSED {
        let output = cluster.try_feed(&["create", "--dry-run=server"], &cluster_policy(spec));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{spec}");
        assert!(said.contains(reason), "{spec}: {said}");
        assert!(
            !accepts(&cluster_policy(spec)),
            "the agent takes what the definition refuses: {spec}"
        );
    }
    for spec in CLUSTER_ACCEPTED {
        cluster.feed(&["create", "--dry-run=server"], &cluster_policy(spec));
        assert!(accepts(&cluster_policy(spec)), "{spec}");
    }
}

#[test]
fn a_peer_that_is_not_known_is_kept_for_the_agent_to_see() {
    let Some(cluster) = shared() else { return };
    let shown = cluster.feed(
        &["create", "--dry-run=server", "-o", "json"],
        &cluster_policy(CLUSTER_ACCEPTED[3]),
    );
    assert!(shown.contains("planets"), "{shown}");
}

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn cluster_policy(spec: &str) -> String {
    format!(
        "apiVersion: policy.networking.k8s.io/v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {{name: p}}\nspec: {{{spec}}}\n"
    )
}

fn agent_accepts(spec: &str) -> bool {
    accepts(&policy(spec))
}

fn accepts(text: &str) -> bool {
    let (documents, findings) = policy::document::parse(text);
    assert_eq!(findings, [], "{text}");
    policy::validate::validate(&documents[0]).0.accepted().is_some()
}
