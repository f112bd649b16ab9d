//! One request of HTTP/2 and its response: a stream of the client, and one of the server.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Error, Reason, RecvStream};
use http::{Request, Response, StatusCode};

use super::body::BodyPump;
use super::stream_reply::StreamReply;
use super::upstream::{Readiness, Upstream, UpstreamStream};
use crate::conversation::reply::OwnReply;
use crate::event::PassageEvent;
use crate::judge::Judge;

/// A request that was allowed, and what became of it.
pub(super) struct RequestStream<J: Judge> {
    /// The connection as it was judged for this request.
    connection: J::Connection,
    judged: J::Judged,
    /// What the client sends.
    inbound: RecvStream,
    to_server: ToServer<J::Judged>,
    to_client: ToClient,
    reply: StreamReply,
}

enum ToServer<P> {
    /// The server has as many requests as it takes, or is not reached yet.
    Waiting(Box<Request<()>>),
    Open(UpstreamStream<P>),
    /// It was reset, or never opened.
    Over,
}

enum ToClient {
    /// The response is waited for.
    Awaited(SendResponse<Bytes>),
    Body(BodyPump, RecvStream),
    Over,
}

/// What has become of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamFate {
    Lives,
    Over,
    /// The client has reset it before the response began.
    TakenBack,
}

impl<J: Judge> RequestStream<J> {
    pub(super) fn new(
        (connection, judged): (J::Connection, J::Judged),
        head: Request<()>,
        inbound: RecvStream,
        respond: SendResponse<Bytes>,
        reply: StreamReply,
    ) -> Self {
        Self {
            connection,
            judged,
            inbound,
            to_server: ToServer::Waiting(Box::new(head)),
            to_client: ToClient::Awaited(respond),
            reply,
        }
    }

    pub(super) fn judged(&self) -> &J::Judged {
        &self.judged
    }

    /// The proof, when the stream is over.
    pub(super) fn into_judged(self) -> J::Judged {
        self.judged
    }

    /// Asks whether the rules of now still allow it. A refusal resets it on both sides.
    pub(super) fn judge_again(&mut self, judge: &J) -> StreamFate {
        match judge.judge_again(&mut self.connection) {
            Ok(again) => {
                self.judged = again;
                StreamFate::Lives
            }
            Err(_) => self.reset(Reason::CANCEL),
        }
    }

    /// Goes as far as what has come allows.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        judge: &J,
        upstream: &mut Upstream<J::Judged>,
    ) -> StreamFate {
        if let Some(reason) = self.reset_by_client(context) {
            let is_taken_back = matches!(self.to_client, ToClient::Awaited(_));
            self.reset_server(reason);
            return match is_taken_back {
                true => StreamFate::TakenBack,
                false => StreamFate::Over,
            };
        }
        if let ToServer::Waiting(head) = &mut self.to_server {
            match upstream.readiness(context) {
                Readiness::Full => return StreamFate::Lives,
                // The client may send it again on another connection.
                Readiness::Closed => return self.reset(Reason::REFUSED_STREAM),
                Readiness::Ready => {}
            }
            let head = mem::take(head.as_mut());
            match upstream.open(&self.judged, head, self.inbound.is_end_stream()) {
                Ok(opened) => self.to_server = ToServer::Open(opened),
                Err(error) => return self.reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR)),
            }
        }
        let ToServer::Open(stream) = &mut self.to_server else {
            return StreamFate::Over;
        };
        if let Err(reason) = stream.pass_on(&self.judged, context, &mut self.inbound) {
            return self.reset(reason);
        }
        match self.poll_response(context, judge) {
            Ok(()) => {}
            Err(fate) => return fate,
        }
        if let ToClient::Body(body, from) = &mut self.to_client {
            if let Err(reason) = body.poll(context, from) {
                return self.reset(reason);
            }
            if body.is_over() {
                self.to_client = ToClient::Over;
            }
        }
        if let (ToClient::Over, ToServer::Open(stream)) = (&self.to_client, &mut self.to_server)
            && stream.is_over(context)
        {
            return StreamFate::Over;
        }
        StreamFate::Lives
    }

    /// Waits for the head of the response, and passes it on.
    fn poll_response(&mut self, context: &mut Context<'_>, judge: &J) -> Result<(), StreamFate> {
        let (ToClient::Awaited(respond), ToServer::Open(stream)) = (&mut self.to_client, &mut self.to_server) else {
            return Ok(());
        };
        while let Poll::Ready(Some(Ok(interim))) = stream.response.poll_informational(context) {
            // RFC 9113 §8.6: there is nothing to change to.
            if interim.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Err(self.unreadable_response(judge, "it changes the protocol"));
            }
            // A client that is gone is seen above.
            let _ = respond.send_informational(interim);
        }
        let response = match Pin::new(&mut stream.response).poll(context) {
            Poll::Pending => return Ok(()),
            Poll::Ready(Ok(response)) => response,
            Poll::Ready(Err(error)) => return Err(self.response_failed(judge, &error)),
        };
        let (parts, from) = response.into_parts();
        let status = parts.status.as_u16();
        judge.observe(Some(&mut self.connection), PassageEvent::Responded { status });
        let ends = from.is_end_stream();
        let response = Response::from_parts(parts, ());
        self.to_client = match respond.send_response(response, ends) {
            Ok(_) if ends => ToClient::Over,
            Ok(to) => ToClient::Body(BodyPump::new(to, false), from),
            Err(_) => return Err(self.reset(Reason::INTERNAL_ERROR)),
        };
        Ok(())
    }

    fn response_failed(&mut self, judge: &J, error: &Error) -> StreamFate {
        if error.is_library() && error.is_reset() {
            return self.unreadable_response(judge, "its head is malformed");
        }
        match error.reason() {
            // The server has not looked at it: the client may send it again elsewhere.
            Some(Reason::NO_ERROR) if error.is_go_away() => self.reset(Reason::REFUSED_STREAM),
            Some(reason) => self.reset(reason),
            None => self.reset(Reason::INTERNAL_ERROR),
        }
    }

    fn unreadable_response(&mut self, judge: &J, detail: &'static str) -> StreamFate {
        judge.observe(Some(&mut self.connection), PassageEvent::UnreadableResponse { detail });
        self.answer(OwnReply::BadGateway);
        StreamFate::Over
    }

    /// Answers in the server's place. A response that has begun already is broken off.
    pub(super) fn answer(&mut self, reply: OwnReply) {
        self.reset_server(Reason::CANCEL);
        match mem::replace(&mut self.to_client, ToClient::Over) {
            ToClient::Awaited(respond) => self.reply.send(reply, respond),
            ToClient::Body(mut body, _) => body.reset(Reason::INTERNAL_ERROR),
            ToClient::Over => {}
        }
    }

    /// Resets both sides.
    fn reset(&mut self, reason: Reason) -> StreamFate {
        self.reset_server(reason);
        match mem::replace(&mut self.to_client, ToClient::Over) {
            ToClient::Awaited(mut respond) => respond.send_reset(reason),
            ToClient::Body(mut body, _) => body.reset(reason),
            ToClient::Over => {}
        }
        StreamFate::Over
    }

    fn reset_server(&mut self, reason: Reason) {
        if let ToServer::Open(mut stream) = mem::replace(&mut self.to_server, ToServer::Over) {
            stream.reset(reason);
        }
    }

    fn reset_by_client(&mut self, context: &mut Context<'_>) -> Option<Reason> {
        match &mut self.to_client {
            ToClient::Awaited(respond) => match respond.poll_reset(context) {
                Poll::Pending => None,
                Poll::Ready(Ok(reason)) => Some(reason),
                Poll::Ready(Err(_)) => Some(Reason::CANCEL),
            },
            ToClient::Body(body, _) => body.poll_reset(context),
            ToClient::Over => None,
        }
    }
}
