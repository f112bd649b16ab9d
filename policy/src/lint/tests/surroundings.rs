//! What other policies and the objects of the directory say.

use super::*;

#[test]
fn dns_rules_of_another_policy_may_hide_a_name() {
    let dns = "  egress: [{toEndpoints: [{}], toPorts: [{ports: [{port: '53', protocol: ANY}], rules: {dns: [{matchName: b.example.com}]}}]}]\n";
    let names = "  egress: [{toFQDNs: [{matchName: a.example.com}, {matchName: b.example.com}]}]\n";
    let web = cilium("names", "web", names);
    let hidden = ["names: dns-rule-hides-fqdn spec.egress[0].toFQDNs[0].matchName"];
    let both = cluster(pods(&["web", "api"]));
    assert_eq!(findings_across(&[&web, &cilium("dns", "web", dns)], &both), hidden);
    assert_eq!(
        findings_across(&[&web, &cilium("dns", "web", dns)], &ClusterContext::default()),
        hidden
    );
    assert_eq!(findings_across(&[&web, &cilium("dns", "api", dns)], &both), NO_FINDINGS);
    assert_eq!(
        findings_across(&[&web, &cilium("dns", "api", dns)], &ClusterContext::default()),
        NO_FINDINGS
    );
    let more = dns.replace("b.example.com", "a.example.com");
    let more = cilium("more", "web", &more);
    assert_eq!(
        findings_across(&[&web, &cilium("dns", "web", dns), &more], &both),
        NO_FINDINGS
    );
}

#[test]
fn a_denial_of_another_policy_may_meet_a_name() {
    let allow = cilium("allow", "web", "  egress: [{toFQDNs: [{matchName: a.example.com}]}]\n");
    let denial = |app, name| {
        cilium(
            "deny",
            app,
            &format!("  egressDeny: [{{toFQDNs: [{{matchPattern: '{name}'}}]}}]\n"),
        )
    };
    let both = cluster(pods(&["web", "api"]));
    let met = ["allow: deny-meets-allow spec.egress[0].toFQDNs[0].matchName"];
    assert_eq!(findings_across(&[&allow, &denial("web", "*.example.com")], &both), met);
    assert_eq!(
        findings_across(&[&allow, &denial("web", "*.example.org")], &both),
        NO_FINDINGS
    );
    assert_eq!(
        findings_across(&[&allow, &denial("api", "*.example.com")], &both),
        NO_FINDINGS
    );
}

#[test]
fn selectors_that_match_no_pod_are_found_where_there_are_pods() {
    let policy = cilium(
        "p",
        "wbe",
        "  egress: [{toEndpoints: [{matchLabels: {app: api}}, {matchLabels: {app: db}}]}]\n",
    );
    assert_eq!(findings_across(&[&policy], &ClusterContext::default()), NO_FINDINGS);
    assert_eq!(
        findings_across(&[&policy], &cluster(pods(&["web", "api"]))),
        [
            "p: selector-matches-nothing spec.endpointSelector",
            "p: selector-matches-nothing spec.egress[0].toEndpoints[1]"
        ]
    );
    assert_eq!(
        findings_across(&[&policy], &cluster(pods(&["wbe", "api", "db"]))),
        NO_FINDINGS
    );
    let (documents, policies) = read(&policy);
    let found = across(&[(&documents[0], &policies[0])], &cluster(pods(&["web"])));
    let suggestion = found[0][0].suggestion.as_deref();
    assert_eq!(suggestion, Some("did you mean \"web\" instead of \"wbe\" for `app`?"));
}

#[test]
fn nothing_is_said_of_pods_of_namespaces_of_which_the_files_hold_none() {
    let of = |namespace: &str| {
        cilium(
            "p",
            "web",
            &format!(
                "  egress: [{{toEndpoints: [{{matchLabels: {{'k8s:io.kubernetes.pod.namespace': {namespace}, app: dns}}}}], toPorts: [{{ports: [{{port: '53'}}]}}]}}]\n"
            ),
        )
    };
    let mut inventory = pods(&["web"]);
    let web = inventory.pods.iter().next().unwrap();
    let mut labels = web.labels().clone();
    labels.insert(endpoint::keys::NAMESPACE.into(), "monitoring".into());
    let dns = InventoryPod::new(labels, web.addresses().to_vec(), web.ports().to_vec());
    inventory.pods.insert(dns);
    let objects = cluster(inventory);
    assert_eq!(findings_across(&[&of("kube-system")], &objects), NO_FINDINGS);
    let found = ["p: selector-matches-nothing spec.egress[0].toEndpoints[0]"];
    assert_eq!(findings_across(&[&of("monitoring")], &objects), found, "another label");
    assert_eq!(findings_across(&[&of("monitorring")], &objects), found, "a misspelling");
}

#[test]
fn services_and_groups_that_are_not_there_are_found() {
    let policy = cilium(
        "p",
        "web",
        "  egress:\n  - toServices: [{k8sService: {serviceName: api, namespace: n}}]\n  - toCIDRSet: [{cidrGroupRef: partners}]\n",
    );
    let mut inventory = Inventory::default();
    inventory.services.insert(service("api", "other"));
    let group = |name: &str| CidrGroup {
        name: name.into(),
        ..CidrGroup::default()
    };
    inventory.cidr_groups = [group("partner")].into();
    assert_eq!(
        findings_across(&[&policy], &cluster(inventory.clone())),
        [
            "p: selector-matches-nothing spec.egress[0].toServices[0]",
            "p: selector-matches-nothing spec.egress[1].toCIDRSet[0]"
        ]
    );
    inventory.services.insert(service("api", "n"));
    inventory.cidr_groups = [group("partners")].into();
    assert_eq!(findings_across(&[&policy], &cluster(inventory)), NO_FINDINGS);
}

pub(super) fn service(name: &str, namespace: &str) -> InventoryService {
    InventoryService {
        namespace: namespace.into(),
        name: name.into(),
        selector: Some([("app".to_owned(), name.to_owned())].into()),
        addresses: ["10.96.0.1".parse().unwrap()].into(),
        ..InventoryService::default()
    }
}

#[test]
fn cidrs_and_the_cluster_meet_in_every_kind() {
    let mut objects = cluster(pods(&["web"]));
    objects.pod_ranges = vec!["10.0.0.0/24".parse().unwrap()];
    let of = |peer: &str| cilium("p", "web", &format!("  egress: [{peer}]\n"));
    assert_eq!(
        findings_across(&[&of("{toCIDR: [10.0.0.0/8, 10.0.0.7, 192.0.2.0/24]}")], &objects),
        [
            "p: cidr-covers-cluster spec.egress[0].toCIDR[0]",
            "p: cidr-inside-cluster spec.egress[0].toCIDR[1]"
        ]
    );
    let holed = of("{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.0.0.0/16]}]}");
    assert_eq!(findings_across(&[&holed], &objects), NO_FINDINGS);
    let network_policy = |block: &str| format!("{NETWORK_POLICY}  egress: [{{to: [{{ipBlock: {block}}}]}}]\n");
    assert_eq!(
        findings_across(&[&network_policy("{cidr: 0.0.0.0/0}")], &objects),
        ["p: cidr-covers-cluster spec.egress[0].to[0].ipBlock.cidr"]
    );
    assert_eq!(
        findings_across(&[&network_policy("{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}")], &objects),
        NO_FINDINGS
    );
    assert_eq!(
        findings_across(&[&network_policy("{cidr: 10.0.0.7/32}")], &objects),
        NO_FINDINGS
    );
    let all_pods = "{action: Pass, to: [{namespaces: {}}]}";
    let deny = "{action: Deny, to: [{networks: [192.0.2.0/24, 10.0.0.0/8]}]}";
    let of = |rules: &str| admin("p", 1, "{namespaces: {}}", &format!("  egress: [{rules}]\n"));
    assert_eq!(
        findings_across(&[&of(deny)], &objects),
        ["p: cidr-covers-cluster spec.egress[0].to[0].networks[1]"]
    );
    assert_eq!(
        findings_across(&[&of(&format!("{all_pods}, {deny}"))], &objects),
        NO_FINDINGS,
        "Pods are decided before"
    );
    let everything = "{action: Deny, to: [{networks: [0.0.0.0/0]}]}";
    assert_eq!(findings_across(&[&of(everything)], &objects), NO_FINDINGS);
}

#[test]
fn names_of_ports_that_no_container_has_are_found() {
    let of = |name: &str| {
        cilium(
            "p",
            "web",
            &format!(
                "  egress: [{{toEndpoints: [{{matchLabels: {{app: api}}}}], toPorts: [{{ports: [{{port: {name}, protocol: TCP}}]}}]}}]\n"
            ),
        )
    };
    let objects = cluster(pods(&["web", "api"]));
    assert_eq!(
        findings_across(&[&of("htpp")], &objects),
        ["p: named-port-unknown spec.egress[0].toPorts[0].ports[0].port"]
    );
    assert_eq!(findings_across(&[&of("http")], &objects), NO_FINDINGS);
    assert_eq!(findings_across(&[&of("htpp")], &ClusterContext::default()), NO_FINDINGS);
}

#[test]
fn ports_at_which_only_the_service_listens_are_found() {
    let mut inventory = pods(&["web", "api"]);
    inventory.services.insert(service("api", "n"));
    let mut objects = cluster(inventory);
    let port = ServicePortMapping {
        protocol: Protocol::Tcp,
        port: 80,
        target: TargetPort::Name("http".into()),
    };
    objects.service_ports.insert(("n".into(), "api".into()), vec![port]);
    let of = |peers: &str, port: u16| {
        cilium(
            "p",
            "web",
            &format!("  egress: [{{{peers}, toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]}}]\n"),
        )
    };
    for peers in [
        "toEndpoints: [{matchLabels: {app: api}}]",
        "toServices: [{k8sService: {serviceName: api, namespace: n}}]",
    ] {
        assert_eq!(
            findings_across(&[&of(peers, 80)], &objects),
            ["p: service-port spec.egress[0].toPorts[0].ports[0].port"]
        );
        assert_eq!(findings_across(&[&of(peers, 8080)], &objects), NO_FINDINGS);
        assert_eq!(findings_across(&[&of(peers, 9090)], &objects), NO_FINDINGS);
    }
}
