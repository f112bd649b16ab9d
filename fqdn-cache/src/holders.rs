//! Which names hold an address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::roster::NameId;

/// Pairs of an address and a name that holds it.
///
/// Ordered sets, so that an address that thousands of names share (a CDN, or somebody's attack) costs no
/// more than another. One for each family: most addresses are IPv4, and need a third of the room of an `IpAddr`.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    v4: BTreeSet<(Ipv4Addr, NameId)>,
    v6: BTreeSet<(Ipv6Addr, NameId)>,
}

impl Holders {
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    pub(crate) fn insert(&mut self, address: IpAddr, id: NameId) {
        match address {
            IpAddr::V4(v4) => self.v4.insert((v4, id)),
            IpAddr::V6(v6) => self.v6.insert((v6, id)),
        };
    }

    pub(crate) fn remove(&mut self, address: IpAddr, id: NameId) {
        match address {
            IpAddr::V4(v4) => self.v4.remove(&(v4, id)),
            IpAddr::V6(v6) => self.v6.remove(&(v6, id)),
        };
    }

    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = NameId> {
        let (v4, v6) = match address {
            IpAddr::V4(v4) => (Some(within(&self.v4, v4)), None),
            IpAddr::V6(v6) => (None, Some(within(&self.v6, v6))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }
}

fn within<A: Ord + Copy>(pairs: &BTreeSet<(A, NameId)>, address: A) -> impl Iterator<Item = NameId> {
    pairs
        .range((address, NameId::MIN)..=(address, NameId::MAX))
        .map(|&(_, id)| id)
}
