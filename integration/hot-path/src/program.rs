//! Policies → program → what the kernel can evaluate.

use std::net::IpAddr;

use policy::classifier::Classifier;
use policy::compile::compile;
use policy::{Endpoint, EndpointId, Inventory, Policy, document, endpoint, validate};

use crate::BenchIteration;

/// What an endpoint that `COUNT` policies select may do.
pub(crate) fn compiled<const COUNT: usize>() -> BenchIteration {
    let (endpoint, policies, inventory) = (endpoint(), policies(COUNT), Inventory::default());
    Box::new(move || {
        let program = compile(&endpoint, &policies, &inventory)
            .unwrap()
            .programs
            .egress
            .unwrap();
        program.enforced.rules().count()
    })
}

/// The same, with its prefixes, ports and names folded.
pub(crate) fn folded<const COUNT: usize>() -> BenchIteration {
    let program = compile(&endpoint(), &policies(COUNT), &Inventory::default())
        .unwrap()
        .programs
        .egress
        .unwrap();
    Box::new(move || Classifier::new(&program.enforced).name_rules().count())
}

fn endpoint() -> Endpoint {
    let own = [("app".to_owned(), "web".to_owned())].into();
    let id = EndpointId {
        namespace: "shop".into(),
        name: "web".into(),
    };
    Endpoint {
        labels: endpoint::labels(&own, &id.namespace, &Default::default(), "default", "default"),
        id,
        addresses: [IpAddr::from([10, 244, 0, 10])].into(),
        ports: Vec::new(),
    }
}

/// Each with names, a port range, and prefixes with exceptions, as people write them.
fn policies(count: usize) -> Vec<Policy> {
    let read = |number| {
        let text = format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p{number}, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: web}}}}\n  egress:\n  \
             - toFQDNs: [{{matchName: api-{number}.example}}, {{matchPattern: '*.cdn-{number}.example'}}, {{matchPattern: '**.deep-{number}.example'}}]\n    \
               toPorts: [{{ports: [{{port: '443', protocol: TCP}}, {{port: '80', protocol: TCP}}]}}]\n  \
             - toFQDNs: [{{matchName: db-{number}.example}}]\n    toPorts: [{{ports: [{{port: '30000', endPort: 32767, protocol: TCP}}]}}]\n  \
             - toCIDRSet: [{{cidr: 10.{number}.0.0/16, except: [10.{number}.7.0/24]}}]\n    toPorts: [{{ports: [{{port: '5432', protocol: TCP}}]}}]\n  \
             egressDeny:\n  - toCIDR: [192.0.2.{number}/32]\n"
        );
        let (documents, errors) = document::parse(&text);
        assert_eq!(errors, []);
        let (verdict, diagnostics) = validate::validate(&documents[0]);
        verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
    };
    (0..count).map(read).collect()
}
