//! The host's own resolvers, which answer for the sandbox where `--upstream` names none.

use std::net::{IpAddr, SocketAddr};

/// The port of DNS.
pub(super) const DNS_PORT: u16 = 53;

/// The `nameserver` lines of a resolv.conf(5). Link-local ones with a zone (`fe80::1%eth0`) are passed over.
pub(super) fn of_resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            let address: IpAddr = words.next()?.parse().ok()?;
            Some(SocketAddr::new(address, DNS_PORT))
        })
        .collect()
}

/// `IP` or `IP:PORT`, IPv6 with a port in brackets.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT)))
        .map_err(|_| "write an address, or an address and a port (192.0.2.1:5353, [2001:db8::1]:5353)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_are_read_and_the_rest_is_not() {
        let text = "# nameserver 192.0.2.9\nsearch example\nnameserver 127.0.0.53\n nameserver\t2001:db8::1 # two\nnameserver fe80::1%eth0\nnameserver\noptions edns0\n";
        let expected = ["127.0.0.53:53", "[2001:db8::1]:53"].map(|text| text.parse().unwrap());
        assert_eq!(of_resolv_conf(text), expected);
    }

    #[test]
    fn an_upstream_may_name_a_port() {
        assert_eq!(parse("192.0.2.1"), Ok("192.0.2.1:53".parse().unwrap()));
        assert_eq!(parse("192.0.2.1:5353"), Ok("192.0.2.1:5353".parse().unwrap()));
        assert_eq!(parse("2001:db8::1"), Ok("[2001:db8::1]:53".parse().unwrap()));
        assert_eq!(parse("[2001:db8::1]:5353"), Ok("[2001:db8::1]:5353".parse().unwrap()));
        assert!(parse("resolver.example").is_err());
    }
}
