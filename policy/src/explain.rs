//! Why an endpoint may reach a destination, or why not, and what is missing.
//!
//! Reads the rules as people wrote them ([`gather`]), one after the other, so it shares nothing
//! with the way in which the kernel is asked.

mod decision;
mod miss;

use std::net::IpAddr;
use std::time::Duration;

use names::Name;
use serde::Serialize;

use crate::compile::gather;
use crate::endpoint::Endpoint;
use crate::inventory::Inventory;
use crate::policy::Policy;
use crate::ports::{PortSet, Protocol};
use crate::program::{Origin, Verdict};
use crate::zone::AddressZone;

use decision::decide;
pub use decision::{Decision, Matched};
pub use miss::{Miss, MissKind};

/// Everything that an explanation is made of.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// Who asks.
    pub endpoint: &'a Endpoint,
    /// Every policy.
    pub policies: &'a [&'a Policy],
    /// Every object that rules may speak of.
    pub inventory: &'a Inventory,
}

/// Where to.
#[derive(Debug, Clone)]
pub struct Towards {
    /// The address, with where it lies. `None` when only a name is known: what rules say of
    /// addresses is then left out.
    pub address: Option<(IpAddr, AddressZone)>,
    /// Names that resolve, or resolved, to the address.
    pub names: Vec<KnownName>,
    /// The port. `None`: any; then the answer holds if some port is let through.
    pub traffic: Option<(Protocol, u16)>,
}

/// A name, and what the ledger knows of its hold on the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownName {
    /// The name.
    pub name: Name,
    /// Its lease.
    pub lease: Hold,
}

/// Whether a name holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// It is assumed to: nothing was learned, since nobody is running or the name has not been
    /// asked.
    Assumed,
    /// It does, for so long.
    Left(Duration),
    /// It did, until so long ago.
    Expired(Duration),
}

impl Hold {
    fn is_live(self) -> bool {
        !matches!(self, Hold::Expired(_))
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It passes.
    Allowed,
    /// It passes, and is recorded: a policy in mode audit would have it refused.
    Audited,
    /// It is refused.
    Denied,
}

/// The explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What becomes of it.
    pub outcome: Outcome,
    /// Who decides that: of an audited one, what would have refused it.
    pub decision: Decision,
    /// For what is refused (or would be) because no rule allows it: those that nearly do, the
    /// nearest first.
    pub misses: Vec<Miss>,
}

/// Explains one connection.
pub fn explain(scene: Scene<'_>, towards: &Towards) -> Explanation {
    let governed = gather(scene.endpoint, scene.policies.iter().copied(), scene.inventory);
    let Some(program) = governed.and_then(|governed| governed.programs.egress) else {
        let decision = Decision::Unselected;
        let misses = Vec::new();
        return Explanation {
            outcome: Outcome::Allowed,
            decision,
            misses,
        };
    };
    let enforced = decide(&program.enforced, scene.inventory, towards);
    let audited = program
        .audited
        .as_ref()
        .map(|tiers| decide(tiers, scene.inventory, towards));
    let (outcome, decision) = match (enforced.verdict(), audited) {
        (Verdict::Deny, _) => (Outcome::Denied, enforced),
        (Verdict::Allow, Some(audited)) if audited.verdict() == Verdict::Deny => (Outcome::Audited, audited),
        (Verdict::Allow, _) => (Outcome::Allowed, enforced),
    };
    // What a rule denies is meant to be denied; only where none speaks is something missing.
    let missing = matches!(decision, Decision::Closed(_));
    let tiers = match outcome {
        Outcome::Allowed => None,
        Outcome::Denied => Some(&program.enforced),
        Outcome::Audited => program.audited.as_ref(),
    };
    let tiers = tiers.filter(|_| missing);
    let misses = tiers.map_or_else(Vec::new, |tiers| miss::nearest(scene, tiers, towards));
    Explanation {
        outcome,
        decision,
        misses,
    }
}

/// The ports of a rule at the destination, as people read them.
fn shown_ports(ports: &PortSet) -> String {
    match ports {
        PortSet::All => "every port".into(),
        PortSet::Ranges(ranges) => {
            let one = |range: &crate::PortRange| match (range.protocol.has_ports(), range.is_single()) {
                (true, true) => format!("{}/{}", range.first, range.protocol),
                (true, false) => format!("{}-{}/{}", range.first, range.last, range.protocol),
                (false, true) => format!("{} type {}", range.protocol, range.first),
                (false, false) => format!("{} types {}-{}", range.protocol, range.first, range.last),
            };
            ranges.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

/// `policy n/p (CiliumNetworkPolicy), spec.egress[0]`.
pub fn shown_origin(origin: &Origin) -> String {
    let Origin { policy, rule } = origin;
    let kind = policy.kind.as_str();
    match rule.is_empty() {
        true => format!("{kind} {policy}"),
        false => format!("{kind} {policy}, {rule}"),
    }
}

#[cfg(test)]
mod tests;
