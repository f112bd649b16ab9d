//! Packets that are related to a flow and no part of it: ICMP errors, and flows that protocol
//! helpers expect.
//!
//! An ICMP error may quote any flow that is tracked, and carry any payload. From a governed pod it
//! passes only when the pod is an end of that flow, before or after address translation: then the
//! receiver communicates with the pod already. Everything else is judged like any other packet.
//!
//! Established packets do not come here.

use nftables::expr::CTDir;
use policy::Protocol;

use crate::layout::IpFamily;

use super::document::NftDocument;
use super::expression::{
    accept, concat, conntrack, goto, header, is, is_of, named_set, number, protocol, protocol_value, return_, source,
};
use super::{refusal, set_names, strangers};

pub(super) const CHAIN: &str = "related";

/// RFC 792. A redirect would make the pod its neighbour's router.
const REDIRECT: u32 = 5;

pub(super) fn chain(document: &mut NftDocument<'_>) {
    document.chain(CHAIN);
    document.rule(
        CHAIN,
        [
            strangers::comes_from(set_names::GOVERNED_LINKS),
            is_of(IpFamily::V4),
            is(protocol(), protocol_value(Protocol::Icmp)),
            is(header("icmp", "type"), number(REDIRECT)),
            goto(refusal::DROP_CHAIN),
        ],
    );
    for family in IpFamily::BOTH {
        let ends = || named_set(&set_names::ends(family));
        for dir in [CTDir::Original, CTDir::Reply] {
            let end = conntrack(format!("{} saddr", super::expression::ip(family)), Some(dir));
            document.rule(
                CHAIN,
                [is_of(family), is(concat([source(family), end]), ends()), accept()],
            );
        }
        let pods = named_set(&set_names::pods(family));
        document.rule(CHAIN, [is_of(family), is(source(family), pods), return_()]);
    }
    document.rule(CHAIN, [strangers::comes_from(set_names::GOVERNED_LINKS), return_()]);
    document.rule(CHAIN, [accept()]);
}
