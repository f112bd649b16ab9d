//! One question to a resolver over TCP.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::frame;

/// Sends `message` on a connection of its own and returns the first answer that `belongs`. Has no end of its own: the
/// caller sets a time.
pub(super) async fn exchange(
    server: SocketAddr,
    message: &[u8],
    belongs: impl Fn(&[u8]) -> bool,
) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = Vec::with_capacity(2 + message.len());
    frame::push(&mut framed, message);
    stream.write_all(&framed).await?;
    loop {
        let length = stream.read_u16().await?;
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await?;
        if belongs(&answer) {
            return Ok(answer);
        }
    }
}
