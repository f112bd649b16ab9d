//! The addresses that rules about objects select, updated incrementally as objects change.
//!
//! Matching every pod of a cluster against every rule at each change would take a second. Here a
//! pod that changes is matched once against each distinct selector.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::inventory::{Inventory, InventoryPod};
use crate::peer_selector::{NamedPort, ObjectSelector};
use crate::ports::PortSet;
use crate::program::{Peer, Rule};

/// The addresses that a rule selects, with its ports there.
pub type PeerMembers = BTreeMap<IpAddr, PortSet>;

/// The parts of a rule that decide its members. Many rules of many programs share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct MembershipKey {
    peer: Peer,
    ports: PortSet,
    named: Vec<NamedPort>,
}

/// The members of every tracked rule.
#[derive(Debug, Default)]
pub struct Membership {
    inventory: Arc<Inventory>,
    members: BTreeMap<MembershipKey, TrackedRule>,
}

#[derive(Debug, Default)]
struct TrackedRule {
    members: Arc<PeerMembers>,
    /// The addresses that were changed by the last [`Membership::update`].
    changed: BTreeSet<IpAddr>,
}

impl Membership {
    /// Tracks exactly these rules from now on, in this inventory.
    ///
    /// It compares a pointer for each pod. Each pod that changed is matched against each distinct
    /// selector of pods. Selectors of services and nodes are evaluated again where services, nodes
    /// or pods behind them changed.
    pub fn update<'a>(&mut self, inventory: &Arc<Inventory>, rules: impl Iterator<Item = &'a Rule>) {
        let before = std::mem::replace(&mut self.inventory, Arc::clone(inventory));
        let pods = changed_pods(&before, inventory);
        let objects_changed = before.services != inventory.services || before.nodes != inventory.nodes;
        let mut known = std::mem::take(&mut self.members);
        for rule in rules {
            let key = MembershipKey::of(rule);
            if self.members.contains_key(&key) {
                continue;
            }
            let followed = match known.remove(&key) {
                None => TrackedRule::new(inventory.members(rule)),
                Some(followed) => followed.updated(rule, inventory, &pods, objects_changed),
            };
            self.members.insert(key, followed);
        }
    }

    /// The members of a tracked rule.
    pub fn members(&self, rule: &Rule) -> Option<&Arc<PeerMembers>> {
        Some(&self.members.get(&MembershipKey::of(rule))?.members)
    }

    /// The addresses that the last update added to, removed from or changed in a rule. For a rule
    /// that it began to track, all of them.
    pub fn changed(&self, rule: &Rule) -> impl Iterator<Item = IpAddr> {
        let followed = self.members.get(&MembershipKey::of(rule));
        followed
            .into_iter()
            .flat_map(|followed| followed.changed.iter().copied())
    }
}

impl MembershipKey {
    fn of(rule: &Rule) -> Self {
        Self {
            peer: rule.peer.clone(),
            ports: rule.ports.clone(),
            named: rule.named.clone(),
        }
    }
}

impl TrackedRule {
    fn new(members: PeerMembers) -> Self {
        Self {
            changed: members.keys().copied().collect(),
            members: Arc::new(members),
        }
    }

    fn updated(
        mut self,
        rule: &Rule,
        inventory: &Inventory,
        pods: &[Arc<InventoryPod>],
        objects_changed: bool,
    ) -> Self {
        self.changed.clear();
        let by_pods_alone = matches!(rule.peer, Peer::PodsWithin(..) | Peer::Object(ObjectSelector::Pods(_)));
        if by_pods_alone {
            // `pods` holds the pods before and after the change: evaluate every address that they
            // have or had.
            let of_changed = Inventory {
                pods: pods.to_vec(),
                ..Inventory::default()
            };
            let touched: BTreeSet<IpAddr> = of_changed.members(rule).into_keys().collect();
            if !touched.is_empty() {
                self.put(touched.clone(), &inventory.members_at(rule, &touched));
            }
        } else if objects_changed || !pods.is_empty() {
            let now = inventory.members(rule);
            let all = self.members.keys().chain(now.keys()).copied().collect();
            self.put(all, &now);
        }
        self
    }

    fn put(&mut self, addresses: BTreeSet<IpAddr>, now: &PeerMembers) {
        for address in addresses {
            if self.members.get(&address) == now.get(&address) {
                continue;
            }
            self.changed.insert(address);
            // Copies on write: readers may still hold the previous members.
            let members = Arc::make_mut(&mut self.members);
            match now.get(&address) {
                Some(ports) => members.insert(address, ports.clone()),
                None => members.remove(&address),
            };
        }
    }
}

/// The pods that are in one inventory and not in the other, as they were and as they are.
fn changed_pods(before: &Inventory, now: &Inventory) -> Vec<Arc<InventoryPod>> {
    let set =
        |inventory: &Inventory| -> HashSet<*const InventoryPod> { inventory.pods.iter().map(Arc::as_ptr).collect() };
    let (known, current) = (set(before), set(now));
    let gone = before.pods.iter().filter(|pod| !current.contains(&Arc::as_ptr(pod)));
    let new = now.pods.iter().filter(|pod| !known.contains(&Arc::as_ptr(pod)));
    gone.chain(new).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::extensions::LeaseTerms;
    use crate::inventory::{ContainerPort, InventoryService};
    use crate::labels::{LabelSelector, Requirement};
    use crate::peer_selector::ServiceSelector;
    use crate::policy::Action;
    use crate::ports::{PortRange, Protocol};
    use crate::zone::Zone;

    fn pod(app: u8, last: u8, port: u16) -> Arc<InventoryPod> {
        Arc::new(InventoryPod {
            labels: [
                ("app".to_owned(), app.to_string()),
                ("io.kubernetes.pod.namespace".to_owned(), "n".to_owned()),
            ]
            .into(),
            addresses: [IpAddr::from([10, 0, 0, last])].into(),
            ports: vec![ContainerPort {
                name: "web".into(),
                protocol: Protocol::Tcp,
                port,
            }],
        })
    }

    fn rule(peer: Peer, named: bool) -> Rule {
        Rule {
            action: Action::Allow,
            peer,
            ports: PortSet::from_ranges([PortRange::single(Protocol::Tcp, 443)]),
            named: named
                .then(|| NamedPort {
                    name: "web".into(),
                    protocols: vec![Protocol::Tcp],
                })
                .into_iter()
                .collect(),
            lease: LeaseTerms::default(),
            origins: Vec::new(),
        }
    }

    fn rules() -> Vec<Rule> {
        let app = |app: u8| LabelSelector {
            requirements: vec![Requirement::equals("app", &app.to_string())],
        };
        let service = ServiceSelector {
            namespace: None,
            name: Some("s".into()),
            labels: LabelSelector::default(),
        };
        vec![
            rule(Peer::Object(ObjectSelector::Pods(app(0))), false),
            rule(Peer::Object(ObjectSelector::Pods(app(1))), true),
            rule(Peer::PodsWithin(Zone::Anywhere, "10.0.0.0/30".parse().unwrap()), true),
            rule(Peer::Object(ObjectSelector::Services(service)), false),
        ]
    }

    proptest! {
        #[test]
        fn what_is_kept_up_is_what_would_be_found_anew(
            steps in prop::collection::vec((prop::collection::vec((0_u8..3, 0_u8..6, 80_u16..82), 0..6), 0_u8..3), 1..6),
        ) {
            let rules = rules();
            let mut membership = Membership::default();
            // A pod that stays as it is is the same one, as the agent has it.
            let mut pods: BTreeMap<(u8, u8, u16), Arc<InventoryPod>> = BTreeMap::new();
            for (wanted, service_of) in steps {
                let before: Vec<PeerMembers> = rules.iter().map(|rule| membership.members(rule).map(|it| PeerMembers::clone(it)).unwrap_or_default()).collect();
                pods.retain(|key, _| wanted.contains(key));
                for (app, last, port) in &wanted {
                    pods.entry((*app, *last, *port)).or_insert_with(|| pod(*app, *last, *port));
                }
                let service = InventoryService {
                    namespace: "n".into(),
                    name: "s".into(),
                    selector: Some([("app".to_owned(), service_of.to_string())].into()),
                    ..InventoryService::default()
                };
                let inventory = Arc::new(Inventory {
                    pods: pods.values().cloned().collect(),
                    services: vec![service],
                    ..Inventory::default()
                });
                membership.update(&inventory, rules.iter());
                for (rule, before) in rules.iter().zip(before) {
                    let now = inventory.members(rule);
                    prop_assert_eq!(membership.members(rule).map(|it| &**it), Some(&now));
                    let all: BTreeSet<IpAddr> = before.keys().chain(now.keys()).copied().collect();
                    let differ: BTreeSet<IpAddr> = all.into_iter().filter(|it| before.get(it) != now.get(it)).collect();
                    prop_assert_eq!(membership.changed(rule).collect::<BTreeSet<_>>(), differ);
                }
            }
        }
    }
}
