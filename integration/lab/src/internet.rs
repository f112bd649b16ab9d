//! The internet of the lab: an HTTP server on every address of its ranges, and UDP echo servers
//! where a test wants one.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use netns::{Namespace, NamespaceThread};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The ports of the HTTP server.
pub const HTTP_PORTS: [u16; 4] = [80, 443, 8080, 8443];
/// The port whose server accepts connections and closes them at once.
pub const CLOSE_PORT: u16 = 9;

/// The number of connections that are served at a time. More wait.
const CONNECTIONS: usize = 1_024;
/// An idle connection is closed after this time.
const IDLE: Duration = Duration::from_secs(60);
/// A connection whose request head is longer than this is closed.
const MAX_REQUEST: usize = 8 * 1024;

/// The running HTTP server, until it is dropped.
#[derive(Debug)]
pub struct Internet {
    namespace: Namespace,
    _thread: NamespaceThread,
}

/// A UDP echo server on one address, until it is dropped.
#[derive(Debug)]
pub struct UdpEcho {
    _thread: NamespaceThread,
}

impl Internet {
    /// Serves on every local address of `namespace`.
    pub(super) fn start(namespace: Namespace) -> io::Result<Self> {
        let any = |port: u16| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let thread = namespace.start_thread("lab-internet")?;
        let (http, close) = thread.run(async move {
            let http = HTTP_PORTS.iter().map(|port| tcp_listener(any(*port)));
            io::Result::Ok((http.collect::<io::Result<Vec<_>>>()?, tcp_listener(any(CLOSE_PORT))?))
        })??;
        thread.spawn(async move { while close.accept().await.is_ok() {} });
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        for listener in http {
            thread.spawn(accept(listener, Arc::clone(&room)));
        }
        Ok(Self {
            namespace,
            _thread: thread,
        })
    }

    /// The network namespace of the internet.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Echoes what is sent to `address` over UDP.
    pub fn echo_udp(&self, address: SocketAddr) -> io::Result<UdpEcho> {
        let thread = self.namespace.start_thread("lab-echo")?;
        let socket = thread.run(async move { udp_socket(address) })??;
        thread.spawn(async move {
            let mut buffer = [0; 2_048];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let _ = socket.send_to(&buffer[..length], client).await;
            }
        });
        Ok(UdpEcho { _thread: thread })
    }
}

/// A UDP socket, bound in the calling thread's namespace.
pub(super) fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // Room for the bursts of a whole test: a test must not take a dropped query for a lost one.
    socket.set_recv_buffer_size(1 << 20)?;
    if address.is_ipv6() {
        // Without this, IPv6 does not let a socket bind an address that is local by a route alone.
        socket.set_freebind_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    UdpSocket::from_std(socket.into())
}

/// A TCP listener in the calling thread's namespace. On `[::]` it also accepts IPv4.
pub(super) fn tcp_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(4_096)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, room: Arc<Semaphore>) {
    let mut connections = JoinSet::new();
    // The semaphore is never closed, so `acquire` ends only with a permit.
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        connections.spawn(async move {
            let _ = tokio::time::timeout(IDLE, serve(stream)).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// Answers each request on the connection with the address that it reached.
async fn serve(mut stream: TcpStream) -> io::Result<()> {
    let local = stream.local_addr()?.ip().to_canonical();
    let body = format!("hello from {local}\n");
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut head = Vec::new();
    let mut chunk = [0; 1_024];
    loop {
        let length = stream.read(&mut chunk).await?;
        if length == 0 || head.len() > MAX_REQUEST {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..length]);
        while let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            head.drain(..end + 4);
            stream.write_all(response.as_bytes()).await?;
        }
    }
}
