//! Chooses the sandbox's network from what the host leaves free. Pure: `network_setup` reads the
//! host, and builds what is chosen here.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netns::{LinkAddress, LinkRoute};

/// The prefix of the names of all sandboxes' links on the host; the sandbox's number follows.
pub(crate) const LINK_PREFIX: &str = "ngx";

/// The ranges that sandboxes get their addresses from, most preferred first: parts of the private
/// ranges that few networks use, and, where a VPN has taken these, the range for benchmarks
/// (RFC 2544).
const POOLS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 210, 0, 0), 16),
    (Ipv4Addr::new(172, 31, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 210, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// The /48 of unique local addresses that sandboxes get their addresses from. They are masqueraded,
/// so they need not be unique beyond the host.
const POOL6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x6761, 0x7465, 0, 0, 0, 0, 0);

/// Routes to shorter prefixes are ignored: they stand for "everything" (a VPN's 0.0.0.0/1) and not
/// for a network that a sandbox must avoid.
const SHORTEST_NETWORK: u8 = 8;

/// The host's network, as far as the choice depends on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostNetwork {
    pub(crate) routes: Vec<LinkRoute>,
    pub(crate) addresses: Vec<LinkAddress>,
    /// Links that do not forward IPv4, or only because another sandbox has switched it on.
    pub(crate) not_forwarding: BTreeSet<String>,
    pub(crate) forwards_ipv6: bool,
    /// The smallest MTU of the links with a default route.
    pub(crate) mtu: Option<u32>,
}

/// A sandbox's network that is chosen and not yet built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NetworkPlan {
    pub(crate) id: u32,
    /// The name of the host's end of the veth pair.
    pub(crate) link: String,
    pub(crate) v4: VethAddresses,
    /// `None` where the host does not forward IPv6.
    pub(crate) v6: Option<VethAddresses>,
    /// The host's links for which IPv4 forwarding is switched on.
    pub(crate) forwarding: BTreeSet<String>,
    /// The MTU of both ends; `None` for the kernel's default.
    pub(crate) mtu: Option<u32>,
}

/// The addresses of a veth pair's two ends, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VethAddresses {
    /// The host's end. The sandbox sends its lookups there.
    pub(crate) gateway: IpNet,
    /// The sandbox's end.
    pub(crate) sandbox: IpNet,
}

impl NetworkPlan {
    /// Chooses addresses that the host does not use. Equal hosts give equal plans. Different
    /// numbers begin to look in different places, so that sandboxes that start at the same time do
    /// not choose the same addresses.
    pub(crate) fn choose(id: u32, host: &HostNetwork) -> io::Result<Self> {
        let taken: Vec<IpNet> = host
            .routes
            .iter()
            .map(|route| route.destination)
            .chain(host.addresses.iter().map(|address| address.address.trunc()))
            .filter(|network| network.prefix_len() >= SHORTEST_NETWORK)
            .collect();
        let subnet = free_ipv4(id, &taken).ok_or_else(|| {
            io::Error::other("every range that a sandbox could use is routed already on this host (10.210.0.0/16, 172.31.0.0/16, 192.168.210.0/24, 198.18.0.0/15)")
        })?;
        let default6 = host
            .routes
            .iter()
            .any(|route| route.destination == IpNet::V6(Ipv6Net::default()));
        let link = format!("{LINK_PREFIX}{id}");
        let forwarding = host
            .routes
            .iter()
            .filter_map(|route| route.link.clone())
            .filter(|name| host.not_forwarding.contains(name) && name != "lo" && !name.starts_with(LINK_PREFIX))
            .collect();
        Ok(Self {
            id,
            link,
            v4: VethAddresses::of(IpNet::V4(subnet)),
            v6: (default6 && host.forwards_ipv6)
                .then(|| free_ipv6(id, &taken))
                .flatten()
                .map(|subnet| VethAddresses::of(IpNet::V6(subnet))),
            forwarding,
            mtu: host.mtu,
        })
    }

    /// The addresses of each family that the sandbox has.
    pub(crate) fn veth_addresses(&self) -> impl Iterator<Item = VethAddresses> + use<> {
        [Some(self.v4), self.v6].into_iter().flatten()
    }

    /// The sandbox's addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.veth_addresses().map(|veth| veth.sandbox.addr())
    }

    /// The addresses that the sandbox sends its lookups to.
    pub(crate) fn gateways(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.veth_addresses().map(|veth| veth.gateway.addr())
    }
}

fn free_ipv4(start: u32, taken: &[IpNet]) -> Option<Ipv4Net> {
    const BETWEEN_TWO: u8 = 30;
    POOLS.iter().find_map(|&(first, length)| {
        let count = 1 << (BETWEEN_TWO - length);
        (0..count).find_map(|step| {
            let offset = (start % count + step) % count * 4;
            let candidate = Ipv4Net::new(Ipv4Addr::from_bits(first.to_bits() + offset), BETWEEN_TWO).ok()?;
            is_free(&IpNet::V4(candidate), taken).then_some(candidate)
        })
    })
}

fn free_ipv6(start: u32, taken: &[IpNet]) -> Option<Ipv6Net> {
    const COUNT: u32 = 1 << 16;
    (0..COUNT).find_map(|step| {
        let offset = u128::from((start % COUNT + step) % COUNT) << 64;
        let candidate = Ipv6Net::new(Ipv6Addr::from_bits(POOL6.to_bits() + offset), 64).ok()?;
        is_free(&IpNet::V6(candidate), taken).then_some(candidate)
    })
}

fn is_free(candidate: &IpNet, taken: &[IpNet]) -> bool {
    !taken
        .iter()
        .any(|network| network.contains(candidate) || candidate.contains(network))
}

impl VethAddresses {
    /// The first two host addresses of `subnet`.
    fn of(subnet: IpNet) -> Self {
        let address = |offset: u8| match subnet {
            IpNet::V4(subnet) => IpNet::V4(Ipv4Net::new_assert(
                Ipv4Addr::from_bits(subnet.network().to_bits() + u32::from(offset)),
                subnet.prefix_len(),
            )),
            IpNet::V6(subnet) => IpNet::V6(Ipv6Net::new_assert(
                Ipv6Addr::from_bits(subnet.network().to_bits() + u128::from(offset)),
                subnet.prefix_len(),
            )),
        };
        Self {
            gateway: address(1),
            sandbox: address(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_host_gives_the_first_pool() {
        let plan = NetworkPlan::choose(0, &host(&["0.0.0.0/0", "192.0.2.0/24"])).unwrap();
        assert_eq!(plan.link, "ngx0");
        assert_eq!(plan.v4.gateway, "10.210.0.1/30".parse().unwrap());
        assert_eq!(plan.v4.sandbox, "10.210.0.2/30".parse().unwrap());
        assert_eq!(plan.v6, None, "no IPv6 default route");
    }

    #[test]
    fn different_numbers_start_in_different_places_and_wrap_around() {
        let gateway = |id| NetworkPlan::choose(id, &host(&[])).unwrap().v4.gateway;
        assert_eq!(gateway(1), "10.210.0.5/30".parse().unwrap());
        assert_eq!(gateway((1 << 14) - 1), "10.210.255.253/30".parse().unwrap());
        assert_eq!(gateway(1 << 14), "10.210.0.1/30".parse().unwrap());
        assert_eq!(gateway(u32::MAX), "10.210.255.253/30".parse().unwrap());
    }

    #[test]
    fn routed_and_own_networks_are_stepped_over() {
        let mut crowded = host(&["10.210.0.0/31"]);
        crowded.addresses.push(LinkAddress {
            link: "eth0".into(),
            address: "10.210.0.6/32".parse().unwrap(),
        });
        assert_eq!(
            NetworkPlan::choose(0, &crowded).unwrap().v4.gateway,
            "10.210.0.9/30".parse().unwrap()
        );
    }

    #[test]
    fn a_pool_that_a_vpn_took_is_left_for_the_next() {
        let gateway = |routes: &[&str]| NetworkPlan::choose(0, &host(routes)).unwrap().v4.gateway.to_string();
        assert_eq!(gateway(&["10.0.0.0/8"]), "172.31.0.1/30");
        assert_eq!(gateway(&["10.0.0.0/8", "172.16.0.0/12"]), "192.168.210.1/30");
        assert_eq!(
            gateway(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]),
            "198.18.0.1/30"
        );
        let all = host(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"]);
        let error = NetworkPlan::choose(0, &all).unwrap_err();
        assert!(error.to_string().contains("10.210.0.0/16"), "{error}");
    }

    #[test]
    fn halves_of_the_internet_do_not_count_as_taken() {
        let plan = NetworkPlan::choose(0, &host(&["0.0.0.0/1", "128.0.0.0/1"])).unwrap();
        assert_eq!(plan.v4.gateway, "10.210.0.1/30".parse().unwrap());
    }

    #[test]
    fn ipv6_needs_a_default_route_and_a_host_that_forwards() {
        let mut dual = host(&["0.0.0.0/0", "::/0", "fd6e:6761:7465:5::/64"]);
        assert_eq!(NetworkPlan::choose(5, &dual).unwrap().v6, None);
        dual.forwards_ipv6 = true;
        let veth = NetworkPlan::choose(5, &dual).unwrap().v6.unwrap();
        assert_eq!(veth.gateway, "fd6e:6761:7465:6::1/64".parse().unwrap());
        assert_eq!(veth.sandbox, "fd6e:6761:7465:6::2/64".parse().unwrap());
    }

    #[test]
    fn forwarding_is_switched_on_only_where_it_is_off_and_a_route_leads() {
        let mut host = host(&["0.0.0.0/0"]);
        for (link, destination) in [
            ("eth1", "10.9.0.0/16"),
            ("ngx7", "10.210.0.28/30"),
            ("lo", "127.0.0.0/8"),
        ] {
            host.routes.push(LinkRoute {
                destination: destination.parse().unwrap(),
                via: None,
                link: Some(link.into()),
                table: 254,
            });
        }
        host.not_forwarding = ["eth0", "ngx7", "lo", "unused"].map(String::from).into();
        assert_eq!(
            NetworkPlan::choose(1, &host).unwrap().forwarding,
            BTreeSet::from(["eth0".to_owned()])
        );
    }

    fn host(routes: &[&str]) -> HostNetwork {
        HostNetwork {
            routes: routes
                .iter()
                .map(|destination| LinkRoute {
                    destination: destination.parse().unwrap(),
                    via: None,
                    link: Some("eth0".into()),
                    table: 254,
                })
                .collect(),
            ..HostNetwork::default()
        }
    }
}
