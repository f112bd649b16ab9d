//! Clients that send DNS cookies: once they have a server's, they drop what comes without one
//! (c-ares does).

use dns_proxy::{AdmissionError, AdmissionErrorKind};

use crate::agent::{Agent, Proxy};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

const CLIENTS: &[u8; 8] = b"original";

/// A query with a client's and a server's cookie, whoever made that.
fn query(name: &str) -> Vec<u8> {
    packets::query_with_option(name, "A", 10, b"original+servers")
}

/// What such a client makes of a reply: it takes it, or drops it.
fn is_taken(reply: &[u8]) -> bool {
    packets::option(reply, 10).is_some_and(|cookie| cookie.starts_with(CLIENTS) && (16..=40).contains(&cookie.len()))
}

#[tokio::test]
async fn every_reply_to_a_client_with_a_server_cookie_carries_one() {
    let resolver = Resolver::start(|_, query| {
        if query.windows(5).any(|label| label == b"fails") {
            return vec![packets::answer_with_rcode(query, 2)];
        }
        if query.windows(4).any(|label| label == b"huge") {
            return vec![packets::answer(query, &["huge. 60 A 192.0.2.1"; 200])];
        }
        vec![address_of(query)]
    })
    .await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    for (name, code) in [("a.example.", 0), ("x.denied.", 3), ("fails.", 2), ("huge.", 0)] {
        let reply = client.ask(&query(name)).await;
        assert_eq!(rcode(&reply), code, "{name}");
        assert!(is_taken(&reply), "{name}: {reply:02x?}");
    }
    let mut tcp = TcpClient::of(proxy.address).await;
    for (name, records) in [("a.example.", 1), ("x.denied.", 0)] {
        let reply = tcp.ask(&query(name)).await;
        assert_eq!(answers(&reply), records, "{name}");
        assert!(is_taken(&reply), "{name} over TCP");
    }
    let forwarded = resolver.queries();
    assert!(
        forwarded
            .iter()
            .all(|query| !packets::option(query, 10).is_some_and(|cookie| cookie.starts_with(CLIENTS))),
        "a client's cookie is not forwarded"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_committed_carries_a_cookie_too() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(&query("a.example.")).await;
    let reason = "the set is full".into();
    let pending = proxy.agent.pending().await;
    pending
        .commit
        .send(Err(AdmissionError {
            kind: AdmissionErrorKind::Full,
            reason,
        }))
        .unwrap();
    let reply = client.receive().await;
    assert_eq!(rcode(&reply), 2);
    assert!(is_taken(&reply));
}

/// It would miss one whenever it reaches such an upstream without us.
#[tokio::test]
async fn a_client_without_a_server_cookie_gets_none_where_upstreams_speak_no_cookies() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    for name in ["a.example.", "x.denied."] {
        let reply = client.ask(&packets::query_with_option(name, "A", 10, CLIENTS)).await;
        assert_eq!(packets::option(&reply, 10), None, "{name}");
    }
}

/// Speaks cookies with whoever asks it.
async fn speaker() -> Resolver {
    Resolver::start(|_, query| {
        let mut answer = address_of(query);
        if let Some(clients) = packets::option(query, 10) {
            answer[11] = 1;
            answer.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 20, 0, 10, 0, 16]);
            answer.extend(&clients[..8]);
            answer.extend(b"upstream");
        }
        vec![answer]
    })
    .await
}

/// Then it gets them without us, too.
#[tokio::test]
async fn a_client_without_a_server_cookie_gets_one_once_an_upstream_speaks_cookies() {
    let resolver = speaker().await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    client.ask(&packets::query("first.example.", "A")).await;
    for name in ["a.example.", "x.denied."] {
        let reply = client.ask(&packets::query_with_option(name, "A", 10, CLIENTS)).await;
        assert!(is_taken(&reply), "{name}: {reply:02x?}");
    }
}

#[tokio::test]
async fn a_cookie_of_a_wrong_length_is_a_format_error() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client
        .ask(&packets::query_with_option("a.example.", "A", 10, b"short"))
        .await;
    assert_eq!(rcode(&reply), 1);
}

#[tokio::test]
async fn what_an_upstream_says_to_our_cookie_is_not_relayed() {
    let resolver = speaker().await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&query("a.example.")).await;
    assert_eq!(answers(&reply), 1);
    assert!(is_taken(&reply) && !reply.ends_with(b"upstream"), "{reply:02x?}");
}
