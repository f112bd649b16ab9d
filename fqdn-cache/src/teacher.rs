//! Who taught an address.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ahash::HashMap;

/// Who taught an address. (docs/security.md, 3)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Teacher {
    /// A resolver that every program trusts. Of a name and an address these have one lease
    /// together; this is the resolver that spoke of it last.
    Trusted(IpAddr),
    /// A server that only the DNS rules of some policies name. What it says has leases of its own,
    /// which lengthen, shorten and replace nobody else's.
    Private(IpAddr),
}

impl Teacher {
    /// The address of the resolver.
    pub fn address(self) -> IpAddr {
        match self {
            Teacher::Trusted(address) | Teacher::Private(address) => address,
        }
    }
}

/// A place in [`Teachers`], and one. (So that none takes no more room.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TeacherId(NonZeroU32);

/// The teachers that have taught something, as small numbers.
///
/// Each lease names its own, and there are few: so the address is kept once, not in every lease.
/// Never shrinks.
#[derive(Debug, Default)]
pub(crate) struct Teachers {
    known: Vec<Teacher>,
    ids: HashMap<Teacher, TeacherId>,
}

impl Teachers {
    pub(crate) fn id(&mut self, teacher: Teacher) -> TeacherId {
        *self.ids.entry(teacher).or_insert_with(|| {
            self.known.push(teacher);
            // Fewer than 2³² fit: each takes over 40 bytes here.
            TeacherId(NonZeroU32::MIN.saturating_add((self.known.len() - 1) as u32))
        })
    }

    pub(crate) fn get(&self, id: TeacherId) -> Teacher {
        self.known[id.0.get() as usize - 1]
    }
}
