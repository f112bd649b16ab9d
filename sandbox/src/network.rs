//! The sandbox's network: what is chosen, from what the host has (pure), and how it is built.
//!
//! A veth pair leads from the sandbox to the host, which routes and masquerades for it. Two things
//! on the host are switched on for that, and off again afterwards if they were off:
//!
//! - `net.ipv4.conf.<veth>.forwarding`, so that what comes from the sandbox is routed at all. It
//!   goes with the link.
//! - the same of every link that a route leads to, so that the answers are routed back: the kernel
//!   asks the link that a packet *came in* on. What else arrives on these links is kept from being
//!   forwarded (`firewall`).
//!
//! IPv6 forwarding is never switched on: it would make the host forget routes learned from router
//! advertisements. The sandbox has IPv6 only where the host forwards it already.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netns::{LinkAddress, Namespace, Route};

use super::firewall;

/// How the host's ends of all sandboxes begin; their numbers follow.
pub(super) const LINK_PREFIX: &str = "ngx";

/// The sandbox's link, inside.
const INSIDE: &str = "eth0";

/// Where sandboxes get their addresses from, most preferred first: corners of the private ranges
/// that few networks use, and the range for benchmarks (RFC 2544) when a VPN has taken the private
/// ones.
const POOLS: [(Ipv4Addr, u8); 4] = [
    (Ipv4Addr::new(10, 210, 0, 0), 16),
    (Ipv4Addr::new(172, 31, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 210, 0), 24),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
];

/// The /48 of unique local addresses that sandboxes are numbered in. They are masqueraded, so it
/// need not be unique beyond the host.
const POOL6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x6761, 0x7465, 0, 0, 0, 0, 0);

/// Prefixes shorter than this are ways to say "everything" (a VPN's 0.0.0.0/1), not networks to
/// stay clear of.
const SHORTEST_NETWORK: u8 = 8;

/// What is known of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Host {
    /// All routes.
    pub(super) routes: Vec<Route>,
    /// All addresses.
    pub(super) addresses: Vec<LinkAddress>,
    /// Links that do not forward IPv4, or only because another sandbox switched it on.
    pub(super) not_forwarding: BTreeSet<String>,
    /// Whether it forwards IPv6.
    pub(super) forwards_ipv6: bool,
    /// The smallest MTU of the links with a default route.
    pub(super) mtu: Option<u32>,
}

/// The sandbox's network, chosen and not yet built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The sandbox's number.
    pub(super) id: u32,
    /// The host's end of the veth pair.
    pub(super) link: String,
    /// The two ends, IPv4.
    pub(super) v4: Ends,
    /// The two ends, IPv6.
    pub(super) v6: Option<Ends>,
    /// Links to switch IPv4 forwarding on for.
    pub(super) forwarding: BTreeSet<String>,
    /// The MTU of both ends.
    pub(super) mtu: Option<u32>,
}

/// The addresses of a veth pair's ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The host's, where the sandbox's lookups go.
    pub(super) gateway: IpNet,
    /// The sandbox's.
    pub(super) sandbox: IpNet,
}

impl Plan {
    /// Chooses. Equal hosts give equal plans; different numbers start looking in different places,
    /// so that sandboxes that start at the same time do not meet.
    pub(super) fn choose(id: u32, host: &Host) -> io::Result<Self> {
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
            v4: ends(IpNet::V4(subnet)),
            v6: (default6 && host.forwards_ipv6)
                .then(|| free_ipv6(id, &taken))
                .flatten()
                .map(|subnet| ends(IpNet::V6(subnet))),
            forwarding,
            mtu: host.mtu,
        })
    }

    /// Both families' ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = Ends> + use<> {
        [Some(self.v4), self.v6].into_iter().flatten()
    }

    /// The sandbox's addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ends().map(|ends| ends.sandbox.addr())
    }

    /// Where the sandbox sends its lookups.
    pub(super) fn gateways(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.ends().map(|ends| ends.gateway.addr())
    }

    /// Builds it between `host`, which must be the namespace of the calling thread, and a new
    /// namespace, which is returned. On an error, what was built stays, for
    /// [`Undo`](super::undo::Undo).
    pub(super) fn build(&self, host: &Namespace) -> io::Result<Namespace> {
        let sandbox = Namespace::new()?;
        // Before the links: nothing passes that the rules have not seen, and what they record of
        // the host can be undone.
        firewall::install(self)?;
        if self.v6.is_none() {
            // For links to come; `lo` keeps `::1`.
            ignore_missing(sandbox.set_sysctl("ipv6/conf/default/disable_ipv6", "1"))?;
        }
        // Echo requests by datagram sockets, of every group: `ping` has no capability there.
        sandbox.set_sysctl("ipv4/ping_group_range", "0 2147483647")?;
        host.connect(&self.link, &sandbox, INSIDE)?;
        if self.v6.is_none() {
            ignore_missing(host.set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", self.link), "1"))?;
        }
        if let Some(mtu) = self.mtu {
            host.set_mtu(&self.link, mtu)?;
            sandbox.set_mtu(INSIDE, mtu)?;
        }
        for ends in self.ends() {
            host.add_address(&self.link, ends.gateway)?;
            sandbox.add_address(INSIDE, ends.sandbox)?;
            let everywhere = match ends.gateway {
                IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
                IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
            };
            sandbox.add_route(everywhere, Some(ends.gateway.addr()), INSIDE)?;
        }
        for link in self.forwarding.iter().chain([&self.link]) {
            host.set_sysctl(&forwarding_sysctl(link), "1")?;
        }
        Ok(sandbox)
    }
}

impl Host {
    /// Reads it from `host`, which must be the namespace of the calling thread.
    pub(super) fn read(host: &Namespace) -> io::Result<Self> {
        let routes = host.routes()?;
        let borrowed = firewall::switched_by_others(None)?;
        let mut not_forwarding = BTreeSet::new();
        for link in host.links()? {
            match host.sysctl(&forwarding_sysctl(&link)) {
                Ok(value) if value == "0" || borrowed.contains(&link) => {
                    not_forwarding.insert(link);
                }
                Ok(_) => {}
                // It went away meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let uplinks: BTreeSet<&String> = routes
            .iter()
            .filter(|route| route.destination.prefix_len() == 0)
            .filter_map(|route| route.link.as_ref())
            .collect();
        Ok(Self {
            mtu: uplinks.iter().filter_map(|link| host.mtu(link).ok()).min(),
            addresses: host.addresses()?,
            not_forwarding,
            forwards_ipv6: host.sysctl("ipv6/conf/all/forwarding").is_ok_and(|value| value != "0"),
            routes,
        })
    }
}

/// The sysctl that lets packets which came in on `link` be routed.
pub(super) fn forwarding_sysctl(link: &str) -> String {
    format!("ipv4/conf/{link}/forwarding")
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

/// The first two host addresses of a subnet.
fn ends(subnet: IpNet) -> Ends {
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
    Ends {
        gateway: address(1),
        sandbox: address(2),
    }
}

/// What is not there needs no change: IPv6 sysctls of a kernel without IPv6, a link that has gone.
pub(super) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_host_gives_the_first_pool() {
        let plan = Plan::choose(0, &host(&["0.0.0.0/0", "192.0.2.0/24"])).unwrap();
        assert_eq!(plan.link, "ngx0");
        assert_eq!(plan.v4.gateway, "10.210.0.1/30".parse().unwrap());
        assert_eq!(plan.v4.sandbox, "10.210.0.2/30".parse().unwrap());
        assert_eq!(plan.v6, None, "no IPv6 default route");
    }

    #[test]
    fn different_numbers_start_in_different_places_and_wrap_around() {
        let gateway = |id| Plan::choose(id, &host(&[])).unwrap().v4.gateway;
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
            Plan::choose(0, &crowded).unwrap().v4.gateway,
            "10.210.0.9/30".parse().unwrap()
        );
    }

    #[test]
    fn a_pool_that_a_vpn_took_is_left_for_the_next() {
        let gateway = |routes: &[&str]| Plan::choose(0, &host(routes)).unwrap().v4.gateway.to_string();
        assert_eq!(gateway(&["10.0.0.0/8"]), "172.31.0.1/30");
        assert_eq!(gateway(&["10.0.0.0/8", "172.16.0.0/12"]), "192.168.210.1/30");
        assert_eq!(
            gateway(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]),
            "198.18.0.1/30"
        );
        let all = host(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15"]);
        let error = Plan::choose(0, &all).unwrap_err();
        assert!(error.to_string().contains("10.210.0.0/16"), "{error}");
    }

    #[test]
    fn halves_of_the_internet_do_not_count_as_taken() {
        let plan = Plan::choose(0, &host(&["0.0.0.0/1", "128.0.0.0/1"])).unwrap();
        assert_eq!(plan.v4.gateway, "10.210.0.1/30".parse().unwrap());
    }

    #[test]
    fn ipv6_needs_a_default_route_and_a_host_that_forwards() {
        let mut dual = host(&["0.0.0.0/0", "::/0", "fd6e:6761:7465:5::/64"]);
        assert_eq!(Plan::choose(5, &dual).unwrap().v6, None);
        dual.forwards_ipv6 = true;
        let ends = Plan::choose(5, &dual).unwrap().v6.unwrap();
        assert_eq!(ends.gateway, "fd6e:6761:7465:6::1/64".parse().unwrap());
        assert_eq!(ends.sandbox, "fd6e:6761:7465:6::2/64".parse().unwrap());
    }

    #[test]
    fn forwarding_is_switched_on_only_where_it_is_off_and_a_route_leads() {
        let mut host = host(&["0.0.0.0/0"]);
        for (link, destination) in [
            ("eth1", "10.9.0.0/16"),
            ("ngx7", "10.210.0.28/30"),
            ("lo", "127.0.0.0/8"),
        ] {
            host.routes.push(Route {
                destination: destination.parse().unwrap(),
                via: None,
                link: Some(link.into()),
                table: 254,
            });
        }
        host.not_forwarding = ["eth0", "ngx7", "lo", "unused"].map(String::from).into();
        assert_eq!(
            Plan::choose(1, &host).unwrap().forwarding,
            BTreeSet::from(["eth0".to_owned()])
        );
    }

    fn host(routes: &[&str]) -> Host {
        Host {
            routes: routes
                .iter()
                .map(|destination| Route {
                    destination: destination.parse().unwrap(),
                    via: None,
                    link: Some("eth0".into()),
                    table: 254,
                })
                .collect(),
            ..Host::default()
        }
    }
}
