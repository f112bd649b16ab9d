//! A resolver that answers by script.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use dns_proxy::Transport;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

use crate::agent::free_address;

/// Answers lookups over UDP and TCP on the same port, until it is dropped.
pub(crate) struct Resolver {
    pub(crate) address: SocketAddr,
    queries: Arc<Mutex<Vec<Vec<u8>>>>,
    _tasks: JoinSet<()>,
}

impl Resolver {
    /// `script` gives the packets to send, in order, for a query; none for silence.
    pub(crate) async fn start(script: impl Fn(Transport, &[u8]) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let address = free_address();
        let (udp, tcp) = (
            UdpSocket::bind(address).await.unwrap(),
            TcpListener::bind(address).await.unwrap(),
        );
        let queries = Arc::new(Mutex::new(Vec::new()));
        let answers = {
            let queries = queries.clone();
            Arc::new(move |transport, query: &[u8]| {
                queries.lock().unwrap().push(query.to_vec());
                script(transport, query)
            })
        };
        let mut tasks = JoinSet::new();
        let over_udp = answers.clone();
        tasks.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                for packet in over_udp(Transport::Udp, &buffer[..length]) {
                    udp.send_to(&packet, client).await.unwrap();
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let answers = answers.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut query = vec![0; usize::from(length)];
                        stream.read_exact(&mut query).await.unwrap();
                        for packet in answers(Transport::Tcp, &query) {
                            stream.write_u16(packet.len() as u16).await.unwrap();
                            stream.write_all(&packet).await.unwrap();
                        }
                    }
                });
            }
        });
        Self {
            address,
            queries,
            _tasks: tasks,
        }
    }

    /// Answers every A question with 192.0.2.1.
    pub(crate) async fn with_an_address() -> Self {
        Self::start(|_, query| vec![address_of(query)]).await
    }

    /// What it was asked, as it came.
    pub(crate) fn queries(&self) -> Vec<Vec<u8>> {
        self.queries.lock().unwrap().clone()
    }
}

/// An address for whatever name is asked.
pub(crate) fn address_of(query: &[u8]) -> Vec<u8> {
    let mut answer = query[..question_end(query)].to_vec();
    answer[2] |= 0x80;
    answer[3] |= 0x80;
    answer[7] = 1;
    answer[11] = 0;
    answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
    answer
}

fn question_end(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += 1 + usize::from(query[at]);
    }
    at + 5
}
