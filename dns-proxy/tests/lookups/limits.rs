//! One client can have so much, and all of them together so much.

use dns_proxy::ServerConfig;

use crate::agent::{Agent, Proxy, patient};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::Resolver;

#[tokio::test]
async fn a_client_at_its_limit_is_refused_and_another_is_served() {
    let resolver = Resolver::with_an_address().await;
    let config = ServerConfig {
        in_flight_per_client: 2,
        ..patient()
    };
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), config).await;
    let query = packets::query_with_edns("a.example.", "A", 1_232);
    let greedy = UdpClient::of(proxy.address).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        greedy.send(&query).await;
        held.push(proxy.agent.pending().await);
    }
    let reply = greedy.ask(&query).await;
    assert_eq!(rcode(&reply), 5);
    let (_, text) = packets::extended_error(&reply).unwrap();
    assert!(text.contains("too many lookups"), "{text}");
    proxy.agent.observed("discarded ClientLimit", 1).await;
    // Over TCP it is the same client.
    let mut connection = TcpClient::of(proxy.address).await;
    assert_eq!(rcode(&connection.ask(&query).await), 5);

    let modest = UdpClient::bound_to("127.0.0.2:0".parse().unwrap(), proxy.address).await;
    modest.send(&query).await;
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&modest.receive().await), 1);

    // What is answered makes room.
    for pending in held {
        pending.commit.send(Ok(())).unwrap();
        assert_eq!(answers(&greedy.receive().await), 1);
    }
    greedy.send(&query).await;
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&greedy.receive().await), 1);
}

#[tokio::test]
async fn all_clients_together_have_a_limit() {
    let resolver = Resolver::with_an_address().await;
    let config = ServerConfig {
        in_flight_total: 1,
        ..patient()
    };
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), config).await;
    let query = packets::query("a.example.", "A");
    let first = UdpClient::of(proxy.address).await;
    first.send(&query).await;
    let _held = proxy.agent.pending().await;
    let second = UdpClient::bound_to("127.0.0.2:0".parse().unwrap(), proxy.address).await;
    assert_eq!(rcode(&second.ask(&query).await), 5);
    proxy.agent.observed("discarded TotalLimit", 1).await;
}

#[tokio::test]
async fn connections_over_the_limit_are_closed_and_those_before_stay() {
    let config = ServerConfig {
        tcp_per_client: 1,
        ..patient()
    };
    let proxy = Proxy::start_with(Agent::new(&[]), config).await;
    let query = packets::query("x.denied.", "A");
    let mut first = TcpClient::of(proxy.address).await;
    assert_eq!(rcode(&first.ask(&query).await), 3);
    assert!(TcpClient::of(proxy.address).await.closed().await.is_empty());
    proxy.agent.observed("discarded ConnectionLimit", 1).await;
    assert_eq!(rcode(&first.ask(&query).await), 3);
}

#[tokio::test]
async fn one_connection_has_sixty_four_lookups_in_flight_and_the_next_when_one_is_answered() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let mut client = TcpClient::of(proxy.address).await;
    for _ in 0..65 {
        client.send(&packets::query("a.example.", "A")).await;
    }
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(proxy.agent.pending().await);
    }
    assert_eq!(proxy.server.in_flight(), 64);
    held.remove(0).commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);
    held.push(proxy.agent.pending().await);
    assert_eq!(proxy.server.in_flight(), 64);
}
