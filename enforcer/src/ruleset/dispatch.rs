//! Dispatches a packet to the programs of its ends: of its source, then of its destination.

use nftables::stmt::{Statement, VerdictMap};
use policy::Direction;

use crate::desired::DesiredState;
use crate::layout::IpFamily;

use super::document::NftDocument;
use super::expression::{Expr, destination, goto, is, named_set, source};
use super::{interception, refusal, set_names, strangers};

/// The chain that `forward` and `input` jump to, for the program of the source. A packet that
/// passes returns to them. No rule here accepts, because the receiver's program may be asked about
/// the packet afterwards. A packet from a source that no program governs returns too, unless the
/// source is refused (`unknown4`, `unknown6`), or comes from a governed pod's link and does not
/// belong there.
pub(super) const CHAIN: &str = "dispatch";

/// The chain that `forward` jumps to behind the former, for the program of the destination.
/// Destinations that may become a pod's are refused as such sources are.
pub(super) const RECEIVER_CHAIN: &str = "dispatch-in";

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    document.chain(CHAIN);
    interception::judge_unintercepted(document, CHAIN, desired);
    for family in IpFamily::BOTH {
        document.rule(CHAIN, [to_program(Direction::Egress, family)]);
        document.rule(CHAIN, [is_unknown(source(family), family), goto(refusal::CHAIN)]);
    }
    document.rule(
        CHAIN,
        [strangers::comes_from(set_names::GOVERNED_LINKS), goto(strangers::CHAIN)],
    );

    document.chain(RECEIVER_CHAIN);
    for family in IpFamily::BOTH {
        document.rule(RECEIVER_CHAIN, [to_program(Direction::Ingress, family)]);
        if refuses_unknown(desired) {
            let refuse = goto(refusal::chain(Direction::Ingress, None));
            document.rule(RECEIVER_CHAIN, [is_unknown(destination(family), family), refuse]);
        }
    }
}

/// Whether destinations that may become a pod's are refused. The rule stands only where there are
/// any, so that otherwise a packet to a destination that no program governs costs one lookup.
pub(super) fn refuses_unknown(desired: &DesiredState) -> bool {
    !desired.unknown.is_empty()
}

/// One lookup, which leads to the program of an end where it has one.
fn to_program(direction: Direction, family: IpFamily) -> Statement<'static> {
    to_chain_of(direction, family, &set_names::dispatch(direction, family))
}

/// One lookup of the end that a direction's programs govern, in a map to chains.
pub(super) fn to_chain_of(direction: Direction, family: IpFamily, map: &str) -> Statement<'static> {
    let end = match direction {
        Direction::Egress => source(family),
        Direction::Ingress => destination(family),
    };
    Statement::VerdictMap(VerdictMap {
        key: end,
        data: named_set(map),
    })
}

fn is_unknown(end: Expr, family: IpFamily) -> Statement<'static> {
    is(end, named_set(&set_names::unknown(family)))
}
