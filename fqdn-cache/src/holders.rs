//! Which names hold an address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::roster::NameId;

/// So many pairs wait at most to be filed: a batch of answers.
const WAITING: usize = 128;

/// Pairs of an address and a name that holds it.
///
/// Ordered sets, so that an address that thousands of names share (a CDN, or somebody's attack)
/// costs no more than another. One for each family: most addresses are IPv4, and need a third of
/// the room of an `IpAddr`.
///
/// A pair that is new is put down, and [filed](Self::file) when nobody waits for an answer: to find
/// its place among hundreds of thousands is to go through memory that nobody has looked at lately.
/// Who asks sees no difference.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    v4: BTreeSet<(Ipv4Addr, NameId)>,
    v6: BTreeSet<(Ipv6Addr, NameId)>,
    /// In neither of them yet.
    waiting: Vec<(IpAddr, NameId)>,
}

impl Holders {
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.waiting.len()
    }

    /// Adds a pair that is not here.
    pub(crate) fn insert(&mut self, address: IpAddr, id: NameId) {
        if self.waiting.len() == WAITING {
            self.file();
        }
        self.waiting.push((address, id));
    }

    /// Files what waits.
    pub(crate) fn file(&mut self) {
        for (address, id) in self.waiting.drain(..) {
            match address {
                IpAddr::V4(v4) => self.v4.insert((v4, id)),
                IpAddr::V6(v6) => self.v6.insert((v6, id)),
            };
        }
    }

    pub(crate) fn remove(&mut self, address: IpAddr, id: NameId) {
        self.file();
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
        let waiting = self.waiting.iter().filter(move |(held, _)| *held == address);
        v4.into_iter()
            .flatten()
            .chain(v6.into_iter().flatten())
            .chain(waiting.map(|&(_, id)| id))
    }
}

fn within<A: Ord + Copy>(pairs: &BTreeSet<(A, NameId)>, address: A) -> impl Iterator<Item = NameId> {
    pairs
        .range((address, NameId::MIN)..=(address, NameId::MAX))
        .map(|&(_, id)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_that_waits_to_be_filed_is_held_like_any_other() {
        let mut holders = Holders::default();
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let of = |holders: &Holders, address| holders.of(address).collect::<Vec<_>>();
        for address in addresses {
            holders.insert(address, NameId::MIN);
            holders.insert(address, NameId::MAX);
        }
        for _ in ["waiting", "filed"] {
            assert_eq!(holders.len(), 4);
            for address in addresses {
                assert_eq!(of(&holders, address), [NameId::MIN, NameId::MAX]);
            }
            holders.file();
        }
        holders.insert("192.0.2.2".parse().unwrap(), NameId::MIN);
        holders.remove("192.0.2.2".parse().unwrap(), NameId::MIN);
        assert_eq!(holders.len(), 4);
    }

    #[test]
    fn what_nobody_files_does_not_pile_up() {
        let mut holders = Holders::default();
        for number in 0..1_000 {
            holders.insert(Ipv4Addr::from_bits(number).into(), NameId::MIN);
            assert!(holders.waiting.len() <= WAITING);
        }
        assert_eq!(holders.len(), 1_000);
    }
}
