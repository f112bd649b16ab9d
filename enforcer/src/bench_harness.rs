//! Encodes set elements without a kernel, for benchmarks and for counting instructions. The agent
//! does not use it.

use std::time::Duration;

use crate::netlink::batch::{ElementAction, ElementBatch, ElementOp};
use crate::netlink::set_key::SetKey;

/// Additions to one set, which can be encoded any number of times.
pub struct ElementAdditions(Vec<ElementOp>);

impl ElementAdditions {
    /// Makes one addition for each key, with a timeout of `life`. A key is address . protocol .
    /// port of IPv4 as the kernel keeps it, four octets each.
    pub fn new(set: &str, keys: impl IntoIterator<Item = [u8; 12]>, life: Duration) -> Self {
        let operations = keys.into_iter().map(|key| ElementOp {
            set: set.into(),
            key: SetKey::from_slice(&key),
            action: ElementAction::Add(life),
        });
        Self(operations.collect())
    }

    /// Encodes the whole transaction for a table of this name.
    pub fn encode(&self, table: &str) -> Vec<u8> {
        ElementBatch::encode(table, &self.0, 1).bytes
    }
}
