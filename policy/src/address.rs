//! Which addresses a name may open (docs/security.md, 5), and which zone an address lies in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

use crate::zone::AddressZone;

pub use crate::prefix::without;

/// Why a name may not open an address that it resolved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum Unteachable {
    /// 127.0.0.0/8, ::1, and their IPv4-mapped forms.
    #[error("it is a loopback address")]
    Loopback,
    /// 169.254.0.0/16 and fe80::/10: the metadata services live here.
    #[error("it is a link-local address")]
    LinkLocal,
    /// fec0::/10, deprecated by RFC 3879. Where it is still used, it is private.
    #[error("it is a site-local address")]
    SiteLocal,
    /// A cloud's metadata or instance service outside the link-local ranges.
    #[error("it is the address of a cloud's metadata service")]
    Metadata,
    /// Multicast and broadcast.
    #[error("it is a multicast or broadcast address")]
    Multicast,
    /// 0.0.0.0/8 and `::`.
    #[error("it is the unspecified address, or of its network")]
    Unspecified,
    /// A private address (RFC 1918), one of the shared space (RFC 6598) or a unique local one (RFC
    /// 4193). Only with [`Teachable::without_private`].
    #[error("it is a private address (--allow-rebind lets names open its range)")]
    Private,
    /// An address of this node, or of a pod or service of the cluster.
    #[error("it belongs to this node or to the cluster")]
    Cluster,
}

/// Which addresses names may open. A judgement is a binary search among the ranges.
#[derive(Debug, Clone, Default)]
pub struct Teachable {
    exempt: Ranges,
    cluster: Ranges,
    private_closed: bool,
}

impl Teachable {
    /// `exempt` are the ranges that no refusal applies to (`--allow-rebind`). `cluster` are the
    /// addresses of this node, and the addresses and ranges of Pods and Services.
    pub fn new(exempt: impl IntoIterator<Item = IpNet>, cluster: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            exempt: Ranges::new(exempt),
            cluster: Ranges::new(cluster),
            private_closed: false,
        }
    }

    /// Refuses private addresses too, so that a name from outside opens nothing in this machine's
    /// own network (`--private-addresses deny`).
    pub fn without_private(self) -> Self {
        Self {
            private_closed: true,
            ..self
        }
    }

    /// `Ok` when a name may open `address`.
    ///
    /// An IPv6 address that embeds an IPv4 address (mapped, compatible, translated, NAT64, 6to4,
    /// ISATAP, Teredo) is refused when either is, so that a Pod cannot reach a metadata service
    /// through an embedding. Each needs its own exemption, so that exempting a NAT64 prefix does
    /// not open the metadata service behind it.
    pub fn judge(&self, address: IpAddr) -> Result<(), Unteachable> {
        self.judge_alone(address)?;
        match address {
            IpAddr::V6(v6) => embedded(v6).try_for_each(|v4| self.judge_alone(v4.into())),
            IpAddr::V4(_) => Ok(()),
        }
    }

    fn judge_alone(&self, address: IpAddr) -> Result<(), Unteachable> {
        if self.exempt.contain(address) {
            return Ok(());
        }
        let special_range = match address {
            IpAddr::V4(v4) => special_range_v4(v4),
            IpAddr::V6(v6) => special_range_v6(v6),
        };
        match special_range {
            Some(reason) => Err(reason),
            None if self.cluster.contain(address) => Err(Unteachable::Cluster),
            None if self.private_closed && is_private(address) => Err(Unteachable::Private),
            None => Ok(()),
        }
    }
}

/// Which zone each address lies in. The kernel tells it by the same addresses and ranges
/// (`enforcer::ruleset`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ZoneMap {
    host: Ranges,
    cluster: Ranges,
}

impl ZoneMap {
    /// `host` are this node's own addresses, `cluster` the addresses and ranges of Pods, Services
    /// and Nodes.
    pub fn new(host: impl IntoIterator<Item = IpAddr>, cluster: impl IntoIterator<Item = IpNet>) -> Self {
        Self {
            host: Ranges::new(host.into_iter().map(IpNet::from)),
            cluster: Ranges::new(cluster),
        }
    }

    /// The zone that an address lies in. This node's own addresses are not part of the cluster's.
    pub fn of(&self, address: IpAddr) -> AddressZone {
        if self.host.contain(address) {
            AddressZone::Host
        } else if self.cluster.contain(address) {
            AddressZone::Cluster
        } else {
            AddressZone::World
        }
    }
}

/// Metadata services that are not link-local, after their vendors' documentation: Alibaba Cloud,
/// Azure's wire server, Oracle Cloud Classic.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same for IPv6: Google Cloud, Scaleway, Oracle Cloud.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// The prefix of EC2's services: instance metadata (`::254`), EKS Pod credentials (`::23`), DNS and
/// time.
const EC2_PREFIX: [u16; 7] = [0xfd00, 0xec2, 0, 0, 0, 0, 0];

fn special_range_v4(address: Ipv4Addr) -> Option<Unteachable> {
    match address.octets() {
        [0, ..] => Some(Unteachable::Unspecified),
        [127, ..] => Some(Unteachable::Loopback),
        [169, 254, ..] => Some(Unteachable::LinkLocal),
        [224..=239, ..] | [255, 255, 255, 255] => Some(Unteachable::Multicast),
        _ => METADATA_V4.contains(&address).then_some(Unteachable::Metadata),
    }
}

fn special_range_v6(address: Ipv6Addr) -> Option<Unteachable> {
    if address.is_unspecified() {
        Some(Unteachable::Unspecified)
    } else if address.is_loopback() {
        Some(Unteachable::Loopback)
    } else if address.is_unicast_link_local() {
        Some(Unteachable::LinkLocal)
    } else if address.segments()[0] & 0xffc0 == 0xfec0 {
        Some(Unteachable::SiteLocal)
    } else if address.is_multicast() {
        Some(Unteachable::Multicast)
    } else {
        let metadata = METADATA_V6.contains(&address) || address.segments().starts_with(&EC2_PREFIX);
        metadata.then_some(Unteachable::Metadata)
    }
}

/// Whether it is private (RFC 1918 §3), shared (RFC 6598 §7) or unique local (RFC 4193 §3.1).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || matches!(v4.octets(), [100, 64..=127, ..]),
        IpAddr::V6(v6) => v6.is_unique_local(),
    }
}

/// The IPv4 addresses at which a packet to this IPv6 address may arrive. There are several where
/// the address alone does not tell which of them is meant.
fn embedded(address: Ipv6Addr) -> impl Iterator<Item = Ipv4Addr> {
    let octets = address.octets();
    let at = |places: [usize; 4]| Some(Ipv4Addr::from(places.map(|place| octets[place])));
    let last = at([12, 13, 14, 15]);
    let found = match address.segments() {
        // `::` and `::1` only look IPv4-compatible (RFC 4291 §2.5.5.1).
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => [None; 4],
        // IPv4-compatible and IPv4-mapped (RFC 4291 §2.5.5), IPv4-translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => [last, None, None, None],
        // NAT64, well-known prefix (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => [last, None, None, None],
        // NAT64, local use (RFC 8215). A network uses a prefix of it, of any length from 48 on that
        // RFC 6052 §2.2 defines.
        [0x64, 0xff9b, 1, ..] => local_nat64([at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last]),
        // 6to4 (RFC 3056 §2).
        [0x2002, ..] => [at([2, 3, 4, 5]), None, None, None],
        // Teredo: the client, whose bits are inverted, and the server (RFC 4380 §4).
        [0x2001, 0, ..] => {
            let client = last.map(|address| Ipv4Addr::from(!u32::from(address)));
            [client, at([4, 5, 6, 7]), None, None]
        }
        // ISATAP, under any prefix (RFC 5214 §6.1). The bits "universal" and "group" of the first
        // octet may be set.
        [.., interface, 0x5efe, _, _] if interface & !0x0300 == 0 => [last, None, None, None],
        _ => [None; 4],
    };
    found.into_iter().flatten()
}

/// Drops the readings that are in 0.0.0.0/8, because an address read with a wrong prefix length
/// begins with zeros. They stay when there is no other reading.
fn local_nat64(readings: [Option<Ipv4Addr>; 4]) -> [Option<Ipv4Addr>; 4] {
    let meant = readings.map(|reading| reading.filter(|address| address.octets()[0] != 0));
    match meant == [None; 4] {
        true => readings,
        false => meant,
    }
}

/// Addresses of both families as sorted, disjoint, inclusive ranges, for binary search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ranges {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Ranges {
    fn new(prefixes: impl IntoIterator<Item = IpNet>) -> Self {
        let mut ranges = Self::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => ranges.v4.push((net.network().into(), net.broadcast().into())),
                IpNet::V6(net) => ranges.v6.push((net.network().into(), net.broadcast().into())),
            }
        }
        merge(&mut ranges.v4);
        merge(&mut ranges.v6);
        ranges
    }

    fn contain(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => covers(&self.v4, v4.into()),
            IpAddr::V6(v6) => covers(&self.v6, v6.into()),
        }
    }
}

fn merge<N: Ord + Copy>(ranges: &mut Vec<(N, N)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let overlaps = next.0 <= kept.1;
        if overlaps {
            kept.1 = kept.1.max(next.1);
        }
        overlaps
    });
}

fn covers<N: Ord + Copy>(ranges: &[(N, N)], address: N) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after > 0 && address <= ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn judge(teachable: &Teachable, address: &str) -> Result<(), Unteachable> {
        teachable.judge(address.parse().unwrap())
    }

    #[test]
    fn public_and_private_addresses_may_be_opened() {
        for address in [
            "93.184.216.34",
            "10.1.2.3",
            "192.168.0.1",
            "100.64.0.1",
            "240.0.0.1",
            "2606:4700::1111",
            "fd00::1",
            "64:ff9b::5db8:d822",
            "2002:5db8:d822::1",
            "64:ff9b:1::5db8:d822",
            "64:ff9b:1:5db8:d8:2200::",
            "2001:db8::5efe:5db8:d822",
            "2001:db8::5eff:a9fe:a9fe",
            "fd00:ec3::254",
            "::ffff:93.184.216.34",
        ] {
            assert_eq!(judge(&Teachable::default(), address), Ok(()), "{address}");
        }
    }

    #[test]
    fn addresses_of_special_ranges_are_refused_with_the_reason() {
        use Unteachable::*;
        for (address, reason) in [
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("::1", Loopback),
            ("169.254.169.254", LinkLocal),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", SiteLocal),
            ("feff::5", SiteLocal),
            ("fd00:ec2::254", Metadata),
            ("fd00:ec2::23", Metadata),
            ("fd00:c1::a9fe:a9fe", Metadata),
            ("192.0.0.192", Metadata),
            ("fd20:ce::254", Metadata),
            ("fd00:42::42", Metadata),
            ("100.100.100.200", Metadata),
            ("168.63.129.16", Metadata),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("255.255.255.255", Multicast),
            ("ff02::1", Multicast),
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("::", Unspecified),
        ] {
            assert_eq!(judge(&Teachable::default(), address), Err(reason), "{address}");
        }
    }

    #[test]
    fn metadata_is_refused_in_every_embedding() {
        for address in [
            "::ffff:169.254.169.254",
            "::169.254.169.254",
            "::ffff:0:a9fe:a9fe",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "2001:0:1234:5678:0:ffff:5601:5601",
            "2001:0:a9fe:a9fe:0:ffff:a0b0:c0d0",
            // Local-use NAT64 with a prefix of 96, 64, 56 and 48 bits.
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:2:3:4:a9fe:a9fe",
            "64:ff9b:1:7:a9:fea9:fe00:0",
            "64:ff9b:1:1a9:fe:a9fe::",
            "64:ff9b:1:a9fe:a9:fe00::",
            // ISATAP.
            "2001:db8::5efe:a9fe:a9fe",
            "2001:db8:1:2:200:5efe:169.254.169.254",
        ] {
            assert_eq!(
                judge(&Teachable::default(), address),
                Err(Unteachable::LinkLocal),
                "{address}"
            );
        }
        assert_eq!(
            judge(&Teachable::default(), "::ffff:127.0.0.1"),
            Err(Unteachable::Loopback)
        );
        assert_eq!(judge(&Teachable::default(), "64:ff9b::"), Err(Unteachable::Unspecified));
    }

    #[test]
    fn the_cluster_is_refused_in_every_embedding() {
        let teachable = Teachable::new([], nets(&["10.244.0.0/16", "10.96.0.10/32", "fd00:10::/48"]));
        for address in [
            "10.244.3.4",
            "10.96.0.10",
            "fd00:10::5",
            "::ffff:10.244.3.4",
            "64:ff9b::af4:304",
            "64:ff9b:1::af4:304",
            "2001:db8::200:5efe:af4:304",
        ] {
            assert_eq!(judge(&teachable, address), Err(Unteachable::Cluster), "{address}");
        }
        for address in ["10.96.0.11", "10.245.0.0", "fd00:11::5"] {
            assert_eq!(judge(&teachable, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn private_addresses_are_refused_in_every_embedding_where_that_is_wanted() {
        let teachable = Teachable::new(nets(&["10.1.0.0/16", "fd00:1::/32"]), []).without_private();
        for address in [
            "10.0.0.1",
            "10.2.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "fc00::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
        ] {
            assert_eq!(judge(&teachable, address), Err(Unteachable::Private), "{address}");
        }
        for address in [
            "10.1.2.3",
            "fd00:1::1",
            "172.32.0.1",
            "100.128.0.1",
            "192.169.0.1",
            "198.18.0.1",
            "fe00::1",
        ] {
            assert_eq!(judge(&teachable, address), Ok(()), "{address}");
        }
        assert_eq!(judge(&teachable, "100.100.100.200"), Err(Unteachable::Metadata));
    }

    #[test]
    fn the_loopback_address_can_be_exempted() {
        let teachable = Teachable::new(nets(&["::1/128"]), []);
        assert_eq!(judge(&teachable, "::1"), Ok(()));
        assert_eq!(judge(&teachable, "::"), Err(Unteachable::Unspecified));
    }

    #[test]
    fn an_exemption_lifts_every_refusal_of_its_own_range_only() {
        let teachable = Teachable::new(
            nets(&["127.0.0.0/8", "10.244.1.0/24", "64:ff9b::/96"]),
            nets(&["10.244.0.0/16"]),
        );
        assert_eq!(judge(&teachable, "127.0.0.1"), Ok(()));
        assert_eq!(judge(&teachable, "::ffff:127.0.0.1"), Ok(()));
        assert_eq!(judge(&teachable, "10.244.1.7"), Ok(()));
        assert_eq!(judge(&teachable, "10.244.2.7"), Err(Unteachable::Cluster));
        assert_eq!(judge(&teachable, "::1"), Err(Unteachable::Loopback));
        assert_eq!(
            judge(&teachable, "64:ff9b::a9fe:a9fe"),
            Err(Unteachable::LinkLocal),
            "the prefix is exempt, the address behind it is not"
        );
    }

    proptest! {
        #[test]
        fn ranges_agree_with_each_prefix_asked_by_itself(
            prefixes in prop::collection::vec((0_u32..64, 24_u8..=32, any::<bool>()), 0..30),
            asked in 0_u32..64,
        ) {
            // Few addresses at the very end of each family, so that prefixes nest, touch and reach
            // the last address.
            let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from(u32::MAX - n));
            let v6 = |n: u32| IpAddr::V6(Ipv6Addr::from(u128::MAX - u128::from(n)));
            let prefixes: Vec<IpNet> = prefixes
                .into_iter()
                .map(|(n, len, is_v4)| if is_v4 {
                    IpNet::new(v4(n), len.max(27)).unwrap()
                } else {
                    IpNet::new(v6(n), len + 96).unwrap()
                })
                .collect();
            let ranges = Ranges::new(prefixes.iter().copied());
            for address in [v4(asked), v6(asked)] {
                prop_assert_eq!(ranges.contain(address), prefixes.iter().any(|prefix| prefix.contains(&address)));
            }
        }
    }
}
