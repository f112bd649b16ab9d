//! What the gate gets to know of an upstream's answer.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use names::Name;
use smallvec::SmallVec;

/// Addresses with their TTLs. Two fit without an allocation, which most answers have at most.
pub type AddressTtls = SmallVec<[(IpAddr, Duration); 2]>;

/// The names and addresses of an answer that was validated: id, source and question match, and an
/// unbroken chain of CNAMEs leads from the question's name to every address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedAnswer {
    /// The question's name.
    pub name: Name,
    /// The names of the chain behind the question's, in order.
    pub chain: Vec<Name>,
    /// A and AAAA of the last owner, and `ipv4hint`/`ipv6hint` of its HTTPS and SVCB records, each
    /// with the smallest TTL along the chain; ascending, each address once.
    pub addresses: AddressTtls,
    /// The upstream that answered.
    pub source: SocketAddr,
}

impl ValidatedAnswer {
    /// An answer that holds no addresses.
    pub(crate) fn without_addresses(name: Name, source: SocketAddr) -> Self {
        Self {
            name,
            chain: Vec::new(),
            addresses: AddressTtls::new(),
            source,
        }
    }
}
