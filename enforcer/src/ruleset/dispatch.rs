//! Source address → chain of its program.

use nftables::stmt::{Statement, VerdictMap};

use crate::layout::IpFamily;

use super::document::NftDocument;
use super::expression::{goto, is, named_set, source};
use super::{refusal, sets, strangers};

/// The chain that both `forward` and `input` jump to. A source that no program governs comes back
/// from it, unless it is none that may be, or comes from where only pods are.
pub(super) const CHAIN: &str = "dispatch";

pub(super) fn chain(document: &mut NftDocument<'_>) {
    document.chain(CHAIN);
    for family in IpFamily::BOTH {
        let by_source = VerdictMap {
            key: source(family),
            data: named_set(&sets::dispatch(family)),
        };
        document.rule(CHAIN, [Statement::VerdictMap(by_source)]);
        let unknown = named_set(&sets::unknown(family));
        document.rule(CHAIN, [is(source(family), unknown), goto(refusal::CHAIN)]);
    }
    document.rule(
        CHAIN,
        [strangers::comes_from(sets::GOVERNED_LINKS), goto(strangers::CHAIN)],
    );
}
