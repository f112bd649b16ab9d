//! Hears of flows as they begin and end.

use std::io;

use tracing::error;

use crate::netlink::conntrack::{ConntrackNews, EVENT_GROUPS, read_news};
use crate::netlink::listener::{DatagramListener, HeardDatagram, ReadingPace};
use crate::netlink::message::NfnlMessages;
use crate::netlink::socket::NetfilterSocket;

/// One change a datagram: up to 10,000 a second.
const PACE: ReadingPace = ReadingPace {
    budget: 512,
    collects: true,
};

/// Hears of the flows of a network namespace as they begin and end, on a thread of its own, until
/// it is dropped. Of a packet that was refused no flow begins.
///
/// It is for people: each change costs the kernel a message and this process some microseconds,
/// so it should exist only while somebody listens. Where `net.netfilter.nf_conntrack_events` is 2,
/// the default of Linux since 5.19, the kernel tells the ends only of flows that began while a
/// listener existed.
#[derive(Debug)]
pub struct ConntrackListener(DatagramListener);

impl ConntrackListener {
    /// Subscribes in the network namespace of the calling thread. `hear` is called on the new
    /// thread.
    ///
    /// # Errors
    /// The kernel's: it lacks the module `nf_conntrack_netlink`, or this process `CAP_NET_ADMIN`.
    pub fn subscribe(mut hear: impl FnMut(ConntrackNews) + Send + 'static) -> io::Result<Self> {
        let socket = NetfilterSocket::open()?;
        socket.subscribe(&EVENT_GROUPS)?;
        let hear = move |heard: HeardDatagram<'_>| match heard {
            HeardDatagram::Read(datagram) => {
                let news = NfnlMessages(datagram).filter_map(|message| read_news(&message));
                news.for_each(&mut hear);
            }
            HeardDatagram::Overrun => hear(ConntrackNews::Overrun),
        };
        let end = |_: &mut NetfilterSocket, ended: io::Result<()>| {
            if let Err(error) = ended {
                error!(%error, "flows are not watched any more");
            }
        };
        DatagramListener::start("conntrack", socket, PACE, hear, end).map(Self)
    }

    /// Whether the thread has ended after an error, which it has logged.
    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }
}
