//! One question to a resolver over UDP.

use std::cell::RefCell;
use std::io::{self, Read};
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// No UDP payload is longer.
const MAX_PAYLOAD: usize = 65_535;

/// Sends `message` and returns the first answer that `belongs`. Has no end of its own: the caller sets a time.
///
/// The socket is fresh, so the answer must hit a random port besides a random id (RFC 5452 §9.2), and connected, so
/// the kernel discards what comes from any other address.
pub(super) async fn exchange(
    server: SocketAddr,
    message: &[u8],
    belongs: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let socket = connect(server)?;
    socket.send(message).await?;
    loop {
        // ERROR too: epoll reports an ICMP error as that alone, and tokio's READABLE does not include it.
        let one = || receive(&socket, &belongs);
        if let Some(answer) = socket.async_io(Interest::READABLE | Interest::ERROR, one).await? {
            return Ok(answer);
        }
    }
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(server),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    // Without a bind before it, this takes a port at random out of ip_local_port_range (Linux since 2.6.24; measured:
    // 2,000 sockets, no order in their ports).
    socket.connect(&server.into())?;
    UdpSocket::from_std(StdUdpSocket::from(socket))
}

/// Takes one packet out of the socket, and keeps it if it belongs to the question.
fn receive(socket: &UdpSocket, belongs: impl Fn(&[u8]) -> bool) -> io::Result<Option<Vec<u8>>> {
    // One buffer a thread: an answer's length is known only when it is here, and most have 100 octets.
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_PAYLOAD]);
    }
    BUFFER.with_borrow_mut(|buffer| {
        let length = (&*SockRef::from(socket)).read(buffer)?;
        let answer = &buffer[..length];
        Ok(belongs(answer).then(|| answer.to_vec()))
    })
}
