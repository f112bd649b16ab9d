//! Which links lead to pods, and which source addresses may come from them. Pure: computed from the
//! links, routes and addresses of the node.
//!
//! Packets are dispatched to programs by source address, so a pod that sends with an address which
//! is no pod's would be governed by nobody. On links that lead to governed pods such a source is
//! therefore refused (docs/security.md), except
//!
//! - on every such link: addresses of known local pods, and of resolvers, that the node's routes
//!   put behind *this* link;
//! - on a link that many share (a bridge): the rest of the networks on it, without the node's own
//!   addresses. A pod whose object is not known yet has one of these.
//!   [`DesiredState::unknown`](crate::DesiredState::unknown) decides whether it is refused.
//!
//! Link-local addresses (`fe80::/10`, `169.254.0.0/16`) never count: every host has some on every
//! link and may choose them.
//!
//! A link counts as a pod's when the most specific route to the pod's address leaves by it and
//! names no gateway. A link does not count when it also leads to others: when the node has a
//! default route by it, or when it is shared and has a router on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use policy::address::without;

/// The node's links, addresses and routes, as its kernel has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeNetwork {
    /// The addresses of all links.
    pub own: BTreeSet<IpAddr>,
    /// Links with exactly one other end, by index: a veth and not a bridge.
    pub dedicated: BTreeSet<u32>,
    /// The hardware addresses of bridges, by index.
    pub bridges: BTreeMap<u32, HardwareAddress>,
    /// Unicast routes of every table but `local`. A route with several next hops is listed once for
    /// each.
    pub routes: Vec<NodeRoute>,
}

/// A unicast route with one next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRoute {
    /// The network that it leads to.
    pub destination: IpNet,
    /// The index of the link that it leaves by.
    pub link: u32,
    /// Whether it leads to a router, rather than to the destination itself.
    pub through_gateway: bool,
}

/// The links that lead to local pods, by index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodLinks {
    /// The links of all local pods.
    pub links: BTreeSet<u32>,
    /// Those among `links` that lead to governed pods.
    pub governed: BTreeSet<u32>,
    /// Those among `links` on which a source in `networks` may be a pod that is not known yet.
    pub shared: BTreeSet<u32>,
    /// The known addresses behind each link.
    pub sources: BTreeSet<(u32, IpAddr)>,
    /// The networks on the shared links, without the node's own addresses.
    pub networks: BTreeSet<IpNet>,
    /// The networks on those of the links that are bridges, with the bridge's hardware address.
    pub bridged: BTreeMap<IpNet, HardwareAddress>,
}

/// The address of a link of Ethernet.
pub type HardwareAddress = [u8; 6];

/// A route with a shorter prefix counts as a default route: 0.0.0.0/1 and 128.0.0.0/1 are one.
const SHORTEST_NETWORK: u8 = 8;

/// Link-local addresses (RFC 4291 §2.5.6, RFC 3927).
fn is_of_link(network: &IpNet) -> bool {
    match network {
        IpNet::V4(network) => network.addr().is_link_local(),
        IpNet::V6(network) => network.addr().is_unicast_link_local(),
    }
}

impl PodLinks {
    /// Finds the links. `local` are the addresses of this node's pods, each with whether it is
    /// governed; `resolvers` are the addresses of known resolvers.
    pub fn find(
        network: &NodeNetwork,
        local: impl IntoIterator<Item = (IpAddr, bool)>,
        resolvers: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let paths = RouteLookup::new(network);
        let mut found = Self::default();
        for (address, is_governed) in local {
            for link in paths.links_to(address) {
                found.links.insert(link);
                found.sources.insert((link, address));
                if is_governed {
                    found.governed.insert(link);
                }
            }
        }
        for resolver in resolvers {
            let links = paths.links_to(resolver).filter(|link| found.links.contains(link));
            found
                .sources
                .extend(links.map(|link| (link, resolver)).collect::<Vec<_>>());
        }
        let own: Vec<IpNet> = network.own.iter().copied().map(IpNet::from).collect();
        for route in network.routes.iter().filter(|route| found.links.contains(&route.link)) {
            // Behind a veth is the pod alone, unless the node routes other networks to it.
            if let Some(bridge) = network.bridges.get(&route.link)
                && !route.through_gateway
                && !is_of_link(&route.destination)
            {
                found.bridged.insert(route.destination, *bridge);
            }
            let may_hold_unknown = !network.dedicated.contains(&route.link) || route.through_gateway;
            if may_hold_unknown && !is_of_link(&route.destination) {
                found.shared.insert(route.link);
                found.networks.extend(without(route.destination, &own));
            }
        }
        found
    }
}

/// The node's routes, indexed by destination.
struct RouteLookup<'a> {
    network: &'a NodeNetwork,
    by_destination: BTreeMap<IpNet, Vec<&'a NodeRoute>>,
    /// The lengths of the prefixes in use, the longest first.
    lengths: Vec<u8>,
    /// Links that also lead to others than pods.
    outward: BTreeSet<u32>,
}

impl<'a> RouteLookup<'a> {
    fn new(network: &'a NodeNetwork) -> Self {
        let leads_outward = |route: &&NodeRoute| {
            let to_everything = route.destination.prefix_len() < SHORTEST_NETWORK;
            to_everything || (route.through_gateway && !network.dedicated.contains(&route.link))
        };
        let mut by_destination: BTreeMap<IpNet, Vec<&NodeRoute>> = BTreeMap::new();
        for route in &network.routes {
            by_destination.entry(route.destination).or_default().push(route);
        }
        let lengths: BTreeSet<u8> = by_destination.keys().map(IpNet::prefix_len).collect();
        Self {
            network,
            by_destination,
            lengths: lengths.into_iter().rev().collect(),
            outward: network
                .routes
                .iter()
                .filter(leads_outward)
                .map(|route| route.link)
                .collect(),
        }
    }

    /// The links by which this address is reached directly, if it may be a pod's.
    fn links_to(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let is_foreign = !self.network.own.contains(&address) && !is_of_link(&IpNet::from(address));
        let prefixes = self
            .lengths
            .iter()
            .filter_map(|length| IpNet::new(address, *length).ok());
        let routes = prefixes
            .filter(|_| is_foreign)
            .find_map(|prefix| self.by_destination.get(&prefix.trunc()));
        let routes = routes.into_iter().flatten();
        let direct = routes.filter(|route| !route.through_gateway && !self.outward.contains(&route.link));
        direct.map(|route| route.link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: HardwareAddress = [2, 0, 0, 0, 0, 7];

    /// Of a node whose only way out is link 1, and whose bridge is link 7.
    fn network(routes: &[(&str, u32, bool)], dedicated: &[u32]) -> NodeNetwork {
        let uplink = ("0.0.0.0/0", 1, true);
        let routes = routes.iter().chain([&uplink, &("192.0.2.0/24", 1, false)]);
        NodeNetwork {
            own: ["10.244.0.1", "192.0.2.9", "fd00::1"].map(ip).into(),
            dedicated: dedicated.iter().copied().collect(),
            bridges: BTreeMap::from([(7, BRIDGE)]),
            routes: routes
                .map(|(destination, link, through_gateway)| NodeRoute {
                    destination: destination.parse().unwrap(),
                    link: *link,
                    through_gateway: *through_gateway,
                })
                .collect(),
        }
    }

    fn find(network: &NodeNetwork, governed: &[&str], others: &[&str]) -> PodLinks {
        let all = governed
            .iter()
            .map(|it| (ip(it), true))
            .chain(others.iter().map(|it| (ip(it), false)));
        PodLinks::find(network, all, [])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn behind_a_veth_lies_its_pod_alone() {
        let routes = [
            ("10.244.0.10/32", 5, false),
            ("fd00::10/128", 5, false),
            ("fe80::/64", 5, false),
            ("10.244.0.11/32", 6, false),
        ];
        let found = find(
            &network(&routes, &[5, 6]),
            &["10.244.0.10", "fd00::10"],
            &["10.244.0.11"],
        );
        assert_eq!((found.links, found.governed), ([5, 6].into(), [5].into()));
        let sources = [(5, ip("10.244.0.10")), (5, ip("fd00::10")), (6, ip("10.244.0.11"))];
        assert_eq!(found.sources, sources.into());
        assert_eq!((found.shared, found.networks), Default::default());
    }

    #[test]
    fn a_bridge_holds_the_rest_of_its_network_but_for_the_node_and_link_local_addresses() {
        let routes = [
            ("10.244.0.0/30", 7, false),
            ("fe80::/64", 7, false),
            ("169.254.0.0/16", 7, false),
        ];
        let found = find(&network(&routes, &[]), &["10.244.0.2"], &["10.244.0.3"]);
        assert_eq!((found.governed, found.shared), ([7].into(), [7].into()));
        let networks = ["10.244.0.0/32", "10.244.0.2/31"].map(|net| net.parse().unwrap());
        assert_eq!(found.networks, networks.into());
        assert_eq!(found.bridged, [("10.244.0.0/30".parse().unwrap(), BRIDGE)].into());
    }

    #[test]
    fn a_link_that_leads_out_is_no_pods_link() {
        let on_uplink = network(&[], &[]);
        assert_eq!(find(&on_uplink, &["192.0.2.20"], &[]), PodLinks::default());
        let with_router = network(&[("10.9.0.0/24", 7, false), ("10.0.0.0/8", 7, true)], &[]);
        assert_eq!(find(&with_router, &["10.9.0.2"], &[]), PodLinks::default());
        let half = network(&[("10.9.0.2/32", 7, false), ("128.0.0.0/1", 7, false)], &[7]);
        assert_eq!(find(&half, &["10.9.0.2"], &[]), PodLinks::default());
        let elsewhere = network(&[("10.244.1.0/24", 8, true)], &[8]);
        assert_eq!(find(&elsewhere, &["10.244.1.2"], &[]), PodLinks::default());
    }

    #[test]
    fn a_pod_that_routes_for_others_may_send_for_them() {
        let routes = [("10.244.0.10/32", 5, false), ("10.50.0.0/16", 5, true)];
        let found = find(&network(&routes, &[5]), &["10.244.0.10"], &[]);
        assert_eq!((found.governed, found.shared), ([5].into(), [5].into()));
        assert_eq!(found.networks, ["10.50.0.0/16".parse().unwrap()].into());
    }

    #[test]
    fn the_most_specific_route_counts_and_the_nodes_own_addresses_do_not() {
        let routes = [("10.244.0.0/24", 7, false), ("10.244.0.10/32", 5, false)];
        let found = find(&network(&routes, &[5]), &["10.244.0.10", "10.244.0.1", "fe80::1"], &[]);
        assert_eq!(found.links, [5].into());
    }

    #[test]
    fn a_resolver_behind_a_pods_link_may_answer_from_there() {
        let network = network(&[("10.244.0.0/24", 7, false)], &[]);
        let resolvers = [ip("10.244.0.53"), ip("192.0.2.53")];
        let found = PodLinks::find(&network, [(ip("10.244.0.2"), true)], resolvers);
        assert!(found.sources.contains(&(7, resolvers[0])));
        assert!(!found.sources.iter().any(|(_, address)| *address == resolvers[1]));
    }
}
