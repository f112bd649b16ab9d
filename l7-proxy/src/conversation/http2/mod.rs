//! HTTP/2: each stream is a request, judged by itself.
//!
//! The frames are `h2`'s, as server of the client and as client of the server, over octets in
//! memory. One connection of the client is one to the server.
//!
//! - `wire`: a connection as memory. `upstream`: that to the server.
//! - `request_stream`: one request and its response. `body`: what they carry.
//! - `stream_reply`: what the proxy answers itself. `reset_budget`: what a client may take back.

mod body;
mod request_stream;
mod reset_budget;
mod stream_reply;
mod upstream;
mod wire;

use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use clock::Time;
use h2::server::{self, SendResponse};
use h2::{Error, Reason, RecvStream};
use http::Request;

use super::reply::OwnReply;
use super::{Conversation, Ending, FAREWELL_TIME, Stage};
use crate::event::{DialFailure, PassageEvent};
use crate::head::error::HeadError;
use crate::head::http2::{Http2Request, join_cookies};
use crate::judge::{Judge, RequestVerdict};
use crate::limits::PassageLimits;
use crate::refusal::{Refusal, Unreadable};
use request_stream::{RequestStream, StreamFate};
use reset_budget::ResetBudget;
use stream_reply::StreamReply;
use upstream::Upstream;
use wire::Wire;

/// What a client of HTTP/2 begins with (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many requests may be under way.
const MOST_STREAMS: u32 = 100;
/// What a peer may send of one body before the other has taken some of it, in octets.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all bodies of a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What of one body may wait for a peer that takes none, in octets.
const SEND_BUFFER: usize = 16 << 10;
/// How many streams a client may break the rules of HTTP/2 on.
const MOST_BROKEN_STREAMS: usize = 100;

/// A connection of HTTP/2 with what is under way on it.
pub(super) struct Http2Exchange<J: Judge> {
    client: ClientPart,
    client_wire: Wire,
    upstream: Option<Upstream<J::Judged>>,
    streams: Vec<RequestStream<J>>,
    resets: ResetBudget,
    /// The proof of a request that is over: what belongs to no request, as settings do, follows the
    /// first that was allowed.
    proof: Option<J::Judged>,
    /// What requests are answered, since the server cannot be reached.
    unreachable: Option<OwnReply>,
    /// Whether no further requests are taken.
    is_leaving: bool,
    /// Since when that is known to the client, or on its way there.
    left: Option<Time>,
    woken: Arc<WakeFlag>,
}

enum ClientPart {
    Greeting(Box<server::Handshake<Wire, Bytes>>),
    Open(Box<server::Connection<Wire, Bytes>>),
    Over,
}

/// Set where `h2` would wake a task: something may go on.
#[derive(Debug, Default)]
struct WakeFlag(AtomicBool);

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<J: Judge> Http2Exchange<J> {
    pub(super) fn new(limits: &PassageLimits, now: Time) -> Self {
        let client_wire = Wire::default();
        let greeting = server::Builder::new()
            .max_concurrent_streams(MOST_STREAMS)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits.head_octets).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(MOST_BROKEN_STREAMS))
            .handshake(client_wire.clone());
        Self {
            client: ClientPart::Greeting(Box::new(greeting)),
            client_wire,
            upstream: None,
            streams: Vec::new(),
            resets: ResetBudget::new(now),
            proof: None,
            unreachable: None,
            is_leaving: false,
            left: None,
            woken: Arc::default(),
        }
    }

    /// Until when something has to move. `since` is when that last was so, and `is_flushed` whether
    /// the client has taken everything.
    pub(super) fn deadline(&self, since: Time, is_flushed: bool, limits: &PassageLimits) -> Option<Time> {
        match (&self.client, self.streams.is_empty()) {
            (ClientPart::Greeting(_), _) => Some(since + limits.head_time),
            (_, true) if self.is_leaving && is_flushed => Some(since.max(self.left?) + FAREWELL_TIME),
            (_, true) => Some(since + limits.idle_time),
            (_, false) => Some(since + limits.opaque_idle_time),
        }
    }

    /// Takes no further requests, and ends when those under way are over.
    pub(super) fn leave(&mut self) {
        if !mem::replace(&mut self.is_leaving, true)
            && let ClientPart::Open(connection) = &mut self.client
        {
            connection.graceful_shutdown();
        }
    }

    /// Asks for each request that is under way whether the rules of now still allow it.
    pub(super) fn judge_again(&mut self, judge: &J) {
        for mut stream in mem::take(&mut self.streams) {
            match stream.judge_again(judge) {
                StreamFate::Lives => self.streams.push(stream),
                StreamFate::Over | StreamFate::TakenBack => self.proof = Some(stream.into_judged()),
            }
        }
    }

    /// The server cannot be reached: so are answered the requests that wait, and those that come.
    pub(super) fn server_unreachable(&mut self, reply: OwnReply) {
        self.unreachable = Some(reply);
        for mut stream in mem::take(&mut self.streams) {
            stream.answer(reply);
            self.proof = Some(stream.into_judged());
        }
        if let Some(upstream) = &mut self.upstream {
            upstream.fail();
        }
        self.leave();
    }

    fn proof(&self) -> Option<&J::Judged> {
        self.streams.first().map(RequestStream::judged).or(self.proof.as_ref())
    }

    /// Goes as far as what has come allows.
    fn poll(&mut self, judge: &J, connection: &J::Connection, limits: &PassageLimits, now: Time) -> Vec<Broken> {
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut context = Context::from_waker(&waker);
        let mut broken = Vec::new();
        if self.is_leaving {
            self.left.get_or_insert(now);
        }
        loop {
            self.woken.0.store(false, Ordering::Relaxed);
            broken.extend(self.poll_client(&mut context, judge, connection, limits));
            broken.extend(self.poll_upstream(&mut context));
            broken.extend(self.poll_streams(&mut context, judge, now));
            if !self.woken.0.load(Ordering::Relaxed) {
                return broken;
            }
        }
    }

    fn poll_client(
        &mut self,
        context: &mut Context<'_>,
        judge: &J,
        of: &J::Connection,
        limits: &PassageLimits,
    ) -> Option<Broken> {
        if let ClientPart::Greeting(greeting) = &mut self.client {
            match Pin::new(greeting).poll(context) {
                Poll::Pending => return None,
                Poll::Ready(Ok(mut connection)) => {
                    if self.is_leaving {
                        connection.graceful_shutdown();
                    }
                    self.client = ClientPart::Open(Box::new(connection));
                }
                Poll::Ready(Err(error)) => return self.client_is_over(Some(&error)),
            }
        }
        loop {
            let ClientPart::Open(connection) = &mut self.client else {
                return None;
            };
            match connection.poll_accept(context) {
                Poll::Pending => return None,
                Poll::Ready(None) => return self.client_is_over(None),
                Poll::Ready(Some(Err(error))) => return self.client_is_over(Some(&error)),
                Poll::Ready(Some(Ok((request, respond)))) => self.take(judge, of.clone(), limits, request, respond),
            }
        }
    }

    fn client_is_over(&mut self, error: Option<&Error>) -> Option<Broken> {
        self.client = ClientPart::Over;
        for stream in mem::take(&mut self.streams) {
            self.proof = Some(stream.into_judged());
        }
        // What the client did itself, as an end without a farewell, breaks nothing.
        let error = error.filter(|error| error.is_library())?;
        Some(Broken::Client(error.to_string()))
    }

    /// Has a request judged.
    fn take(
        &mut self,
        judge: &J,
        mut connection: J::Connection,
        limits: &PassageLimits,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        let (mut parts, inbound) = request.into_parts();
        join_cookies(&mut parts.headers);
        let reply = StreamReply::to(&parts.method, &parts.headers);
        let (judged, head) = match Http2Request::read(&parts) {
            Ok(request) => match judge.request(&mut connection, &request.view()) {
                RequestVerdict::Deny(refusal) => return reply.send(OwnReply::to(refusal), respond),
                RequestVerdict::Forward { judged, edits } => match request.forward(&edits) {
                    Ok(head) => (judged, Ok(head)),
                    Err(error) => {
                        let detail = &error.to_string();
                        let refusal = Refusal::FramingEdit;
                        judge.observe(Some(&mut connection), PassageEvent::Refused { refusal, detail });
                        return reply.send(OwnReply::Denied, respond);
                    }
                },
            },
            Err(error) => {
                tracing::debug!(%error, "a request cannot be read");
                let (why, own) = match error {
                    HeadError::TooManyFields => (Unreadable::LongRequest, OwnReply::HeadTooLong),
                    _ => (Unreadable::MalformedRequest, OwnReply::BadRequest),
                };
                match judge.unreadable(&mut connection, why) {
                    Ok(judged) => (judged, Err(())),
                    Err(_) => return reply.send(own, respond),
                }
            }
        };
        let head = match head {
            Ok(forwarded) => forwarded.replace(parts),
            // What cannot be read passes as it came.
            Err(()) => Request::from_parts(parts, ()),
        };
        self.upstream.get_or_insert_with(|| Upstream::new(limits));
        let mut stream = RequestStream::new((connection, judged), head, inbound, respond, reply);
        match self.unreachable {
            None => self.streams.push(stream),
            Some(reply) => stream.answer(reply),
        }
    }

    fn poll_upstream(&mut self, context: &mut Context<'_>) -> Option<Broken> {
        let upstream = self.upstream.as_mut()?;
        let polled = upstream.poll(context);
        // Requests that come from now on belong on another connection.
        if upstream.is_closing() {
            self.leave();
        }
        match polled {
            Err(error) if error.is_library() => Some(Broken::Server),
            _ => None,
        }
    }

    fn poll_streams(&mut self, context: &mut Context<'_>, judge: &J, now: Time) -> Option<Broken> {
        let upstream = self.upstream.as_mut()?;
        let mut is_flood = false;
        let mut at = 0;
        while let Some(stream) = self.streams.get_mut(at) {
            let fate = stream.poll(context, judge, upstream);
            if fate == StreamFate::Lives {
                at += 1;
                continue;
            }
            is_flood |= fate == StreamFate::TakenBack && !self.resets.takes(now);
            self.proof = Some(self.streams.remove(at).into_judged());
        }
        if is_flood
            && let ClientPart::Open(connection) = &mut self.client
            && !mem::replace(&mut self.is_leaving, true)
        {
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            return Some(Broken::Flood);
        }
        None
    }
}

/// Who has broken a connection, and how.
enum Broken {
    Client(String),
    /// The client takes back more requests than it may.
    Flood,
    Server,
}

impl<J: Judge> Conversation<J> {
    /// The client speaks HTTP/2.
    pub(super) fn begin_http2(&mut self, now: Time) {
        let mut exchange = Http2Exchange::new(&self.limits, now);
        if self.drains {
            exchange.leave();
        }
        self.since = now;
        self.stage = Stage::Http2(Box::new(exchange));
    }

    pub(super) fn step_http2(&mut self, judge: &J, now: Time) -> bool {
        let Stage::Http2(exchange) = &mut self.stage else {
            return false;
        };
        let mut has_moved = false;
        if exchange.client_wire.is_read() {
            let fresh = self.to_server.fresh();
            if !fresh.is_empty() {
                exchange.client_wire.put(fresh);
                self.to_server.discard_fresh();
                has_moved = true;
            } else if self.to_server.has_ended() {
                exchange.client_wire.end();
            }
        }
        if let Some(upstream) = &exchange.upstream
            && upstream.wire().is_read()
        {
            let fresh = self.to_client.fresh();
            if !fresh.is_empty() {
                upstream.wire().put(fresh);
                self.to_client.discard_fresh();
                has_moved = true;
            } else if self.to_client.has_ended {
                upstream.wire().end();
            }
        }
        let had_streams = !exchange.streams.is_empty();
        let broken = exchange.poll(judge, &self.connection, &self.limits, now);
        if self.to_client.is_flushed() && exchange.client_wire.has_outgoing() {
            self.to_client.replace(0, exchange.client_wire.take_outgoing());
            has_moved = true;
        }
        if let (Some(upstream), Some(proof)) = (&exchange.upstream, exchange.proof())
            && self.to_server.is_flushed()
            && upstream.wire().has_outgoing()
        {
            self.to_server.forward(proof, 0, upstream.wire().take_outgoing());
            has_moved = true;
        }
        // A client that only asks whether we are there keeps no connection open.
        if has_moved && (had_streams || !exchange.streams.is_empty()) {
            self.since = now;
        }
        let wants_dial = exchange.upstream.as_ref().is_some_and(|upstream| !upstream.is_gone());
        let is_over = matches!(exchange.client, ClientPart::Over) && !exchange.client_wire.has_outgoing();
        for broken in broken {
            match broken {
                Broken::Client(detail) => self.refused(judge, Unreadable::MalformedRequest.into(), &detail),
                Broken::Flood => self.refused(judge, Unreadable::Flood.into(), ""),
                Broken::Server => {
                    let detail = "it breaks the rules of HTTP/2";
                    self.observe(judge, PassageEvent::UnreadableResponse { detail });
                }
            }
        }
        if wants_dial {
            self.want_dial(now);
        }
        if is_over {
            self.say_farewell(now);
            return true;
        }
        has_moved
    }

    /// Nothing has moved for as long as that may last.
    pub(super) fn http2_stands_still(&mut self, judge: &J, now: Time) {
        let Stage::Http2(exchange) = &mut self.stage else {
            return;
        };
        match (&exchange.client, exchange.streams.is_empty()) {
            (ClientPart::Greeting(_), _) => {
                self.ending = Some(Ending::Close);
                self.refused(judge, Unreadable::SlowRequest.into(), "its settings are missing");
            }
            (_, false) => self.ending = Some(Ending::Reset),
            (_, true) if exchange.is_leaving => self.ending = Some(Ending::Close),
            (_, true) => {
                self.since = now;
                exchange.leave();
            }
        }
    }

    /// The server cannot be reached.
    pub(super) fn http2_dial_failed(&mut self, why: DialFailure, now: Time) {
        let Stage::Http2(exchange) = &mut self.stage else {
            return;
        };
        exchange.server_unreachable(match why {
            DialFailure::TimedOut => OwnReply::GatewayTimeout,
            _ => OwnReply::BadGateway,
        });
        self.server_is_done = true;
        self.since = now;
    }
}
