//! A body on its way through: so much is taken as the receiver has room for.

use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use crate::framing::is_forbidden_trailer;

/// Where a body goes. The window of its sender is opened by what has left, so that the pace of the
/// receiver is that of the sender.
pub(super) struct BodyPump {
    to: SendStream<Bytes>,
    held: Bytes,
    phase: PumpPhase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PumpPhase {
    Data,
    Trailers,
    Over,
}

impl BodyPump {
    /// `is_over` says that the head was the whole message.
    pub(super) fn new(to: SendStream<Bytes>, is_over: bool) -> Self {
        Self {
            to,
            held: Bytes::new(),
            phase: if is_over { PumpPhase::Over } else { PumpPhase::Data },
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == PumpPhase::Over
    }

    pub(super) fn reset(&mut self, reason: Reason) {
        self.phase = PumpPhase::Over;
        self.to.send_reset(reason);
    }

    /// The receiver's reset, if there was one.
    pub(super) fn poll_reset(&mut self, context: &mut Context<'_>) -> Option<Reason> {
        match self.to.poll_reset(context) {
            Poll::Ready(Ok(reason)) => Some(reason),
            Poll::Ready(Err(_)) => Some(Reason::CANCEL),
            Poll::Pending => None,
        }
    }

    /// Passes on what has come. An error is why the sender has broken off, or may not go on.
    pub(super) fn poll(&mut self, context: &mut Context<'_>, from: &mut RecvStream) -> Result<(), Reason> {
        loop {
            match self.phase {
                PumpPhase::Over => return Ok(()),
                _ if !self.held.is_empty() => {
                    if !self.pass_on_held(context, from)? {
                        return Ok(());
                    }
                }
                PumpPhase::Data => match from.poll_data(context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Some(Ok(data))) => self.held = data,
                    Poll::Ready(Some(Err(error))) => return Err(error.reason().unwrap_or(Reason::CANCEL)),
                    Poll::Ready(None) => self.phase = PumpPhase::Trailers,
                },
                PumpPhase::Trailers => match from.poll_trailers(context) {
                    Poll::Pending => return Ok(()),
                    Poll::Ready(Ok(trailers)) => {
                        self.end(trailers)?;
                        self.phase = PumpPhase::Over;
                    }
                    Poll::Ready(Err(error)) => return Err(error.reason().unwrap_or(Reason::CANCEL)),
                },
            }
        }
    }

    /// Whether something has left.
    fn pass_on_held(&mut self, context: &mut Context<'_>, from: &mut RecvStream) -> Result<bool, Reason> {
        self.to.reserve_capacity(self.held.len());
        if self.to.capacity() == 0 {
            match self.to.poll_capacity(context) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Ok(_))) => {}
                // Whoever waits for the receiver's reset hears why.
                Poll::Ready(Some(Err(_)) | None) => {
                    self.phase = PumpPhase::Over;
                    return Ok(false);
                }
            }
        }
        let room = self.to.capacity().min(self.held.len());
        if room == 0 {
            return Ok(true);
        }
        let part = self.held.split_to(room);
        if self.to.send_data(part, false).is_err() {
            self.phase = PumpPhase::Over;
            return Ok(false);
        }
        // A sender that is gone needs no window.
        let _ = from.flow_control().release_capacity(room);
        Ok(true)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(), Reason> {
        let ended = match trailers {
            Some(trailers) if trailers.keys().any(|name| is_forbidden_trailer(name.as_str())) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            Some(trailers) => self.to.send_trailers(trailers),
            None => self.to.send_data(Bytes::new(), true),
        };
        // Whoever waits for the receiver's reset hears why.
        let _ = ended;
        Ok(())
    }
}
