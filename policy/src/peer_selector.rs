//! How the rules of a policy select their peers.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use names::Pattern;

use crate::labels::LabelSelector;
use crate::ports::Protocol;
use crate::zone::Zone;

/// The peers of a rule, as people select them. An [`Inventory`](crate::Inventory) resolves them
/// to [`Peer`](crate::program::Peer)s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerSelector {
    /// The addresses of names that these patterns match (`toFQDNs`, `domainNames`).
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
    /// The name of the Service; any name where absent.
    pub name: Option<String>,
    /// Their own labels.
    pub labels: LabelSelector,
}

/// A port by the name that a container gives it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamedPort {
    /// The name that containers give the port.
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
