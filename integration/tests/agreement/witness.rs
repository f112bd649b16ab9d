//! Who sees packets arrive.

use std::io::{self, Read};
use std::net::IpAddr;

use netns::Namespace;
use socket2::{Domain, Protocol, Socket, Type};

use crate::packet::{self, Token};

/// Sees what reaches a namespace.
pub(crate) struct Witness {
    sockets: Vec<(Kind, Socket)>,
}

enum Kind {
    /// Whole packets, as they come from the wire; and those that the namespace sends.
    Wire,
    /// Whole packets of IPv4 that were let in.
    Inside,
    /// Of IPv6, what follows the header.
    InsideV6(u8),
}

/// A packet that was seen. Where its destination is not known, it is the namespace's own.
pub(crate) struct Seen {
    pub(crate) token: Token,
    pub(crate) to: Option<IpAddr>,
}

impl Witness {
    /// Sees what comes over the wire, whether it is for the namespace or not.
    pub(crate) fn on_the_wire(namespace: &Namespace) -> io::Result<Self> {
        // ETH_P_ALL.
        let every_protocol = i32::from(3_u16.to_be());
        let socket = namespace.run(|| open(Domain::PACKET, Type::DGRAM, every_protocol))??;
        Ok(Self {
            sockets: vec![(Kind::Wire, socket)],
        })
    }

    /// Sees what is for the namespace itself, after its filters.
    pub(crate) fn behind_the_filters(namespace: &Namespace) -> io::Result<Self> {
        let sockets = namespace.run(|| {
            let v4 = packet::protocols(true)
                .map(|protocol| Ok((Kind::Inside, open(Domain::IPV4, Type::RAW, protocol.into())?)));
            let v6 = packet::protocols(false).map(|protocol| {
                Ok((
                    Kind::InsideV6(protocol),
                    open(Domain::IPV6, Type::RAW, protocol.into())?,
                ))
            });
            v4.into_iter().chain(v6).collect::<io::Result<Vec<_>>>()
        })??;
        Ok(Self { sockets })
    }

    /// What has arrived since it was last asked.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let mut seen = Vec::new();
        let mut buffer = [0; 2_048];
        for (kind, socket) in &self.sockets {
            // Nothing more to read is an error too.
            while let Ok(length) = (&*socket).read(&mut buffer) {
                let bytes = &buffer[..length];
                let parts = match kind {
                    Kind::Wire | Kind::Inside => {
                        packet::parse(bytes).map(|(to, protocol, rest)| (Some(to), protocol, rest))
                    }
                    Kind::InsideV6(protocol) => Some((None, *protocol, bytes)),
                };
                let token = parts.and_then(|(to, protocol, rest)| {
                    Some(Seen {
                        token: packet::token(protocol, rest)?,
                        to,
                    })
                });
                seen.extend(token);
            }
        }
        seen
    }
}

fn open(domain: Domain, kind: Type, protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(4 << 20)?;
    Ok(socket)
}
