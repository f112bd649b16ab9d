//! What a refused packet gets.

use nftables::expr::MetaKey;
use nftables::stmt::{Counter, Limit, Reject, RejectType, Statement};
use nftables::types::RejectCode;

use super::document::Document;
use super::expression::{is, is_not, meta, protocol, word};
use crate::desired::Refusal;

/// The named counter of refused IPv4 packets.
pub const REFUSED_V4: &str = "refused4";
/// The named counter of refused IPv6 packets.
pub const REFUSED_V6: &str = "refused6";
/// The named counter of IPv4 packets that pass only because a policy is in mode audit.
pub const AUDITED_V4: &str = "audited4";
/// The same of IPv6 packets.
pub const AUDITED_V6: &str = "audited6";

/// The chain that refuses.
pub(super) const CHAIN: &str = "refuse";

/// Answers a second; beyond it refused packets are dropped, so that nobody can make this node a source of noise.
/// High enough for every application to fail at once in ordinary use.
const REJECTS_PER_SECOND: u32 = 1000;
const REJECTS_BURST: u32 = 500;

pub(super) fn chain(document: &mut Document<'_>, refusal: Refusal) {
    document.chain(CHAIN);
    for (family, counter) in [("ipv4", REFUSED_V4), ("ipv6", REFUSED_V6)] {
        document.counter(counter);
        document.rule(
            CHAIN,
            [
                is(meta(MetaKey::Nfproto), word(family)),
                Statement::Counter(Counter::Named(counter.into())),
            ],
        );
    }
    match refusal {
        Refusal::Drop => {}
        Refusal::Reject => {
            let reset = Reject::new(Some(RejectType::TCPReset), None);
            let prohibited = Reject::new(Some(RejectType::ICMPX), Some(RejectCode::AdminProhibited));
            document.rule(
                CHAIN,
                [is(protocol(), word("tcp")), limit(), Statement::Reject(Some(reset))],
            );
            // Each kind has its own limit: TCP over its limit must not use up what other protocols have. The kernel itself
            // never answers an ICMP error with an ICMP error.
            document.rule(
                CHAIN,
                [
                    is_not(protocol(), word("tcp")),
                    limit(),
                    Statement::Reject(Some(prohibited)),
                ],
            );
        }
    }
    document.rule(CHAIN, [Statement::Drop(None)]);
}

fn limit() -> Statement<'static> {
    Statement::Limit(Limit {
        rate: REJECTS_PER_SECOND,
        rate_unit: None,
        per: Some("second".into()),
        burst: Some(REJECTS_BURST),
        burst_unit: None,
        inv: None,
    })
}
