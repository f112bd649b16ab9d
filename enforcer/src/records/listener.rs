//! The thread that reads logged packets.

use std::io;

use thiserror::Error;
use tracing::error;

use crate::netlink::listener::{DatagramListener, HeardDatagram, ReadingPace};
use crate::netlink::nflog;
use crate::netlink::socket::NetfilterSocket;

use super::{RecordedPacket, read_datagram};

/// Some 64 records each.
const PACE: ReadingPace = ReadingPace {
    budget: 64,
    collects: false,
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
#[derive(Debug)]
pub struct RecordListener(DatagramListener);

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
    pub fn bind(group: u16, mut hear: impl FnMut(RecordEvent<'_>) + Send + 'static) -> Result<Self, BindError> {
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
        let mut records = Vec::new();
        let hear = move |heard: HeardDatagram<'_>| match heard {
            HeardDatagram::Read(datagram) => read(datagram, &mut records, &mut hear),
            HeardDatagram::Overrun => hear(RecordEvent::Overrun),
        };
        let end = move |socket: &mut NetfilterSocket, ended: io::Result<()>| {
            if let Err(error) = ended {
                error!(group, %error, "packets are not recorded any more");
            }
            // Closing the socket frees the group only once the last copy of it is closed, and a
            // program that this process is starting has one for a moment. If this fails, closing
            // has to do.
            let _ = socket.request_all(1, |sequence| nflog::unbind(group, sequence));
        };
        let listener = DatagramListener::start("nflog", socket, PACE, hear, end).map_err(refused)?;
        Ok(Self(listener))
    }

    /// Whether the thread has ended after an error, which it has logged.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}

fn read(datagram: &[u8], records: &mut Vec<RecordedPacket>, hear: &mut impl FnMut(RecordEvent<'_>)) {
    records.clear();
    let strangers = read_datagram(datagram, records);
    if !records.is_empty() {
        hear(RecordEvent::Records(records));
    }
    if strangers > 0 {
        hear(RecordEvent::Foreign(strangers));
    }
}
