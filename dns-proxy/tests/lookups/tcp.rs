//! Lookups over TCP (RFC 7766).

use std::time::Duration;

use dns_proxy::Transport;
use tokio::io::AsyncWriteExt;

use crate::agent::{Agent, Proxy, patient};
use crate::client::{TcpClient, answers, framed, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

#[tokio::test]
async fn a_client_that_comes_by_tcp_is_served_by_tcp_all_the_way() {
    let resolver = Resolver::start(|transport, query| match transport {
        Transport::Tcp => vec![address_of(query)],
        _ => vec![],
    })
    .await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let reply = TcpClient::of(proxy.address)
        .await
        .ask(&packets::query("a.example.", "A"))
        .await;
    assert_eq!(answers(&reply), 1);
}

#[tokio::test]
async fn queries_on_one_connection_are_answered_as_they_are_ready() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let mut client = TcpClient::of(proxy.address).await;
    let with_id = |id: u8| {
        let mut query = packets::query(&format!("{}.example.", char::from(id)), "A");
        query[0] = id;
        query
    };
    let queries = [framed(&with_id(b'a')), framed(&with_id(b'b')), framed(&with_id(b'c'))];
    client.stream.write_all(&queries.concat()).await.unwrap();

    let mut pending = Vec::new();
    for _ in 0..3 {
        pending.push(proxy.agent.pending().await);
    }
    pending.sort_by(|one, another| another.validated.name.cmp(&one.validated.name));
    for expected in [b'c', b'b', b'a'] {
        pending.remove(0).commit.send(Ok(())).unwrap();
        assert_eq!(client.receive().await[0], expected);
    }
}

#[tokio::test]
async fn a_frame_may_come_in_pieces() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let mut client = TcpClient::of(proxy.address).await;
    let frames = [
        framed(&packets::query("x.denied.", "A")),
        framed(&packets::query("y.denied.", "A")),
    ]
    .concat();
    for byte in frames {
        client.stream.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        assert_eq!(rcode(&client.receive().await), 3);
    }
}

#[tokio::test]
async fn a_frame_of_no_length_ends_the_connection() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let mut client = TcpClient::of(proxy.address).await;
    client.stream.write_all(&[0, 0]).await.unwrap();
    assert!(client.closed().await.is_empty());
}

#[tokio::test]
async fn a_client_that_sends_its_last_query_and_closes_its_half_is_answered() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let mut client = TcpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    client.stream.shutdown().await.unwrap();
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);
    assert!(client.closed().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_a_trickle_of_bytes_does_not_keep_it() {
    let mut config = patient();
    config.tcp_idle = Duration::from_secs(1);
    let proxy = Proxy::start_with(Agent::new(&[]), config).await;

    let mut idle = TcpClient::of(proxy.address).await;
    assert_eq!(rcode(&idle.ask(&packets::query("x.denied.", "A")).await), 3);
    assert!(idle.closed().await.is_empty());

    let mut trickling = TcpClient::of(proxy.address).await;
    while trickling.stream.write_all(&[1]).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_connection_that_waits_for_an_answer_is_not_idle() {
    let resolver = Resolver::with_an_address().await;
    let mut config = patient();
    config.tcp_idle = Duration::from_millis(500);
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), config).await;
    let mut client = TcpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    let pending = proxy.agent.pending().await;
    // Another connection of that age is gone by now.
    assert!(TcpClient::of(proxy.address).await.closed().await.is_empty());
    pending.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_let_go() {
    let resolver = Resolver::start(|_, query| {
        let text = "x".repeat(250);
        let record = format!("a.example. 60 TXT {text}");
        vec![packets::answer(query, &vec![record.as_str(); 200])]
    })
    .await;
    let mut config = patient();
    config.tcp_idle = Duration::from_millis(300);
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), config).await;
    let mut client = TcpClient::of(proxy.address).await;
    let query = framed(&packets::query("a.example.", "TXT"));
    // Until the proxy, that cannot write, reads no more and closes.
    while client.stream.write_all(&query).await.is_ok() {}
    while proxy.server.in_flight() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_of_a_listener_that_ends_still_gets_the_answers_it_is_owed() {
    let resolver = Resolver::with_an_address().await;
    let mut proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let mut client = TcpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    let pending = proxy.agent.pending().await;
    // Connected, and perhaps not even accepted yet.
    let mut latecomer = TcpClient::of(proxy.address).await;
    proxy.server.listen(&[]).await.unwrap();
    assert_eq!(rcode(&latecomer.ask(&packets::query("x.denied.", "A")).await), 3);
    assert!(latecomer.closed().await.is_empty());
    pending.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);
    assert!(client.closed().await.is_empty());
}
