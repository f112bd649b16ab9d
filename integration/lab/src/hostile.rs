//! A UDP responder that answers whatever a test wants: wrong ids, wrong questions, wrong sources,
//! nonsense.

use std::io;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::Message;
use hickory_proto::rr::{RData, Record};
use netns::{Namespace, Resident};

use super::internet::udp_socket;

/// The running responder.
#[derive(Debug)]
pub struct Hostile {
    // Serves until it is dropped.
    _thread: Resident,
}

/// What a responder sends for one query.
#[derive(Debug, Clone)]
pub enum Shot {
    /// A message, from the address that was asked.
    Honest(Message),
    /// A message, from another port of the same address.
    OtherPort(Message),
    /// Bytes, from the address that was asked.
    Raw(Vec<u8>),
}

impl Hostile {
    /// Answers UDP queries to `address` with what `respond` makes of them, in order.
    pub(super) fn start(
        namespace: &Namespace,
        address: SocketAddr,
        mut respond: impl FnMut(&Message) -> Vec<Shot> + Send + 'static,
    ) -> io::Result<Self> {
        let thread = namespace.resident("lab-hostile")?;
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
                        Shot::Honest(message) => (&asked, message.to_vec()),
                        Shot::OtherPort(message) => (&other, message.to_vec()),
                        Shot::Raw(bytes) => (&asked, Ok(bytes)),
                    };
                    // Nobody may be waiting any more; that is the client's affair.
                    if let Ok(bytes) = bytes {
                        let _ = socket.send_to(&bytes, client).await;
                    }
                }
            }
        });
        Ok(Self { _thread: thread })
    }
}

/// The proper reply to `query`, to be spoiled: these addresses, for a minute.
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
