//! The steps of a lookup that look at bytes and ask the gate. None of them waits or knows a socket.
//!
//! [`lookups`](crate::lookups) puts what waits (for upstreams, for the kernel) between these steps.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client_query::{Query, QueryError};
use crate::completion::{AdmissionError, AdmissionErrorKind};
use crate::denial::{Denial, DenialKind};
use crate::event::{DiscardReason, ProxyEvent, WithheldReason};
use crate::gate::{Gate, Screening};
use crate::question::{QueryTarget, Transport};
use crate::rcode::Rcode;
use crate::reply::{ClientReply, ExtendedError, ExtendedErrorCode};
use crate::upstream::UpstreamFailure;
use crate::validate::InvalidAnswer;

/// The client of a query, and how the query came here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) source: SocketAddr,
    pub(crate) target: QueryTarget,
    pub(crate) transport: Transport,
    /// When the query was received.
    pub(crate) received: Instant,
}

/// *Receive*: reads a query. The error is the reply to a malformed one, if it deserves any.
pub(crate) fn read<'p, 'r, G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    packet: &'p [u8],
    room: &'r mut Vec<u8>,
) -> Result<Query<'p>, Option<ClientReply<'r>>> {
    Query::read(packet).map_err(|unreadable| match unreadable {
        QueryError::NotAQuery => {
            gate.observe(worker_state, ProxyEvent::Discarded(DiscardReason::NotAQuery));
            None
        }
        QueryError::Answer(rcode, header) => Some(ClientReply::to_unreadable(header, rcode, room)),
    })
}

/// *Screen*: asks the gate whether the client may ask this, and which upstreams answer it.
pub(crate) fn screen<'r, G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    client: &Client,
    query: &Query<'_>,
    room: &'r mut Vec<u8>,
) -> Result<(G::Identity, Arc<[SocketAddr]>), ClientReply<'r>> {
    let mut denied = None;
    let screened = if query.is_zone_transfer() {
        denied = Some(DenialKind::Refused);
        let text = "zone transfers are not forwarded";
        Err(refuse(
            query,
            Rcode::Refused,
            ExtendedErrorCode::NotSupported,
            text,
            room,
        ))
    } else {
        match gate.screen(worker_state, client.source.ip(), client.target, query.question()) {
            Screening::Forward { identity, upstreams } => Ok((identity, upstreams)),
            Screening::Refuse(Denial { rcode, reason, kind }) => {
                denied = Some(kind);
                let code = match rcode {
                    Rcode::ServFail => ExtendedErrorCode::NotReady,
                    _ => ExtendedErrorCode::Blocked,
                };
                Err(refuse(query, rcode, code, &reason, room))
            }
        }
    };
    let event = ProxyEvent::Query {
        transport: client.transport,
        question: query.question(),
        denied,
    };
    gate.observe(worker_state, event);
    screened
}

/// The reply to a query that met a limit.
pub(crate) fn overloaded<'r>(query: &Query<'_>, limit: DiscardReason, room: &'r mut Vec<u8>) -> ClientReply<'r> {
    let text = match limit {
        DiscardReason::ClientLimit => "too many lookups of this client in flight",
        _ => "too many lookups in flight",
    };
    refuse(query, Rcode::Refused, ExtendedErrorCode::Other, text, room)
}

/// Tells the gate that the upstreams failed, and gives the reply. This is the one place where
/// failures become codes.
pub(crate) fn no_answer<'r, G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    (client, query): (&Client, &Query<'_>),
    failure: &UpstreamFailure,
    room: &'r mut Vec<u8>,
) -> ClientReply<'r> {
    gate.observe(
        worker_state,
        ProxyEvent::Unanswered {
            client: client.source.ip(),
            name: &query.question().name,
            reason: format_args!("{failure}"),
        },
    );
    let code = match failure {
        UpstreamFailure::NoUpstream | UpstreamFailure::TimedOut { .. } => ExtendedErrorCode::NoReachableAuthority,
        UpstreamFailure::Unreachable { .. } => ExtendedErrorCode::NetworkError,
        UpstreamFailure::InvalidAnswer { .. } | UpstreamFailure::Busy { .. } => ExtendedErrorCode::Other,
    };
    refuse(query, Rcode::ServFail, code, &failure.to_string(), room)
}

/// Tells the gate that the answer of `server` was not admitted, and gives the reply.
pub(crate) fn not_admitted<'r, G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    (client, query): (&Client, &Query<'_>),
    server: SocketAddr,
    error: &AdmissionError,
    room: &'r mut Vec<u8>,
) -> ClientReply<'r> {
    let AdmissionError { kind, reason } = error;
    let why = (WithheldReason::NotAdmitted(*kind), reason.as_str());
    observe_withheld(gate, worker_state, (Some(client), query), server, why);
    refuse(query, Rcode::ServFail, ExtendedErrorCode::Other, reason, room)
}

/// Tells the gate that an answer was withheld.
fn observe_withheld<G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    (client, query): (Option<&Client>, &Query<'_>),
    server: SocketAddr,
    (why, reason): (WithheldReason, &str),
) {
    let event = ProxyEvent::Withheld {
        client: client.map(|client| client.source.ip()),
        name: &query.question().name,
        server,
        why,
        reason,
    };
    gate.observe(worker_state, event);
}

/// Tells the gate that an answer of `server` was withheld because it is invalid.
pub(crate) fn observe_bogus<G: Gate>(
    gate: &G,
    worker_state: &mut G::WorkerState,
    asked: (Option<&Client>, &Query<'_>),
    server: SocketAddr,
    why: InvalidAnswer,
) {
    observe_withheld(
        gate,
        worker_state,
        asked,
        server,
        (WithheldReason::Invalid(why), &why.to_string()),
    );
}

/// Counts the result of an admission that needed the kernel.
pub(crate) fn observe_commit<G: Gate>(gate: &G, worker_state: &mut G::WorkerState, took: Duration, committed: bool) {
    gate.observe(worker_state, ProxyEvent::CommitWait { took, committed });
}

/// The error of a commit that takes too long.
pub(crate) fn commit_timed_out() -> AdmissionError {
    AdmissionError {
        kind: AdmissionErrorKind::TimedOut,
        reason: "the kernel did not take the addresses in time".into(),
    }
}

fn refuse<'r>(
    query: &Query<'_>,
    rcode: Rcode,
    code: ExtendedErrorCode,
    text: &str,
    room: &'r mut Vec<u8>,
) -> ClientReply<'r> {
    ClientReply::without_answer(query, rcode, Some(&ExtendedError { code, text }), room)
}
