//! The chains for packets that are refused, and for packets that pass only because a policy is in
//! mode audit.
//!
//! Samples are logged to the NFLOG group; the counters count every packet. Each sender has a limit
//! of its own, so that one that floods does not hide what others send:
//!
//! ```text
//! record-…         a sender over its limit (an element of a set, which the packet makes): return
//!                  logged, at a rate that one reader copes with
//! ```
//!
//! Where that set is full, because somebody makes up senders, only the second limit holds.

use std::time::Duration;

use nftables::stmt::{Counter, Limit, Log, Reject, RejectType, Set, SetOp, Statement};
use nftables::types::RejectCode;
use policy::{DenyResponse, Direction, Protocol};

use crate::desired::DesiredState;
use crate::layout::IpFamily;
use crate::netlink::objects::ElementMeter;
use crate::records::{self, RecordedVerdict};

use super::document::NftDocument;
use super::expression::{is, is_not, is_of, jump, protocol, protocol_value, return_, source};
use super::set_names;

/// The chain that refuses packets as [`DesiredState::refusal`] says, at egress.
pub(crate) const CHAIN: &str = "refuse";
/// The chain that drops them, whatever the setting.
pub(crate) const DROP_CHAIN: &str = "refuse-drop";

/// The chain that refuses packets of flows that are [cut](super::cut_chains). It rejects whatever
/// the settings say: who has a connection would otherwise wait for its timeout.
pub(crate) const CUT_CHAIN: &str = "refuse-cut";

/// The chains of one direction, by which samples and counters tell the directions apart.
struct DirectionChains {
    /// Refuses as [`DesiredState::refusal`] says.
    configured: &'static str,
    /// Rejects, whatever the setting.
    reject: &'static str,
    /// Drops, whatever the setting.
    drop: &'static str,
    /// For packets that audited policies would refuse.
    audited: &'static str,
    /// Records refused packets.
    record_refused: &'static str,
    /// Records packets that audited policies would refuse.
    record_audited: &'static str,
}

const OF_EGRESS: DirectionChains = DirectionChains {
    configured: CHAIN,
    reject: "refuse-reject",
    drop: DROP_CHAIN,
    audited: "audited",
    record_refused: "record-refused",
    record_audited: "record-audited",
};
const OF_INGRESS: DirectionChains = DirectionChains {
    configured: "refuse-in",
    reject: "refuse-in-reject",
    drop: "refuse-in-drop",
    audited: "audited-in",
    record_refused: "record-refused-in",
    record_audited: "record-audited-in",
};

/// All of these chains. Programs refer to them, so they are made before programs are.
pub(crate) const CHAINS: [&str; 9] = [
    CUT_CHAIN,
    OF_EGRESS.configured,
    OF_EGRESS.reject,
    OF_EGRESS.drop,
    OF_EGRESS.audited,
    OF_INGRESS.configured,
    OF_INGRESS.reject,
    OF_INGRESS.drop,
    OF_INGRESS.audited,
];

/// The named counter of packets of one family that were refused, or that pass only because a policy
/// is in mode audit.
pub(crate) fn counter(direction: Direction, verdict: RecordedVerdict, family: IpFamily) -> &'static str {
    use Direction::{Egress, Ingress};
    use IpFamily::{V4, V6};
    use RecordedVerdict::{Audited, Refused};
    match (direction, verdict, family) {
        (Egress, Refused, V4) => "refused4",
        (Egress, Refused, V6) => "refused6",
        (Egress, Audited, V4) => "audited4",
        (Egress, Audited, V6) => "audited6",
        (Ingress, Refused, V4) => "refused-in4",
        (Ingress, Refused, V6) => "refused-in6",
        (Ingress, Audited, V4) => "audited-in4",
        (Ingress, Audited, V6) => "audited-in6",
    }
}

/// The chain that refuses packets: with this response, or as [`DesiredState::refusal`] says.
pub(crate) fn chain(direction: Direction, response: Option<DenyResponse>) -> &'static str {
    let chains = of(direction);
    match response {
        None => chains.configured,
        Some(DenyResponse::Reject) => chains.reject,
        Some(DenyResponse::Drop) => chains.drop,
    }
}

/// The chain for packets that audited policies would refuse.
pub(crate) fn audited_chain(direction: Direction) -> &'static str {
    of(direction).audited
}

fn of(direction: Direction) -> DirectionChains {
    match direction {
        Direction::Egress => OF_EGRESS,
        Direction::Ingress => OF_INGRESS,
    }
}

/// Rejections a second, and their burst. Beyond it refused packets are dropped, so that nobody can
/// make this node flood others; it is high enough for every application to fail at once in ordinary
/// use.
const REJECTS: (u32, u32) = (1000, 500);

/// The limit of logged packets of one sender, for each verdict. Who was silent for its time has all
/// its burst again, so that nothing is lost when it is forgotten.
pub(super) const SOURCE_METER: ElementMeter = ElementMeter {
    rate: 200,
    burst: 500,
    forgotten_after: Duration::from_secs(10),
};

/// So many senders have a limit of their own. At ingress they may be anybody.
pub(super) const METERED_SOURCES: u32 = 16_384;

/// Logged packets a second of all senders together, and their burst. The agent reads several times
/// as many.
const RECORDS: (u32, u32) = (10_000, 5_000);

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    for direction in Direction::BOTH {
        for verdict in RecordedVerdict::BOTH {
            for family in IpFamily::BOTH {
                document.counter(counter(direction, verdict, family));
            }
        }
        chains_of(document, desired, direction);
    }
    document.chain(CUT_CHAIN);
    reject(document, CUT_CHAIN);
    document.rule(CUT_CHAIN, [Statement::Drop(None)]);
}

fn chains_of(document: &mut NftDocument<'_>, desired: &DesiredState, direction: Direction) {
    let DirectionChains {
        configured,
        reject: rejecting,
        drop: dropping,
        audited,
        record_refused,
        record_audited,
    } = of(direction);
    if let Some(group) = desired.records {
        for (chain, verdict) in [
            (record_refused, RecordedVerdict::Refused),
            (record_audited, RecordedVerdict::Audited),
        ] {
            recorder(document, chain, group, direction, verdict);
        }
    }
    for (chain, refusal) in [
        (configured, desired.refusal),
        (rejecting, DenyResponse::Reject),
        (dropping, DenyResponse::Drop),
    ] {
        document.chain(chain);
        record(document, chain, desired.records, direction, RecordedVerdict::Refused);
        if refusal == DenyResponse::Reject {
            reject(document, chain);
        }
        document.rule(chain, [Statement::Drop(None)]);
    }
    document.chain(audited);
    record(document, audited, desired.records, direction, RecordedVerdict::Audited);
    document.rule(audited, [return_()]);
}

/// The chain that logs packets to the group, unless their sender has had too many.
fn recorder(document: &mut NftDocument<'_>, chain: &str, group: u16, direction: Direction, verdict: RecordedVerdict) {
    document.chain(chain);
    for family in IpFamily::BOTH {
        let over_its_limit = Statement::Set(Set {
            op: SetOp::Update,
            elem: source(family),
            set: format!("@{}", set_names::recorded(verdict, family)).into(),
        });
        document.rule(chain, [is_of(family), over_its_limit, return_()]);
    }
    let log = Log {
        prefix: Some(records::prefix(direction, verdict).into()),
        group: Some(group.into()),
        snaplen: None,
        queue_threshold: None,
        level: None,
        flags: None,
    };
    document.rule(chain, [limit(RECORDS), Statement::Log(Some(log))]);
}

/// Samples a packet for the group, and counts it.
fn record(
    document: &mut NftDocument<'_>,
    chain: &str,
    group: Option<u16>,
    direction: Direction,
    verdict: RecordedVerdict,
) {
    if group.is_some() {
        let recorder = match verdict {
            RecordedVerdict::Refused => of(direction).record_refused,
            RecordedVerdict::Audited => of(direction).record_audited,
        };
        document.rule(chain, [jump(recorder)]);
    }
    for family in IpFamily::BOTH {
        let count = Statement::Counter(Counter::Named(counter(direction, verdict, family).into()));
        document.rule(chain, [is_of(family), count]);
    }
}

fn reject(document: &mut NftDocument<'_>, chain: &str) {
    let reset = Reject::new(Some(RejectType::TCPReset), None);
    let prohibited = Reject::new(Some(RejectType::ICMPX), Some(RejectCode::AdminProhibited));
    let is_tcp = is(protocol(), protocol_value(Protocol::Tcp));
    document.rule(chain, [is_tcp, limit(REJECTS), Statement::Reject(Some(reset))]);
    // TCP and other protocols have limits of their own, so that neither uses up the other's. The
    // kernel itself never answers an ICMP error with an ICMP error.
    let is_other = is_not(protocol(), protocol_value(Protocol::Tcp));
    document.rule(chain, [is_other, limit(REJECTS), Statement::Reject(Some(prohibited))]);
}

fn limit((rate, burst): (u32, u32)) -> Statement<'static> {
    Statement::Limit(Limit {
        rate,
        rate_unit: None,
        per: Some("second".into()),
        burst: Some(burst),
        burst_unit: None,
        inv: None,
    })
}
