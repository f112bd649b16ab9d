use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::endpoint::keys;
use crate::extensions::LeaseTerms;
use crate::inventory::{ContainerPort, InventoryNode, InventoryPod, PodIndex, PodNumber};
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::peer_selector::ServiceSelector;
use crate::policy::Action;
use crate::ports::{PortRange, Protocol};

/// What happens to a cluster.
#[derive(Debug, Clone)]
enum Step {
    /// A pod of this name comes, or is another one from now on.
    Pod(u8, PodState),
    PodGone(u8),
    /// The service of this name selects an app, and has a backend of its own.
    Service(u8, u8, u8),
    ServiceGone(u8),
    Node(u8),
    /// A rule is used once more, or once less.
    Track(u8),
    Release(u8),
}

#[derive(Debug, Clone, Copy)]
struct PodState {
    namespace: u8,
    app: u8,
    team: u8,
    /// Another pod may have it too.
    address: u8,
    port: u16,
}

fn step() -> impl Strategy<Value = Step> {
    let pod = (0_u8..2, 0_u8..3, 0_u8..2, 0_u8..6, 80_u16..82);
    let pod = pod.prop_map(|(namespace, app, team, address, port)| PodState {
        namespace,
        app,
        team,
        address,
        port,
    });
    prop_oneof![
        8 => (0_u8..8, pod).prop_map(|(name, pod)| Step::Pod(name, pod)),
        3 => (0_u8..8).prop_map(Step::PodGone),
        2 => (0_u8..2, 0_u8..3, 0_u8..4).prop_map(|(name, app, last)| Step::Service(name, app, last)),
        1 => (0_u8..2).prop_map(Step::ServiceGone),
        1 => (0_u8..4).prop_map(Step::Node),
        4 => (0_u8..10).prop_map(Step::Track),
        2 => (0_u8..10).prop_map(Step::Release),
    ]
}

fn pod(state: PodState) -> InventoryPod {
    let labels = [
        ("app".to_owned(), state.app.to_string()),
        ("team".to_owned(), state.team.to_string()),
        (keys::NAMESPACE.to_owned(), state.namespace.to_string()),
    ];
    let port = ContainerPort {
        name: "web".into(),
        protocol: Protocol::Tcp,
        port: state.port,
    };
    let address = IpAddr::from([10, 0, 0, state.address]);
    InventoryPod::new(labels.into(), [address], vec![port])
}

fn service(name: u8, app: u8, last: u8) -> InventoryService {
    InventoryService {
        namespace: "1".into(),
        name: name.to_string(),
        selector: Some([("app".to_owned(), app.to_string())].into()),
        // Of a pod too, whether it is selected or not.
        backends: [IpAddr::from([192, 0, 2, last]), IpAddr::from([10, 0, 0, last])].into(),
        ..InventoryService::default()
    }
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
        through: None,
        lease: LeaseTerms::default(),
        origins: Vec::new(),
    }
}

fn rules() -> Vec<Rule> {
    let selector = |requirements: &[(&str, Operator)]| {
        let requirements = requirements.iter().map(|(key, operator)| Requirement {
            key: (*key).to_owned(),
            operator: operator.clone(),
        });
        LabelSelector {
            requirements: requirements.collect(),
        }
    };
    let is = |values: &[&str]| Operator::In(values.iter().map(|value| (*value).to_owned()).collect());
    let pods = |requirements: &[(&str, Operator)]| Peer::Object(ObjectSelector::Pods(selector(requirements)));
    let service = |name: Option<&str>| {
        Peer::Object(ObjectSelector::Services(ServiceSelector {
            namespace: name.map(|_| "1".to_owned()),
            name: name.map(str::to_owned),
            labels: LabelSelector::default(),
        }))
    };
    vec![
        rule(pods(&[("app", is(&["0"]))]), false),
        rule(pods(&[("app", is(&["1", "2"])), (keys::NAMESPACE, is(&["1"]))]), true),
        rule(pods(&[("app", Operator::NotIn(vec!["0".to_owned()]))]), true),
        rule(
            pods(&[(keys::NAMESPACE, is(&["0"])), ("team", Operator::Exists)]),
            false,
        ),
        rule(pods(&[]), true),
        rule(Peer::PodsWithin(Zone::Anywhere, "10.0.0.0/30".parse().unwrap()), true),
        rule(service(Some("0")), false),
        rule(service(None), true),
        rule(Peer::Object(ObjectSelector::RemoteNodes), false),
        Rule {
            ports: PortSet::Ranges(Vec::new()),
            ..rule(service(Some("1")), true)
        },
    ]
}

/// The objects, and the rules that are in use.
#[derive(Default)]
struct History {
    inventory: Inventory,
    pods: BTreeMap<u8, PodNumber>,
    tracked: BTreeMap<u8, (TrackedRuleKey, usize)>,
    membership: Membership,
}

impl History {
    fn take(&mut self, step: &Step, rules: &[Rule]) {
        match *step {
            Step::Pod(name, state) => match self.pods.get(&name) {
                Some(number) => self.inventory.pods.replace(*number, pod(state)),
                None => drop(self.pods.insert(name, self.inventory.pods.insert(pod(state)))),
            },
            Step::PodGone(name) => {
                if let Some(number) = self.pods.remove(&name) {
                    self.inventory.pods.remove(number);
                }
            }
            Step::Service(name, app, last) => self.inventory.services.insert(service(name, app, last)),
            Step::ServiceGone(name) => self.inventory.services.remove("1", &name.to_string()),
            Step::Node(last) => {
                let node = InventoryNode {
                    addresses: [IpAddr::from([198, 51, 100, last])].into(),
                    ..InventoryNode::default()
                };
                self.inventory.nodes = OrdMap::unit("a".to_owned(), Arc::new(node));
            }
            Step::Track(index) => {
                let key = self.membership.track(&rules[usize::from(index)]).unwrap();
                self.tracked.entry(index).or_insert((key, 0)).1 += 1;
            }
            Step::Release(index) => {
                let Some((key, users)) = self.tracked.get_mut(&index) else {
                    return;
                };
                self.membership.release(*key);
                *users -= 1;
                if *users == 0 {
                    self.tracked.remove(&index);
                }
            }
        }
    }

    fn members(&self) -> BTreeMap<u8, PeerMembers> {
        let members = |(index, (key, _)): (&u8, &(TrackedRuleKey, usize))| {
            (*index, self.membership.members(*key).unwrap().clone())
        };
        self.tracked.iter().map(members).collect()
    }
}

proptest! {
    /// However many changes come at once.
    #[test]
    fn what_is_kept_up_is_what_would_be_found_anew(batches in prop::collection::vec(prop::collection::vec(step(), 1..6), 1..12)) {
        let rules = rules();
        let mut history = History::default();
        for batch in batches {
            for step in &batch {
                history.take(step, &rules);
            }
            let before = history.members();
            history.membership.update(&history.inventory);
            for (index, now) in history.members() {
                let rule = &rules[usize::from(index)];
                let anew: PeerMembers = history.inventory.members(rule).into_iter().collect();
                prop_assert_eq!(&now, &anew, "rule {}", index);
                let before = &before[&index];
                let all: BTreeSet<IpAddr> = before.keys().chain(now.keys()).copied().collect();
                let differ: BTreeSet<IpAddr> = all.into_iter().filter(|it| before.get(it) != now.get(it)).collect();
                let key = history.tracked[&index].0;
                let told = history.membership.changed().get(&key).cloned().unwrap_or_default();
                prop_assert_eq!(told, differ);
            }
        }
    }

    /// An index that was not made of the one before may give its numbers to others.
    #[test]
    fn an_inventory_that_was_made_anew_is_taken_over(
        clusters in prop::collection::vec(prop::collection::vec((0_u8..2, 0_u8..3, 0_u8..2, 0_u8..6, 80_u16..82), 0..6), 1..5),
    ) {
        let rules = rules();
        let mut membership = Membership::default();
        let keys: Vec<TrackedRuleKey> = rules.iter().map(|rule| membership.track(rule).unwrap()).collect();
        for cluster in clusters {
            let pods: PodIndex = cluster
                .into_iter()
                .map(|(namespace, app, team, address, port)| pod(PodState { namespace, app, team, address, port }))
                .collect();
            let inventory = Inventory { pods, ..Inventory::default() };
            membership.update(&inventory);
            for (rule, key) in rules.iter().zip(&keys) {
                let anew: PeerMembers = inventory.members(rule).into_iter().collect();
                prop_assert_eq!(membership.members(*key), Some(&anew));
                // One address at a time it is the same.
                let all = inventory.members(rule);
                let of_pods = inventory.pods.iter().flat_map(|pod| pod.addresses());
                for address in all.keys().chain(of_pods) {
                    let known = all.get(address).cloned().unwrap_or(PortSet::Ranges(Vec::new()));
                    prop_assert_eq!(inventory.ports_at(rule, *address), known, "{}", address);
                }
            }
        }
    }
}
