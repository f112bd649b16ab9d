//! The addresses of the lab, all of them in private, documentation and benchmarking ranges (RFC
//! 1918, 4193, 5737, 3849, 2544).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The node's IPv4 address towards its pods, which is their gateway.
pub const NODE4: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// The node's IPv6 address towards its pods, which is their gateway.
pub const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, 1);

/// The resolver's IPv4 address.
pub const RESOLVER: Ipv4Addr = resolver4(53);
/// The resolver's IPv6 address.
pub const RESOLVER6: Ipv6Addr = resolver6(0x53);
/// Another address of the resolver, which no configuration names: answers from it must teach
/// nothing.
pub const UNTRUSTED_RESOLVER: Ipv4Addr = resolver4(66);
/// An address without a server, until a [`HostileResponder`](super::hostile::HostileResponder)
/// serves there.
pub const BAD_RESOLVER: Ipv4Addr = resolver4(77);
/// An address where no server ever is: queries get "port unreachable".
pub const DEAD_RESOLVER: Ipv4Addr = resolver4(99);

/// The ranges of the internet, which serves on every address in them.
pub(super) const INTERNET_NETS: [&str; 4] = ["198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32"];

/// The addresses on which the [`Resolver`](super::resolver::Resolver) serves.
pub(super) const SERVED: [IpAddr; 3] = [
    IpAddr::V4(RESOLVER),
    IpAddr::V6(RESOLVER6),
    IpAddr::V4(UNTRUSTED_RESOLVER),
];
/// Addresses of the resolver's namespace on which it does not serve.
pub(super) const UNSERVED: [IpAddr; 2] = [IpAddr::V4(BAD_RESOLVER), IpAddr::V4(DEAD_RESOLVER)];

/// The addresses of the links between node, resolver and internet: IPv4, IPv6.
pub(super) const NODE_TO_RESOLVER: [&str; 2] = ["10.53.0.1/24", "fd00:53::1/64"];
pub(super) const NODE_TO_INTERNET: [&str; 2] = ["192.0.2.1/24", "fd00:192::1/64"];
pub(super) const INTERNET: [&str; 2] = ["192.0.2.2/24", "fd00:192::2/64"];

/// The addresses of the pod with this index.
pub(super) const fn pod(index: u8) -> (Ipv4Addr, Ipv6Addr) {
    let last = 10 + index;
    (
        Ipv4Addr::new(10, 244, 0, last),
        Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, last as u16),
    )
}

const fn resolver4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 53, 0, last)
}

const fn resolver6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0x53, 0, 0, 0, 0, 0, last)
}
