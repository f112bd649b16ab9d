//! However many clients ask the same, a resolver is asked it once at a time.

use dns_proxy::ServerConfig;
use tokio::net::UdpSocket;

use crate::agent::{Agent, Proxy};
use crate::client::{UdpClient, answers};
use crate::packets;
use crate::resolver::address_of;

#[tokio::test]
async fn equal_lookups_of_many_clients_are_one_query_at_the_upstream() {
    const CLIENTS: usize = 20;
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let config = ServerConfig {
        workers: 2,
        ..ServerConfig::default()
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

    let mut query = [0; 512];
    let (length, asker) = resolver.recv_from(&mut query).await.unwrap();
    let mut another = [0; 512];
    assert!(resolver.try_recv_from(&mut another).is_err(), "asked twice");
    resolver.send_to(&address_of(&query[..length]), asker).await.unwrap();
    for (client, query) in clients {
        let reply = client.receive().await;
        assert_eq!(answers(&reply), 1);
        assert_eq!((&reply[..2], &reply[12..query.len()]), (&query[..2], &query[12..]));
    }
}
