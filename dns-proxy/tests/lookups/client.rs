//! What a pod's stub resolver does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longer than anything here takes: it only ends a test that would hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    pub(crate) async fn of(server: SocketAddr) -> Self {
        let local = if server.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        Self::bound_to(local.parse().unwrap(), server).await
    }

    pub(crate) async fn bound_to(local: SocketAddr, server: SocketAddr) -> Self {
        let socket = UdpSocket::bind(local).await.unwrap();
        // Connected: an answer from another address than the one asked does not arrive.
        socket.connect(server).await.unwrap();
        Self { socket }
    }

    pub(crate) async fn send(&self, query: &[u8]) {
        self.socket.send(query).await.unwrap();
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let length = timeout(PATIENCE, self.socket.recv(&mut buffer)).await.unwrap().unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(crate) async fn ask(&self, query: &[u8]) -> Vec<u8> {
        self.send(query).await;
        self.receive().await
    }

    /// Whether nothing has arrived so far.
    pub(crate) fn has_nothing(&self) -> bool {
        self.socket.try_recv(&mut [0; 1]).is_err()
    }
}

pub(crate) struct TcpClient {
    pub(crate) stream: TcpStream,
}

impl TcpClient {
    pub(crate) async fn of(server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream }
    }

    pub(crate) async fn send(&mut self, query: &[u8]) {
        self.stream.write_all(&framed(query)).await.unwrap();
    }

    pub(crate) async fn receive(&mut self) -> Vec<u8> {
        timeout(PATIENCE, async {
            let length = self.stream.read_u16().await.unwrap();
            let mut answer = vec![0; usize::from(length)];
            self.stream.read_exact(&mut answer).await.unwrap();
            answer
        })
        .await
        .unwrap()
    }

    pub(crate) async fn ask(&mut self, query: &[u8]) -> Vec<u8> {
        self.send(query).await;
        self.receive().await
    }

    /// Waits until the server closes the connection, and returns what it sent before.
    pub(crate) async fn closed(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset is as good an end as any.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.unwrap();
        rest
    }
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

pub(crate) fn rcode(reply: &[u8]) -> u8 {
    reply[3] & 0xf
}

/// How many records stand in the answer section.
pub(crate) fn answers(reply: &[u8]) -> u16 {
    u16::from_be_bytes([reply[6], reply[7]])
}
