//! The thread that reads logged packets.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use smallvec::SmallVec;
use thiserror::Error;
use tracing::error;

use crate::netlink::nflog;
use crate::netlink::socket::NetfilterSocket;

use super::{RecordedPacket, read_datagram};

/// Datagrams read at a time, some 64 records each.
const BUDGET: usize = 64;
/// How long the thread pauses when its budget is used up. So a workload that sends refused packets
/// as fast as it can loses records, and takes no processor.
const REST: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// What a listener reads from the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordEvent<'a> {
    /// Records, in the order of their packets.
    Records(&'a [RecordedPacket]),
    /// The receive buffer was full, and an unknown number of records is lost.
    Overrun,
    /// The number of packets that are no records, because rules of others log to our group or the
    /// packets cannot be read.
    Foreign(usize),
}

/// Reads the records of one NFLOG group on a thread of its own, until it is dropped.
///
/// The queue is the socket's receive buffer, which the kernel bounds: a callback that is slow loses
/// records and never delays a packet.
pub struct RecordListener {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// Why a group cannot be listened to.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another socket has bound the group; the kernel allows one at a time.
    #[error(
        "NFLOG group {group} is taken by another program (or this one lacks CAP_NET_ADMIN); \
         see /proc/net/netfilter/nfnetlink_log, and choose another group"
    )]
    Taken {
        /// The NFLOG group that another program has.
        group: u16,
    },
    /// The kernel refused for another reason.
    #[error("cannot listen to NFLOG group {group}: {error}; does this kernel have the module nfnetlink_log?")]
    Refused {
        /// The NFLOG group that was asked for.
        group: u16,
        /// The kernel's error.
        error: io::Error,
    },
}

impl RecordListener {
    /// Binds `group` in the network namespace of the calling thread. `hear` is called on the new
    /// thread for whatever is read.
    pub fn bind(group: u16, hear: impl FnMut(RecordEvent<'_>) + Send + 'static) -> Result<Self, BindError> {
        let refused = |error| BindError::Refused { group, error };
        let mut socket = NetfilterSocket::open().map_err(refused)?;
        // What is logged before the acknowledgement is read is lost.
        let answers = socket
            .request_all(1, |sequence| nflog::bind(group, sequence))
            .map_err(refused)?;
        match answers.first() {
            Some(0) => {}
            Some(&(libc::EPERM | libc::EBUSY)) => return Err(BindError::Taken { group }),
            Some(errno) => return Err(refused(io::Error::from_raw_os_error(*errno))),
            None => return Err(refused(io::ErrorKind::UnexpectedEof.into())),
        }
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| refused(errno.into()))?;
        let stop = Arc::new(stop);
        let thread = std::thread::Builder::new()
            .name("nflog".to_owned())
            .spawn({
                let stop = Arc::clone(&stop);
                move || {
                    if let Err(error) = listen(&mut socket, &stop, hear) {
                        error!(group, %error, "packets are not recorded any more");
                    }
                    // Closing the socket frees the group only once the last copy of it is closed,
                    // and a program that this process is starting has one for a moment. If this
                    // fails, closing has to do.
                    let _ = socket.request_all(1, |sequence| nflog::unbind(group, sequence));
                }
            })
            .map_err(refused)?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Whether the thread has ended after an error, which it has logged.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for RecordListener {
    /// Waits for the thread. Afterwards `hear` is not called any more, and the group is free.
    fn drop(&mut self) {
        let one = 1u64.to_ne_bytes();
        // This fails only when the counter is at its limit, and then the descriptor is readable
        // too.
        let _ = rustix::io::write(&*self.stop, &one);
        if let Some(thread) = self.thread.take() {
            // A panic in `hear` was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for RecordListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("has_ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

fn listen(socket: &mut NetfilterSocket, stop: &OwnedFd, mut hear: impl FnMut(RecordEvent<'_>)) -> io::Result<()> {
    let mut records = Vec::new();
    loop {
        if wait(&[stop.as_fd(), socket.as_fd()], None)? {
            return Ok(());
        }
        let more = read_some(socket, &mut records, &mut hear)?;
        if more && wait(&[stop.as_fd()], Some(&REST))? {
            return Ok(());
        }
    }
}

/// Reads until the budget is used up or nothing waits; true when more may wait.
fn read_some(
    socket: &mut NetfilterSocket,
    records: &mut Vec<RecordedPacket>,
    hear: &mut impl FnMut(RecordEvent<'_>),
) -> io::Result<bool> {
    for _ in 0..BUDGET {
        records.clear();
        let strangers = match socket.next_datagram() {
            Ok(datagram) => read_datagram(datagram, records),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                hear(RecordEvent::Overrun);
                continue;
            }
            Err(error) => return Err(error),
        };
        if !records.is_empty() {
            hear(RecordEvent::Records(records));
        }
        if strangers > 0 {
            hear(RecordEvent::Foreign(strangers));
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
