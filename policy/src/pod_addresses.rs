//! A pod's addresses.

use std::net::IpAddr;
use std::slice;
use std::sync::Arc;

/// A pod's addresses, ordered, each once. One stands in place, of which there are hundreds of
/// thousands; more are shared by clones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddresses(StoredAddresses);

#[derive(Debug, Clone, PartialEq, Eq)]
enum StoredAddresses {
    One(IpAddr),
    /// Not of length one.
    Other(Option<Arc<[IpAddr]>>),
}

impl PodAddresses {
    /// The addresses.
    pub fn as_slice(&self) -> &[IpAddr] {
        match &self.0 {
            StoredAddresses::One(address) => slice::from_ref(address),
            StoredAddresses::Other(addresses) => addresses.as_deref().unwrap_or_default(),
        }
    }
}

impl Default for PodAddresses {
    fn default() -> Self {
        Self(StoredAddresses::Other(None))
    }
}

impl FromIterator<IpAddr> for PodAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut addresses: Vec<IpAddr> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        Self(match addresses.as_slice() {
            [] => StoredAddresses::Other(None),
            [one] => StoredAddresses::One(*one),
            more => StoredAddresses::Other(Some(more.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_ordered_and_each_stands_once() {
        let address = |last| IpAddr::from([10, 0, 0, last]);
        let of = |last: &[u8]| last.iter().map(|last| address(*last)).collect::<PodAddresses>();
        assert!(of(&[]).as_slice().is_empty());
        assert_eq!(of(&[]), PodAddresses::default());
        assert_eq!(of(&[7, 7]).as_slice(), [address(7)]);
        assert_eq!(of(&[9, 7, 9]).as_slice(), [address(7), address(9)]);
        assert!(size_of::<PodAddresses>() <= 24);
    }
}
