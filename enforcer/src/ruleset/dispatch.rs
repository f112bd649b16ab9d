//! Dispatches a packet to the program of its source address.

use nftables::stmt::{Statement, VerdictMap};

use crate::desired::DesiredState;
use crate::layout::IpFamily;

use super::document::NftDocument;
use super::expression::{goto, is, named_set, source};
use super::{interception, refusal, set_names, strangers};

/// The chain that `forward` and `input` jump to. A packet that passes returns to them. No rule here
/// accepts, because another program may be asked about the packet afterwards. A packet from a
/// source that no program governs returns too, unless the source is refused (`unknown4`,
/// `unknown6`), or comes from a governed pod's link and does not belong there.
pub(super) const CHAIN: &str = "dispatch";

pub(super) fn chain(document: &mut NftDocument<'_>, desired: &DesiredState) {
    document.chain(CHAIN);
    interception::judge_unintercepted(document, CHAIN, desired);
    for family in IpFamily::BOTH {
        let by_source = VerdictMap {
            key: source(family),
            data: named_set(&set_names::dispatch(family)),
        };
        document.rule(CHAIN, [Statement::VerdictMap(by_source)]);
        let unknown = named_set(&set_names::unknown(family));
        document.rule(CHAIN, [is(source(family), unknown), goto(refusal::CHAIN)]);
    }
    document.rule(
        CHAIN,
        [strangers::comes_from(set_names::GOVERNED_LINKS), goto(strangers::CHAIN)],
    );
}
