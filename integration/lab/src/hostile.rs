//! A UDP responder that answers as a test wants: with wrong ids, wrong questions, wrong sources or
//! bytes that are no message.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use netns::{Namespace, NamespaceThread};

use super::internet::udp_socket;

/// A running responder, until it is dropped.
#[derive(Debug)]
pub struct HostileResponder {
    _thread: NamespaceThread,
}

/// One datagram that a responder sends for a query.
#[derive(Debug, Clone)]
pub enum HostileReply {
    /// A message, from the address that was asked.
    Honest(Message),
    /// A message, from another port of the same address.
    OtherPort(Message),
    /// Bytes, from the address that was asked.
    Raw(Vec<u8>),
}

impl HostileResponder {
    /// Answers UDP queries to `address` with what `respond` makes of them, in order.
    pub(super) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        mut respond: impl FnMut(&Message) -> Vec<HostileReply> + Send + 'static,
    ) -> io::Result<Self> {
        let thread = namespace.start_thread("lab-hostile")?;
        let elsewhere = SocketAddr::new(address.ip(), 0);
        let (asked, other) =
            thread.run(async move { io::Result::Ok((udp_socket(address)?, udp_socket(elsewhere)?)) })??;
        thread.spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, client)) = asked.recv_from(&mut buffer).await {
                let Ok(query) = Message::from_vec(&buffer[..length]) else {
                    continue;
                };
                for shot in respond(&query) {
                    let (socket, bytes) = match shot {
                        HostileReply::Honest(message) => (&asked, message.to_vec()),
                        HostileReply::OtherPort(message) => (&other, message.to_vec()),
                        HostileReply::Raw(bytes) => (&asked, Ok(bytes)),
                    };
                    // The client may be gone.
                    if let Ok(bytes) = bytes {
                        let _ = socket.send_to(&bytes, client).await;
                    }
                }
            }
        });
        Ok(Self { _thread: thread })
    }
}

/// A correct reply to `query` with these addresses and a TTL of a minute, for a test to spoil.
pub fn reply(query: &Message, addresses: &[IpAddr]) -> Message {
    let mut reply = query.clone().into_response();
    reply.metadata.recursion_available = true;
    let name = query
        .queries
        .first()
        .map(|question| question.name().clone())
        .unwrap_or_default();
    for address in addresses {
        let data = match *address {
            IpAddr::V4(address) => RData::A(address.into()),
            IpAddr::V6(address) => RData::AAAA(address.into()),
        };
        reply.add_answer(Record::from_rdata(name.clone(), 60, data));
    }
    reply
}
