//! The exchange with the kernel: the only I/O of this folder.
//!
//! Netlink to the kernel is synchronous: when `send` returns, the request has been carried out and
//! its replies wait in the receive queue. So nothing here blocks, and a reply that is not there was
//! lost (`ENOBUFS`). What the kernel sends unasked is waited for with `poll`.
#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{bind, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::batch::{BatchReplies, ElementBatch, ElementOp, OperationError};
use super::message::{NfnlMessage, NfnlMessages, field, flags, kind};
use super::objects::TableCommand;
use super::reply::NetlinkReply;
use super::transaction::{CommandError, EncodedTransaction};

/// Room for a batch of 8,000 elements that are replaced, at 156 bytes each. The kernel doubles the
/// value.
const SEND_BUFFER: usize = 1 << 20;
/// Room for the errors of a batch and for dumps.
const RECEIVE_BUFFER: usize = 1 << 20;
/// The kernel never puts more than 32 KiB into one datagram of a dump.
const DATAGRAM: usize = 64 * 1024;
/// How often an interrupted dump is begun again before it is taken as it is.
const DUMP_ATTEMPTS: usize = 5;

/// A socket of `NETLINK_NETFILTER`.
#[derive(Debug)]
pub(crate) struct NetfilterSocket {
    socket: Socket,
    buffer: Box<[u8]>,
    sequence: u32,
}

/// Why a transaction is not known to be committed.
#[derive(Debug)]
pub(crate) enum CommitError {
    /// The kernel aborted it: nothing changed. Never empty.
    Refused(Vec<OperationError>),
    /// No acknowledgement came: the kernel must be read back.
    Unacknowledged(io::Error),
}

impl NetfilterSocket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_NETFILTER)),
        )?;
        socket.set_nonblocking(true)?;
        // Beyond the system's limit, as root may; within it otherwise.
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        set_netlink_option(&socket, libc::NETLINK_CAP_ACK)?;
        set_netlink_option(&socket, libc::NETLINK_EXT_ACK)?;
        Ok(Self {
            socket,
            buffer: vec![0; DATAGRAM].into_boxed_slice(),
            sequence: 1,
        })
    }

    /// Sends one transaction, and reads the replies.
    pub(crate) fn commit(&mut self, table: &str, operations: &[ElementOp]) -> Result<(), CommitError> {
        if operations.is_empty() {
            return Ok(());
        }
        let batch = ElementBatch::encode(table, operations, self.sequence);
        self.sequence = batch.end().wrapping_add(1);
        self.send(&batch.bytes).map_err(CommitError::Unacknowledged)?;
        let mut replies = BatchReplies::default();
        while !replies.complete {
            let length = self.receive().map_err(CommitError::Unacknowledged)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for reply in NfnlMessages(datagram).filter_map(|message| NetlinkReply::read(&message)) {
                batch.take(&mut replies, reply);
            }
        }
        if replies.errors.is_empty() {
            Ok(())
        } else {
            Err(CommitError::Refused(replies.errors))
        }
    }

    /// Subscribes to what the kernel tells these multicast groups, of those up to 32.
    pub(crate) fn subscribe(&self, groups: &[u16]) -> io::Result<()> {
        let mask = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
        // Nothing is told to a socket that has joined a group and has no address.
        Ok(bind(&self.socket, &SocketAddrNetlink::new(0, mask))?)
    }

    /// Carries out commands as one transaction. On errors of commands nothing has changed; on an
    /// I/O error it is not known.
    pub(crate) fn transact(
        &mut self,
        table: &str,
        commands: &[TableCommand],
    ) -> io::Result<Result<(), Vec<CommandError>>> {
        if commands.is_empty() {
            return Ok(Ok(()));
        }
        let encoded = EncodedTransaction::new(table, commands, self.sequence);
        self.sequence = encoded.end().wrapping_add(1);
        self.make_room(encoded.bytes.len());
        self.send(&encoded.bytes)?;
        let mut errors = Vec::new();
        let mut complete = false;
        while !complete {
            let length = self.receive()?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for reply in NfnlMessages(datagram).filter_map(|message| NetlinkReply::read(&message)) {
                complete |= encoded.take(&mut errors, reply);
            }
        }
        Ok(if errors.is_empty() { Ok(()) } else { Err(errors) })
    }

    /// The kernel takes a transaction as one datagram, which must fit the send buffer.
    fn make_room(&self, length: usize) {
        if length > SEND_BUFFER {
            // Where this is not allowed, sending fails.
            let _ = sockopt::set_socket_send_buffer_size_force(&self.socket, length);
        }
    }

    /// Sends a request for a dump, encoded by `ask` with a sequence number, and reads each message
    /// of the answer.
    pub(crate) fn dump<T>(
        &mut self,
        ask: impl Fn(u32) -> Vec<u8>,
        mut read: impl FnMut(&NfnlMessage<'_>, &mut Vec<T>),
    ) -> io::Result<Vec<T>> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            if self.dump_once(&ask, &mut read, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// Sends a request, encoded by `ask` with a sequence number, that is answered by one message.
    pub(crate) fn ask_one<T>(
        &mut self,
        ask: impl Fn(u32) -> Vec<u8>,
        read: impl Fn(&NfnlMessage<'_>) -> Option<T>,
    ) -> io::Result<T> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.send(&ask(sequence))?;
        loop {
            let length = self.receive()?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            let answer = NfnlMessages(datagram).find(|message| message.sequence == sequence);
            let Some(message) = answer else { continue };
            return match NetlinkReply::read(&message) {
                Some(reply) => Err(io::Error::from_raw_os_error(reply.errno)),
                None => read(&message).ok_or_else(|| io::ErrorKind::InvalidData.into()),
            };
        }
    }

    /// Sends `count` requests that each ask for an acknowledgement, numbered from `first` on, and
    /// returns the errno of each answer, by position.
    pub(crate) fn request_all(&mut self, count: usize, encode: impl FnOnce(u32) -> Vec<u8>) -> io::Result<Vec<i32>> {
        let first = self.sequence;
        self.sequence = first.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        let bytes = encode(first);
        self.send(&bytes)?;
        let mut answers = vec![None; count];
        while answers.iter().any(Option::is_none) {
            let length = self.receive()?;
            for reply in
                NfnlMessages(self.buffer.get(..length).unwrap_or_default()).filter_map(|m| NetlinkReply::read(&m))
            {
                let position = usize::try_from(reply.sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                if let Some(answer) = answers.get_mut(position) {
                    *answer = Some(reply.errno);
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// The next datagram that the kernel has sent unasked;
    /// [`WouldBlock`](io::ErrorKind::WouldBlock) when there is none yet, ENOBUFS when some were
    /// lost.
    pub(crate) fn next_datagram(&mut self) -> io::Result<&[u8]> {
        let length = self.receive()?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }

    /// Returns false when a change interrupted the dump.
    fn dump_once<T>(
        &mut self,
        ask: &impl Fn(u32) -> Vec<u8>,
        read: &mut impl FnMut(&NfnlMessage<'_>, &mut Vec<T>),
        found: &mut Vec<T>,
    ) -> io::Result<bool> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.send(&ask(sequence))?;
        let mut undisturbed = true;
        loop {
            let length = self.receive()?;
            for message in NfnlMessages(self.buffer.get(..length).unwrap_or_default()) {
                if message.sequence != sequence {
                    continue;
                }
                undisturbed &= message.flags & flags::DUMP_INTR == 0;
                let errno = match message.kind {
                    kind::DONE => field(message.payload, 0).map_or(0, i32::from_ne_bytes).saturating_neg(),
                    kind::ERROR => NetlinkReply::read(&message).map_or(libc::EPROTO, |reply| reply.errno),
                    _ => {
                        read(&message, found);
                        continue;
                    }
                };
                return match errno {
                    0 => Ok(undisturbed),
                    // The generation changed between two datagrams.
                    libc::EINTR => Ok(false),
                    errno => Err(io::Error::from_raw_os_error(errno)),
                };
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(|_| ()),
            }
        }
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match (&self.socket).read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A netlink datagram is never empty; do not wait for more after one.
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                result => return result,
            }
        }
    }
}

/// For callers that wait for datagrams.
impl AsFd for NetfilterSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Switches on an option of `SOL_NETLINK`.
fn set_netlink_option(socket: &Socket, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open as long as `socket` is borrowed, and the kernel reads as many
    // bytes of `on` as it is told it has.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
