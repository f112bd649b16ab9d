//! Public servers of encrypted DNS: where a workload can resolve names unobserved.
//!
//! The list is that of the providers which Chromium (`net/dns/public/doh_provider_entry.cc`) and
//! Firefox offer their users, with the names and addresses that the providers publish. It cannot be
//! complete, since anybody can run such a server: it finds what is open by mistake.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// DNS over HTTPS (RFC 8484).
pub const HTTPS_PORT: u16 = 443;
/// DNS over TLS (RFC 7858), and over QUIC (RFC 9250).
pub const TLS_PORT: u16 = 853;

/// Somebody who runs such servers for everybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsProvider {
    /// The provider's name, for people.
    pub name: &'static str,
    /// The names of the servers, the usual one first.
    pub hosts: &'static [&'static str],
    /// Their addresses, the usual ones first.
    pub addresses: &'static [IpAddr],
}

/// The providers that are known.
pub const PROVIDERS: [DnsProvider; 10] = [
    DnsProvider {
        name: "Google",
        hosts: &["dns.google", "dns.google.com", "dns64.dns.google"],
        addresses: &[
            v4([8, 8, 8, 8]),
            v4([8, 8, 4, 4]),
            v6([0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888]),
            v6([0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844]),
        ],
    },
    DnsProvider {
        name: "Cloudflare",
        hosts: &[
            "cloudflare-dns.com",
            "one.one.one.one",
            "1dot1dot1dot1.cloudflare-dns.com",
            "mozilla.cloudflare-dns.com",
            "chrome.cloudflare-dns.com",
            "security.cloudflare-dns.com",
            "family.cloudflare-dns.com",
            "dns64.cloudflare-dns.com",
        ],
        addresses: &[
            v4([1, 1, 1, 1]),
            v4([1, 0, 0, 1]),
            v4([1, 1, 1, 2]),
            v4([1, 0, 0, 2]),
            v4([1, 1, 1, 3]),
            v4([1, 0, 0, 3]),
            v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111]),
            v6([0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001]),
        ],
    },
    DnsProvider {
        name: "Quad9",
        hosts: &["dns.quad9.net", "dns9.quad9.net", "dns10.quad9.net", "dns11.quad9.net"],
        addresses: &[
            v4([9, 9, 9, 9]),
            v4([149, 112, 112, 112]),
            v4([9, 9, 9, 10]),
            v4([149, 112, 112, 10]),
            v4([9, 9, 9, 11]),
            v4([149, 112, 112, 11]),
            v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe]),
            v6([0x2620, 0xfe, 0, 0, 0, 0, 0, 9]),
        ],
    },
    DnsProvider {
        name: "OpenDNS",
        hosts: &[
            "doh.opendns.com",
            "dns.opendns.com",
            "doh.familyshield.opendns.com",
            "doh.umbrella.com",
        ],
        addresses: &[
            v4([208, 67, 222, 222]),
            v4([208, 67, 220, 220]),
            v4([208, 67, 222, 123]),
            v4([208, 67, 220, 123]),
            v6([0x2620, 0x119, 0x35, 0, 0, 0, 0, 0x35]),
            v6([0x2620, 0x119, 0x53, 0, 0, 0, 0, 0x53]),
        ],
    },
    DnsProvider {
        name: "AdGuard",
        hosts: &[
            "dns.adguard-dns.com",
            "dns.adguard.com",
            "family.adguard-dns.com",
            "unfiltered.adguard-dns.com",
        ],
        addresses: &[
            v4([94, 140, 14, 14]),
            v4([94, 140, 15, 15]),
            v6([0x2a10, 0x50c0, 0, 0, 0, 0, 0xad1, 0xff]),
            v6([0x2a10, 0x50c0, 0, 0, 0, 0, 0xad2, 0xff]),
        ],
    },
    DnsProvider {
        name: "CleanBrowsing",
        hosts: &["doh.cleanbrowsing.org", "security-filter-dns.cleanbrowsing.org"],
        addresses: &[v4([185, 228, 168, 9]), v4([185, 228, 169, 9])],
    },
    DnsProvider {
        name: "NextDNS",
        hosts: &["dns.nextdns.io", "firefox.dns.nextdns.io", "chromium.dns.nextdns.io"],
        addresses: &[v4([45, 90, 28, 0]), v4([45, 90, 30, 0])],
    },
    DnsProvider {
        name: "DNS.SB",
        hosts: &["doh.dns.sb", "doh.sb", "dot.sb"],
        addresses: &[v4([185, 222, 222, 222]), v4([45, 11, 45, 11])],
    },
    DnsProvider {
        name: "Alibaba",
        hosts: &["dns.alidns.com"],
        addresses: &[v4([223, 5, 5, 5]), v4([223, 6, 6, 6])],
    },
    DnsProvider {
        name: "DNSPod",
        hosts: &["doh.pub", "dot.pub"],
        addresses: &[v4([1, 12, 12, 12]), v4([120, 53, 53, 53])],
    },
];

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, d, e, f, g, h))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use names::Name;

    use super::*;

    #[test]
    fn every_server_has_one_provider_and_a_name_that_can_be_asked() {
        let (mut hosts, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for provider in PROVIDERS {
            assert!(
                !provider.hosts.is_empty() && !provider.addresses.is_empty(),
                "{provider:?}"
            );
            for host in provider.hosts {
                assert_eq!(Name::parse(host).unwrap().as_str(), format!("{host}."));
                assert!(hosts.insert(*host), "{host}");
            }
            for address in provider.addresses {
                assert!(addresses.insert(*address), "{address}");
            }
        }
    }
}
