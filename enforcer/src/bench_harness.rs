//! Elements as bytes for the kernel, without a kernel, for benchmarks and for counting
//! instructions. Nothing of the agent uses it.

use std::time::Duration;

use crate::netlink::batch::{ElementAction, ElementBatch, ElementOp};
use crate::netlink::set_key::SetKey;

/// Additions to one set, to be encoded again and again.
pub struct ElementAdditions(Vec<ElementOp>);

impl ElementAdditions {
    /// Each key is address . protocol . port of IPv4, as the kernel keeps them: four octets each.
    pub fn new(set: &str, keys: impl IntoIterator<Item = [u8; 12]>, life: Duration) -> Self {
        let operations = keys.into_iter().map(|key| ElementOp {
            set: set.into(),
            key: SetKey::from_slice(&key),
            action: ElementAction::Add(life),
        });
        Self(operations.collect())
    }

    /// The transaction.
    pub fn encode(&self, table: &str) -> Vec<u8> {
        ElementBatch::encode(table, &self.0, 1).bytes
    }
}
