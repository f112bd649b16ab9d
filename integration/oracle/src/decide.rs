//! How the families of policies meet: the verdict about a packet.

use serde_json::Value;

use crate::cilium;
use crate::cluster_network_policy::{self, Tier};
use crate::network_policy;
use crate::probe::Probe;
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

    /// Admin, then Cilium's policies and NetworkPolicies, which are final for the pods that they
    /// close, then Baseline, then allow.
    ///
    /// # Panics
    ///
    /// Where the world is not sound, for example without the pod that sends.
    pub fn decide(&self, probe: &Probe) -> Verdict {
        let world = &self.world;
        let from = world
            .pods()
            .find(|pod| pod.namespace() == probe.namespace && pod.name() == probe.pod)
            .expect("the pod that sends is there");
        if let Some(verdict) = cluster_network_policy::verdict(world, from, probe, Tier::Admin) {
            return verdict;
        }
        if let Some(verdict) = network(world, from, probe) {
            return verdict;
        }
        cluster_network_policy::verdict(world, from, probe, Tier::Baseline).unwrap_or(Verdict::Allow)
    }
}

/// They all add up; any denial wins.
fn network(world: &World, from: Pod<'_>, probe: &Probe) -> Option<Verdict> {
    let families = [
        cilium::effect(world, from, probe),
        network_policy::effect(world, from, probe),
    ];
    if families.iter().any(|family| family.denies) {
        Some(Verdict::Deny)
    } else if families.iter().any(|family| family.allows) {
        Some(Verdict::Allow)
    } else {
        families.iter().any(|family| family.closes).then_some(Verdict::Deny)
    }
}
