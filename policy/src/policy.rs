//! A validated policy, in this project's own terms, whichever kind of object it came from.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::labels::LabelSelector;
use crate::pattern::Pattern;
use crate::ports::{PortSet, Protocol};

/// The kinds of policy objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum PolicyKind {
    /// `cilium.io/v2` CiliumNetworkPolicy.
    CiliumNetworkPolicy,
    /// `cilium.io/v2` CiliumClusterwideNetworkPolicy.
    CiliumClusterwideNetworkPolicy,
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
    /// `spec`, then `specs` in order.
    pub specs: Vec<Spec>,
}

/// One `spec` (or one entry of `specs`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Whom it selects. The namespace of a CiliumNetworkPolicy is part of it, as a requirement on
    /// `io.kubernetes.pod.namespace`.
    pub subject: LabelSelector,
    /// Whether a selected endpoint is closed for egress by this spec: it has `egress` or
    /// `egressDeny`, and does not say `enableDefaultDeny.egress: false`.
    pub closes_egress: bool,
    /// Allowing rules. Rules that are not enforced here are absent: they open nothing.
    pub allow: Vec<EgressRule>,
    /// Denying rules. A deny rule that cannot be enforced as written is *widened* to what can be (at
    /// worst: everything), never left out.
    pub deny: Vec<EgressRule>,
}

/// One egress rule: peers, crossed with ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressRule {
    /// Where in the object it stands, for example `spec.egress[0]`.
    pub origin: String,
    /// The destinations.
    pub peers: Peers,
    /// The ports. Those of DNS rules are not among them: lookups to known resolvers are intercepted, and others must not
    /// pass unobserved.
    pub ports: PortSet,
    /// Ports by the names that containers give them: at each pod among the destinations, its own.
    pub named: Vec<NamedPort>,
    /// The questions that may be asked of these destinations, from `toPorts[].rules.dns`.
    pub dns: Vec<DnsRule>,
}

/// The destinations of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// `toFQDNs`.
    Names(Vec<Pattern>),
    /// Prefixes of an address zone (`toCIDR`, `toCIDRSet` with `except` taken out, `toEntities`, or no L3 selector).
    Prefixes(Vec<(Zone, IpNet)>),
    /// Objects of the cluster (`toEndpoints`, `toServices`, `toNodes`, …), and what stands beside them in one list. An [`Inventory`](crate::Inventory) says
    /// which addresses they have when the rule is compiled.
    Objects(Vec<ObjectSelector>),
    /// Peers that a known kind of selector names but that are not resolved to addresses here yet; opens nothing. Its
    /// DNS rules still filter questions, to every trusted resolver.
    Unresolved,
}

/// Selects objects of the cluster, for their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectSelector {
    /// Pods with addresses of their own, by their labels and the special [`keys`](crate::endpoint::keys).
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
    /// Whether it speaks of destinations outside the cluster only.
    pub fn is_outside(&self) -> bool {
        matches!(
            self,
            ObjectSelector::CidrGroups(_) | ObjectSelector::Prefix(Zone::World, _)
        )
    }
}

impl From<(Zone, IpNet)> for ObjectSelector {
    fn from((zone, prefix): (Zone, IpNet)) -> Self {
        ObjectSelector::Prefix(zone, prefix)
    }
}

/// Selects CiliumCIDRGroups: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CidrGroupSelector {
    /// The group's name.
    pub name: Option<String>,
    /// Labels of groups.
    pub labels: LabelSelector,
    /// Prefixes that are not meant, although a group holds them.
    pub except: Vec<IpNet>,
}

/// Selects Services: all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSelector {
    /// Their namespace; every namespace where absent.
    pub namespace: Option<String>,
    /// Their name.
    pub name: Option<String>,
    /// Their own labels.
    pub labels: LabelSelector,
}

/// A port by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: String,
    /// The protocols that it may be of; not empty.
    pub protocols: Vec<Protocol>,
}

impl Peers {
    /// The destinations, where each is a single address: a DNS rule makes these known resolvers, lookups to which are intercepted.
    pub fn single_hosts(&self) -> Option<Vec<IpAddr>> {
        let Peers::Prefixes(prefixes) = self else { return None };
        let host = |prefix: &IpNet| (prefix.prefix_len() == prefix.max_prefix_len()).then(|| prefix.addr());
        prefixes.iter().map(|(_, prefix)| host(prefix)).collect()
    }
}

/// Which part of the address space a prefix speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Zone {
    /// Everywhere.
    Anywhere,
    /// Outside the cluster: what CIDRs and `world` mean.
    World,
    /// Pods, services and nodes of the cluster.
    Cluster,
    /// This node.
    Host,
}

/// One `toPorts` entry with `rules.dns`. It speaks of UDP and TCP alike, whichever protocol the entry names: a resolver
/// answers over either, and a client turns to TCP when an answer is truncated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsRule {
    /// The resolver's port.
    pub port: u16,
    /// Names that may be asked. Empty: none.
    pub patterns: Vec<Pattern>,
}
