//! What becomes of a packet.

use crate::cilium;
use crate::cluster_network_policy::{self, Tier};
use crate::network_policy;
use crate::probe::Probe;
use crate::world::{Pod, World};

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Allow,
    /// It does not.
    Deny,
}

/// Which policies count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policies {
    /// Those that are enforced.
    Enforced,
    /// Those in mode audit too.
    All,
}

/// What the policies of one family say of a packet.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Said {
    /// What no rule allows is refused.
    pub(crate) closes: bool,
    pub(crate) allows: bool,
    pub(crate) denies: bool,
}

/// The verdict on a packet, as if `policies` were all that there are.
///
/// Admin, then Cilium's policies and NetworkPolicies, which are final for the pods that they close, then Baseline, then allow.
///
/// # Panics
///
/// Where the world is not sound, for example without the pod that sends.
pub fn decide(world: &World, probe: &Probe, policies: Policies) -> Verdict {
    let world = &World { objects: counting(world, policies), ..world.clone() };
    let mut pods = world.pods();
    let from = pods
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

/// They all add up; any denial wins.
fn network(world: &World, from: Pod<'_>, probe: &Probe) -> Option<Verdict> {
    let said = [cilium::said(world, from, probe), network_policy::said(world, from, probe)];
    if said.iter().any(|said| said.denies) {
        Some(Verdict::Deny)
    } else if said.iter().any(|said| said.allows) {
        Some(Verdict::Allow)
    } else {
        said.iter().any(|said| said.closes).then_some(Verdict::Deny)
    }
}

fn counting(world: &World, policies: Policies) -> Vec<serde_json::Value> {
    let is_audited = |object: &&serde_json::Value| object["metadata"]["annotations"]["namegate.io/mode"] == "audit";
    let counts = |object: &&serde_json::Value| policies == Policies::All || !is_audited(object);
    world.objects.iter().filter(counts).cloned().collect()
}
