//! Source address → chain of its program.

use nftables::stmt::{Statement, VerdictMap};

use super::document::Document;
use super::expression::{named_set, source};
use super::sets;
use crate::layout::Family;

/// The chain that both `forward` and `input` jump to. A source that no program governs comes back from it.
pub(super) const CHAIN: &str = "dispatch";

pub(super) fn chain(document: &mut Document<'_>) {
    document.chain(CHAIN);
    for family in Family::BOTH {
        let by_source = VerdictMap {
            key: source(family),
            data: named_set(&sets::dispatch(family)),
        };
        document.rule(CHAIN, [Statement::VerdictMap(by_source)]);
    }
}
