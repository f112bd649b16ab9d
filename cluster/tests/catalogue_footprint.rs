//! What a pod in a file takes in the catalogue, counted by the allocator.

use std::collections::BTreeMap;

use allocations::in_use;
use cluster::catalogue::Catalogue;

#[test]
fn a_pod_in_a_file_takes_less_than_four_hundred_bytes() {
    const FILES: usize = 20;
    const PODS: usize = 500;
    let file = |number: usize| {
        let pods = (0..PODS).map(|pod| self::pod(number * PODS + pod));
        (format!("pods-{number}.yaml").into(), Ok(pods.collect()))
    };
    let before = in_use();
    let contents: BTreeMap<_, _> = (0..FILES).map(file).collect();
    let mut catalogue = Catalogue::of_agent("here", [], false);
    let update = catalogue.scan(contents).expect("the first scan tells everything");
    assert_eq!(update.changes.len(), FILES * PODS);
    drop(update);
    let bytes = (in_use() - before) / (FILES * PODS);
    println!("{bytes} bytes a pod");
    assert!(bytes < 400, "{bytes} bytes");
}

fn pod(number: usize) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: checkout-7d4b9c6f5d-{number:05}\n  namespace: shop\n  \
         labels: {{app: checkout, tier: backend}}\n  annotations: {{checksum: 0b7e5c1e6b0f4b559f432f4f1d6a8f11}}\n\
         spec:\n  nodeName: node-1234\n  containers: [{{name: main, image: 'registry.example/checkout:1'}}]\n\
         status: {{podIP: 10.0.{}.{}}}\n",
        number / 250,
        number % 250,
    )
}
