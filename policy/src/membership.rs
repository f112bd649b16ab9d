//! The addresses that rules about objects select, updated incrementally as objects change.
//!
//! Matching every pod of a cluster against every rule at each change would take a second. Here the
//! difference of two inventories says what changed, and what a pod's identity is selected by was
//! found when its first pod came. So a change costs what it concerns, however large the cluster is.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use imbl::OrdMap;
use slotmap::{SecondaryMap, SlotMap, new_key_type};

use crate::inventory::{Inventory, InventoryService};
use crate::labels::LabelSelector;
use crate::peer_selector::{NamedPort, ObjectSelector};
use crate::pod_index::{ChangedPod, IndexChange};
use crate::ports::PortSet;
use crate::program::{Peer, Rule};
use crate::selector_table::{SelectorKey, SelectorTable};
use crate::zone::Zone;

/// The addresses that a rule selects, with its ports there. Persistent: a clone shares its parts.
pub type PeerMembers = OrdMap<IpAddr, PortSet>;

new_key_type! {
    /// A rule whose members are tracked.
    pub struct TrackedRuleKey;
}

/// The parts of a rule that decide its members. Many rules of many programs share one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct MembershipKey {
    peer: Peer,
    ports: PortSet,
    named: Vec<NamedPort>,
}

/// The members of every tracked rule.
#[derive(Debug, Default)]
pub struct Membership {
    inventory: Inventory,
    keys: HashMap<MembershipKey, TrackedRuleKey>,
    rules: SlotMap<TrackedRuleKey, TrackedRule>,
    selectors: SelectorTable,
    /// The rules that have a selector of pods.
    of_selector: SecondaryMap<SelectorKey, Vec<TrackedRuleKey>>,
    /// The rules about pods within a range.
    within: Vec<TrackedRuleKey>,
    /// The rules about other objects.
    of_objects: Vec<TrackedRuleKey>,
    /// By the last [`update`](Self::update).
    changed: BTreeMap<TrackedRuleKey, BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct TrackedRule {
    rule: Rule,
    /// The selector of a rule about pods.
    selector: Option<SelectorKey>,
    members: PeerMembers,
    users: usize,
}

/// What an update has to evaluate again.
#[derive(Debug, Default)]
struct TouchedMembers {
    /// Addresses, by rules about pods.
    addresses: BTreeMap<TrackedRuleKey, BTreeSet<IpAddr>>,
    /// Rules about other objects.
    rules: BTreeSet<TrackedRuleKey>,
}

impl Membership {
    /// Brings the members of all rules up to date with an inventory.
    ///
    /// It takes a look at each pod that differs, and at the rules that select it. Of rules about
    /// services and nodes those are evaluated again that select one that differs, or one behind
    /// which such a pod stands.
    pub fn update(&mut self, inventory: &Inventory) {
        self.changed.clear();
        let before = std::mem::replace(&mut self.inventory, inventory.clone());
        let changes: Vec<IndexChange<ChangedPod<'_>>> = before.pods.changes(&inventory.pods).collect();
        let mut touched = TouchedMembers::default();
        // Both sides of a change touch all addresses of the pod, each by what selected it then.
        for change in &changes {
            if let Some(pod) = change.before {
                self.touch(change, pod, &before, &mut touched);
            }
        }
        for (number, change) in before.pods.identity_changes(&inventory.pods) {
            if change.before.is_some() {
                self.selectors.forget(number);
            }
            if let Some(identity) = change.now {
                self.selectors.learn(number, &identity.labels);
            }
        }
        for change in &changes {
            if let Some(pod) = change.now {
                self.touch(change, pod, inventory, &mut touched);
            }
        }
        let TouchedMembers {
            addresses,
            rules: mut concerned,
        } = touched;
        for service in before.services.changes(&inventory.services) {
            self.concern(service, &mut concerned);
        }
        let nodes_differ = before.nodes != inventory.nodes;
        let depends = |rule: &TrackedRule| {
            let is_of_nodes = matches!(
                rule.rule.peer,
                Peer::Object(ObjectSelector::Nodes(_) | ObjectSelector::RemoteNodes)
            );
            (is_of_nodes && nodes_differ) || (!changes.is_empty() && !rule.rule.named.is_empty())
        };
        concerned.extend(
            self.of_objects
                .iter()
                .filter(|key| self.rules.get(**key).is_some_and(depends)),
        );
        for (key, addresses) in addresses {
            let now: Vec<_> = addresses
                .into_iter()
                .map(|address| (address, self.evaluated_at(key, address)))
                .collect();
            self.put(key, now);
        }
        for key in concerned {
            let Some(rule) = self.rules.get(key) else { continue };
            let mut now: BTreeMap<IpAddr, Option<PortSet>> = rule.members.keys().map(|it| (*it, None)).collect();
            let all = inventory.members(&rule.rule).into_iter();
            now.extend(all.map(|(address, ports)| (address, Some(ports))));
            self.put(key, now);
        }
    }

    /// Tracks the members of a rule about objects from now on, until it is
    /// [released](Self::release). `None` for rules about names and prefixes.
    ///
    /// A rule that nobody has tracked takes a look at each identity of its namespace, or of all.
    pub fn track(&mut self, rule: &Rule) -> Option<TrackedRuleKey> {
        if !matches!(rule.peer, Peer::PodsWithin(..) | Peer::Object(_)) {
            return None;
        }
        let key = MembershipKey::of(rule);
        if let Some(known) = self.keys.get(&key) {
            self.rules[*known].users += 1;
            return Some(*known);
        }
        let pods = &self.inventory.pods;
        let selector = selector_of(rule).map(|selector| self.selectors.add(selector, pods));
        let tracked = self.rules.insert(TrackedRule {
            members: match selector {
                Some(_) => PeerMembers::new(),
                None => self.inventory.members(rule).into_iter().collect(),
            },
            rule: rule.clone(),
            selector,
            users: 1,
        });
        self.keys.insert(key, tracked);
        match (selector, &rule.peer) {
            (Some(selector), _) => {
                let Some(users) = self.of_selector.entry(selector) else {
                    return Some(tracked);
                };
                users.or_default().push(tracked);
                let identities = self.selectors.identities(selector).iter();
                let pods = identities.flat_map(|identity| pods.of_identity(*identity));
                let addresses: BTreeSet<IpAddr> = pods.flat_map(|pod| pod.addresses()).copied().collect();
                let members = addresses
                    .into_iter()
                    .filter_map(|address| Some((address, self.evaluated_at(tracked, address)?)))
                    .collect();
                self.rules[tracked].members = members;
            }
            (None, Peer::PodsWithin(..)) => self.within.push(tracked),
            (None, _) => self.of_objects.push(tracked),
        }
        Some(tracked)
    }

    /// Ends one of the uses of a tracked rule.
    pub fn release(&mut self, key: TrackedRuleKey) {
        let Some(tracked) = self.rules.get_mut(key) else { return };
        tracked.users -= 1;
        if tracked.users > 0 {
            return;
        }
        let Some(TrackedRule { rule, selector, .. }) = self.rules.remove(key) else {
            return;
        };
        self.keys.remove(&MembershipKey::of(&rule));
        self.changed.remove(&key);
        let others = |list: &mut Vec<TrackedRuleKey>| list.retain(|other| *other != key);
        match selector {
            Some(selector) => {
                self.of_selector.get_mut(selector).map(others);
                self.selectors.remove(selector);
            }
            None => [&mut self.within, &mut self.of_objects].into_iter().for_each(others),
        }
    }

    /// The members of a tracked rule.
    pub fn members(&self, key: TrackedRuleKey) -> Option<&PeerMembers> {
        self.rules.get(key).map(|tracked| &tracked.members)
    }

    /// The rules whose members the last update has changed, each with the addresses that it added,
    /// removed or gave other ports.
    pub fn changed(&self) -> &BTreeMap<TrackedRuleKey, BTreeSet<IpAddr>> {
        &self.changed
    }

    /// Adds what one side of a pod's change may touch.
    fn touch(
        &self,
        change: &IndexChange<ChangedPod<'_>>,
        side: ChangedPod<'_>,
        inventory: &Inventory,
        touched: &mut TouchedMembers,
    ) {
        let addresses = || {
            change
                .before
                .iter()
                .chain(&change.now)
                .flat_map(|it| it.pod.addresses())
        };
        let selectors = self.selectors.matching(side.identity).iter();
        let of_selectors = selectors.filter_map(|selector| self.of_selector.get(*selector));
        for rule in of_selectors.flatten().chain(&self.within) {
            touched.addresses.entry(*rule).or_default().extend(addresses());
        }
        let identity = side.pod.identity();
        let services = inventory.services.of_namespace(identity.namespace());
        for service in services.filter(|service| service.selects(identity)) {
            self.concern(service, &mut touched.rules);
        }
    }

    /// Adds the rules about services that select this one.
    fn concern(&self, service: &InventoryService, concerned: &mut BTreeSet<TrackedRuleKey>) {
        let selects = |rule: &TrackedRule| match &rule.rule.peer {
            Peer::Object(ObjectSelector::Services(selector)) => selector.matches(service),
            Peer::Object(ObjectSelector::ApiServer) => service.is_api_server(),
            _ => false,
        };
        let of_objects = self.of_objects.iter().copied();
        concerned.extend(of_objects.filter(|key| self.rules.get(*key).is_some_and(selects)));
    }

    /// The ports of a rule about pods at an address; `None` where it does not select it.
    fn evaluated_at(&self, key: TrackedRuleKey, address: IpAddr) -> Option<PortSet> {
        let TrackedRule { rule, selector, .. } = self.rules.get(key)?;
        let mut ports = PortSet::Ranges(Vec::new());
        for (identity, pod) in self.inventory.pods.identified_at(address) {
            let named = || pod.identity().named(&rule.named);
            match (&rule.peer, selector) {
                (_, Some(selector)) if self.selectors.identities(*selector).contains(&identity) => {
                    ports = ports.union(&rule.ports).union(&named());
                }
                (Peer::PodsWithin(Zone::Anywhere | Zone::Cluster, prefix), None) if prefix.contains(&address) => {
                    ports = ports.union(&named());
                }
                _ => {}
            }
        }
        (!ports.is_empty()).then_some(ports)
    }

    fn put(&mut self, key: TrackedRuleKey, now: impl IntoIterator<Item = (IpAddr, Option<PortSet>)>) {
        let Some(TrackedRule { members, .. }) = self.rules.get_mut(key) else {
            return;
        };
        for (address, ports) in now {
            if members.get(&address) == ports.as_ref() {
                continue;
            }
            self.changed.entry(key).or_default().insert(address);
            match ports {
                Some(ports) => members.insert(address, ports),
                None => members.remove(&address),
            };
        }
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

fn selector_of(rule: &Rule) -> Option<&LabelSelector> {
    match &rule.peer {
        Peer::Object(ObjectSelector::Pods(selector)) => Some(selector),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
