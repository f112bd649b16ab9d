//! The connection to the server. What leaves on it leaves against a proof.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::client::{self, Connection, ResponseFuture, SendRequest};
use h2::{Error, Reason, RecvStream};
use http::Request;

use super::body::BodyPump;
use super::wire::Wire;
use super::{CONNECTION_WINDOW, MOST_STREAMS, SEND_BUFFER, STREAM_WINDOW};
use crate::limits::PassageLimits;

type Greeting = Pin<Box<dyn Future<Output = Result<(SendRequest<Bytes>, Connection<Wire, Bytes>), Error>>>>;

/// The connection to the server: a head or a body leaves only where a proof `P` is at hand, which
/// only the judge can make.
pub(super) struct Upstream<P> {
    wire: Wire,
    phase: UpstreamPhase,
    proof: PhantomData<fn(P)>,
}

enum UpstreamPhase {
    Greeting(Greeting),
    Open {
        requests: SendRequest<Bytes>,
        connection: Box<Connection<Wire, Bytes>>,
        /// Whether it takes no more requests.
        is_closing: bool,
    },
    /// It is gone, or was never reached.
    Gone,
}

/// A request towards the server.
pub(super) struct UpstreamStream<P> {
    body: BodyPump,
    pub(super) response: ResponseFuture,
    proof: PhantomData<fn(P)>,
}

/// Whether a request may leave now.
pub(super) enum Readiness {
    Ready,
    /// The server has as many requests as it takes, or has not yet shown that it speaks HTTP/2.
    Full,
    /// None will be taken.
    Closed,
}

impl<P> Upstream<P> {
    pub(super) fn new(limits: &PassageLimits) -> Self {
        let wire = Wire::default();
        let greeting = client::Builder::new()
            .enable_push(false)
            .initial_max_send_streams(MOST_STREAMS as usize)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(limits.head_octets).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .handshake(wire.clone());
        Self {
            wire,
            phase: UpstreamPhase::Greeting(Box::pin(greeting)),
            proof: PhantomData,
        }
    }

    pub(super) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The server is not reached.
    pub(super) fn fail(&mut self) {
        self.phase = UpstreamPhase::Gone;
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.phase, UpstreamPhase::Gone)
    }

    /// Whether the server has said that it takes no more requests, or is gone.
    pub(super) fn is_closing(&self) -> bool {
        match &self.phase {
            UpstreamPhase::Greeting(_) => false,
            UpstreamPhase::Open { is_closing, .. } => *is_closing,
            UpstreamPhase::Gone => true,
        }
    }

    /// Goes as far as what has come allows. An error is that of the connection.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        if let UpstreamPhase::Greeting(greeting) = &mut self.phase {
            match greeting.as_mut().poll(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok((requests, connection))) => {
                    self.phase = UpstreamPhase::Open {
                        requests,
                        connection: Box::new(connection),
                        is_closing: false,
                    };
                }
                Poll::Ready(Err(error)) => {
                    self.phase = UpstreamPhase::Gone;
                    return Err(error);
                }
            }
        }
        let UpstreamPhase::Open {
            requests,
            connection,
            is_closing,
        } = &mut self.phase
        else {
            return Ok(());
        };
        let ended = Pin::new(connection.as_mut()).poll(context);
        *is_closing |= matches!(requests.poll_ready(context), Poll::Ready(Err(_)));
        match ended {
            Poll::Pending => Ok(()),
            Poll::Ready(ended) => {
                self.phase = UpstreamPhase::Gone;
                ended
            }
        }
    }

    pub(super) fn readiness(&mut self, context: &mut Context<'_>) -> Readiness {
        match &mut self.phase {
            UpstreamPhase::Greeting(_) => Readiness::Full,
            UpstreamPhase::Gone => Readiness::Closed,
            UpstreamPhase::Open { requests, .. } => match requests.poll_ready(context) {
                Poll::Pending => Readiness::Full,
                // A server of HTTP/1 alone might read a body for requests that nobody judged.
                Poll::Ready(Ok(())) if !self.wire.is_greeted() => Readiness::Full,
                Poll::Ready(Ok(())) => Readiness::Ready,
                Poll::Ready(Err(_)) => Readiness::Closed,
            },
        }
    }

    /// Sends the head of a request. `ends` says that it has no body.
    pub(super) fn open(&mut self, _judged: &P, head: Request<()>, ends: bool) -> Result<UpstreamStream<P>, Error> {
        let UpstreamPhase::Open { requests, .. } = &mut self.phase else {
            return Err(Reason::REFUSED_STREAM.into());
        };
        let (response, body) = requests.send_request(head, ends)?;
        Ok(UpstreamStream {
            body: BodyPump::new(body, ends),
            response,
            proof: PhantomData,
        })
    }
}

impl<P> UpstreamStream<P> {
    /// Passes on what has come of the request's body and its trailers.
    pub(super) fn pass_on(
        &mut self,
        _judged: &P,
        context: &mut Context<'_>,
        from: &mut RecvStream,
    ) -> Result<(), Reason> {
        self.body.poll(context, from)
    }

    /// Whether nothing more leaves: the request is complete, or the server wants no more of it.
    pub(super) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.body.is_over() || self.body.poll_reset(context).is_some()
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.body.reset(reason);
    }
}
