//! Links, addresses and routes of a namespace, over rtnetlink.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, LinkBridge, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace_thread::current_thread_runtime;
use super::{Namespace, context};

/// `RT_TABLE_LOCAL`, the table of the addresses that the kernel delivers locally.
const LOCAL_TABLE: u32 = 255;

/// An address on a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkAddress {
    /// The link's name.
    pub link: String,
    /// The address, with its prefix length.
    pub address: IpNet,
}

/// A unicast route. A route with several next hops is listed as one for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkRoute {
    /// The destination prefix.
    pub destination: IpNet,
    /// The next hop; `None` when the destination is on the link.
    pub via: Option<IpAddr>,
    /// The link's name; `None` where the kernel names none (a route through a next-hop object).
    pub link: Option<String>,
    /// The routing table; 254 is `main`.
    pub table: u32,
}

impl Namespace {
    /// Joins two namespaces with a veth pair, both ends up. Both may be the same namespace.
    pub fn connect(&self, link: &str, peer: &Namespace, peer_link: &str) -> io::Result<()> {
        check_name(link)?;
        check_name(peer_link)?;
        // The kernel makes each end in its own namespace. So neither name has to be free in the
        // other's.
        let far_end = LinkUnspec::new_with_name(peer_link)
            .setns_by_fd(peer.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(link)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(far_end)))
            .build();
        self.netlink(&format!("cannot join {link} and {peer_link}"), async move |handle| {
            Ok(handle.link().add(pair).execute().await?)
        })?;
        // The far end is set up afterwards, because the kernel configures it before it has a peer,
        // and refuses to set it up then (ENOTCONN).
        peer.set_up(peer_link)
    }

    /// Adds a bridge, sets it up, and attaches links to it as ports.
    pub fn add_bridge(&self, bridge: &str, ports: &[&str]) -> io::Result<()> {
        check_name(bridge)?;
        self.netlink(&format!("cannot add the bridge {bridge}"), async move |handle| {
            handle.link().add(LinkBridge::new(bridge).build()).execute().await?;
            Ok(())
        })?;
        ports.iter().try_for_each(|port| self.attach(port, bridge))
    }

    /// Attaches a link to a bridge as a port, and sets it up.
    pub fn attach(&self, port: &str, bridge: &str) -> io::Result<()> {
        self.netlink(
            &format!("cannot attach {port} to the bridge {bridge}"),
            async move |handle| {
                let master = index(&handle, bridge).await?;
                let change = LinkUnspec::new_with_index(index(&handle, port).await?)
                    .controller(master)
                    .up();
                Ok(handle.link().set(change.build()).execute().await?)
            },
        )
    }

    /// Moves a link to another namespace, where it has no addresses and is down.
    pub fn move_link(&self, link: &str, to: &Namespace) -> io::Result<()> {
        let to = to.as_raw_fd();
        self.change_link(link, "move", |change| change.setns_by_fd(to))
    }

    /// Sets a link up.
    pub fn set_up(&self, link: &str) -> io::Result<()> {
        self.change_link(link, "set up", LinkMessageBuilder::up)
    }

    /// Sets a link down.
    pub fn set_down(&self, link: &str) -> io::Result<()> {
        self.change_link(link, "set down", LinkMessageBuilder::down)
    }

    /// Sets the MTU of a link, in octets.
    pub fn set_mtu(&self, link: &str, mtu: u32) -> io::Result<()> {
        self.change_link(link, "set the MTU of", |change| change.mtu(mtu))
    }

    /// The MTU of a link, in octets.
    pub fn mtu(&self, link: &str) -> io::Result<u32> {
        self.netlink(&format!("cannot read the MTU of {link}"), async move |handle| {
            let found = find(&handle, link).await?;
            found
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Mtu(mtu) => Some(*mtu),
                    _ => None,
                })
                .ok_or_else(|| io::Error::other("the kernel did not tell").into())
        })
    }

    /// Deletes a link. Of a veth pair, both ends go.
    pub fn delete_link(&self, link: &str) -> io::Result<()> {
        self.netlink(&format!("cannot delete the link {link}"), async move |handle| {
            let index = index(&handle, link).await?;
            Ok(handle.link().del(index).execute().await?)
        })
    }

    /// The names of all links, sorted.
    pub fn links(&self) -> io::Result<Vec<String>> {
        self.netlink("cannot list the links", async move |handle| {
            let mut names: Vec<_> = link_names(&handle).await?.into_values().collect();
            names.sort();
            Ok(names)
        })
    }

    /// Adds an address to a link. IPv6 addresses skip duplicate address detection, so that they are
    /// usable at once.
    pub fn add_address(&self, link: &str, address: IpNet) -> io::Result<()> {
        self.netlink(
            &format!("cannot add the address {address} to {link}"),
            async move |handle| {
                let index = index(&handle, link).await?;
                let mut request = handle.address().add(index, address.addr(), address.prefix_len());
                if address.addr().is_ipv6() {
                    let message = request.message_mut();
                    message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
                }
                request
                    .execute()
                    .await
                    .map_err(|error| explain_ipv6(error, address.addr()))
            },
        )
    }

    /// The addresses of all links, sorted.
    pub fn addresses(&self) -> io::Result<Vec<LinkAddress>> {
        self.netlink("cannot list the addresses", async move |handle| {
            let names = link_names(&handle).await?;
            let messages: Vec<AddressMessage> = handle.address().get().execute().try_collect().await?;
            let mut addresses: Vec<_> = messages
                .iter()
                .filter_map(|message| {
                    Some(LinkAddress {
                        link: names.get(&message.header.index)?.clone(),
                        address: address_of(message)?,
                    })
                })
                .collect();
            addresses.sort();
            Ok(addresses)
        })
    }

    /// Adds a route to the main table: `via` a gateway, or directly on the link.
    pub fn add_route(&self, destination: IpNet, via: Option<IpAddr>, link: &str) -> io::Result<()> {
        self.netlink(
            &format!("cannot add the route to {destination} on {link}"),
            async move |handle| {
                let index = index(&handle, link).await?;
                let mut route = RouteMessageBuilder::<IpAddr>::new()
                    .destination_prefix(destination.network(), destination.prefix_len())
                    .map_err(invalid)?
                    .output_interface(index);
                route = match via {
                    Some(gateway) => route.gateway(gateway).map_err(invalid)?,
                    None if destination.addr().is_ipv4() => route.scope(RouteScope::Link),
                    None => route,
                };
                let added = handle.route().add(route.build()).execute().await;
                added.map_err(|error| explain_ipv6(error, destination.addr()))
            },
        )
    }

    /// Makes the namespace accept packets to every address of a range, without an address on a
    /// link: adds a route of type `local`.
    pub fn add_local_range(&self, range: IpNet) -> io::Result<()> {
        self.netlink(&format!("cannot answer on all of {range}"), async move |handle| {
            let route = RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(range.network(), range.prefix_len())
                .map_err(invalid)?
                .output_interface(index(&handle, "lo").await?)
                .kind(RouteType::Local)
                .scope(RouteScope::Host)
                .table_id(LOCAL_TABLE);
            let added = handle.route().add(route.build()).execute().await;
            added.map_err(|error| explain_ipv6(error, range.addr()))
        })
    }

    /// All unicast routes of all tables and both families, sorted.
    pub fn routes(&self) -> io::Result<Vec<LinkRoute>> {
        self.netlink("cannot list the routes", async move |handle| {
            let names = link_names(&handle).await?;
            let mut routes = Vec::new();
            for request in [
                RouteMessageBuilder::<Ipv4Addr>::new().build(),
                RouteMessageBuilder::<Ipv6Addr>::new().build(),
            ] {
                let messages: Vec<RouteMessage> = handle.route().get(request).execute().try_collect().await?;
                routes.extend(messages.iter().flat_map(|message| routes_of(message, &names)));
            }
            routes.sort();
            Ok(routes)
        })
    }

    fn change_link(
        &self,
        link: &str,
        verb: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec> + Send,
    ) -> io::Result<()> {
        self.netlink(&format!("cannot {verb} the link {link}"), async move |handle| {
            let index = index(&handle, link).await?;
            let message = change(LinkUnspec::new_with_index(index)).build();
            Ok(handle.link().set(message).execute().await?)
        })
    }

    /// Runs `work` with a netlink socket of this namespace. `doing` stands before the text of an
    /// error.
    fn netlink<T: Send>(
        &self,
        doing: &str,
        work: impl AsyncFnOnce(Handle) -> Result<T, NetlinkError> + Send,
    ) -> io::Result<T> {
        self.run(|| {
            let runtime = current_thread_runtime()?;
            runtime.block_on(async {
                let (connection, handle, _notifications) = rtnetlink::new_connection()?;
                // The task ends with the runtime.
                tokio::spawn(connection);
                work(handle).await.map_err(|NetlinkError(error)| error)
            })
        })?
        .map_err(|error| context(error, doing))
    }
}

async fn find(handle: &Handle, link: &str) -> Result<LinkMessage, NetlinkError> {
    check_name(link)?;
    let mut found = handle.link().get().match_name(link).execute();
    let found = found.try_next().await.map_err(NetlinkError::from);
    match found {
        Ok(Some(message)) => Ok(message),
        Err(NetlinkError(error)) if error.raw_os_error() != Some(libc::ENODEV) => Err(error.into()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no link {link}")).into()),
    }
}

async fn index(handle: &Handle, link: &str) -> Result<u32, NetlinkError> {
    Ok(find(handle, link).await?.header.index)
}

async fn link_names(handle: &Handle) -> Result<BTreeMap<u32, String>, NetlinkError> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await?;
    Ok(links
        .iter()
        .filter_map(|message| {
            let name = message.attributes.iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name.clone()),
                _ => None,
            })?;
            Some((message.header.index, name))
        })
        .collect())
}

fn address_of(message: &AddressMessage) -> Option<IpNet> {
    // On a point-to-point link `Address` is the peer's, and `Local` ours. IPv6 may carry `Address`
    // alone.
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let only = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    IpNet::new(local.or(only)?, message.header.prefix_len).ok()
}

/// The routes of a message, one for each next hop; none when it is not unicast.
fn routes_of(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Vec<LinkRoute> {
    if message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let (mut destination, mut hops) = (None, Vec::new());
    let mut single = (None, None);
    let mut table = u32::from(message.header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address),
            RouteAttribute::Gateway(address) => single.0 = ip(address),
            RouteAttribute::Oif(index) => single.1 = names.get(index).cloned(),
            RouteAttribute::MultiPath(several) => hops.extend(several.iter().map(|hop| {
                let via = hop.attributes.iter().find_map(|attribute| match attribute {
                    RouteAttribute::Gateway(address) => ip(address),
                    _ => None,
                });
                (via, names.get(&hop.interface_index).cloned())
            })),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    if hops.is_empty() {
        hops.push(single);
    }
    // A default route carries no destination.
    let destination = destination.or(match message.header.address_family {
        AddressFamily::Inet => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => None,
    });
    let prefix = destination.and_then(|address| IpNet::new(address, message.header.destination_prefix_length).ok());
    hops.into_iter()
        .filter_map(|(via, link)| {
            Some(LinkRoute {
                destination: prefix?,
                via,
                link,
                table,
            })
        })
        .collect()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

/// Refuses link names that the kernel would refuse
/// (`dev_valid_name`, IFNAMSIZ), and those with `%`, which it would take for a pattern.
fn check_name(link: &str) -> io::Result<()> {
    let fits = (1..=15).contains(&link.len()) && link != "." && link != "..";
    if fits && !link.contains(|c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace()) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{link:?} is no name for a link (1 to 15 characters, without space, '/', ':' and '%')"),
    ))
}

/// Adds what the kernel's errno means for IPv6: EACCES with `disable_ipv6`, EOPNOTSUPP or
/// EAFNOSUPPORT without IPv6.
fn explain_ipv6(error: rtnetlink::Error, address: IpAddr) -> NetlinkError {
    let NetlinkError(error) = error.into();
    let disabled = matches!(
        error.raw_os_error(),
        Some(libc::EACCES | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
    );
    NetlinkError(if address.is_ipv6() && disabled {
        context(
            error,
            "IPv6 is disabled on this link (sysctl disable_ipv6) or in the kernel",
        )
    } else {
        error
    })
}

fn invalid(error: impl std::fmt::Display) -> NetlinkError {
    NetlinkError(io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

/// An `io::Error` to which rtnetlink's errors convert without losing the kernel's errno.
struct NetlinkError(io::Error);

impl From<rtnetlink::Error> for NetlinkError {
    fn from(error: rtnetlink::Error) -> Self {
        Self(match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        })
    }
}

impl From<io::Error> for NetlinkError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}
