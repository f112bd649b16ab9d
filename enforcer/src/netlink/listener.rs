//! A thread that reads what the kernel sends unasked.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use smallvec::SmallVec;

use super::socket::NetfilterSocket;

/// How long the thread pauses when it has read what it may read at a time.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// How fast is read. So whoever makes the kernel send as fast as it can loses datagrams, and takes
/// no processor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadingPace {
    /// Datagrams read at a time.
    pub(crate) budget: usize,
    /// Whether the thread pauses after every read, so that it reads many datagrams at a time.
    pub(crate) collects: bool,
}

/// What is read.
#[derive(Debug)]
pub(crate) enum HeardDatagram<'a> {
    /// A datagram.
    Read(&'a [u8]),
    /// The receive buffer was full, and an unknown number of datagrams is lost.
    Overrun,
}

/// Reads datagrams on a thread of its own, until it is dropped.
///
/// The queue is the socket's receive buffer, which the kernel bounds: a callback that is slow loses
/// datagrams and never delays a packet.
#[derive(Debug)]
pub(crate) struct DatagramListener {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl DatagramListener {
    /// Starts the thread, which calls `hear` for whatever is read, and in the end `end` with the
    /// error that ended it, if one did.
    pub(crate) fn start(
        name: &str,
        mut socket: NetfilterSocket,
        pace: ReadingPace,
        hear: impl FnMut(HeardDatagram<'_>) + Send + 'static,
        end: impl FnOnce(&mut NetfilterSocket, io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                let ended = listen(&mut socket, &stop, pace, hear);
                end(&mut socket, ended);
            }
        })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Whether the thread has ended after an error.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for DatagramListener {
    /// Waits for the thread. Afterwards nothing is called any more.
    fn drop(&mut self) {
        let one = 1u64.to_ne_bytes();
        // This fails only when the counter is at its limit, and then the descriptor is readable
        // too.
        let _ = rustix::io::write(&*self.stop, &one);
        if let Some(thread) = self.thread.take() {
            // A panic of the callback was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn listen(
    socket: &mut NetfilterSocket,
    stop: &OwnedFd,
    pace: ReadingPace,
    mut hear: impl FnMut(HeardDatagram<'_>),
) -> io::Result<()> {
    loop {
        if wait(&[stop.as_fd(), socket.as_fd()], None)? {
            return Ok(());
        }
        let more = read_some(socket, pace.budget, &mut hear)?;
        if (more || pace.collects) && wait(&[stop.as_fd()], Some(&REST))? {
            return Ok(());
        }
    }
}

/// Reads until the budget is used up or nothing waits; true when more may wait.
fn read_some(
    socket: &mut NetfilterSocket,
    budget: usize,
    hear: &mut impl FnMut(HeardDatagram<'_>),
) -> io::Result<bool> {
    for _ in 0..budget {
        match socket.next_datagram() {
            Ok(datagram) => hear(HeardDatagram::Read(datagram)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => hear(HeardDatagram::Overrun),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// Waits until one of the descriptors can be read, or the time is over; true when it is the first:
/// the listener was dropped.
fn wait(descriptors: &[BorrowedFd<'_>], at_most: Option<&Timespec>) -> io::Result<bool> {
    let mut descriptors: SmallVec<[PollFd<'_>; 2]> = descriptors
        .iter()
        .map(|descriptor| PollFd::from_borrowed_fd(*descriptor, PollFlags::IN))
        .collect();
    loop {
        match poll(&mut descriptors, at_most) {
            Ok(_) => return Ok(descriptors.first().is_some_and(|stop| !stop.revents().is_empty())),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
