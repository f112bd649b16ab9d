//! Address → names that hold it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name_table::NameId;

/// How many pairs may be pending: those of a batch of answers.
const MAX_PENDING: usize = 128;

/// Pairs of an address and a name that holds it.
///
/// The pairs are in ordered sets, so that an address that thousands of names share (a CDN, or an
/// attack) costs no more than another. There is one set for each family: most addresses are IPv4,
/// and take a third of the room of an `IpAddr`.
///
/// A new pair is pending until [`flush`](Self::flush), which runs when nobody waits for an answer:
/// inserting into a set of hundreds of thousands misses every cache. Lookups see pending pairs too.
#[derive(Debug, Default)]
pub(crate) struct ReverseIndex {
    v4: BTreeSet<(Ipv4Addr, NameId)>,
    v6: BTreeSet<(Ipv6Addr, NameId)>,
    /// In neither set yet.
    pending: Vec<(IpAddr, NameId)>,
}

impl ReverseIndex {
    pub(crate) fn len(&self) -> usize {
        self.v4.len() + self.v6.len() + self.pending.len()
    }

    /// Adds a pair that the index does not hold.
    pub(crate) fn insert(&mut self, address: IpAddr, id: NameId) {
        if self.pending.len() == MAX_PENDING {
            self.flush();
        }
        self.pending.push((address, id));
    }

    /// Inserts the pending pairs into the sets.
    pub(crate) fn flush(&mut self) {
        for (address, id) in self.pending.drain(..) {
            match address {
                IpAddr::V4(v4) => self.v4.insert((v4, id)),
                IpAddr::V6(v6) => self.v6.insert((v6, id)),
            };
        }
    }

    pub(crate) fn remove(&mut self, address: IpAddr, id: NameId) {
        self.flush();
        match address {
            IpAddr::V4(v4) => self.v4.remove(&(v4, id)),
            IpAddr::V6(v6) => self.v6.remove(&(v6, id)),
        };
    }

    pub(crate) fn names_of(&self, address: IpAddr) -> impl Iterator<Item = NameId> {
        let (v4, v6) = match address {
            IpAddr::V4(v4) => (Some(within(&self.v4, v4)), None),
            IpAddr::V6(v6) => (None, Some(within(&self.v6, v6))),
        };
        let pending = self.pending.iter().filter(move |(held, _)| *held == address);
        v4.into_iter()
            .flatten()
            .chain(v6.into_iter().flatten())
            .chain(pending.map(|&(_, id)| id))
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
    fn a_pending_pair_is_held_like_any_other() {
        let mut index = ReverseIndex::default();
        let addresses = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let of = |index: &ReverseIndex, address| index.names_of(address).collect::<Vec<_>>();
        for address in addresses {
            index.insert(address, NameId::MIN);
            index.insert(address, NameId::MAX);
        }
        for _ in ["pending", "flushed"] {
            assert_eq!(index.len(), 4);
            for address in addresses {
                assert_eq!(of(&index, address), [NameId::MIN, NameId::MAX]);
            }
            index.flush();
        }
        index.insert("192.0.2.2".parse().unwrap(), NameId::MIN);
        index.remove("192.0.2.2".parse().unwrap(), NameId::MIN);
        assert_eq!(index.len(), 4);
    }

    #[test]
    fn pending_pairs_do_not_pile_up() {
        let mut index = ReverseIndex::default();
        for number in 0..1_000 {
            index.insert(Ipv4Addr::from_bits(number).into(), NameId::MIN);
            assert!(index.pending.len() <= MAX_PENDING);
        }
        assert_eq!(index.len(), 1_000);
    }
}
