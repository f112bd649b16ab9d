//! The policies under `manifests/examples` are what users copy: each must stand without a single finding.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::PathBuf;

use policy::endpoint::{self, Endpoint, EndpointId};
use policy::labels::Labels;
use policy::{Inventory, Policy, cilium, compile, document, lint};

fn examples() -> io::Result<Vec<(PathBuf, String)>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/examples");
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push((path.clone(), fs::read_to_string(path)?));
        }
    }
    files.sort();
    Ok(files)
}

#[test]
fn every_example_stands_without_findings_and_closes_the_pod_beside_it() {
    let examples = examples().unwrap();
    assert!(!examples.is_empty());
    for (path, text) in examples {
        let (documents, errors) = document::parse(&text);
        assert_eq!(errors, [], "{}", path.display());
        let mut policies: Vec<Policy> = Vec::new();
        for document in documents.iter().filter(|document| cilium::is_policy(document)) {
            let (verdict, diagnostics) = cilium::validate(document);
            assert_eq!(diagnostics, [], "{}", path.display());
            let policy = verdict.accepted().unwrap();
            assert_eq!(lint::lint(document, &policy), [], "{}", path.display());
            policies.push(policy);
        }
        let pod = documents.iter().find(|document| document.kind == "Pod").unwrap();
        let own: Labels = serde_json::from_value(pod.value["metadata"]["labels"].clone()).unwrap();
        let endpoint = Endpoint {
            id: EndpointId {
                namespace: pod.namespace.clone(),
                name: pod.name.clone(),
            },
            labels: endpoint::labels(&own, &pod.namespace, &Labels::new(), "default", "default"),
            addresses: BTreeSet::new(),
        };
        let program = compile::compile(&endpoint, &policies, &Inventory::default()).unwrap();
        assert!(program.closed && !program.allow.names.is_empty(), "{}", path.display());
    }
}
