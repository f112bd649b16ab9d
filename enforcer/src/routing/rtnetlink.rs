//! Requests to rtnetlink, one at a time, each with its answer.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A socket of `NETLINK_ROUTE`.
pub(super) struct Rtnetlink {
    socket: Socket,
    sequence: u32,
}

/// The outcome of a request that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RtnetlinkOutcome {
    /// The kernel changed something.
    Done,
    /// It was so before.
    AlreadySo,
}

impl Rtnetlink {
    /// Opens a socket in the network namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Creates an object, unless it exists.
    pub(super) fn create(&mut self, request: RouteNetlinkMessage) -> io::Result<RtnetlinkOutcome> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
        already_so(self.ask(request, flags), &[libc::EEXIST])
    }

    /// Deletes an object, if it exists.
    pub(super) fn delete(&mut self, request: RouteNetlinkMessage) -> io::Result<RtnetlinkOutcome> {
        // Routes and rules, addresses, and routes of a table that does not exist.
        let gone = [libc::ENOENT, libc::EADDRNOTAVAIL, libc::ESRCH];
        already_so(self.ask(request, NLM_F_ACK), &gone)
    }

    /// Changes an object.
    pub(super) fn change(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(request, NLM_F_ACK).map(|_| ())
    }

    /// Creates an object, or replaces the one that exists.
    pub(super) fn replace(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
        self.ask(request, flags).map(|_| ())
    }

    /// Asks for one object.
    pub(super) fn get(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(request, NLM_F_ACK)
    }

    /// Lists all objects of the kind that the request asks for.
    pub(super) fn dump(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.ask(request, NLM_F_DUMP)
    }

    fn ask(&mut self, request: RouteNetlinkMessage, flags: u16) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        self.answer()
    }

    /// Reads until the acknowledgement, the error, or the end of the dump.
    fn answer(&self) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut objects = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
                // Messages stand at multiples of four octets (NLMSG_ALIGN).
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.saturating_add(3) & !3..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(object) => objects.push(object),
                    NetlinkPayload::Done(_) => return Ok(objects),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                    NetlinkPayload::Error(_) => return Ok(objects),
                    _ => {}
                }
            }
        }
    }
}

fn already_so(result: io::Result<Vec<RouteNetlinkMessage>>, errors: &[i32]) -> io::Result<RtnetlinkOutcome> {
    match result {
        Ok(_) => Ok(RtnetlinkOutcome::Done),
        Err(error) if error.raw_os_error().is_some_and(|errno| errors.contains(&errno)) => {
            Ok(RtnetlinkOutcome::AlreadySo)
        }
        Err(error) => Err(error),
    }
}
