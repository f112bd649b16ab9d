//! Who taught an address, as a small number.

use std::net::IpAddr;

use ahash::HashMap;

/// A place in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceId(u32);

/// The upstreams that have taught something.
///
/// Each lease names its own, and there are few (only trusted resolvers teach): so the address is kept
/// once, not in every lease. Never shrinks.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    addresses: Vec<IpAddr>,
    ids: HashMap<IpAddr, SourceId>,
}

impl Sources {
    pub(crate) fn id(&mut self, address: IpAddr) -> SourceId {
        *self.ids.entry(address).or_insert_with(|| {
            self.addresses.push(address);
            // Fewer than 2³² fit: each is a different address that takes over 40 bytes here.
            SourceId((self.addresses.len() - 1) as u32)
        })
    }

    pub(crate) fn address(&self, id: SourceId) -> IpAddr {
        self.addresses[id.0 as usize]
    }
}
