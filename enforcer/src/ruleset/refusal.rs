//! The chains for packets that are refused, and for packets that pass only because a policy is in
//! mode audit.
//!
//! Samples are logged to the NFLOG group at a limited rate; the counters count every packet.

use nftables::stmt::{Counter, Limit, Log, Reject, RejectType, Statement};
use nftables::types::RejectCode;
use policy::{DenyResponse, Protocol};

use crate::desired::DesiredState;
use crate::layout::IpFamily;
use crate::records;

use super::document::NftDocument;
use super::expression::{is, is_not, is_of, protocol, protocol_value, return_};

/// The named counter of refused IPv4 packets.
pub const REFUSED_V4: &str = "refused4";
/// The named counter of refused IPv6 packets.
pub const REFUSED_V6: &str = "refused6";
/// The named counter of IPv4 packets that pass only because a policy is in mode audit.
pub const AUDITED_V4: &str = "audited4";
/// The same for IPv6 packets.
pub const AUDITED_V6: &str = "audited6";

/// The chain that refuses as [`DesiredState::refusal`] says.
pub(crate) const CHAIN: &str = "refuse";
/// The chain that rejects, whatever the setting.
pub(crate) const REJECT_CHAIN: &str = "refuse-reject";
/// The chain that drops, whatever the setting.
pub(crate) const DROP_CHAIN: &str = "refuse-drop";
/// The chain for packets that audited policies would refuse.
pub(crate) const AUDITED_CHAIN: &str = "audited";

/// All of these chains. Programs refer to them, so they are made before programs are.
pub(crate) const CHAINS: [&str; 4] = [CHAIN, REJECT_CHAIN, DROP_CHAIN, AUDITED_CHAIN];

/// Rejections a second, and their burst. Beyond it refused packets are dropped, so that nobody can
/// make this node flood others; it is high enough for every application to fail at once in ordinary
/// use.
const REJECTS: (u32, u32) = (1000, 500);

/// Logged packets a second, and their burst.
const RECORDS: (u32, u32) = (100, 50);

pub(super) fn chains(document: &mut NftDocument<'_>, desired: &DesiredState) {
    let refused = [(IpFamily::V4, REFUSED_V4), (IpFamily::V6, REFUSED_V6)];
    let audited = [(IpFamily::V4, AUDITED_V4), (IpFamily::V6, AUDITED_V6)];
    for counter in [REFUSED_V4, REFUSED_V6, AUDITED_V4, AUDITED_V6] {
        document.counter(counter);
    }
    for (chain, refusal) in [
        (CHAIN, desired.refusal),
        (REJECT_CHAIN, DenyResponse::Reject),
        (DROP_CHAIN, DenyResponse::Drop),
    ] {
        document.chain(chain);
        record(document, chain, desired.records, records::RecordedVerdict::Refused);
        count(document, chain, refused);
        if refusal == DenyResponse::Reject {
            reject(document, chain);
        }
        document.rule(chain, [Statement::Drop(None)]);
    }
    document.chain(AUDITED_CHAIN);
    record(
        document,
        AUDITED_CHAIN,
        desired.records,
        records::RecordedVerdict::Audited,
    );
    count(document, AUDITED_CHAIN, audited);
    document.rule(AUDITED_CHAIN, [return_()]);
}

fn record(document: &mut NftDocument<'_>, chain: &str, group: Option<u16>, verdict: records::RecordedVerdict) {
    let Some(group) = group else { return };
    let log = Log {
        prefix: Some(records::prefix(verdict).into()),
        group: Some(group.into()),
        snaplen: None,
        queue_threshold: None,
        level: None,
        flags: None,
    };
    document.rule(chain, [limit(RECORDS), Statement::Log(Some(log))]);
}

fn count(document: &mut NftDocument<'_>, chain: &str, counters: [(IpFamily, &'static str); 2]) {
    for (family, counter) in counters {
        let count = Statement::Counter(Counter::Named(counter.into()));
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
