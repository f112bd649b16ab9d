//! Who governs the lookups from an address, and the packets.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use fqdn_cache::LeaseOwner;
use policy::question::Questions;
use policy::{EndpointId, ProgramId};

/// An endpoint with an egress program. One that only ingress rules speak of has none: its lookups
/// are not intercepted, and nothing that it sends is refused.
#[derive(Debug)]
pub struct Governed {
    /// Whose.
    pub id: EndpointId,
    /// Which program governs the packets that it sends.
    pub program: ProgramId,
    /// What it may ask; `None`: nothing, since others who are governed differently claim the same
    /// address.
    pub questions: Option<Arc<Questions>>,
}

impl Governed {
    /// Who owns what it learns: the same for every process that knows the Pod.
    pub fn owner(&self) -> LeaseOwner {
        // Keys are zero: what is in the ledger's snapshot outlives the process.
        let mut hasher = siphasher::sip::SipHasher13::new();
        (&self.id.namespace, &self.id.name).hash(&mut hasher);
        // Two that meet share what one would have.
        LeaseOwner(hasher.finish() as u32)
    }
}
