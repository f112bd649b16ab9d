//! Passes on what is not read, both ways, within the kernel (`splice(2)`).

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The room that a pipe is asked to have, in octets. One that the kernel refuses it to has 64 KiB.
const PIPE_SIZE: usize = 256 << 10;
/// The most that one call moves, in octets.
const MOST_MOVED: usize = 1 << 20;

/// Both directions of one connection.
pub(super) struct Relay {
    to_server: HalfRelay,
    to_client: HalfRelay,
}

/// One direction. A pipe is held only while something is in it, or flows.
struct HalfRelay {
    pipe: Option<(OwnedFd, OwnedFd)>,
    in_pipe: usize,
    /// Whether the sender has ended.
    has_ended: bool,
    /// Whether the receiver was told.
    is_shut: bool,
    moved: u64,
}

impl Relay {
    /// `client` and `server` say of each whether it has ended, and whether the other was told.
    pub(super) fn new(client: (bool, bool), server: (bool, bool)) -> Self {
        Self {
            to_server: HalfRelay::new(client),
            to_client: HalfRelay::new(server),
        }
    }

    /// Octets that went to the server and to the client.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.to_server.moved, self.to_client.moved)
    }

    /// Whether both directions are over.
    pub(super) fn is_over(&self) -> bool {
        self.to_server.is_shut && self.to_client.is_shut
    }

    /// Ready when both directions are over. An error is a reset by either side.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &TcpStream,
        server: &TcpStream,
    ) -> Poll<io::Result<()>> {
        let up = self.to_server.poll(context, client, server)?;
        let down = self.to_client.poll(context, server, client)?;
        match (up, down) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

impl HalfRelay {
    fn new((has_ended, is_shut): (bool, bool)) -> Self {
        Self {
            pipe: None,
            in_pipe: 0,
            has_ended,
            is_shut,
            moved: 0,
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, from: &TcpStream, to: &TcpStream) -> Poll<io::Result<()>> {
        loop {
            if self.in_pipe > 0 {
                let Poll::Ready(ready) = to.poll_write_ready(context) else {
                    return Poll::Pending;
                };
                ready?;
                match to.try_io(Interest::WRITABLE, || self.empty_into(to)) {
                    Ok(moved) => {
                        self.in_pipe -= moved.min(self.in_pipe);
                        self.moved += moved as u64;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Poll::Ready(Err(error)),
                }
                continue;
            }
            if self.has_ended {
                self.pipe = None;
                if !self.is_shut {
                    self.is_shut = true;
                    // A peer that has gone already needs no telling.
                    let _ = SockRef::from(to).shutdown(Shutdown::Write);
                }
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(ready) = from.poll_read_ready(context) else {
                self.pipe = None;
                return Poll::Pending;
            };
            ready?;
            if self.pipe.is_none() {
                self.pipe = Some(open_pipe()?);
            }
            match from.try_io(Interest::READABLE, || self.fill_from(from)) {
                Ok(0) => self.has_ended = true,
                Ok(moved) => self.in_pipe = moved,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn fill_from(&self, from: &TcpStream) -> io::Result<usize> {
        let (_, into) = self.pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        move_octets(from, into, MOST_MOVED)
    }

    fn empty_into(&self, to: &TcpStream) -> io::Result<usize> {
        let (out_of, _) = self.pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        move_octets(out_of, to, self.in_pipe)
    }
}

fn move_octets(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
    Ok(splice(from, None, to, None, most, flags)?)
}

fn open_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    // Less room moves less at once, and nothing else.
    let _ = fcntl_setpipe_size(&pipe.1, PIPE_SIZE);
    Ok(pipe)
}
