//! A plan that follows the objects through their history, against one that was made at once.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use cluster::index::Cluster;
use cluster::{Object, ObjectChange, ObjectKey};
use enforcer::layout::{ElementKey, IpFamily, SetKind};
use enforcer::pod_links::NodeNetwork;
use enforcer::{Element, KernelTiers, SetId};
use names::Name;
use planner::{Plan, Planner};
use policy::classifier::{AddressContext, Classifier, SetClass};
use policy::{Protocol, Rule, Tiers, Verdict, document, validate};
use proptest::prelude::*;
use serde_json::{Value, json};
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts, Settings};

/// What happens in a cluster. Numbers are names, and few, so that each is met often.
#[derive(Debug, Clone)]
enum Step {
    /// A pod comes, or is another one from now on: relabelled, moved, ended, given the address of
    /// one that is being deleted.
    Pod(u8, PodState),
    /// The labels of a namespace.
    Namespace(u8, u8),
    /// A node's range of pods.
    Node(u8, u8),
    Service(u8, u8, u8),
    /// The endpoints of a service.
    Slice(u8, u8),
    Policy(u8, PolicyState),
    /// A policy of the whole cluster, of tier Admin or Baseline, with two of [`TIER_RULES`].
    TierPolicy(bool, [usize; 2]),
    /// One of the objects is deleted.
    Gone(usize),
    /// An address of this node's own.
    Own(u8),
}

#[derive(Debug, Clone, Copy)]
struct PodState {
    app: u8,
    address: u8,
    is_here: bool,
    is_being_deleted: bool,
    has_ended: bool,
    port: u16,
}

#[derive(Debug, Clone, Copy)]
struct PolicyState {
    app: u8,
    /// Which of [`RULES`] the policy has.
    rules: [usize; 2],
    is_audited: bool,
}

const RULES: [&str; 15] = [
    "egress: [{toEndpoints: [{matchLabels: {app: a0}}], toPorts: [{ports: [{port: web, protocol: TCP}]}]}]",
    "egress: [{toEndpoints: [{matchLabels: {app: a1, 'k8s:io.kubernetes.pod.namespace': n0}}]}]",
    "egress: [{toEndpoints: [{matchExpressions: [{key: app, operator: NotIn, values: [a0]}]}]}]",
    "egress: [{toEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': t1}}]}]",
    "egress: [{toFQDNs: [{matchName: a.example}, {matchPattern: '*.b.example'}], toPorts: [{ports: [{port: '443'}]}]}]",
    "egress: [{toServices: [{k8sService: {serviceName: s0, namespace: n0}}]}]",
    "egress: [{toEntities: [remote-node]}, {toCIDR: [10.1.0.0/30]}]",
    "egressDeny: [{toEndpoints: [{matchLabels: {app: a1}}]}]",
    "egress: [{toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.8/30]}]}]",
    "ingress: [{fromEndpoints: [{matchLabels: {app: a0}}], toPorts: [{ports: [{port: web, protocol: TCP}]}]}]",
    "ingress: [{fromEntities: [remote-node]}, {fromCIDR: [192.0.2.0/24]}]",
    "ingressDeny: [{fromEndpoints: [{matchLabels: {app: a1}}]}]",
    // These decide about whole namespaces, and prefixes decide before some of them.
    "egressDeny: [{toEndpoints: [{matchLabels: {'k8s:io.cilium.k8s.namespace.labels.team': t2}}], toPorts: [{ports: [{port: '81'}]}]}]",
    "egressDeny: [{toEntities: [cluster], toPorts: [{ports: [{port: '81', protocol: TCP}]}]}]",
    "egress: [{toEndpoints: [{matchExpressions: [{key: 'k8s:io.kubernetes.pod.namespace', operator: Exists}]}], toPorts: [{ports: [{port: web}, {port: '443'}]}]}]",
];

const TIER_RULES: [&str; 7] = [
    "{action: Accept, to: [{namespaces: {matchLabels: {team: t1}}}]}",
    "{action: Accept, to: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}",
    "{action: Deny, to: [{namespaces: {matchLabels: {team: t2}}}]}",
    "{action: Deny, to: [{networks: [10.1.0.0/30]}]}",
    "{action: Accept, to: [{networks: [10.1.0.2/31]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}",
    "{action: Pass, to: [{namespaces: {matchLabels: {team: t0}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}",
    "{action: Deny, to: [{nodes: {}}]}",
];

fn step() -> impl Strategy<Value = Step> {
    let pod = (0_u8..3, 0_u8..6, any::<bool>(), 0_u8..6, 80_u16..82);
    let pod = pod.prop_map(|(app, address, is_here, fate, port)| PodState {
        app,
        address,
        is_here,
        is_being_deleted: fate == 0,
        has_ended: fate == 1,
        port,
    });
    let policy = (0_u8..3, [0..RULES.len(), 0..RULES.len()], any::<bool>());
    let policy = policy.prop_map(|(app, rules, is_audited)| PolicyState { app, rules, is_audited });
    prop_oneof![
        10 => (0_u8..8, pod).prop_map(|(name, pod)| Step::Pod(name, pod)),
        3 => (0_u8..2, 0_u8..3).prop_map(|(name, team)| Step::Namespace(name, team)),
        2 => (0_u8..2, 0_u8..3).prop_map(|(name, range)| Step::Node(name, range)),
        2 => (0_u8..2, 0_u8..3, 0_u8..4).prop_map(|(name, app, last)| Step::Service(name, app, last)),
        2 => (0_u8..2, 0_u8..4).prop_map(|(name, last)| Step::Slice(name, last)),
        5 => (0_u8..4, policy).prop_map(|(name, policy)| Step::Policy(name, policy)),
        2 => (any::<bool>(), [0..TIER_RULES.len(), 0..TIER_RULES.len()])
            .prop_map(|(is_admin, rules)| Step::TierPolicy(is_admin, rules)),
        7 => (0_usize..20).prop_map(Step::Gone),
        1 => (0_u8..6).prop_map(Step::Own),
    ]
}

/// The objects by their keys, and this node's addresses.
#[derive(Default)]
struct History {
    objects: BTreeMap<ObjectKey, Object>,
    own: BTreeSet<IpAddr>,
}

impl History {
    fn network(&self) -> Arc<NodeNetwork> {
        Arc::new(NodeNetwork {
            own: self.own.clone(),
            ..NodeNetwork::default()
        })
    }

    /// What a step changes; `None` where it changes no object.
    fn take(&mut self, step: &Step) -> Option<ObjectChange> {
        let (key, object) = match step {
            Step::Pod(name, state) => (
                ObjectKey::Pod(namespace_of(*name), format!("p{name}")),
                Object::Pod(read(pod(*name, *state))),
            ),
            Step::Namespace(name, team) => (
                ObjectKey::Namespace(format!("n{name}")),
                Object::Namespace(read(
                    json!({"metadata": {"name": format!("n{name}"), "labels": {"team": format!("t{team}")}}}),
                )),
            ),
            Step::Node(name, range) => {
                let name = if *name == 0 { "here" } else { "there" };
                let node = json!({
                    "metadata": {"name": name},
                    "spec": {"podCIDR": format!("10.{range}.0.0/30")},
                    "status": {"addresses": [{"type": "InternalIP", "address": format!("198.51.100.{range}")}]},
                });
                (ObjectKey::Node(name.to_owned()), Object::Node(read(node)))
            }
            Step::Service(name, app, last) => {
                let service = json!({
                    "metadata": {"name": format!("s{name}"), "namespace": "n0"},
                    "spec": {"clusterIP": format!("10.96.0.{last}"), "selector": {"app": format!("a{app}")}},
                });
                let key = ObjectKey::Service("n0".into(), format!("s{name}"));
                (key, Object::Service(read(service)))
            }
            Step::Slice(name, last) => {
                let labels = json!({"kubernetes.io/service-name": format!("s{name}")});
                let slice = json!({
                    "metadata": {"name": format!("s{name}-x"), "namespace": "n0", "labels": labels},
                    "addressType": "IPv4",
                    "endpoints": [{"addresses": [format!("192.0.2.{last}"), format!("10.1.0.{last}")]}],
                });
                let key = ObjectKey::EndpointSlice("n0".into(), format!("s{name}-x"));
                (key, Object::EndpointSlice(read(slice)))
            }
            Step::Policy(name, state) => {
                let policy = policy(*name, *state);
                (ObjectKey::Policy(policy.id.clone()), Object::Policy(Box::new(policy)))
            }
            Step::TierPolicy(is_admin, rules) => {
                let policy = tier_policy(*is_admin, *rules);
                (ObjectKey::Policy(policy.id.clone()), Object::Policy(Box::new(policy)))
            }
            Step::Gone(place) => {
                let key = self.objects.keys().nth(*place)?.clone();
                self.objects.remove(&key);
                return Some(ObjectChange::Delete(key));
            }
            Step::Own(last) => {
                self.own = BTreeSet::from([IpAddr::from([10, 1, 0, *last])]);
                return None;
            }
        };
        self.objects.insert(key, object.clone());
        Some(ObjectChange::Apply(object))
    }
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// A pod or policy of this name is always of the same namespace.
fn namespace_of(name: u8) -> String {
    format!("n{}", name % 2)
}

fn pod(name: u8, state: PodState) -> Value {
    let mut metadata = json!({
        "name": format!("p{name}"),
        "namespace": namespace_of(name),
        "labels": {"app": format!("a{}", state.app)},
    });
    if state.is_being_deleted {
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    json!({
        "metadata": metadata,
        "spec": {
            "nodeName": if state.is_here { "here" } else { "there" },
            "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": state.port}]}],
        },
        "status": {
            "phase": if state.has_ended { "Succeeded" } else { "Running" },
            "podIPs": [{"ip": format!("10.1.0.{}", state.address)}, {"ip": format!("fd00::{}", state.address)}],
        },
    })
}

fn policy(name: u8, state: PolicyState) -> policy::Policy {
    let [first, second] = state.rules.map(|rules| RULES[rules]);
    let mode = if state.is_audited { "audit" } else { "enforce" };
    let text = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {{name: q{name}, namespace: {}, annotations: {{namegate.io/mode: {mode}}}}}\n\
         specs:\n- endpointSelector: {{matchLabels: {{app: a{}}}}}\n  {first}\n- endpointSelector: {{}}\n  {second}\n",
        namespace_of(name),
        state.app,
    );
    read_policy(&text)
}

fn tier_policy(is_admin: bool, rules: [usize; 2]) -> policy::Policy {
    let [first, second] = rules.map(|rule| TIER_RULES[rule]);
    let tier = if is_admin { "Admin" } else { "Baseline" };
    read_policy(&format!(
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n\
         metadata: {{name: {}}}\nspec:\n  tier: {tier}\n  priority: 1\n  subject: {{namespaces: {{}}}}\n  \
         egress:\n  - {first}\n  - {second}\n",
        tier.to_lowercase(),
    ))
}

fn read_policy(text: &str) -> policy::Policy {
    let (documents, errors) = document::parse(text);
    assert_eq!(errors, []);
    let (verdict, diagnostics) = validate::validate(&documents[0]);
    verdict.accepted().unwrap_or_else(|| panic!("{diagnostics:?}"))
}

fn settings() -> Settings {
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
    };
    resolve(AgentOptions::default(), &host).unwrap()
}

/// The pods that a plan knows. Their numbers differ by their histories.
fn pods(plan: &Plan) -> BTreeSet<String> {
    let pods = plan.inventory.pods.iter();
    pods.map(|pod| format!("{:?} {:?}", pod.addresses(), pod.labels()))
        .collect()
}

/// What a plan lets learned names open.
fn learned(plan: &Plan) -> Vec<(String, IpAddr, BTreeSet<Element>)> {
    let mut learned = Vec::new();
    for text in ["a.example", "x.b.example", "c.example"] {
        let name = Name::parse(text).unwrap();
        for address in ["203.0.113.1", "10.1.0.1", "192.0.2.1", "192.0.2.9", "fd00::2"] {
            let address: IpAddr = address.parse().unwrap();
            let teacher = plan.teacher("192.0.2.53".parse().unwrap());
            let mut elements = BTreeSet::new();
            for matched in plan.matched_names(&name, &[], false) {
                plan.elements(&matched, address, teacher, |element| {
                    elements.insert(element);
                });
            }
            learned.push((text.to_owned(), address, elements));
        }
    }
    learned
}

/// The verdict that the sets of tiers give, as the kernel looks them up: class by class, in each
/// the tiers' own sets and those of the rules that they share; then the prefixes.
fn by_sets(plan: &Plan, tiers: &KernelTiers, address: IpAddr, port: u16) -> Verdict {
    let holds = |id, class, kind, port| {
        let set = SetId {
            program: id,
            class,
            kind,
            family: if address.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 },
        };
        let key = ElementKey { address, port };
        plan.desired
            .members
            .get(&id)
            .is_some_and(|members| members.contains(&Element { set, key }))
    };
    let exact = Some((Protocol::Tcp, port));
    let found = |id, class| {
        holds(id, class, SetKind::Exact, exact)
            || holds(id, class, SetKind::All, None)
            || tiers
                .classifier
                .layout()
                .port_ranges
                .iter()
                .zip(0..)
                .any(|(range, number)| {
                    let is_in = range.protocol == Protocol::Tcp && (range.first..=range.last).contains(&port);
                    is_in && holds(id, class, SetKind::Range(number), None)
                })
    };
    for class in SetClass::ALL {
        let mut shared = tiers.classifier.shared().iter().filter(|shared| shared.class == class);
        if found(tiers.id, class) || shared.any(|shared| found(shared.id, SetClass::Allow)) {
            return class.verdict();
        }
    }
    let zone = plan.places.of(address);
    tiers.classifier.verdict(address, zone, std::iter::empty(), exact)
}

/// The verdict of an endpoint's policies, as the tiers say it from what is known of an address.
fn by_policies(plan: &Plan, tiers: &Tiers, address: IpAddr, port: u16) -> Verdict {
    let classifier = Classifier::new(tiers);
    let members = |(index, rule): (usize, &Rule)| Some((index, plan.inventory.members(rule).remove(&address)?));
    let objects: Vec<_> = classifier.object_rules().filter_map(members).collect();
    let zone = plan.places.of(address);
    let at = AddressContext {
        address,
        zone,
        objects: &objects,
    };
    let entries = match objects.is_empty() {
        true => Vec::new(),
        false => classifier.entries_for_objects(at).to_vec(),
    };
    classifier.verdict(address, zone, entries.iter(), Some((Protocol::Tcp, port)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// At addresses that no name has taught.
    #[test]
    fn the_sets_of_a_plan_say_what_policies_say(
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let settings = settings();
        let mut history = History::default();
        let mut cluster = Cluster::new("here");
        for step in &steps {
            if let Some(change) = history.take(step) {
                cluster.apply(change);
            }
        }
        let plan = Planner::default().plan(&cluster, &settings, &history.network());
        for endpoint in plan.local.iter() {
            let policies = plan.policies.iter().map(|policy| &**policy);
            let Some(compiled) = policy::compile::compile(endpoint, policies, &plan.inventory) else {
                continue;
            };
            let mut pairs = Vec::new();
            for program in compiled.programs.iter().filter_map(|(_, program)| program.as_ref()) {
                let Some(folded) = plan.desired.programs.get(&program.id()) else {
                    prop_assert!(plan.conflicts.iter().any(|conflict| conflict.closed), "{:?}", endpoint);
                    continue;
                };
                pairs.extend(folded.evaluations().zip([&program.enforced].into_iter().chain(&program.audited)));
            }
            for (folded, tiers) in pairs {
                for last in 0..6 {
                    for address in [[10, 1, 0, last], [192, 0, 2, last], [198, 51, 100, last]] {
                        for port in [80, 81, 443] {
                            let address = IpAddr::from(address);
                            let expected = by_policies(&plan, tiers, address, port);
                            prop_assert_eq!(by_sets(&plan, folded, address, port), expected, "{} {} {:#?}", address, port, tiers);
                        }
                    }
                }
            }
        }
    }

    /// However many changes come at once.
    #[test]
    fn a_plan_of_a_history_is_the_plan_of_its_end(
        batches in prop::collection::vec(prop::collection::vec(step(), 1..5), 1..16),
    ) {
        let settings = settings();
        let mut history = History::default();
        let (mut cluster, mut planner) = (Cluster::new("here"), Planner::default());
        for batch in &batches {
            for step in batch {
                if let Some(change) = history.take(step) {
                    cluster.apply(change);
                }
            }
            let plan = planner.plan(&cluster, &settings, &history.network());
            let mut anew = Cluster::new("here");
            for object in history.objects.values() {
                anew.apply(ObjectChange::Apply(object.clone()));
            }
            let model = Planner::default().plan(&anew, &settings, &history.network());
            prop_assert_eq!(&plan.desired, &model.desired);
            prop_assert_eq!(pods(&plan), pods(&model));
            prop_assert_eq!(&plan.listeners, &model.listeners);
            prop_assert_eq!(&plan.policies, &model.policies);
            prop_assert_eq!(format!("{:?}", plan.teachable), format!("{:?}", model.teachable));
            prop_assert_eq!(format!("{:?}", plan.endpoints), format!("{:?}", model.endpoints));
            prop_assert_eq!(&plan.conflicts, &model.conflicts);
            prop_assert_eq!(&plan.local, &model.local);
            prop_assert_eq!(format!("{:?}", plan.governed), format!("{:?}", model.governed));
            prop_assert_eq!(format!("{:?}", plan.places), format!("{:?}", model.places));
            prop_assert_eq!(learned(&plan), learned(&model));
        }
    }
}
