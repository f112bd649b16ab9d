//! Reads the host's network, and builds the sandbox's as it was planned.
//!
//! A veth pair leads from the sandbox to the host, which routes and masquerades for it. For that,
//! two sysctls are switched on:
//!
//! - `net.ipv4.conf.<veth>.forwarding`, so that the kernel routes packets from the sandbox. It goes
//!   with the link.
//! - The same sysctl of every link that a route leads to, so that the kernel routes the answers: it
//!   asks the link that a packet *came in* on. It is switched off afterwards if it was off. Other
//!   packets that arrive on these links are kept from being forwarded ([`firewall`]).
//!
//! IPv6 forwarding is never switched on: it makes the host forget routes that it learned from
//! router advertisements. The sandbox has IPv6 only where the host forwards it already.

use std::collections::BTreeSet;
use std::io;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netns::Namespace;

use crate::firewall;
use crate::network_plan::{HostNetwork, NetworkPlan};

/// The name of the sandbox's link, inside.
const INSIDE: &str = "eth0";

impl HostNetwork {
    /// Reads the network of `host`, which must be the namespace of the calling thread.
    pub(crate) fn read(host: &Namespace) -> io::Result<Self> {
        let routes = host.routes()?;
        let borrowed = firewall::switched_by_others(None)?;
        let mut not_forwarding = BTreeSet::new();
        for link in host.links()? {
            match host.sysctl(&forwarding_sysctl(&link)) {
                Ok(value) if value == "0" || borrowed.contains(&link) => {
                    not_forwarding.insert(link);
                }
                Ok(_) => {}
                // The link has gone meanwhile.
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

impl NetworkPlan {
    /// Builds the network between `host`, which must be the namespace of the calling thread, and a
    /// new namespace, which is returned.
    ///
    /// # Errors
    /// What was built until then stays, for [`Undo`](crate::undo::Undo).
    pub(crate) fn build(&self, host: &Namespace) -> io::Result<Namespace> {
        let sandbox = Namespace::new()?;
        // Before the links, so that no packet passes without the rules, and so that the forwarding
        // that is switched on below is recorded and can be undone.
        firewall::install(self)?;
        if self.v6.is_none() {
            // For links that are made from now on; `lo` keeps `::1`.
            ignore_missing(sandbox.set_sysctl("ipv6/conf/default/disable_ipv6", "1"))?;
        }
        // Every group may send echo requests by datagram sockets: `ping` has no capability inside.
        sandbox.set_sysctl("ipv4/ping_group_range", "0 2147483647")?;
        host.connect(&self.link, &sandbox, INSIDE)?;
        if self.v6.is_none() {
            ignore_missing(host.set_sysctl(&format!("ipv6/conf/{}/disable_ipv6", self.link), "1"))?;
        }
        if let Some(mtu) = self.mtu {
            host.set_mtu(&self.link, mtu)?;
            sandbox.set_mtu(INSIDE, mtu)?;
        }
        for veth in self.veth_addresses() {
            host.add_address(&self.link, veth.gateway)?;
            sandbox.add_address(INSIDE, veth.sandbox)?;
            let everywhere = match veth.gateway {
                IpNet::V4(_) => IpNet::V4(Ipv4Net::default()),
                IpNet::V6(_) => IpNet::V6(Ipv6Net::default()),
            };
            sandbox.add_route(everywhere, Some(veth.gateway.addr()), INSIDE)?;
        }
        for link in self.forwarding.iter().chain([&self.link]) {
            host.set_sysctl(&forwarding_sysctl(link), "1")?;
        }
        Ok(sandbox)
    }
}

/// The sysctl that lets packets which came in on `link` be routed.
pub(crate) fn forwarding_sysctl(link: &str) -> String {
    format!("ipv4/conf/{link}/forwarding")
}
/// Takes "not found" for success: a kernel without IPv6 has none of its sysctls, and a link that
/// has gone needs no change.
pub(crate) fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
