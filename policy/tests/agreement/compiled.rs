//! A packet's verdict by the compiled program, with the doors that a node would open.

use std::collections::BTreeMap;
use std::net::IpAddr;

use oracle::{Policies, Probe, Verdict};
use policy::compile::compile;
use policy::fold::{At, Door, Fold, Place};
use policy::{Endpoint, Inventory, Policy, Tiers};

use crate::node::{Node, traffic};

/// The programs of a node's pods.
pub(crate) struct Compiled<'a> {
    node: &'a Node<'a>,
    /// By namespace and name of the pod; nothing for one that no policy selects.
    programs: BTreeMap<(String, String), Option<Folds>>,
}

struct Folds {
    enforced: Fold,
    all: Fold,
}

impl<'a> Compiled<'a> {
    pub(crate) fn new(node: &'a Node<'a>) -> Self {
        let programs = node.endpoints.iter().map(|endpoint| {
            let key = (endpoint.id.namespace.clone(), endpoint.id.name.clone());
            (key, folds(endpoint, &node.policies, &node.inventory))
        });
        let programs = programs.collect();
        Self { node, programs }
    }

    pub(crate) fn verdict(&self, probe: &Probe, policies: Policies) -> Verdict {
        let key = (probe.namespace.clone(), probe.pod.clone());
        let Some(folds) = &self.programs[&key] else {
            return Verdict::Allow;
        };
        let fold = match policies {
            Policies::Enforced => &folds.enforced,
            Policies::All => &folds.all,
        };
        let place = self.node.place(probe.to);
        let doors = self.doors(fold, probe.to, place);
        match fold.verdict(probe.to, place, doors.iter(), traffic(probe)) {
            policy::Verdict::Allow => Verdict::Allow,
            policy::Verdict::Deny => Verdict::Deny,
        }
    }

    /// Those of each name that the address was learned for, and those of the objects that have it.
    fn doors(&self, fold: &Fold, address: IpAddr, place: Place) -> Vec<Door> {
        let objects: Vec<_> = fold
            .objects()
            .filter_map(|(index, rule)| Some((index, self.node.inventory.members(rule).remove(&address)?)))
            .collect();
        let at = At {
            address,
            place,
            objects: &objects,
        };
        let mut doors = Vec::new();
        for name in self.node.names_of(address) {
            let matching = fold.names().filter(|(_, pattern)| pattern.matches(&name));
            doors.extend(matching.flat_map(|(index, _)| fold.learned(index, at)));
        }
        if !objects.is_empty() {
            doors.extend(fold.member(at));
        }
        doors
    }
}

fn folds(endpoint: &Endpoint, policies: &[Policy], inventory: &Inventory) -> Option<Folds> {
    let program = compile(endpoint, policies, inventory)?;
    let all: &Tiers = program.audited.as_ref().unwrap_or(&program.enforced);
    Some(Folds {
        enforced: Fold::new(&program.enforced),
        all: Fold::new(all),
    })
}
