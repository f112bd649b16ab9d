//! Where DNS is spoken: an address, and port 53 unless another is written.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// An address and port of DNS, written as `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1` or
/// `[2001:db8::1]:5353`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsAddress(pub SocketAddr);

/// Why a text is not a [`DnsAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address, with a port if it is not 53: 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:5353")]
pub struct NotAnAddress;

impl FromStr for DnsAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let bracketed = || {
            let inside = text.strip_prefix('[')?.strip_suffix(']')?;
            Some(IpAddr::V6(inside.parse::<Ipv6Addr>().ok()?))
        };
        if let Some(address) = text.parse::<IpAddr>().ok().or_else(bracketed) {
            return Ok(Self(SocketAddr::new(address, 53)));
        }
        text.parse().map(Self).map_err(|_| NotAnAddress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_address_may_leave_out_port_53() {
        for (text, full) in [
            ("192.0.2.1", "192.0.2.1:53"),
            ("192.0.2.1:5353", "192.0.2.1:5353"),
            ("2001:db8::1", "[2001:db8::1]:53"),
            ("[2001:db8::1]", "[2001:db8::1]:53"),
            ("[2001:db8::1]:5353", "[2001:db8::1]:5353"),
        ] {
            assert_eq!(text.parse::<DnsAddress>().unwrap().0.to_string(), full);
        }
        for text in ["", "dns.example", "192.0.2.1:", "192.0.2.300", "[192.0.2.1]"] {
            assert!(text.parse::<DnsAddress>().is_err(), "{text}");
        }
    }
}
