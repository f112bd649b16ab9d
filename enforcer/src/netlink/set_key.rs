//! Keys of set elements, as the kernel keeps them.

use std::net::IpAddr;

use smallvec::SmallVec;

/// The key of an element: each field in network order, padded to 4 bytes within a concatenation.
pub(crate) type SetKey = SmallVec<[u8; 24]>;

/// From one key to another, which is included. Where a key has several fields, each field is a
/// range by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyRange {
    pub(crate) first: SetKey,
    pub(crate) last: SetKey,
}

impl KeyRange {
    /// Adds this range to sorted ones; where it begins right behind the last one, both become one.
    pub(crate) fn append_to(self, ranges: &mut Vec<Self>) {
        match ranges.last_mut() {
            Some(before) if successor(&before.last).as_ref() == Some(&self.first) => before.last = self.last,
            _ => ranges.push(self),
        }
    }
}

/// An address, as the only field of a key or the first one.
pub(crate) fn address_key(address: IpAddr) -> SetKey {
    match address {
        IpAddr::V4(v4) => SetKey::from_slice(&v4.octets()),
        IpAddr::V6(v6) => SetKey::from_slice(&v6.octets()),
    }
}

/// The key after this one, as a number in network order; `None` after the last.
pub(crate) fn successor(key: &SetKey) -> Option<SetKey> {
    let mut next = key.clone();
    for octet in next.iter_mut().rev() {
        let (sum, carries) = octet.overflowing_add(1);
        *octet = sum;
        if !carries {
            return Some(next);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_ranges_become_one() {
        let range = |first: u8, last: u8| KeyRange {
            first: SetKey::from_slice(&[10, 0, 0, first]),
            last: SetKey::from_slice(&[10, 0, 0, last]),
        };
        let mut ranges = Vec::new();
        for next in [range(0, 3), range(4, 5), range(7, 9)] {
            next.append_to(&mut ranges);
        }
        assert_eq!(ranges, [range(0, 5), range(7, 9)]);
    }
}
