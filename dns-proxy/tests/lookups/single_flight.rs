//! However many clients ask the same, a resolver is asked it once at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns_proxy::ServerConfig;
use tokio::net::UdpSocket;

use crate::agent::{Agent, Proxy, patient};
use crate::client::{UdpClient, answers};
use crate::packets;
use crate::resolver::address_of;

#[tokio::test]
async fn equal_lookups_of_many_clients_are_one_query_at_the_upstream() {
    const CLIENTS: usize = 20;
    const WORKERS: usize = 2;
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = ServerConfig {
        workers: WORKERS,
        ..patient()
    };
    let proxy = Proxy::start_with(Agent::new(&[resolver.local_addr().unwrap()]), config).await;
    let mut clients = Vec::new();
    for id in 0..CLIENTS {
        let client = UdpClient::of(proxy.address).await;
        let mut query = packets::query(["a.example.", "A.eXample."][id % 2], "A");
        query[0] = id as u8;
        client.send(&query).await;
        clients.push((client, query));
    }
    proxy.agent.observed("query forwarded=true", CLIENTS).await;

    let asked = Arc::new(AtomicUsize::new(0));
    let answering = tokio::spawn(answer_one_at_a_time(resolver, Arc::clone(&asked)));
    for (client, query) in clients {
        let reply = client.receive().await;
        assert_eq!(answers(&reply), 1);
        assert_eq!((&reply[..2], &reply[12..query.len()]), (&query[..2], &query[12..]));
    }
    assert!(!answering.is_finished(), "it was asked twice");
    // Each worker may have had one lookup that had not come to its flight yet.
    assert!((1..=1 + WORKERS).contains(&asked.load(Ordering::Relaxed)));
}

/// Answers queries of which there is never a second one before the first is answered. A lookup that
/// was seen and had not come to its flight yet, when that got its answer, begins another.
async fn answer_one_at_a_time(resolver: UdpSocket, asked: Arc<AtomicUsize>) {
    loop {
        let mut query = [0; 512];
        let (length, asker) = resolver.recv_from(&mut query).await.unwrap();
        asked.fetch_add(1, Ordering::Relaxed);
        assert!(resolver.try_recv_from(&mut [0; 512]).is_err(), "asked twice");
        resolver.send_to(&address_of(&query[..length]), asker).await.unwrap();
    }
}
