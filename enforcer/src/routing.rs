//! What the interception modes need outside nftables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The proxy's own addresses in mode dnat, put on `lo`.
pub const LISTEN_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
/// The IPv6 counterpart: a unique local address (RFC 4193) with a random global id.
pub const LISTEN_V6: Ipv6Addr = Ipv6Addr::new(0xfd6e, 0x6de7, 0x53a4, 0, 0, 0, 0, 0x53);

/// The addresses of this network namespace's interfaces.
pub fn own_addresses() -> std::io::Result<Vec<IpAddr>> {
    todo!()
}
