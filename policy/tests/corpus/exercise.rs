//! What hostile input goes through: the whole way of a policy, a pattern, a name. The fuzz targets
//! include this file.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use names::{Name, NameIndex, Pattern};
use policy::classifier::{AddressContext, Classifier};
use policy::compile::compile;
use policy::endpoint;
use policy::inventory::{ContainerPort, InventoryNode, InventoryPod, InventoryService};
use policy::labels::Labels;
use policy::validate::{Validation, validate};
use policy::{
    AddressZone, Endpoint, EndpointId, Inventory, Policy, Program, Protocol, Tiers, cidr_group, document, lint,
};

/// Text of policies: read, validated, linted, compiled for a pod, classified, and asked.
pub(crate) fn policy_yaml(text: &str) {
    let (documents, _) = document::parse(text);
    let mut policies = Vec::new();
    let mut inventory = inventory();
    let mut groups = Vec::new();
    for document in &documents {
        if cidr_group::is_cidr_group(document) {
            groups.extend(cidr_group::read(document).0);
        }
        match validate(document) {
            (Validation::Accepted(policy), _) => {
                lint::lint(document, &policy);
                policies.push(policy);
            }
            (Validation::Refused(stand_in), diagnostics) => {
                assert!(!diagnostics.is_empty(), "it is refused without a reason");
                policies.extend(stand_in.policy);
            }
        }
    }
    inventory.cidr_groups = groups.into();
    if let Some(program) = program(&policies, &inventory) {
        assert_eq!(program.id(), program.clone().merged().id(), "it is merged already");
        ask(&program.enforced, &inventory);
        program.audited.iter().for_each(|tiers| ask(tiers, &inventory));
    }
}

/// A pattern and a name, on a line each.
pub(crate) fn name_pattern(text: &str) {
    let (written, name) = text.split_once('\n').unwrap_or((text, "a.example"));
    let name = Name::parse(name)
        .or_else(|_| Name::from_presentation(name))
        .unwrap_or_else(|_| Name::root());
    for pattern in [Pattern::pattern(written), Pattern::name(written)]
        .into_iter()
        .flatten()
    {
        let again = Pattern::pattern(&pattern.to_string());
        assert_eq!(again.as_ref(), Ok(&pattern), "what is shown can be read");
        let mut index = NameIndex::default();
        index.insert(&pattern, ());
        assert_eq!(index.any_match(&name), pattern.matches(&name), "{pattern} {name}");
    }
}

/// A name as it stands in a DNS message: labels, each behind its length.
pub(crate) fn dns_name(bytes: &[u8]) {
    let mut labels = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first() {
        let length = usize::from(length & 63).min(after.len());
        let (label, after) = after.split_at(length);
        labels.push(label);
        rest = after;
    }
    let name = Name::from_wire_labels(labels);
    assert!(name.is_within(&name) && name.is_within(&Name::root()));
    name.reverse_address();
    // A name of a message is never longer; from_wire_labels is told only such.
    if bytes.len() < 255 {
        assert_eq!(
            Name::from_presentation(name.as_str()).as_ref(),
            Ok(&name),
            "what is shown can be read"
        );
    }
    if let Ok(written) = str::from_utf8(bytes) {
        // A policy may hold names of up to 255 characters, more than fit into a message (RFC 1035,
        // section 2.3.4).
        const LONGEST: usize = 253;
        let fits = written.strip_suffix('.').unwrap_or(written).len() <= LONGEST;
        if let Some(parsed) = Name::parse(written).ok().filter(|_| fits) {
            assert_eq!(
                Name::from_presentation(written).as_ref(),
                Ok(&parsed),
                "both readings of a plain name are one"
            );
        }
        let _ = Name::from_presentation(written);
    }
}

fn program(policies: &[Policy], inventory: &Inventory) -> Option<Program> {
    compile(&pod("here", 1), policies, inventory)?.programs.egress
}

/// Every interval and every entry, as a node would add them.
fn ask(tiers: &Tiers, inventory: &Inventory) {
    let classifier = Classifier::new(tiers);
    let addresses = [[192, 0, 2, 1], [10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 9]].map(IpAddr::from);
    for zone in AddressZone::ALL {
        let intervals = classifier.intervals(zone);
        let sorted = intervals.windows(2).all(|pair| pair[0].last < pair[1].first);
        assert!(sorted, "they are disjoint");
        for address in addresses {
            let objects: Vec<_> = classifier
                .object_rules()
                .filter_map(|(index, rule)| Some((index, inventory.members(rule).remove(&address)?)))
                .collect();
            let at = AddressContext {
                address,
                zone,
                objects: &objects,
            };
            let learned = classifier
                .name_rules()
                .flat_map(|(index, _)| classifier.entries_for_name(index, at));
            let entries: Vec<_> = learned.chain(classifier.entries_for_objects(at)).collect();
            for traffic in [None, Some((Protocol::Tcp, 443)), Some((Protocol::Icmp, 8))] {
                classifier.verdict(address, zone, entries.iter(), traffic);
            }
        }
    }
}

fn pod(name: &str, last: u8) -> Endpoint {
    let own = Labels::from([("app".to_owned(), "web".to_owned())]);
    Endpoint {
        id: EndpointId {
            namespace: "shop".into(),
            name: name.into(),
        },
        labels: endpoint::labels(&own, "shop", &Labels::new(), "default", "default"),
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, last])]),
        ports: vec![ContainerPort {
            name: "web".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
    }
}

fn inventory() -> Inventory {
    let pods = [("here", 1), ("there", 2)].map(|(name, last)| {
        let Endpoint {
            labels,
            addresses,
            ports,
            ..
        } = pod(name, last);
        InventoryPod::new(labels, addresses, ports)
    });
    let service = InventoryService {
        namespace: "default".into(),
        name: "kubernetes".into(),
        backends: BTreeSet::from([IpAddr::from([192, 0, 2, 1])]),
        ..InventoryService::default()
    };
    let node = InventoryNode {
        addresses: BTreeSet::from([IpAddr::from([10, 0, 0, 9])]),
        is_this: true,
        ..InventoryNode::default()
    };
    Inventory {
        pods: pods.into_iter().collect(),
        services: [service].into_iter().collect(),
        nodes: [("here".to_owned(), Arc::new(node))].into_iter().collect(),
        cidr_groups: [].into(),
        other_clusters: None,
    }
}
