//! A validated policy, in this project's own terms, whichever kind of object it came from.

use std::sync::Arc;

use serde::Serialize;

use crate::direction::PerDirection;
use crate::dns_rules::DnsRule;
use crate::endpoint::Endpoint;
use crate::extensions::Extensions;
use crate::l7::L7Rules;
use crate::labels::LabelSelector;
use crate::peer_selector::{NamedPort, PeerSelector};
use crate::policy_id::PolicyId;
use crate::ports::PortSet;

/// One policy object, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which object it is.
    pub id: PolicyId,
    /// What its `namegate.io/` annotations say.
    pub extensions: Extensions,
    /// `spec`, then `specs` in order.
    pub specs: Vec<PolicySpec>,
}

/// One `spec` (or one entry of `specs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySpec {
    /// What `subject` selects.
    pub subject_kind: SubjectKind,
    /// Whom it selects. The namespace of a namespaced policy is part of it, as a requirement on
    /// `io.kubernetes.pod.namespace`.
    pub subject: LabelSelector,
    /// Where it stands in the order of evaluation.
    pub tier: Tier,
    /// What it says of each direction.
    pub directions: PerDirection<DirectionSpec>,
}

/// What a spec selects by labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubjectKind {
    /// Workloads with addresses of their own.
    #[default]
    Pods,
    /// Nodes themselves (`nodeSelector`), with everything that shares their addresses.
    Nodes,
}

/// What one `spec` says of one direction. The default says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectionSpec {
    /// Whether it closes the endpoints that it selects: what no rule allows is refused. Only in
    /// [`Tier::Network`].
    pub closes: bool,
    /// In the order of the object, which decides in the tiers of ClusterNetworkPolicies; in
    /// [`Tier::Network`] any denial wins.
    ///
    /// What is not enforced here opens nothing: such an allowing rule is absent or has no peers. A
    /// denying rule that cannot be enforced as written is *widened* to what can be (at worst:
    /// everything), never left out.
    pub rules: Vec<PolicyRule>,
}

impl PolicySpec {
    /// Whether it selects an endpoint, which is a Pod or a node.
    pub fn selects(&self, endpoint: &Endpoint) -> bool {
        let is_of_nodes = self.subject_kind == SubjectKind::Nodes;
        is_of_nodes == endpoint.id.is_node() && self.subject.matches(&endpoint.labels)
    }

    /// The rules of both directions.
    pub fn rules(&self) -> impl Iterator<Item = &PolicyRule> {
        self.directions.iter().flat_map(|(_, spec)| &spec.rules)
    }
}

impl DirectionSpec {
    /// Whether it has any effect on the endpoints that are selected.
    pub fn says_anything(&self) -> bool {
        self.closes || !self.rules.is_empty()
    }

    /// The rules of one action.
    pub fn rules_that(&self, action: Action) -> impl Iterator<Item = &PolicyRule> {
        self.rules.iter().filter(move |rule| rule.action == action)
    }
}

/// The tiers, in order of evaluation. What one leaves undecided, the next decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Tier {
    /// ClusterNetworkPolicies of tier Admin: lower priorities first, then names; within a policy
    /// the first rule that matches.
    Admin {
        /// 0 to 1000.
        priority: u16,
    },
    /// NetworkPolicies and Cilium's policies: all add up, any denial wins, and where one closes the
    /// direction the rest is refused.
    Network,
    /// ClusterNetworkPolicies of tier Baseline, as in tier Admin.
    Baseline {
        /// 0 to 1000.
        priority: u16,
    },
}

/// What a rule does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Action {
    /// Refuses the traffic.
    Deny,
    /// Lets the traffic through.
    Allow,
    /// Leaves it to the next tier.
    Pass,
}

/// One rule: peers, crossed with ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Where in the object it stands, for example `spec.egress[0]`.
    pub origin: String,
    /// What the rule does with the traffic that it matches.
    pub action: Action,
    /// The peers that the rule matches.
    pub peers: PeerSelector,
    /// The ports. Those of DNS rules are not among them: lookups to known resolvers are
    /// intercepted, and others must not pass unobserved.
    pub ports: PortSet,
    /// Ports by the names that containers give them: at each pod among the peers, its own.
    pub named: Vec<NamedPort>,
    /// More ports of an allowing rule, where what connections announce decides.
    pub inspected: Vec<InspectedPorts>,
    /// The questions that may be asked of these peers, from `toPorts[].rules.dns`.
    pub dns: Vec<DnsRule>,
}

/// Ports of one `toPorts` entry that asks for more than ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InspectedPorts {
    /// Where the entry stands, for example `spec.egress[0].toPorts[1]`.
    pub path: String,
    /// Its ports, of TCP alone.
    pub ports: PortSet,
    /// Ports by the names that containers give them, of TCP alone.
    pub named: Vec<NamedPort>,
    /// What connections to these ports must announce.
    pub rules: Arc<L7Rules>,
}
