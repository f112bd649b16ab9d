//! The steps of a lookup that look at bytes and ask the gate. None of them waits, none of them
//! knows a socket.
//!
//! What waits (for upstreams, for the kernel) is put between these steps by who drives them:
//! [`lookups`](crate::lookups) for datagrams, [`pipeline`](crate::pipeline) for connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::gate::{Asked, Denial, Discard, Event, Gate, NotAdmitted, Obstacle, Rcode, Screening, Transport, Withheld};
use crate::message::{Query, Unreadable};
use crate::reply::{ErrorCode, ExtendedError, Reply};
use crate::upstream::Failure;
use crate::validate::Bogus;

/// Who sent a query, and how it came here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) source: SocketAddr,
    pub(crate) asked: Asked,
    pub(crate) transport: Transport,
    /// When the query was received.
    pub(crate) received: Instant,
}

/// *Receive*: reads a query. What cannot be read is answered as far as it deserves it.
pub(crate) fn read<'p, 'r, G: Gate>(
    gate: &G,
    desk: &mut G::Desk,
    packet: &'p [u8],
    room: &'r mut Vec<u8>,
) -> Result<Query<'p>, Option<Reply<'r>>> {
    Query::read(packet).map_err(|unreadable| match unreadable {
        Unreadable::NotAQuery => {
            gate.observe(desk, Event::Discarded(Discard::NotAQuery));
            None
        }
        Unreadable::Answer(rcode, header) => Some(Reply::to_unreadable(header, rcode, room)),
    })
}

/// *Screen*: who asks, may it, and whom do we ask.
pub(crate) fn screen<'r, G: Gate>(
    gate: &G,
    desk: &mut G::Desk,
    client: &Client,
    query: &Query<'_>,
    room: &'r mut Vec<u8>,
) -> Result<(G::Identity, Arc<[SocketAddr]>), Reply<'r>> {
    let screened = if query.is_zone_transfer() {
        let text = "zone transfers are not forwarded";
        Err(refuse(query, Rcode::Refused, ErrorCode::NotSupported, text, room))
    } else {
        match gate.screen(desk, client.source.ip(), client.asked, query.question()) {
            Screening::Forward { identity, upstreams } => Ok((identity, upstreams)),
            Screening::Refuse(Denial { rcode, reason }) => {
                let code = match rcode {
                    Rcode::ServFail => ErrorCode::NotReady,
                    _ => ErrorCode::Blocked,
                };
                Err(refuse(query, rcode, code, &reason, room))
            }
        }
    };
    let event = Event::Query {
        transport: client.transport,
        question: query.question(),
        forwarded: screened.is_ok(),
    };
    gate.observe(desk, event);
    screened
}

/// What is said to a query that met a limit.
pub(crate) fn overloaded<'r>(query: &Query<'_>, limit: Discard, room: &'r mut Vec<u8>) -> Reply<'r> {
    let text = match limit {
        Discard::ClientLimit => "too many lookups of this client in flight",
        _ => "too many lookups in flight",
    };
    refuse(query, Rcode::Refused, ErrorCode::Other, text, room)
}

/// The upstreams failed: the one place where failures become codes.
pub(crate) fn no_answer<'r>(query: &Query<'_>, failure: &Failure, room: &'r mut Vec<u8>) -> Reply<'r> {
    let code = match failure {
        Failure::NoUpstream | Failure::TimedOut { .. } => ErrorCode::NoReachableAuthority,
        Failure::Unreachable { .. } => ErrorCode::NetworkError,
        Failure::Bogus { .. } | Failure::Busy { .. } => ErrorCode::Other,
    };
    refuse(query, Rcode::ServFail, code, &failure.to_string(), room)
}

/// The kernel does not vouch for the answer.
pub(crate) fn not_committed<'r>(query: &Query<'_>, reason: &NotAdmitted, room: &'r mut Vec<u8>) -> Reply<'r> {
    refuse(query, Rcode::ServFail, ErrorCode::Other, &reason.reason, room)
}

/// Tells that an answer was withheld.
pub(crate) fn observe_withheld<G: Gate>(
    gate: &G,
    desk: &mut G::Desk,
    (client, query): (Option<&Client>, &Query<'_>),
    server: SocketAddr,
    (why, reason): (Withheld, &str),
) {
    let event = Event::Withheld {
        client: client.map(|client| client.source.ip()),
        name: &query.question().name,
        server,
        why,
        reason,
    };
    gate.observe(desk, event);
}

/// Tells that an answer of `server` was withheld because it is not believed.
pub(crate) fn observe_bogus<G: Gate>(
    gate: &G,
    desk: &mut G::Desk,
    asked: (Option<&Client>, &Query<'_>),
    server: SocketAddr,
    why: Bogus,
) {
    observe_withheld(gate, desk, asked, server, (Withheld::Bogus(why), &why.to_string()));
}

/// Counts what came of an admission that the kernel was needed for.
pub(crate) fn observe_commit<G: Gate>(gate: &G, desk: &mut G::Desk, took: Duration, committed: bool) {
    gate.observe(desk, Event::CommitWait { took, committed });
}

/// Why a commit that takes too long is given up.
pub(crate) fn commit_timed_out() -> NotAdmitted {
    NotAdmitted {
        obstacle: Obstacle::Late,
        reason: "the kernel did not take the addresses in time".into(),
    }
}

fn refuse<'r>(query: &Query<'_>, rcode: Rcode, code: ErrorCode, text: &str, room: &'r mut Vec<u8>) -> Reply<'r> {
    Reply::without_answer(query, rcode, Some(&ExtendedError { code, text }), room)
}
