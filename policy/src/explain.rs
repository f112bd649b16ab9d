//! Why an endpoint may reach a destination, or be reached by a source, or why not, and what is
//! missing.
//!
//! Reads the rules as people wrote them ([`gather`]), one after the other, so it shares nothing
//! with the way in which the kernel is asked.

mod decision;
mod near_miss;

use std::net::IpAddr;
use std::time::Duration;

use names::Name;
use serde::Serialize;

use crate::compile::gather;
use crate::direction::Direction;
use crate::endpoint::Endpoint;
use crate::inventory::Inventory;
use crate::policy::Policy;
use crate::ports::{PortSet, Protocol};
use crate::program::{Origin, Verdict};
use crate::zone::AddressZone;

use decision::decide;
pub use decision::{Decision, Matched};
pub use near_miss::{NearMiss, NearMissKind};

/// Everything that an explanation is made of.
#[derive(Debug, Clone, Copy)]
pub struct ExplainContext<'a> {
    /// Which way the traffic goes.
    pub direction: Direction,
    /// The endpoint that policies select.
    pub endpoint: &'a Endpoint,
    /// All policies. Those that do not select the endpoint have no effect.
    pub policies: &'a [&'a Policy],
    /// Every object that rules may speak of.
    pub inventory: &'a Inventory,
    /// What the connection announces, if somebody looks into it. Without it, rules that ask for
    /// something let nothing through.
    pub announced: Option<&'a KnownAnnouncement>,
}

/// What a connection announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownAnnouncement {
    /// A TLS server name.
    Tls(Name),
    /// A request of plain HTTP.
    Http {
        /// The method.
        method: String,
        /// The path with the query.
        path: String,
        /// The host, with a port where one is sent.
        host: String,
    },
    /// A request within TLS, for the host that the connection names.
    Secured {
        /// The name of the TLS server.
        server_name: Name,
        /// The method.
        method: String,
        /// The path with the query.
        path: String,
    },
}

/// The other end of the traffic, as far as it is known.
#[derive(Debug, Clone)]
pub struct KnownPeer {
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
    /// A name of the peer.
    pub name: Name,
    /// Its lease on the peer's address.
    pub lease: LeaseState,
}

/// Whether a name holds an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// It is assumed to: nothing was learned, since nobody is running or the name has not been
    /// asked.
    Assumed,
    /// It does, for so long.
    Remaining(Duration),
    /// It did, until so long ago.
    Expired(Duration),
}

impl LeaseState {
    fn is_live(self) -> bool {
        !matches!(self, LeaseState::Expired(_))
    }
}

/// What happens to the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExplainOutcome {
    /// The traffic passes.
    Allowed,
    /// It passes, and is recorded: a policy in mode audit would have it refused.
    Audited,
    /// The traffic is refused.
    Denied,
}

/// What happens to one connection, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// What happens to the traffic.
    pub outcome: ExplainOutcome,
    /// Who decides that: of an audited one, what would have refused it.
    pub decision: Decision,
    /// For what is refused (or would be) because no rule allows it: those that nearly do, the
    /// nearest first.
    pub near_misses: Vec<NearMiss>,
}

/// Explains one connection.
pub fn explain(context: ExplainContext<'_>, peer: &KnownPeer) -> Explanation {
    let governed = gather(context.endpoint, context.policies.iter().copied(), context.inventory);
    let Some(program) = governed.and_then(|governed| governed.programs.take(context.direction)) else {
        let decision = Decision::Unselected(context.direction);
        let near_misses = Vec::new();
        return Explanation {
            outcome: ExplainOutcome::Allowed,
            decision,
            near_misses,
        };
    };
    let enforced = decide(context, &program.enforced, peer);
    let audited = program.audited.as_ref().map(|tiers| decide(context, tiers, peer));
    let (outcome, decision) = match (enforced.verdict(), audited) {
        (Verdict::Deny | Verdict::Inspect, _) => (ExplainOutcome::Denied, enforced),
        (Verdict::Allow, Some(audited)) if audited.verdict() != Verdict::Allow => (ExplainOutcome::Audited, audited),
        (Verdict::Allow, _) => (ExplainOutcome::Allowed, enforced),
    };
    // What a rule denies is meant to be denied; only where none speaks is something missing.
    let missing = matches!(decision, Decision::Closed { .. });
    let tiers = match outcome {
        ExplainOutcome::Allowed => None,
        ExplainOutcome::Denied => Some(&program.enforced),
        ExplainOutcome::Audited => program.audited.as_ref(),
    };
    let tiers = tiers.filter(|_| missing);
    let near_misses = tiers.map_or_else(Vec::new, |tiers| near_miss::nearest(context, tiers, peer));
    Explanation {
        outcome,
        decision,
        near_misses,
    }
}

/// The ports of a rule, as people read them.
pub fn shown_ports(ports: &PortSet) -> String {
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
