//! A connection of HTTP/2 as memory: what came from a peer, and what is to be sent to it.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What may wait to be sent before nothing more is written, in octets. A frame may go beyond it.
const MOST_OUTGOING: usize = 64 << 10;

/// Both directions towards one peer. Clones are the same wire: `h2` reads and writes one, the
/// conversation moves octets in and out of the other, and asks `h2` again after each such move. So
/// no waker is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Wire(Rc<RefCell<WireState>>);

#[derive(Debug, Default)]
struct WireState {
    incoming: Vec<u8>,
    /// How much of `incoming` was read.
    read: usize,
    has_ended: bool,
    outgoing: Vec<u8>,
    /// The first octets that came, as many as a frame's header has.
    first: SmallVec<[u8; FRAME_HEADER]>,
}

/// The length of a frame's header (RFC 9113 §4.1).
const FRAME_HEADER: usize = 9;
/// The type of a frame of settings (RFC 9113 §6.5), and its flag ACK.
const SETTINGS: (u8, u8) = (4, 1);

impl Wire {
    /// Whether everything that came was read.
    pub(super) fn is_read(&self) -> bool {
        let state = self.0.borrow();
        state.read == state.incoming.len()
    }

    /// More came.
    pub(super) fn put(&self, octets: &[u8]) {
        let mut state = self.0.borrow_mut();
        let read = std::mem::take(&mut state.read);
        state.incoming.drain(..read);
        state.incoming.extend_from_slice(octets);
        let missing = FRAME_HEADER - state.first.len();
        state.first.extend(octets.iter().take(missing).copied());
    }

    /// Whether the peer has begun as a server of HTTP/2 does: with its settings (RFC 9113 §3.4).
    pub(super) fn is_greeted(&self) -> bool {
        match self.0.borrow().first.as_slice() {
            [_, _, _, kind, flags, 0, 0, 0, 0] => *kind == SETTINGS.0 && flags & SETTINGS.1 == 0,
            _ => false,
        }
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.0.borrow_mut().has_ended = true;
    }

    /// What is to be sent. The caller sends it.
    pub(super) fn take_outgoing(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().outgoing)
    }

    /// Whether something is to be sent.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.0.borrow().outgoing.is_empty()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        let waiting = &state.incoming[state.read..];
        if waiting.is_empty() && !state.has_ended {
            return Poll::Pending;
        }
        let count = waiting.len().min(into.remaining());
        into.put_slice(&waiting[..count]);
        state.read += count;
        if state.read == state.incoming.len() {
            // A connection that waits holds no buffer.
            state.incoming = Vec::new();
            state.read = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.borrow_mut();
        if state.outgoing.len() >= MOST_OUTGOING {
            return Poll::Pending;
        }
        state.outgoing.extend_from_slice(octets);
        Poll::Ready(Ok(octets.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
