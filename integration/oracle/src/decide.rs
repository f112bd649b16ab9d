//! How the families of policies meet: the verdict about a packet.

use std::net::IpAddr;

use serde_json::Value;

use crate::announced::Announced;
use crate::cilium;
use crate::cluster_network_policy::{self, Tier};
use crate::flow::{Direction, Flow};
use crate::network_policy;
use crate::probe::{Probe, Sender};
use crate::verdict::Verdict;
use crate::world::{Pod, World};

/// Which policies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    /// Those that are enforced.
    Enforced,
    /// Those in mode audit too.
    All,
}

/// Decides packets as if some policies were all that there are.
#[derive(Debug)]
pub struct Oracle {
    world: World,
}

impl Oracle {
    /// Of the world's policies only those count.
    pub fn new(world: &World, policies: Policies) -> Self {
        let is_audited = |object: &Value| object["metadata"]["annotations"]["namegate.io/mode"] == "audit";
        let mut world = world.clone();
        world
            .objects
            .retain(|object| policies == Policies::All || !is_audited(object));
        Self { world }
    }

    /// What becomes of a packet: it passes where the sender's egress and the receiver's ingress let
    /// it through, of those of them that are pods of the node. What comes from the node itself
    /// always reaches its pods, and a pod itself.
    ///
    /// # Panics
    ///
    /// Where the world is not sound, for example without the pod that sends.
    pub fn decide(&self, probe: &Probe) -> Verdict {
        let is_own = self
            .sender(probe)
            .is_some_and(|from| from.addresses().contains(&probe.to));
        let source = self.source(probe);
        let is_local = source.is_some_and(|source| self.world.is_host(source));
        let egress = self.decide_in(Direction::Egress, probe).filter(|_| !is_own);
        let ingress = self
            .decide_in(Direction::Ingress, probe)
            .filter(|_| !is_own && !is_local);
        match egress
            .into_iter()
            .chain(ingress)
            .any(|verdict| verdict == Verdict::Deny)
        {
            true => Verdict::Deny,
            false => Verdict::Allow,
        }
    }

    /// What the rules of one end say; `None` where that is no pod of the node.
    ///
    /// Admin, then Cilium's policies and NetworkPolicies, which are final for the pods that they
    /// close, then Baseline, then allow.
    pub fn decide_in(&self, direction: Direction, probe: &Probe) -> Option<Verdict> {
        self.decide_announced(direction, probe, None)
    }

    /// The same of a connection that somebody looks into, and that announces this. Without, rules
    /// that ask for something let nothing through.
    pub fn decide_announced(
        &self,
        direction: Direction,
        probe: &Probe,
        announced: Option<&Announced>,
    ) -> Option<Verdict> {
        let world = &self.world;
        let (subject, peer) = match direction {
            Direction::Egress => (self.sender(probe)?, probe.to),
            Direction::Ingress => (world.pod_at(probe.to)?, self.source(probe)?),
        };
        if subject.node() != world.node {
            return None;
        }
        let flow = Flow {
            world,
            direction,
            subject,
            peer,
            traffic: probe.traffic,
            announced,
        };
        let verdict = cluster_network_policy::verdict(flow, Tier::Admin)
            .or_else(|| network(flow))
            .or_else(|| cluster_network_policy::verdict(flow, Tier::Baseline));
        Some(verdict.unwrap_or(Verdict::Allow))
    }

    fn sender(&self, probe: &Probe) -> Option<Pod<'_>> {
        let Sender::Pod(namespace, name) = &probe.from else {
            return None;
        };
        let mut pods = self.world.pods();
        let from = pods.find(|pod| pod.namespace() == namespace && pod.name() == name);
        Some(from.expect("the pod that sends is there"))
    }

    /// Where the packet comes from: of a pod's addresses the one of the packet's family.
    fn source(&self, probe: &Probe) -> Option<IpAddr> {
        match &probe.from {
            Sender::Address(address) => Some(*address),
            Sender::Pod(..) => {
                let own = self.sender(probe)?.addresses();
                own.into_iter().find(|address| address.is_ipv4() == probe.to.is_ipv4())
            }
        }
    }
}

/// They all add up; any denial wins.
fn network(flow: Flow<'_>) -> Option<Verdict> {
    let families = [cilium::effect(flow), network_policy::effect(flow)];
    if families.iter().any(|family| family.denies) {
        Some(Verdict::Deny)
    } else if families.iter().any(|family| family.allows) {
        Some(Verdict::Allow)
    } else if !families.iter().any(|family| family.closes) {
        // What only some connections may do counts where the others may not.
        None
    } else if families.iter().any(|family| family.allows_announced) {
        Some(Verdict::Allow)
    } else {
        Some(Verdict::Deny)
    }
}
