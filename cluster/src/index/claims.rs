//! Which cluster an address is of: what the nodes of several clusters claim.
//!
//! Packets are told apart by addresses alone, so that clusters that see each other's pods need a
//! range each. Where two claim the same addresses, nobody can tell whose a packet is. The own
//! cluster keeps what it claims, since its packets are here; another loses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use policy::AddressZone;
use policy::address::ZoneMap;

/// A range or an address that a cluster says is its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) range: IpNet,
    pub(super) cluster: Arc<str>,
}

/// Another cluster's claim to the same addresses, by the claim that it stands in the way of.
pub(super) type ContestedClaims = BTreeMap<IpNet, Claim>;

/// For each cluster its claims that overlap another's. A claim is contested as a whole: whoever
/// claims too much means something else by it.
pub(super) fn contested(mut claims: Vec<Claim>) -> BTreeMap<Arc<str>, ContestedClaims> {
    let mut contested: BTreeMap<Arc<str>, ContestedClaims> = BTreeMap::new();
    // Prefixes lie in one another or apart, and in this order behind those that hold them.
    claims.sort_unstable();
    claims.dedup();
    let mut around: Vec<&Claim> = Vec::new();
    for claim in &claims {
        while around.last().is_some_and(|outer| !outer.range.contains(&claim.range)) {
            around.pop();
        }
        for outer in around.iter().filter(|outer| outer.cluster != claim.cluster) {
            let mut note = |mine: &Claim, theirs: &Claim| {
                let of_mine = contested.entry(Arc::clone(&mine.cluster)).or_default();
                of_mine.entry(mine.range).or_insert_with(|| theirs.clone());
            };
            note(claim, outer);
            note(outer, claim);
        }
        around.push(claim);
    }
    contested
}

/// The addresses that a cluster may not have pods and nodes at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ForeignAddresses(ZoneMap);

impl ForeignAddresses {
    pub(super) fn new(ranges: &[IpNet]) -> Self {
        Self(ZoneMap::new([], IpNet::aggregate(&ranges.to_vec())))
    }

    pub(super) fn contain(&self, address: std::net::IpAddr) -> bool {
        self.0.of(address) != AddressZone::World
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(claims: &[(&str, &str)]) -> Vec<Claim> {
        let claim = |(cluster, range): &(&str, &str)| Claim {
            range: range.parse().unwrap(),
            cluster: Arc::from(*cluster),
        };
        claims.iter().map(claim).collect()
    }

    fn shown(all: &[(&str, &str)]) -> Vec<String> {
        let contested = contested(claims(all));
        let each = contested.iter().flat_map(|(cluster, claims)| {
            let shown = |(range, by): (&IpNet, &Claim)| format!("{cluster} {range}: {} {}", by.cluster, by.range);
            claims.iter().map(shown).collect::<Vec<_>>()
        });
        each.collect()
    }

    #[test]
    fn claims_of_one_cluster_may_lie_in_one_another_and_those_of_two_may_not() {
        let apart = [
            ("a", "10.1.0.0/24"),
            ("a", "10.1.0.0/16"),
            ("b", "10.2.0.0/16"),
            ("b", "10.2.0.0/16"),
            ("b", "fd00::/64"),
        ];
        assert_eq!(shown(&apart), [""; 0]);
        assert_eq!(
            shown(&[("a", "10.1.0.0/16"), ("b", "10.1.7.0/24"), ("b", "10.2.0.0/24")]),
            ["a 10.1.0.0/16: b 10.1.7.0/24", "b 10.1.7.0/24: a 10.1.0.0/16"]
        );
        assert_eq!(
            shown(&[("a", "192.0.2.1/32"), ("b", "192.0.2.1/32")]),
            ["a 192.0.2.1/32: b 192.0.2.1/32", "b 192.0.2.1/32: a 192.0.2.1/32"]
        );
        // What lies behind a smaller one is still inside the larger.
        assert_eq!(
            shown(&[("a", "0.0.0.0/0"), ("b", "10.0.0.0/24"), ("c", "10.9.0.0/24")]),
            [
                "a 0.0.0.0/0: b 10.0.0.0/24",
                "b 10.0.0.0/24: a 0.0.0.0/0",
                "c 10.9.0.0/24: a 0.0.0.0/0"
            ]
        );
    }
}
