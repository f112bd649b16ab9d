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
use crate::pod_index::{IdentityNumber, IndexChange, IndexedPod};
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
    /// The addresses of the other objects that a rule with named ports selects: it has members
    /// among them where pods name such ports.
    of_objects: BTreeSet<IpAddr>,
    users: usize,
}

/// The rules that select the pods of an identity.
#[derive(Debug, Clone, Default)]
struct SelectingRules {
    pods: BTreeSet<TrackedRuleKey>,
    /// Rules about services, behind which the pods stand.
    services: BTreeSet<TrackedRuleKey>,
}

/// What an update has to evaluate again.
#[derive(Debug, Default)]
struct TouchedMembers {
    /// Addresses, by rules.
    addresses: BTreeMap<TrackedRuleKey, BTreeSet<IpAddr>>,
    /// Rules about other objects, of which some have come or gone.
    rules: BTreeSet<TrackedRuleKey>,
}

impl Membership {
    /// Brings the members of all rules up to date with an inventory.
    ///
    /// It takes a look at each pod that differs, and at the rules of which it is a member before or
    /// now and not both alike. Of rules about services and nodes those are evaluated again that
    /// select one that differs, or one behind which such a pod stands.
    pub fn update(&mut self, inventory: &Inventory) {
        self.changed.clear();
        let before = std::mem::replace(&mut self.inventory, inventory.clone());
        let changes: Vec<IndexChange<IndexedPod<'_>>> = before.pods.changes(&inventory.pods).collect();
        // Both sides of a change, each by what selected it then.
        let former = self.selecting(changes.iter().filter_map(|change| change.before), &before);
        for (number, change) in before.pods.identity_changes(&inventory.pods) {
            if change.before.is_some() {
                self.selectors.forget(number);
            }
            if let Some(identity) = change.now {
                self.selectors.learn(number, &identity.labels);
            }
        }
        let latter = self.selecting(changes.iter().filter_map(|change| change.now), inventory);
        let (mut touched, none) = (TouchedMembers::default(), SelectingRules::default());
        for change in &changes {
            let former = change.before.and_then(|pod| former.get(&pod.identity_number()));
            let latter = change.now.and_then(|pod| latter.get(&pod.identity_number()));
            self.touch(change, former.unwrap_or(&none), latter.unwrap_or(&none), &mut touched);
        }
        let TouchedMembers {
            addresses,
            rules: mut concerned,
        } = touched;
        for service in before.services.changes(&inventory.services) {
            self.concern(service, &mut concerned);
        }
        if before.nodes != inventory.nodes {
            let is_of_nodes = |key: &&TrackedRuleKey| {
                let peer = self.rules.get(**key).map(|tracked| &tracked.rule.peer);
                matches!(
                    peer,
                    Some(Peer::Object(ObjectSelector::Nodes(_) | ObjectSelector::RemoteNodes))
                )
            };
            concerned.extend(self.of_objects.iter().filter(is_of_nodes));
        }
        for key in concerned {
            let Some(tracked) = self.rules.get_mut(key) else {
                continue;
            };
            tracked.of_objects = named_objects(&tracked.rule, inventory);
            let mut now: BTreeMap<IpAddr, Option<PortSet>> = tracked.members.keys().map(|it| (*it, None)).collect();
            let all = inventory.members(&tracked.rule).into_iter();
            now.extend(all.map(|(address, ports)| (address, Some(ports))));
            self.put(key, now);
        }
        for (key, addresses) in addresses {
            let now: Vec<_> = addresses
                .into_iter()
                .map(|address| (address, self.evaluated_at(key, address)))
                .collect();
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
            of_objects: named_objects(rule, &self.inventory),
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

    /// The rules that select the identities of some pods.
    fn selecting<'a>(
        &self,
        pods: impl Iterator<Item = IndexedPod<'a>>,
        inventory: &Inventory,
    ) -> HashMap<IdentityNumber, SelectingRules> {
        let mut selecting: HashMap<IdentityNumber, SelectingRules> = HashMap::new();
        for pod in pods {
            let number = pod.identity_number();
            selecting.entry(number).or_insert_with(|| {
                let identity = pod.identity();
                let selectors = self.selectors.matching(number).iter();
                let of_selectors = selectors.filter_map(|selector| self.of_selector.get(*selector));
                let mut rules = SelectingRules {
                    pods: of_selectors.flatten().copied().collect(),
                    services: BTreeSet::new(),
                };
                let services = inventory.services.of_namespace(identity.namespace());
                for service in services.filter(|service| service.selects(identity)) {
                    self.concern(service, &mut rules.services);
                }
                rules
            });
        }
        selecting
    }

    /// Adds what a pod's change may touch. `former` and `latter` select it before and now.
    fn touch(
        &self,
        change: &IndexChange<IndexedPod<'_>>,
        former: &SelectingRules,
        latter: &SelectingRules,
        touched: &mut TouchedMembers,
    ) {
        let both = || change.before.iter().chain(&change.now);
        let addresses = || both().flat_map(|it| it.addresses());
        // Where the pod is the same to a rule that selects it before and now.
        let is_same = matches!((change.before, change.now), (Some(before), Some(now))
            if before.addresses() == now.addresses() && before.ports() == now.ports());
        let differs = |rule: &&TrackedRuleKey, former: &BTreeSet<_>, latter: &BTreeSet<_>| {
            !is_same || former.contains(*rule) != latter.contains(*rule)
        };
        let of_pods = former.pods.union(&latter.pods);
        for rule in of_pods.filter(|rule| differs(rule, &former.pods, &latter.pods)) {
            touched.addresses.entry(*rule).or_default().extend(addresses());
        }
        let of_services = former.services.union(&latter.services);
        touched
            .rules
            .extend(of_services.filter(|rule| differs(rule, &former.services, &latter.services)));
        if is_same {
            return;
        }
        for rule in &self.within {
            touched.addresses.entry(*rule).or_default().extend(addresses());
        }
        for key in &self.of_objects {
            let Some(tracked) = self.rules.get(*key) else { continue };
            for address in addresses().filter(|address| tracked.of_objects.contains(*address)) {
                touched.addresses.entry(*key).or_default().insert(*address);
            }
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

    /// The ports of a rule about pods, or with named ports, at an address; `None` where it does not
    /// select it.
    fn evaluated_at(&self, key: TrackedRuleKey, address: IpAddr) -> Option<PortSet> {
        let TrackedRule {
            rule,
            selector,
            of_objects,
            ..
        } = self.rules.get(key)?;
        let is_of_object = of_objects.contains(&address);
        let mut ports = match is_of_object {
            true => rule.ports.clone(),
            false => PortSet::Ranges(Vec::new()),
        };
        for pod in self.inventory.pods.at(address) {
            let named = || pod.identity().named(&rule.named);
            match (&rule.peer, selector) {
                (_, Some(selector)) if self.selectors.identities(*selector).contains(&pod.identity_number()) => {
                    ports = ports.union(&rule.ports).union(&named());
                }
                (Peer::PodsWithin(Zone::Anywhere | Zone::Cluster | Zone::Mesh, prefix), None)
                    if prefix.contains(&address) =>
                {
                    ports = ports.union(&named());
                }
                (_, None) if is_of_object => ports = ports.union(&named()),
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

/// The addresses of the objects other than pods that a rule with named ports selects.
fn named_objects(rule: &Rule, inventory: &Inventory) -> BTreeSet<IpAddr> {
    match &rule.peer {
        Peer::Object(ObjectSelector::Pods(_)) => BTreeSet::new(),
        Peer::Object(selector) if !rule.named.is_empty() => inventory.addresses(selector),
        _ => BTreeSet::new(),
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
