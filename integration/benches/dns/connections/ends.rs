//! Both ends of a connection in one thread.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::Lab;
use netns::Namespace;
use rustix::process::setpriority_process;
use socket2::SockRef;

/// The server's; nothing of the lab's own listens there.
pub(crate) const PORT: u16 = 4430;

/// A veth carries a packet on in the call that sends it, so a thread that has both ends pays for
/// the whole way, the node's part included, and nobody else has to wake up.
pub(crate) struct Ends {
    pod: Namespace,
    listener: TcpListener,
    receiver: UdpSocket,
}

impl Ends {
    pub(crate) fn new(lab: &Lab) -> Self {
        let server = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let (listener, receiver) = lab
            .internet()
            .namespace()
            .run(|| (TcpListener::bind(server).unwrap(), UdpSocket::bind(server).unwrap()))
            .unwrap();
        // Only a datagram that was refused takes so long.
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        Self {
            pod: lab.pod(0).namespace().clone(),
            listener,
            receiver,
        }
    }

    /// Opens a connection to each address and resets it, as nothing else leaves no port waiting:
    /// four packets each. The time of one.
    pub(crate) fn connect(&self, addresses: &[Ipv4Addr]) -> Duration {
        self.timed(addresses, |address| {
            let there = SocketAddr::from((*address, PORT));
            let client = TcpStream::connect_timeout(&there, Duration::from_secs(2))
                .unwrap_or_else(|error| panic!("no connection to {there}: {error}"));
            let server = self.listener.accept().unwrap();
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
            drop((client, server));
        })
    }

    /// Sends one datagram to each address: the first and last packet of a flow. The time of one.
    pub(crate) fn send(&self, addresses: &[Ipv4Addr]) -> Duration {
        let client = self.pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        self.timed(addresses, |address| {
            client.send_to(&[0], (*address, PORT)).unwrap();
            let came = self.receiver.recv(&mut [0; 8]);
            came.unwrap_or_else(|error| panic!("no datagram came to {address}: {error}"));
        })
    }

    fn timed(&self, addresses: &[Ipv4Addr], each: impl FnMut(&Ipv4Addr) + Send) -> Duration {
        let timed = || {
            // Wall time is measured, since many kernels count what is forwarded as nobody's. Others
            // shall not come between.
            setpriority_process(None, -20).unwrap();
            let begun = Instant::now();
            addresses.iter().for_each(each);
            begun.elapsed()
        };
        self.pod.run(timed).unwrap() / u32::try_from(addresses.len()).unwrap()
    }
}
