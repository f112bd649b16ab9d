//! HTTP/1.1: one request and its response after the other.
//!
//! A request is looked at when everything before it has left in both directions; those that a
//! client sends ahead wait in the lane. So a response always belongs to the one request that is
//! under way, and an answer of the proxy's own never overtakes another.

use std::time::Duration;

use clock::Time;

use super::http2::PREFACE;
use super::reply::OwnReply;
use super::{Conversation, Ending, Stage};
use crate::event::PassageEvent;
use crate::framing::BodyReader;
use crate::head::error::HeadError;
use crate::head::request::{HttpVersion, ParsedRequest};
use crate::head::response::ResponseHead;
use crate::head::scan::HeadScanner;
use crate::head::write;
use crate::judge::{Judge, RequestVerdict};
use crate::limits::PassageLimits;
use crate::refusal::{Refusal, Unreadable};

/// The exchange that is under way, or waited for.
pub(super) struct Exchange<P> {
    request: RequestPhase,
    response: ResponsePhase,
    /// Whether an octet of the request's head has come.
    has_begun: bool,
    /// Whether the client may still turn out to speak HTTP/2.
    is_first: bool,
    /// The proof for the request that is under way.
    judged: Option<P>,
    asked: Asked,
}

enum RequestPhase {
    /// Its head is waited for.
    Head(HeadScanner),
    Body(BodyReader),
    Done,
}

enum ResponsePhase {
    /// There is no request to answer.
    None,
    Head(HeadScanner),
    Body(BodyReader),
}

/// What of a request matters to its response.
#[derive(Debug, Default)]
struct Asked {
    is_head: bool,
    is_connect: bool,
    /// The protocols of Upgrade.
    upgrade: Option<Box<str>>,
    /// Whether the connection ends with the response.
    ends: bool,
}

impl<P> Exchange<P> {
    pub(super) fn new() -> Self {
        Self {
            request: RequestPhase::Head(HeadScanner::default()),
            response: ResponsePhase::None,
            has_begun: false,
            is_first: true,
            judged: None,
            asked: Asked::default(),
        }
    }

    /// How long the wait for the next request, or for the rest of its head, may last. What is under
    /// way may last as long as its ends want.
    pub(super) fn patience(&self, limits: &PassageLimits) -> Option<Duration> {
        match (&self.request, &self.response) {
            (RequestPhase::Head(_), ResponsePhase::None) if self.has_begun => Some(limits.head_time),
            (RequestPhase::Head(_), ResponsePhase::None) => Some(limits.idle_time),
            _ => None,
        }
    }

    /// Whether a part of a request's head has come, and not the whole.
    pub(super) fn waits_for_head(&self) -> bool {
        self.has_begun && matches!(self.request, RequestPhase::Head(_))
    }

    /// A client that has sent its request may end, and still wait for the response.
    pub(super) fn passes_end_on(&self) -> bool {
        matches!(self.request, RequestPhase::Done)
    }

    /// Whether a request has left, and its final response has not begun.
    #[cfg(test)]
    pub(super) fn awaits_response(&self) -> bool {
        matches!(self.response, ResponsePhase::Head(_))
    }

    /// Whether the response has no other end than that of the connection.
    pub(super) fn lasts_until_end(&self) -> bool {
        matches!(self.response, ResponsePhase::Body(BodyReader::UntilEnd))
    }

    pub(super) fn judged_mut(&mut self) -> Option<&mut P> {
        self.judged.as_mut()
    }
}

/// What a step found.
enum HttpStep<P> {
    /// Nothing, until more comes or leaves.
    Wait,
    /// Something changed.
    Again,
    /// The request cannot be read.
    Unreadable(HeadError),
    /// The response cannot be read.
    BadResponse(&'static str),
    /// The server granted what was asked for: everything passes.
    Opaque(P),
    /// The client speaks HTTP/2.
    Http2,
    /// Nothing more follows.
    Over,
}

impl<J: Judge> Conversation<J> {
    pub(super) fn step_http(&mut self, judge: &J, now: Time) -> bool {
        let Stage::Http(exchange) = &self.stage else {
            return false;
        };
        let step = match (&exchange.request, &exchange.response) {
            (RequestPhase::Head(_), _) => self.step_request_head(judge, now),
            (RequestPhase::Done, ResponsePhase::None) => {
                self.begin_next(now);
                HttpStep::Again
            }
            _ => self.step_transfer(judge),
        };
        match step {
            HttpStep::Wait => return false,
            HttpStep::Again => {}
            HttpStep::Over => self.say_farewell(now),
            HttpStep::Opaque(judged) => self.go_opaque(judged, now),
            HttpStep::Http2 => self.begin_http2(now),
            HttpStep::Unreadable(error) => {
                let (why, reply) = match error {
                    HeadError::TooLong | HeadError::TooManyFields => (Unreadable::LongRequest, OwnReply::HeadTooLong),
                    HeadError::Version => (Unreadable::HttpVersion, OwnReply::VersionNotSupported),
                    _ => (Unreadable::MalformedRequest, OwnReply::BadRequest),
                };
                tracing::debug!(%error, "a request cannot be read");
                self.unreadable(judge, why, Some(reply), now);
            }
            HttpStep::BadResponse(detail) => {
                self.observe(judge, PassageEvent::UnreadableResponse { detail });
                self.reply_and_end(OwnReply::BadGateway, now);
            }
        }
        true
    }

    fn begin_next(&mut self, now: Time) {
        if let Stage::Http(exchange) = &mut self.stage {
            let ends = exchange.asked.ends;
            *exchange = Exchange::new();
            exchange.asked.ends = ends;
            exchange.is_first = false;
            self.since = now;
        }
    }

    /// Waits for a request's head, and has it judged.
    fn step_request_head(&mut self, judge: &J, now: Time) -> HttpStep<J::Judged> {
        let Stage::Http(exchange) = &mut self.stage else {
            return HttpStep::Wait;
        };
        let RequestPhase::Head(scanner) = &mut exchange.request else {
            return HttpStep::Wait;
        };
        if !self.to_server.is_flushed() || !self.to_client.is_flushed() {
            return HttpStep::Wait;
        }
        // What a server sends unasked would be taken for the response to the next request.
        if exchange.asked.ends || self.to_client.has_ended || !self.to_client.fresh().is_empty() {
            return HttpStep::Over;
        }
        let input = self.to_server.fresh();
        // From its first octet on a head has less time than a connection between two.
        if !exchange.has_begun && !input.is_empty() {
            exchange.has_begun = true;
            self.since = now;
        }
        if exchange.is_first && !input.is_empty() {
            let compared = input.len().min(PREFACE.len());
            exchange.is_first = input[..compared] == PREFACE[..compared];
            match exchange.is_first {
                true if compared == PREFACE.len() => return HttpStep::Http2,
                true if !self.to_server.has_ended() => return HttpStep::Wait,
                _ => {}
            }
        }
        let end = match scanner.end(input, self.limits.head_octets) {
            Ok(Some(end)) => end,
            Ok(None) if self.to_server.has_ended() => {
                self.ending = Some(Ending::Close);
                return HttpStep::Wait;
            }
            Ok(None) => return HttpStep::Wait,
            Err(error) => return HttpStep::Unreadable(error),
        };
        let request = match ParsedRequest::parse(&input[..end]) {
            Ok(request) => request,
            Err(error) => return HttpStep::Unreadable(error),
        };
        // As much of the body as has come is read before the head leaves, so that the server hears
        // nothing of a request whose framing is broken from its beginning.
        let mut body = BodyReader::of_request(request.length);
        let Ok(of_body) = body.take(&input[end..]) else {
            return HttpStep::Unreadable(HeadError::TransferEncoding);
        };
        let asked = Asked {
            is_head: request.method == "HEAD",
            is_connect: request.method == "CONNECT",
            upgrade: request.upgrade.map(Box::from),
            ends: request.version == HttpVersion::Http10,
        };
        let has_body = !BodyReader::of_request(request.length).is_over();
        let mut head = Vec::new();
        let verdict = judge.request(&mut self.connection, &request.view());
        let written = match &verdict {
            RequestVerdict::Forward { edits, .. } => {
                head.reserve(end + 64);
                write::write(&request, edits, &mut head)
            }
            RequestVerdict::Deny(_) => Ok(()),
        };
        drop(request);
        let judged = match (verdict, written) {
            (RequestVerdict::Forward { judged, .. }, Ok(())) => judged,
            (RequestVerdict::Deny(refusal), _) => {
                let reply = OwnReply::to(refusal);
                self.deny(reply, (end, asked.is_head), has_body || asked.ends, now);
                return HttpStep::Again;
            }
            (RequestVerdict::Forward { .. }, Err(error)) => {
                self.refused(judge, Refusal::FramingEdit, &error.to_string());
                self.deny(OwnReply::Denied, (end, asked.is_head), true, now);
                return HttpStep::Again;
            }
        };
        exchange.asked = asked;
        self.to_server.forward(&judged, end, head);
        self.to_server.clear(&judged, of_body);
        exchange.request = match body.is_over() {
            true => RequestPhase::Done,
            false => RequestPhase::Body(body),
        };
        exchange.response = ResponsePhase::Head(HeadScanner::default());
        exchange.judged = Some(judged);
        self.want_dial(now);
        HttpStep::Again
    }

    /// Answers in the server's place; `head` is the length of the request's, and whether its method
    /// is HEAD. After a request with a body the connection ends, since a client that has asked
    /// for `100 Continue` may or may not send that body now.
    fn deny(&mut self, reply: OwnReply, (head, is_head): (usize, bool), ends: bool, now: Time) {
        let ends = ends || self.drains;
        self.to_server.drop_head(head);
        self.to_client.replace(0, reply.write(is_head, ends));
        match ends {
            true => self.say_farewell(now),
            false => self.begin_next(now),
        }
    }

    /// Passes on what belongs to the request and the response that are under way.
    fn step_transfer(&mut self, judge: &J) -> HttpStep<J::Judged> {
        let Stage::Http(exchange) = &mut self.stage else {
            return HttpStep::Wait;
        };
        let mut has_changed = false;
        if let (RequestPhase::Body(body), Some(judged)) = (&mut exchange.request, &exchange.judged) {
            match body.take(self.to_server.fresh()) {
                Ok(taken) => {
                    self.to_server.clear(judged, taken);
                    if body.is_over() {
                        exchange.request = RequestPhase::Done;
                        has_changed = true;
                    }
                }
                Err(error) => {
                    // The server has a part of the request. It must not take that for the whole.
                    self.ending = Some(Ending::Reset);
                    let refusal = Refusal::Unreadable(Unreadable::MalformedRequest);
                    self.refused(judge, refusal, &error.to_string());
                    return HttpStep::Wait;
                }
            }
        }
        match &mut exchange.response {
            ResponsePhase::None => {
                // The response is complete, and the request is not.
                match self.to_client.has_ended || !self.to_client.fresh().is_empty() {
                    true => return HttpStep::Over,
                    false if self.to_server.has_ended() => self.ending = Some(Ending::Close),
                    false => {}
                }
            }
            ResponsePhase::Head(_) => match self.step_response_head(judge) {
                HttpStep::Wait => {}
                step => return step,
            },
            ResponsePhase::Body(body) => {
                let Ok(taken) = body.take(self.to_client.fresh()) else {
                    self.observe(
                        judge,
                        PassageEvent::UnreadableResponse {
                            detail: "its body is malformed",
                        },
                    );
                    self.ending = Some(Ending::Reset);
                    return HttpStep::Wait;
                };
                self.to_client.clear(taken);
                if body.is_over() {
                    exchange.response = ResponsePhase::None;
                    has_changed = true;
                } else if self.to_client.has_ended {
                    // Either that is how this body ends, or the client sees it cut off as we do.
                    return HttpStep::Over;
                }
            }
        }
        match has_changed {
            true => HttpStep::Again,
            false => HttpStep::Wait,
        }
    }

    fn step_response_head(&mut self, judge: &J) -> HttpStep<J::Judged> {
        let Stage::Http(exchange) = &mut self.stage else {
            return HttpStep::Wait;
        };
        let ResponsePhase::Head(scanner) = &mut exchange.response else {
            return HttpStep::Wait;
        };
        let input = self.to_client.fresh();
        let end = match scanner.end(input, self.limits.head_octets) {
            Ok(Some(end)) => end,
            // As without us: a client may try again on a connection that ended without an answer.
            Ok(None) if self.to_client.has_ended => return HttpStep::Over,
            Ok(None) => return HttpStep::Wait,
            Err(_) => return HttpStep::BadResponse("the lines of its head are malformed, or it is too long"),
        };
        let Ok(response) = ResponseHead::parse(&input[..end]) else {
            return HttpStep::BadResponse("its head is malformed, or its body could be framed in two ways");
        };
        let status = response.status;
        let is_interim = (100..200).contains(&status);
        if is_interim && status != 101 {
            exchange.response = ResponsePhase::Head(HeadScanner::default());
            self.to_client.clear(end);
            return HttpStep::Again;
        }
        let is_opaque = match status {
            101 if !exchange.asked.grants(response.upgrade) => {
                return HttpStep::BadResponse("it changes to a protocol that was not asked for");
            }
            101 => true,
            _ => exchange.asked.is_connect && (200..300).contains(&status),
        };
        if is_opaque && !matches!(exchange.request, RequestPhase::Done) {
            return HttpStep::BadResponse("it changes the protocol before the request is complete");
        }
        let body = BodyReader::of_response(&response, exchange.asked.is_head);
        if is_opaque {
            self.to_client.clear(end);
            let judged = exchange.judged.take();
            self.observe(judge, PassageEvent::Responded { status });
            return judged.map_or(HttpStep::Over, HttpStep::Opaque);
        }
        match self.drains && self.to_client.is_flushed() {
            true => {
                let head = closing_head(&input[..end]);
                exchange.asked.ends = true;
                self.to_client.replace(end, head);
            }
            false => self.to_client.clear(end),
        }
        exchange.response = match body.is_over() {
            true => ResponsePhase::None,
            false => ResponsePhase::Body(body),
        };
        self.observe(judge, PassageEvent::Responded { status });
        HttpStep::Again
    }
}

impl Asked {
    /// Whether one of the protocols was asked for that a 101 changes to.
    fn grants(&self, granted: Option<&[u8]>) -> bool {
        let Some((asked, granted)) = self.upgrade.as_deref().zip(granted) else {
            return false;
        };
        let Ok(granted) = str::from_utf8(granted) else {
            return false;
        };
        granted.split(',').all(|granted| {
            asked.split(',').any(|asked| {
                asked
                    .trim_matches([' ', '\t'])
                    .eq_ignore_ascii_case(granted.trim_matches([' ', '\t']))
            })
        })
    }
}

/// The head of a response, which tells the client that no other follows.
fn closing_head(head: &[u8]) -> Vec<u8> {
    let mut closing = Vec::with_capacity(head.len() + 24);
    for line in head.split_inclusive(|octet| *octet == b'\n') {
        let name = line.split(|octet| *octet == b':').next().unwrap_or_default();
        if name.eq_ignore_ascii_case(b"connection") || name.eq_ignore_ascii_case(b"keep-alive") {
            continue;
        }
        if line == b"\r\n" {
            closing.extend_from_slice(b"Connection: close\r\n");
        }
        closing.extend_from_slice(line);
    }
    closing
}
