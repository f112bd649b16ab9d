//! Answers that do not fit into UDP, and the few connections that they come by (RFC 7766).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dns_proxy::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Barrier, Mutex};
use tokio::task::JoinSet;

use crate::agent::{Agent, Proxy, free_address, impatient, patient};
use crate::client::{TcpClient, UdpClient, answers, framed, rcode};
use crate::packets;
use crate::resolver::address_of;

/// How a resolver behaves over TCP. Over UDP it says of everything that there is more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It answers each question as it comes.
    Quick,
    /// It closes the connection after each answer.
    Closing,
    /// It answers when four questions have come, and on each connection the last first.
    Reversing,
    /// It does not answer names under `slow.`, nor whatever is asked behind one on the same
    /// connection.
    InOrder,
}

struct Resolver {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Resolver {
    async fn start(kind: Kind) -> Self {
        let address = free_address();
        let udp = UdpSocket::bind(address).await.unwrap();
        let tcp = TcpListener::bind(address).await.unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut query = [0; 1_232];
            loop {
                let (length, client) = udp.recv_from(&mut query).await.unwrap();
                let mut answer = packets::answer(&query[..length], &[]);
                answer[2] |= 2;
                udp.send_to(&answer, client).await.unwrap();
            }
        });
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            let all_have_come = Arc::new(Barrier::new(4));
            loop {
                let (stream, _) = tcp.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                match kind {
                    Kind::Reversing => open.spawn(serve_in_reverse(stream, Arc::clone(&all_have_come))),
                    _ => open.spawn(serve(stream, kind)),
                };
            }
        });
        Self {
            address,
            connections,
            _tasks: tasks,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn serve_in_reverse(stream: TcpStream, all_have_come: Arc<Barrier>) {
    let (mut reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut waiting = JoinSet::new();
    while let Ok(length) = reader.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        reader.read_exact(&mut query).await.unwrap();
        let number = asked.fetch_add(1, Ordering::SeqCst);
        let (asked, answered) = (Arc::clone(&asked), Arc::clone(&answered));
        let (writer, all_have_come) = (Arc::clone(&writer), Arc::clone(&all_have_come));
        waiting.spawn(async move {
            all_have_come.wait().await;
            while answered.load(Ordering::SeqCst) + number + 1 < asked.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            writer
                .lock()
                .await
                .write_all(&framed(&address_of(&query)))
                .await
                .unwrap();
            answered.fetch_add(1, Ordering::SeqCst);
        });
    }
}

async fn serve(mut stream: TcpStream, kind: Kind) {
    while let Ok(length) = stream.read_u16().await {
        let mut query = vec![0; usize::from(length)];
        stream.read_exact(&mut query).await.unwrap();
        if kind == Kind::InOrder && query.windows(5).any(|it| it == b"\x04slow") {
            std::future::pending().await
        }
        if stream.write_all(&framed(&address_of(&query))).await.is_err() || kind == Kind::Closing {
            return;
        }
    }
}

async fn start(kind: Kind, config: ServerConfig) -> (Resolver, Proxy, UdpClient) {
    let resolver = Resolver::start(kind).await;
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), config).await;
    let client = UdpClient::of(proxy.address).await;
    (resolver, proxy, client)
}

#[tokio::test]
async fn many_truncated_lookups_share_a_few_connections() {
    let (resolver, proxy, client) = start(Kind::Quick, patient()).await;
    for round in 0..10 {
        for number in 0..100 {
            client
                .send(&packets::query(&format!("{round}.{number}.example."), "A"))
                .await;
        }
        for _ in 0..100 {
            assert_eq!(answers(&client.receive().await), 1);
        }
    }
    assert_eq!(proxy.agent.count("upstream Udp Truncated"), 1_000);
    assert!(resolver.connections() <= 8, "{} connections", resolver.connections());
}

#[tokio::test]
async fn answers_come_in_any_order() {
    let (resolver, _proxy, client) = start(Kind::Reversing, patient()).await;
    for number in 0..4 {
        client.send(&packets::query(&format!("{number}.example."), "A")).await;
    }
    for _ in 0..4 {
        assert_eq!(answers(&client.receive().await), 1);
    }
    assert_eq!(resolver.connections(), 2);
}

#[tokio::test]
async fn an_upstream_that_closes_its_connections_is_connected_to_again() {
    let (resolver, _proxy, client) = start(Kind::Closing, patient()).await;
    for number in 0..20 {
        let reply = client.ask(&packets::query(&format!("{number}.example."), "A")).await;
        assert_eq!((rcode(&reply), answers(&reply)), (0, 1), "{number}");
    }
    assert!(resolver.connections() >= 10);
}

#[tokio::test]
async fn a_client_with_slow_questions_holds_up_no_other() {
    let (resolver, proxy, greedy) = start(Kind::InOrder, patient()).await;
    for number in 1..=500 {
        greedy.send(&packets::query(&format!("{number}.slow."), "A")).await;
        // Not more than a socket holds.
        if number % 50 == 0 {
            proxy.agent.observed("upstream Udp Truncated", number).await;
        }
    }
    let neighbour = UdpClient::bound_to("127.0.0.2:0".parse().unwrap(), proxy.address).await;
    for number in 0..50 {
        let reply = neighbour.ask(&packets::query(&format!("{number}.example."), "A")).await;
        assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
    }
    assert!(resolver.connections() <= 4);
    assert!(greedy.has_nothing());
}

#[tokio::test]
async fn a_lookup_over_tcp_has_its_end_whatever_the_upstream_does() {
    let mut config = impatient();
    config.lookup_timeout = Duration::from_secs(2);
    let (_resolver, proxy, _) = start(Kind::InOrder, config).await;
    let mut client = TcpClient::of(proxy.address).await;
    let began = Instant::now();
    assert_eq!(rcode(&client.ask(&packets::query("a.slow.", "A")).await), 2);
    assert!(began.elapsed() < Duration::from_secs(10));
    // What hung is not used again.
    assert_eq!(answers(&client.ask(&packets::query("a.example.", "A")).await), 1);
}
