//! Pods with a program each, all of which have a pattern in common.

use std::fmt::Write as _;

use lab::Lab;

/// What the names that all programs allow end in.
pub(crate) const SUFFIX: &str = "every.example";

/// Pods and policies as the files of a directory have them. The first pod is the lab's. Each
/// program has some names of its own besides, and so many ports.
pub(crate) fn objects(lab: &Lab, programs: usize, selectors: usize, ports: u16) -> String {
    let ports: Vec<String> = (0..ports)
        .map(|number| format!("{{port: '{}', protocol: TCP}}", 443 + 10 * number))
        .collect();
    let ports = ports.join(", ");
    let mut text = String::new();
    for number in 0..programs {
        let address = match number {
            0 => lab.pod(0).address4().to_string(),
            _ => format!("10.245.0.{number}"),
        };
        write!(
            text,
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{number}, namespace: shop, labels: {{app: app{number}}}}}\n\
             spec: {{containers: [{{name: main, image: none}}]}}\n\
             status: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}\n---\n\
             apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: policy{number}, namespace: shop}}\n\
             spec:\n  endpointSelector: {{matchLabels: {{app: app{number}}}}}\n  egress:\n  - toFQDNs:\n    - matchPattern: '*.{SUFFIX}'\n"
        )
        .unwrap();
        for selector in 0..selectors {
            writeln!(text, "    - matchName: name{selector}.app{number}.example").unwrap();
        }
        writeln!(text, "    toPorts: [{{ports: [{ports}]}}]\n---").unwrap();
    }
    text
}
