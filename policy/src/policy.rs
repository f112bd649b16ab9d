//! A validated policy, in this project's own terms, whichever kind of object it came from.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use names::Pattern;
use serde::Serialize;

use crate::labels::LabelSelector;
use crate::ports::{PortSet, Protocol};
use crate::question::QuestionMode;
use crate::zone::Zone;

/// The kinds of policy objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum PolicyKind {
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
    /// `networking.k8s.io/v1` NetworkPolicy.
    NetworkPolicy,
    /// `policy.networking.k8s.io/v1beta1` (and `v1alpha2`) ClusterNetworkPolicy.
    ClusterNetworkPolicy,
}

impl PolicyKind {
    /// All of them, in the order in which people meet them.
    pub const ALL: [PolicyKind; 4] = [
        PolicyKind::CiliumNetworkPolicy,
        PolicyKind::CiliumClusterwideNetworkPolicy,
        PolicyKind::NetworkPolicy,
        PolicyKind::ClusterNetworkPolicy,
    ];

    /// The kind as objects write it.
    pub fn as_str(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy => "CiliumNetworkPolicy",
            PolicyKind::CiliumClusterwideNetworkPolicy => "CiliumClusterwideNetworkPolicy",
            PolicyKind::NetworkPolicy => "NetworkPolicy",
            PolicyKind::ClusterNetworkPolicy => "ClusterNetworkPolicy",
        }
    }

    /// The `apiVersion` to write.
    pub fn api_version(self) -> &'static str {
        match self {
            PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy => "cilium.io/v2",
            PolicyKind::NetworkPolicy => "networking.k8s.io/v1",
            PolicyKind::ClusterNetworkPolicy => "policy.networking.k8s.io/v1beta1",
        }
    }

    /// Whether an object of this `apiVersion` is understood, which may be an older one with the
    /// same fields.
    pub fn is_understood(self, api_version: &str) -> bool {
        let is_older = self == PolicyKind::ClusterNetworkPolicy && api_version == "policy.networking.k8s.io/v1alpha2";
        is_older || api_version == self.api_version()
    }

    /// Whether its objects live in a namespace.
    pub fn is_namespaced(self) -> bool {
        matches!(self, PolicyKind::CiliumNetworkPolicy | PolicyKind::NetworkPolicy)
    }
}

/// Which object a policy is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PolicyId {
    /// The object's kind.
    pub kind: PolicyKind,
    /// Its namespace; empty for a clusterwide one.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// One policy object, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which object it is.
    pub id: PolicyId,
    /// What its `namegate.io/` annotations say.
    pub extensions: Extensions,
    /// `spec`, then `specs` in order.
    pub specs: Vec<Spec>,
}

/// One `spec` (or one entry of `specs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Whom it selects. The namespace of a namespaced policy is part of it, as a requirement on
    /// `io.kubernetes.pod.namespace`.
    pub subject: LabelSelector,
    /// Where it stands in the order of evaluation.
    pub tier: Tier,
    /// Whether a selected endpoint is closed for egress by this spec. Only in [`Tier::Network`].
    pub closes_egress: bool,
    /// In the order of the object, which decides in the tiers of ClusterNetworkPolicies; in
    /// [`Tier::Network`] any denial wins.
    ///
    /// What is not enforced here opens nothing: such an allowing rule is absent or has no peers. A
    /// denying rule that cannot be enforced as written is *widened* to what can be (at worst:
    /// everything), never left out.
    pub rules: Vec<PolicyRule>,
}

impl Spec {
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
    /// NetworkPolicies and Cilium's policies: all add up, any denial wins, and where one closes
    /// egress the rest is refused.
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
    /// Refuses.
    Deny,
    /// Lets through.
    Allow,
    /// Leaves it to the next tier.
    Pass,
}

/// One rule: peers, crossed with ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Where in the object it stands, for example `spec.egress[0]`.
    pub origin: String,
    /// What it does.
    pub action: Action,
    /// The other end.
    pub peers: PeerSelector,
    /// The ports. Those of DNS rules are not among them: lookups to known resolvers are
    /// intercepted, and others must not pass unobserved.
    pub ports: PortSet,
    /// Ports by the names that containers give them: at each pod among the peers, its own.
    pub named: Vec<NamedPort>,
    /// The questions that may be asked of these peers, from `toPorts[].rules.dns`.
    pub dns: Vec<DnsRule>,
}

/// What the `namegate.io/` annotations of a policy object say; nothing is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// `namegate.io/mode: audit`: nothing is dropped, what would have been is recorded.
    pub audit: bool,
    /// `namegate.io/mode: ignore`: it is somebody else's to enforce, and has no effect here.
    pub ignored: bool,
    /// How long addresses of its names stay.
    pub lease: LeaseTerms,
    /// `namegate.io/dns-questions`.
    pub questions: Option<QuestionMode>,
    /// `namegate.io/deny-response`.
    pub response: Option<DenyResponse>,
}

/// What a policy says about leases, where it differs from the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseTerms {
    /// `namegate.io/min-ttl`: a TTL below counts as this.
    pub min_ttl: Option<Duration>,
    /// `namegate.io/grace`: how long an address stays when its TTL is over.
    pub grace: Option<Duration>,
}

/// What a refused packet gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyResponse {
    /// A TCP reset or an ICMP error, so that applications fail at once.
    Reject,
    /// Nothing.
    Drop,
}

/// The peers of a rule, as people select them. An [`Inventory`](crate::Inventory) resolves them
/// to [`Peer`](crate::program::Peer)s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerSelector {
    /// `toFQDNs`.
    Names(Vec<Pattern>),
    /// Prefixes of an address zone (`toCIDR`, `toCIDRSet` with `except` taken out, `toEntities`, or
    /// no L3 selector).
    Prefixes(Vec<(Zone, IpNet)>),
    /// Objects of the cluster (`toEndpoints`, `toServices`, `toNodes`, …), and what stands beside
    /// them in one list. An [`Inventory`](crate::Inventory) says which addresses they have when the
    /// rule is compiled.
    Objects(Vec<ObjectSelector>),
    /// Peers that a known kind of selector names but that are not resolved to addresses here yet;
    /// opens nothing. Its DNS rules still filter questions, to every trusted resolver.
    Unresolved,
}

/// Selects objects of the cluster, for their addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectSelector {
    /// Pods with addresses of their own, by their labels and the special
    /// [`keys`](crate::endpoint::keys).
    Pods(LabelSelector),
    /// Services, for their backends.
    Services(ServiceSelector),
    /// Nodes, this one included, by their labels.
    Nodes(LabelSelector),
    /// Every node but this one.
    RemoteNodes,
    /// The API server: the Service `default/kubernetes`, with its own addresses.
    ApiServer,
    /// The prefixes of CiliumCIDRGroups.
    CidrGroups(CidrGroupSelector),
    /// No object: a prefix that stands beside objects.
    Prefix(Zone, IpNet),
}

impl ObjectSelector {
    /// Whether it speaks of peers outside the cluster only.
    pub fn is_outside(&self) -> bool {
        matches!(
            self,
            ObjectSelector::CidrGroups(_) | ObjectSelector::Prefix(Zone::World, _)
        )
    }
}

/// `pods app=web`, for people.
impl fmt::Display for ObjectSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectSelector::Pods(labels) => write!(f, "pods: {labels}"),
            ObjectSelector::Nodes(labels) => write!(f, "nodes: {labels}"),
            ObjectSelector::RemoteNodes => f.write_str("a node other than this one"),
            ObjectSelector::ApiServer => f.write_str("the API server"),
            ObjectSelector::Services(ServiceSelector {
                namespace,
                name,
                labels,
            }) => {
                let namespace = namespace.as_deref().unwrap_or("every namespace");
                match name {
                    Some(name) => write!(f, "backends of the Service {namespace}/{name}"),
                    None => write!(f, "backends of Services of {namespace}: {labels}"),
                }
            }
            ObjectSelector::CidrGroups(CidrGroupSelector { name, labels, .. }) => match name {
                Some(name) => write!(f, "the CiliumCIDRGroup {name}"),
                None => write!(f, "CiliumCIDRGroups: {labels}"),
            },
            ObjectSelector::Prefix(_, prefix) => write!(f, "{prefix}"),
        }
    }
}

impl From<(Zone, IpNet)> for ObjectSelector {
    fn from((zone, prefix): (Zone, IpNet)) -> Self {
        ObjectSelector::Prefix(zone, prefix)
    }
}

/// Selects CiliumCIDRGroups: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CidrGroupSelector {
    /// The group's name.
    pub name: Option<String>,
    /// Labels of groups.
    pub labels: LabelSelector,
    /// Prefixes that are not meant, although a group holds them.
    pub except: Vec<IpNet>,
}

/// Selects Services: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceSelector {
    /// Their namespace; every namespace where absent.
    pub namespace: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// Their own labels.
    pub labels: LabelSelector,
}

/// A port by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocols that it may be of; not empty.
    pub protocols: Vec<Protocol>,
}

impl From<Vec<ObjectSelector>> for PeerSelector {
    /// Prefixes alone need no inventory, and single addresses among them may be known resolvers.
    fn from(selectors: Vec<ObjectSelector>) -> Self {
        let prefixes = selectors.iter().map(|selector| match selector {
            ObjectSelector::Prefix(zone, prefix) => Some((*zone, *prefix)),
            _ => None,
        });
        match prefixes.collect() {
            Some(prefixes) => PeerSelector::Prefixes(prefixes),
            None => PeerSelector::Objects(selectors),
        }
    }
}

impl PeerSelector {
    /// The addresses of the peers, where each is a single address: a DNS rule makes these known
    /// resolvers, lookups to which are intercepted.
    pub fn single_hosts(&self) -> Option<Vec<IpAddr>> {
        let PeerSelector::Prefixes(prefixes) = self else {
            return None;
        };
        let host = |prefix: &IpNet| (prefix.prefix_len() == prefix.max_prefix_len()).then(|| prefix.addr());
        prefixes.iter().map(|(_, prefix)| host(prefix)).collect()
    }
}

/// One `toPorts` entry with `rules.dns`. It speaks of UDP and TCP alike, whichever protocol the
/// entry names: a resolver answers over either, and a client turns to TCP when an answer is
/// truncated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsRule {
    /// The resolver's port.
    pub port: u16,
    /// Names that may be asked. Empty: none.
    pub patterns: Vec<Pattern>,
}
