//! A packet's verdict by the compiled program, with the entries that a node would add.

use std::collections::BTreeMap;
use std::net::IpAddr;

use oracle::{Policies, Probe, Verdict};
use policy::classifier::{AddressContext, Classifier, ClassifierEntry};
use policy::compile::compile;
use policy::{AddressZone, Endpoint, Inventory, Policy, Tiers};

use crate::node::{Node, traffic};

/// The programs of a node's pods.
pub(crate) struct Compiled<'a> {
    node: &'a Node<'a>,
    /// By namespace and name of the pod; nothing for one that no policy selects.
    programs: BTreeMap<(String, String), Option<Classifiers>>,
}

struct Classifiers {
    enforced: Classifier,
    all: Classifier,
}

impl<'a> Compiled<'a> {
    pub(crate) fn new(node: &'a Node<'a>) -> Self {
        let programs = node.endpoints.iter().map(|endpoint| {
            let key = (endpoint.id.namespace.clone(), endpoint.id.name.clone());
            (key, classifiers(endpoint, &node.policies, &node.inventory))
        });
        let programs = programs.collect();
        Self { node, programs }
    }

    pub(crate) fn verdict(&self, probe: &Probe, policies: Policies) -> Verdict {
        let key = (probe.namespace.clone(), probe.pod.clone());
        let Some(classifiers) = &self.programs[&key] else {
            return Verdict::Allow;
        };
        let classifier = match policies {
            Policies::Enforced => &classifiers.enforced,
            Policies::All => &classifiers.all,
        };
        let zone = self.node.zone(probe.to);
        let entries = self.entries(classifier, probe.to, zone);
        match classifier.verdict(probe.to, zone, entries.iter(), traffic(probe)) {
            policy::Verdict::Allow => Verdict::Allow,
            policy::Verdict::Deny => Verdict::Deny,
        }
    }

    /// Those of each name that the address was learned for, and those of the objects that have it.
    fn entries(&self, classifier: &Classifier, address: IpAddr, zone: AddressZone) -> Vec<ClassifierEntry> {
        let objects: Vec<_> = classifier
            .object_rules()
            .filter_map(|(index, rule)| Some((index, self.node.inventory.members(rule).remove(&address)?)))
            .collect();
        let at = AddressContext {
            address,
            zone,
            objects: &objects,
        };
        let mut entries = Vec::new();
        for name in self.node.names_of(address) {
            let matching = classifier.name_rules().filter(|(_, pattern)| pattern.matches(&name));
            entries.extend(matching.flat_map(|(index, _)| classifier.entries_for_name(index, at)));
        }
        if !objects.is_empty() {
            entries.extend(classifier.entries_for_objects(at));
        }
        entries
    }
}

fn classifiers(endpoint: &Endpoint, policies: &[Policy], inventory: &Inventory) -> Option<Classifiers> {
    let program = compile(endpoint, policies, inventory)?.programs.egress?;
    let all: &Tiers = program.audited.as_ref().unwrap_or(&program.enforced);
    Some(Classifiers {
        enforced: Classifier::new(&program.enforced),
        all: Classifier::new(all),
    })
}
