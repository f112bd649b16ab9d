//! A packet's verdict by the explanation, and whether the policy that it names can be the one that
//! decides.

use std::collections::BTreeMap;
use std::time::Duration;

use oracle::{Direction, Oracle, Policies, Probe, Verdict, World};
use policy::explain::{
    Decision, ExplainContext, ExplainOutcome, Explanation, KnownName, KnownPeer, LeaseState, explain,
};
use policy::{Origin, Policy};
use serde_json::json;

use crate::node::{Node, traffic};
use crate::objects;

/// Explains the packets of a node's pods.
pub(crate) struct Explained<'a> {
    node: &'a Node<'a>,
    policies: Vec<&'a Policy>,
    /// By the policy's name, as if it were the only one.
    alone: BTreeMap<String, Alone>,
}

struct Alone {
    plain: Oracle,
    /// What nothing allows is denied, at the very end.
    backed: Oracle,
}

impl<'a> Explained<'a> {
    pub(crate) fn new(node: &'a Node<'a>, world: &World) -> Self {
        let policies = world.objects.iter().filter(|object| objects::is_policy(object));
        let names = policies.filter_map(|policy| policy["metadata"]["name"].as_str());
        Self {
            node,
            policies: node.policies.iter().collect(),
            alone: names.map(|name| (name.to_owned(), Alone::new(world, name))).collect(),
        }
    }

    /// `None` for a packet of a protocol that nobody can ask about, and where no pod of the node is
    /// that end.
    pub(crate) fn explanation(&self, direction: Direction, probe: &Probe) -> Option<Explanation> {
        let traffic = traffic(probe)?;
        let (endpoint, peer) = self.node.end(direction, probe)?;
        let context = ExplainContext {
            direction: match direction {
                Direction::Egress => policy::Direction::Egress,
                Direction::Ingress => policy::Direction::Ingress,
            },
            endpoint,
            policies: &self.policies,
            inventory: &self.node.inventory,
            announced: None,
        };
        let known = |name| KnownName {
            name,
            lease: LeaseState::Remaining(Duration::from_secs(60)),
        };
        let towards = KnownPeer {
            address: Some((peer, self.node.zone(peer))),
            names: self.node.names_of(peer).into_iter().map(known).collect(),
            traffic: Some(traffic),
        };
        Some(explain(context, &towards))
    }

    /// Whether each policy that the explanation names says the same of the packet when it is the
    /// only one.
    pub(crate) fn can_decide(&self, explanation: &Explanation, direction: Direction, probe: &Probe) -> bool {
        let denied = Some(Verdict::Deny);
        let of = |origin: &Origin| &self.alone[&origin.policy.name];
        match &explanation.decision {
            Decision::Rule { verdict, origin, .. } => match verdict {
                policy::Verdict::Allow => of(origin).backed.decide_in(direction, probe) == Some(Verdict::Allow),
                policy::Verdict::Deny | policy::Verdict::Inspect => {
                    of(origin).plain.decide_in(direction, probe) == denied
                }
            },
            Decision::Closed { by, .. } => {
                let mut alone = by.iter().map(|it| of(it).plain.decide_in(direction, probe));
                !by.is_empty() && alone.all(|verdict| verdict == denied)
            }
            Decision::Open(_) | Decision::Unselected(_) => true,
        }
    }
}

/// What the explanation says where these policies count; `None` where it does not say, since an
/// enforced denial is told first.
pub(crate) fn verdict(explanation: &Explanation, policies: Policies) -> Option<Verdict> {
    match (explanation.outcome, policies) {
        (ExplainOutcome::Allowed, _) | (ExplainOutcome::Audited, Policies::Enforced) => Some(Verdict::Allow),
        (ExplainOutcome::Denied, Policies::Enforced) | (ExplainOutcome::Audited, Policies::All) => Some(Verdict::Deny),
        (ExplainOutcome::Denied, Policies::All) => None,
    }
}

impl Alone {
    fn new(world: &World, name: &str) -> Self {
        let mut world = world.clone();
        world
            .objects
            .retain(|object| !objects::is_policy(object) || object["metadata"]["name"] == name);
        let plain = Oracle::new(&world, Policies::All);
        // Of the lowest priority, and after every generated name. In the API sources are pods
        // alone; the interpreter does not mind.
        world.objects.push(json!({
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "zz-backstop"},
            "spec": {
                "tier": "Baseline",
                "priority": 1000,
                "subject": {"namespaces": {}},
                "egress": [{"action": "Deny", "to": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
                "ingress": [{"action": "Deny", "from": [{"networks": ["0.0.0.0/0", "::/0"]}]}],
            },
        }));
        let backed = Oracle::new(&world, Policies::All);
        Self { plain, backed }
    }
}
