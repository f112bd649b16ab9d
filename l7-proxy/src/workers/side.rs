//! The socket of one side, in clear or under TLS that ends here.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// One side of a passage.
pub(super) enum PassageSide {
    Clear(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

impl PassageSide {
    pub(super) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(stream) => stream,
            Self::Secured(stream) => stream.get_ref().0,
        }
    }

    /// Appends what has come to `space`, and tells how many octets; 0 is the end. An error of kind
    /// [`io::ErrorKind::UnexpectedEof`] is an end that TLS does not vouch for.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>, space: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        match self {
            Self::Clear(stream) => pin!(stream.read_buf(space)).poll(context),
            Self::Secured(stream) => pin!(stream.read_buf(space)).poll(context),
        }
    }

    /// Whether [`poll_fill`](Self::poll_fill) may find something. What TLS has read ahead does not
    /// show in the socket.
    pub(super) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Clear(stream) => stream.poll_read_ready(context),
            Self::Secured(_) => Poll::Ready(Ok(())),
        }
    }

    /// How many octets were taken; none while the socket takes none.
    pub(super) fn write(&mut self, context: &mut Context<'_>, pending: [&[u8]; 2]) -> io::Result<usize> {
        let slices = [IoSlice::new(pending[0]), IoSlice::new(pending[1])];
        let pending = match pending {
            [[], []] => return Ok(0),
            [_, []] => &slices[..1],
            [[], _] => &slices[1..],
            _ => &slices,
        };
        let written = match self {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(context, pending)?,
            Self::Secured(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, pending)?,
        };
        match written {
            Poll::Ready(written) => Ok(written),
            Poll::Pending => Ok(0),
        }
    }

    /// Sends what TLS holds back.
    pub(super) fn flush(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self {
            Self::Clear(_) => Ok(()),
            Self::Secured(stream) => match Pin::new(stream.as_mut()).poll_flush(context) {
                Poll::Ready(flushed) => flushed,
                Poll::Pending => Ok(()),
            },
        }
    }

    /// Tells the peer that nothing more comes, once all that was written has left. A peer that has
    /// gone already needs no telling.
    pub(super) fn poll_shut(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Self::Secured(stream) = self {
            let _ = ready!(Pin::new(stream.as_mut()).poll_shutdown(context));
        }
        let _ = SockRef::from(self.tcp()).shutdown(Shutdown::Write);
        Poll::Ready(())
    }
}
