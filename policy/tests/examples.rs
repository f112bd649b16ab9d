//! The policies under `manifests/examples` are what users copy: each must stand without a single
//! finding, govern the Pod beside it, and do what its first lines say.
#![allow(clippy::unwrap_used, reason = "a test: every function here is called by tests only")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use policy::document::{self, Document};
use policy::endpoint;
use policy::labels::Labels;
use policy::{
    Action, Endpoint, EndpointId, EndpointPolicy, Inventory, Peer, Policy, Program, QuestionRules, Zone, compile, lint,
    validate,
};

/// Each example with the program of its Pod.
fn programs() -> BTreeMap<String, EndpointPolicy> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let program = program(&name, &fs::read_to_string(path).unwrap());
            programs.insert(name, program);
        }
    }
    programs
}

fn program(name: &str, text: &str) -> EndpointPolicy {
    let (documents, errors) = document::parse(text);
    assert_eq!(errors, [], "{name}");
    let mut policies: Vec<Policy> = Vec::new();
    for document in documents.iter().filter(|document| validate::is_policy(document)) {
        let (verdict, diagnostics) = validate::validate(document);
        assert_eq!(diagnostics, [], "{name}");
        let policy = verdict.accepted().unwrap();
        assert_eq!(lint::lint(document, &policy), [], "{name}");
        policies.push(policy);
    }
    let of_kind = |kind: &str| documents.iter().find(|document| document.kind == kind);
    let labels = |document: &Document| -> Labels {
        serde_json::from_value(document.value["metadata"]["labels"].clone()).unwrap()
    };
    let pod = of_kind("Pod").unwrap();
    let of_namespace = of_kind("Namespace").map(labels).unwrap_or_default();
    let endpoint = Endpoint {
        id: EndpointId {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
        },
        labels: endpoint::labels(&labels(pod), &pod.namespace, &of_namespace, "default", "default"),
        addresses: BTreeSet::new(),
        ports: Vec::new(),
    };
    let governed = compile::compile(&endpoint, &policies, &Inventory::default());
    governed.unwrap_or_else(|| panic!("{name}: the Pod is not governed"))
}

fn egress(governed: &EndpointPolicy) -> &Program {
    governed.programs.egress.as_ref().unwrap()
}

#[test]
fn every_example_governs_the_pod_beside_it() {
    let programs = programs();
    assert!(programs.len() >= 7, "{:?}", programs.keys());
    for (name, governed) in &programs {
        let program = egress(governed);
        let tiers = program.audited.as_ref().unwrap_or(&program.enforced);
        let denies_the_rest = tiers.baseline.iter().any(|rule| rule.action == Action::Deny);
        assert!(tiers.closed() || denies_the_rest, "{name}");
    }
}

#[test]
fn examples_of_ciliums_kinds_open_names() {
    let programs = programs();
    for name in ["cluster-dns", "clusterwide-deny", "dns-rules", "one-name"] {
        let allows_a_name = egress(&programs[name])
            .enforced
            .network
            .iter()
            .any(|rule| rule.action == Action::Allow && matches!(rule.peer, Peer::Name(_)));
        assert!(allows_a_name, "{name}");
    }
}

#[test]
fn network_policies_add_up_and_filter_no_questions() {
    let governed = &programs()["network-policy"];
    let program = egress(governed);
    assert_eq!(program.enforced.closed_by.len(), 2);
    let network = &program.enforced.network;
    assert!(network.iter().all(|rule| rule.action == Action::Allow));
    let objects = network.iter().filter(|rule| matches!(rule.peer, Peer::Object(_)));
    assert_eq!(objects.count(), 2, "the database, and the gateway");
    let partner = Peer::Prefix(Zone::Anywhere, "198.51.100.0/25".parse().unwrap());
    assert!(network.iter().any(|rule| rule.peer == partner));
    assert_eq!(governed.questions, QuestionRules::default());
}

#[test]
fn tiers_of_the_cluster_stand_before_and_after_the_namespaces() {
    let governed = &programs()["cluster-tiers"];
    let tiers = &egress(governed).enforced;
    assert!(!tiers.closed() && tiers.network.is_empty());
    let actions = |rules: &[policy::Rule]| rules.iter().map(|rule| rule.action).collect::<Vec<_>>();
    use Action::{Allow, Deny, Pass};
    assert_eq!(actions(&tiers.admin), [Allow, Allow, Allow, Pass, Deny, Deny]);
    assert_eq!(actions(&tiers.baseline), [Allow, Allow, Deny, Deny]);
}

#[test]
fn an_audited_policy_enforces_nothing() {
    let governed = &programs()["audit"];
    let program = egress(governed);
    assert!(!program.enforced.closed() && program.enforced.network.is_empty());
    assert!(
        program
            .audited
            .as_ref()
            .is_some_and(|tiers| tiers.closed() && !tiers.network.is_empty())
    );
}
