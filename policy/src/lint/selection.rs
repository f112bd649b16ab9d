//! Which objects the selectors of many policies select, without looking at every object for each of
//! them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::endpoint::keys;
use crate::inventory::{ContainerPort, IndexedPod, InventoryService, PodIdentity, PodIndex};
use crate::labels::{LabelSelector, Labels, Operator, Requirement};
use crate::peer_selector::{ObjectSelector, PeerSelector, ServiceSelector};
use crate::zone::Zone;

use super::cluster_context::{ClusterContext, ServicePortMapping, TargetPort};

/// The Pods and Services of a cluster, by what selectors ask for.
pub(super) struct Selection<'i> {
    pods: LintedPods<'i>,
    services: Vec<SelectedService<'i>>,
    service_of_name: HashMap<(&'i str, &'i str), usize>,
    /// For each Pod the Services that it is behind.
    services_of_pod: Vec<Vec<usize>>,
}

/// A Service and what is behind it.
struct SelectedService<'i> {
    service: &'i InventoryService,
    /// The Pods that it selects.
    pods: Vec<usize>,
    /// `None` where it is only known by its backends.
    ports: Option<Vec<SelectedServicePort<'i>>>,
}

/// A port of a Service.
pub(super) struct SelectedServicePort<'i> {
    pub(super) service: &'i InventoryService,
    pub(super) mapping: &'i ServicePortMapping,
    /// The ports behind it, each once, in the order of the Pods.
    pub(super) targets: Vec<u16>,
}

/// Pods among all of them.
pub(super) enum SelectedPods {
    Every,
    /// Their indices, ascending.
    Some(Vec<usize>),
}

impl<'i> Selection<'i> {
    pub(super) fn new(cluster: &'i ClusterContext<'_>) -> Self {
        let inventory = &cluster.inventory;
        let pods = LintedPods::new(&inventory.pods);
        let mut services_of_pod = vec![Vec::new(); pods.len()];
        let each = inventory.services.iter().enumerate().map(|(index, service)| {
            let selected = pods.behind(service);
            selected.iter().for_each(|pod| services_of_pod[*pod].push(index));
            let key = (service.namespace.clone(), service.name.clone());
            let ports = cluster.service_ports.get(&key).map(|ports| {
                let port = |mapping| SelectedServicePort {
                    service,
                    mapping,
                    targets: targets(mapping, &selected, &pods),
                };
                ports.iter().map(port).collect()
            });
            SelectedService {
                service,
                pods: selected,
                ports,
            }
        });
        let services: Vec<_> = each.collect();
        let mut service_of_name = HashMap::new();
        for (index, SelectedService { service, .. }) in services.iter().enumerate() {
            service_of_name.insert((service.namespace.as_str(), service.name.as_str()), index);
        }
        Self {
            pods,
            services,
            service_of_name,
            services_of_pod,
        }
    }

    /// Every Pod.
    pub(super) fn pods(&self) -> &LintedPods<'i> {
        &self.pods
    }

    /// Whether a selector selects any Service.
    pub(super) fn has_service(&self, selector: &ServiceSelector) -> bool {
        !self.matching(selector).is_empty()
    }

    /// The Pods among peers.
    pub(super) fn pods_of(&self, peers: &PeerSelector) -> SelectedPods {
        let mut selected: BTreeSet<usize> = BTreeSet::new();
        match peers {
            PeerSelector::Names(_) | PeerSelector::Unresolved => {}
            PeerSelector::Prefixes(prefixes) => {
                for (zone, prefix) in prefixes {
                    match zone {
                        Zone::Anywhere | Zone::Cluster | Zone::Mesh if prefix.prefix_len() == 0 => {
                            return SelectedPods::Every;
                        }
                        Zone::Anywhere | Zone::Cluster | Zone::Mesh => selected.extend(self.pods.within(prefix)),
                        Zone::World | Zone::Host => {}
                    }
                }
            }
            PeerSelector::Objects(selectors) => {
                for selector in selectors {
                    match selector {
                        ObjectSelector::Pods(labels) if labels.requirements.is_empty() => return SelectedPods::Every,
                        ObjectSelector::Pods(labels) => selected.extend(self.pods.matching(labels)),
                        ObjectSelector::Services(selector) => {
                            let services = self.matching(selector).into_iter();
                            selected.extend(services.flat_map(|service| &self.services[service].pods));
                        }
                        _ => {}
                    }
                }
            }
        }
        SelectedPods::Some(selected.into_iter().collect())
    }

    /// The ports of the Services that peers mean by themselves or through their Pods.
    pub(super) fn service_ports_of(&self, peers: &PeerSelector) -> Vec<&SelectedServicePort<'i>> {
        let PeerSelector::Objects(selectors) = peers else {
            return Vec::new();
        };
        let mut meant: BTreeSet<usize> = BTreeSet::new();
        for selector in selectors {
            if let ObjectSelector::Services(selector) = selector {
                meant.extend(self.matching(selector));
            }
        }
        match self.pods_of(peers) {
            SelectedPods::Every => {
                let with_pods = self.services.iter().enumerate();
                let with_pods = with_pods.filter(|(_, service)| !service.pods.is_empty());
                meant.extend(with_pods.map(|(index, _)| index));
            }
            SelectedPods::Some(pods) => meant.extend(pods.iter().flat_map(|pod| &self.services_of_pod[*pod])),
        }
        self.ports_of(&meant)
    }

    /// The ports of the Services behind which some Pods stand.
    pub(super) fn service_ports_before(&self, pods: &[usize]) -> Vec<&SelectedServicePort<'i>> {
        self.ports_of(
            &pods
                .iter()
                .flat_map(|pod| &self.services_of_pod[*pod])
                .copied()
                .collect(),
        )
    }

    fn ports_of(&self, services: &BTreeSet<usize>) -> Vec<&SelectedServicePort<'i>> {
        let ports = services
            .iter()
            .filter_map(|service| self.services[*service].ports.as_ref());
        ports.flatten().collect()
    }

    /// The Services behind which some Pods stand.
    pub(super) fn services_before(&self, pods: &[usize]) -> impl Iterator<Item = &'i InventoryService> {
        let services: BTreeSet<usize> = pods
            .iter()
            .flat_map(|pod| &self.services_of_pod[*pod])
            .copied()
            .collect();
        services.into_iter().map(|service| self.services[service].service)
    }

    fn matching(&self, selector: &ServiceSelector) -> Vec<usize> {
        if let (Some(namespace), Some(name)) = (&selector.namespace, &selector.name) {
            let named = self.service_of_name.get(&(namespace.as_str(), name.as_str())).copied();
            let matches = |index: &usize| selector.matches(self.services[*index].service);
            return named.filter(matches).into_iter().collect();
        }
        let all = self.services.iter().enumerate();
        let matching = all.filter(|(_, service)| selector.matches(service.service));
        matching.map(|(index, _)| index).collect()
    }
}

/// The numbers of the port behind a Service's, each once.
fn targets(mapping: &ServicePortMapping, behind: &[usize], pods: &LintedPods<'_>) -> Vec<u16> {
    let name = match &mapping.target {
        TargetPort::Number(number) => return vec![*number],
        TargetPort::Name(name) => name,
    };
    let mut targets = Vec::new();
    for port in behind.iter().flat_map(|pod| pods.pods[*pod].ports()) {
        if port.name == *name && port.protocol == mapping.protocol && !targets.contains(&port.port) {
            targets.push(port.port);
        }
    }
    targets
}

/// Pods by their identities, each of which is matched once.
pub(super) struct LintedPods<'i> {
    pods: Vec<IndexedPod<'i>>,
    groups: Vec<PodGroup<'i>>,
    /// The groups that have a label, ascending.
    groups_with: HashMap<(&'i str, &'i str), Vec<usize>>,
    /// The groups that have a label of this key, ascending.
    groups_with_key: HashMap<&'i str, Vec<usize>>,
    /// The values of each label key.
    values: HashMap<&'i str, BTreeSet<&'i str>>,
    by_address: BTreeMap<IpAddr, Vec<usize>>,
    /// The ports that Pods name, each once, in the order of the Pods.
    ports: Vec<&'i ContainerPort>,
}

struct PodGroup<'i> {
    labels: &'i Labels,
    /// The indices of its Pods, ascending.
    pods: Vec<usize>,
}

impl<'i> LintedPods<'i> {
    fn new(index: &'i PodIndex) -> Self {
        let pods: Vec<IndexedPod<'i>> = index.iter().collect();
        // An index has each identity once.
        let mut group_of: HashMap<*const PodIdentity, usize> = HashMap::new();
        let mut groups: Vec<PodGroup<'i>> = Vec::new();
        let mut by_address: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
        for (index, pod) in pods.iter().enumerate() {
            let group = *group_of.entry(Arc::as_ptr(pod.identity())).or_insert_with(|| {
                groups.push(PodGroup {
                    labels: pod.labels(),
                    pods: Vec::new(),
                });
                groups.len() - 1
            });
            groups[group].pods.push(index);
            for address in pod.addresses() {
                by_address.entry(*address).or_default().push(index);
            }
        }
        let mut groups_with: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
        let mut groups_with_key: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut values: HashMap<&str, BTreeSet<&str>> = HashMap::new();
        for (index, group) in groups.iter().enumerate() {
            for (key, value) in group.labels {
                groups_with.entry((key, value)).or_default().push(index);
                groups_with_key.entry(key).or_default().push(index);
                values.entry(key).or_default().insert(value);
            }
        }
        Self {
            groups,
            groups_with,
            groups_with_key,
            values,
            by_address,
            ports: each_once(pods.iter().flat_map(|pod| pod.ports())),
            pods,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.pods.len()
    }

    /// The indices of the Pods that a selector selects, ascending.
    pub(super) fn matching(&self, selector: &LabelSelector) -> Vec<usize> {
        let requirements: Vec<&Requirement> = selector.requirements.iter().collect();
        let groups = self.groups(&requirements);
        let mut pods: Vec<usize> = groups.flat_map(|group| &group.pods).copied().collect();
        pods.sort_unstable();
        pods
    }

    /// Whether all of some requirements hold for any Pod.
    pub(super) fn any(&self, requirements: &[&Requirement]) -> bool {
        self.groups(requirements).next().is_some()
    }

    /// For how many Pods all of some requirements hold.
    pub(super) fn count(&self, requirements: &[&Requirement]) -> usize {
        self.groups(requirements).map(|group| group.pods.len()).sum()
    }

    /// The values of a label of the Pods for which all of some requirements hold.
    pub(super) fn values(&self, key: &str, requirements: &[&Requirement]) -> BTreeSet<&'i str> {
        if requirements.is_empty() {
            return self.values.get(key).cloned().unwrap_or_default();
        }
        let groups = self.groups(requirements);
        groups
            .filter_map(|group| group.labels.get(key))
            .map(String::as_str)
            .collect()
    }

    /// The ports that some of the Pods name, each once, in the order of the Pods.
    pub(super) fn ports(&self, selected: &SelectedPods) -> Vec<&'i ContainerPort> {
        match selected {
            SelectedPods::Every => self.ports.clone(),
            SelectedPods::Some(pods) => each_once(pods.iter().flat_map(|pod| self.pods[*pod].ports())),
        }
    }

    /// The Pods with an address in a prefix.
    fn within(&self, prefix: &IpNet) -> impl Iterator<Item = usize> {
        let range = self.by_address.range(prefix.network()..=prefix.broadcast());
        range.flat_map(|(_, pods)| pods).copied()
    }

    /// The Pods that a Service selects, ascending.
    fn behind(&self, service: &InventoryService) -> Vec<usize> {
        let Some(labels) = &service.selector else {
            return Vec::new();
        };
        let namespace = [(keys::NAMESPACE, service.namespace.as_str())];
        let labels = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        let requirements = namespace.into_iter().chain(labels);
        let requirements = requirements.map(|(key, value)| Requirement::equals(key, value));
        self.matching(&LabelSelector {
            requirements: requirements.collect(),
        })
    }

    /// The groups for which all of some requirements hold.
    fn groups<'s>(&'s self, requirements: &'s [&'s Requirement]) -> impl Iterator<Item = &'s PodGroup<'i>> {
        let candidates = requirements.iter().filter_map(|it| self.candidates(it));
        let candidates = candidates.min_by_key(|groups| groups.iter().map(|with| with.len()).sum::<usize>());
        let candidates: Vec<usize> = match candidates {
            Some(groups) => groups.into_iter().flatten().copied().collect(),
            None => (0..self.groups.len()).collect(),
        };
        let groups = candidates.into_iter().map(|group| &self.groups[group]);
        groups.filter(|group| requirements.iter().all(|it| it.holds(group.labels)))
    }

    /// The only groups for which a requirement may hold; `None` where that cannot be told.
    fn candidates<'s>(&'s self, requirement: &'s Requirement) -> Option<Vec<&'s [usize]>> {
        let key = requirement.key.as_str();
        match &requirement.operator {
            Operator::In(values) => {
                let values: BTreeSet<&str> = values.iter().map(String::as_str).collect();
                let with = values
                    .into_iter()
                    .filter_map(|value| self.groups_with.get(&(key, value)));
                Some(with.map(Vec::as_slice).collect())
            }
            Operator::Exists => Some(self.groups_with_key.get(key).map(Vec::as_slice).into_iter().collect()),
            Operator::NotIn(_) | Operator::DoesNotExist => None,
        }
    }
}

fn each_once<'p>(ports: impl Iterator<Item = &'p ContainerPort>) -> Vec<&'p ContainerPort> {
    let mut known = HashSet::new();
    ports
        .filter(|port| known.insert((&port.name, port.protocol, port.port)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::inventory::{Inventory, InventoryPod, ServiceIndex};

    use super::*;

    fn labels() -> impl Strategy<Value = Labels> {
        proptest::collection::btree_map("[xy]", "[ab]", 0..3)
    }

    fn pod() -> impl Strategy<Value = InventoryPod> {
        (labels(), "[nm]", 0..4_u8).prop_map(|(mut labels, namespace, address)| {
            labels.insert(keys::NAMESPACE.to_owned(), namespace);
            InventoryPod::new(labels, [IpAddr::from([10, 0, 0, address])], Vec::new())
        })
    }

    fn selector() -> impl Strategy<Value = LabelSelector> {
        let operator = prop_oneof![
            proptest::collection::vec("[abc]", 1..3).prop_map(Operator::In),
            proptest::collection::vec("[abc]", 1..3).prop_map(Operator::NotIn),
            Just(Operator::Exists),
            Just(Operator::DoesNotExist),
        ];
        let requirement = ("[xyz]", operator).prop_map(|(key, operator)| Requirement { key, operator });
        proptest::collection::vec(requirement, 0..3).prop_map(|requirements| LabelSelector { requirements })
    }

    fn service() -> impl Strategy<Value = InventoryService> {
        ("[nm]", "[st]", labels(), proptest::option::of(labels())).prop_map(|(namespace, name, labels, selector)| {
            InventoryService {
                namespace,
                name,
                labels,
                selector,
                ..InventoryService::default()
            }
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_a_look_at_each_object_finds(
            pods in proptest::collection::vec(pod(), 0..8),
            services in proptest::collection::vec(service(), 0..3),
            selector in selector(),
            (namespace, name) in (proptest::option::of("[nm]"), proptest::option::of("[st]")),
        ) {
            let mut named = ServiceIndex::default();
            services.into_iter().for_each(|service| named.insert(service));
            let cluster = ClusterContext {
                inventory: std::borrow::Cow::Owned(Inventory {
                    pods: pods.iter().cloned().collect(),
                    services: named,
                    ..Inventory::default()
                }),
                ..ClusterContext::default()
            };
            let selection = Selection::new(&cluster);
            let of = |selected: SelectedPods| match selected {
                SelectedPods::Every => (0..pods.len()).collect(),
                SelectedPods::Some(pods) => pods,
            };
            let matching = |is_meant: &dyn Fn(&InventoryPod) -> bool| -> Vec<usize> {
                let meant = pods.iter().enumerate().filter(|(_, pod)| is_meant(pod));
                meant.map(|(index, _)| index).collect()
            };

            let by_labels = matching(&|pod| selector.matches(pod.labels()));
            prop_assert_eq!(&selection.pods().matching(&selector), &by_labels);
            let requirements: Vec<&Requirement> = selector.requirements.iter().collect();
            prop_assert_eq!(selection.pods().count(&requirements), by_labels.len());
            let of_labels = PeerSelector::Objects(vec![ObjectSelector::Pods(selector.clone())]);
            prop_assert_eq!(of(selection.pods_of(&of_labels)), by_labels);

            let prefix: IpNet = "10.0.0.2/31".parse().unwrap();
            let within = matching(&|pod| pod.addresses().iter().any(|address| prefix.contains(address)));
            let of_prefix = PeerSelector::Prefixes(vec![(Zone::Cluster, prefix)]);
            prop_assert_eq!(of(selection.pods_of(&of_prefix)), within);

            let services = &cluster.inventory.services;
            let wanted = ServiceSelector { namespace, name, labels: selector };
            let meant = || services.iter().filter(|service| wanted.matches(service));
            prop_assert_eq!(selection.has_service(&wanted), meant().next().is_some());
            let behind = matching(&|pod| meant().any(|service| service.selects(pod.identity())));
            let of_services = PeerSelector::Objects(vec![ObjectSelector::Services(wanted.clone())]);
            prop_assert_eq!(of(selection.pods_of(&of_services)), behind);
        }
    }
}
