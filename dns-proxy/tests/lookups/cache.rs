//! Answers out of the cache go the way of every answer.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dns_proxy::{CacheConfig, ServerConfig};

use crate::agent::{Agent, Proxy, impatient, patient};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

fn caching() -> ServerConfig {
    ServerConfig {
        cache: Some(CacheConfig {
            entries: NonZeroUsize::new(100).unwrap(),
            stale_for: Duration::from_secs(60),
        }),
        workers: 1,
        ..patient()
    }
}

#[tokio::test]
async fn what_was_asked_is_not_asked_again_and_waits_for_the_kernel_all_the_same() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), caching()).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);

    let again = packets::query("A.Example.", "A");
    client.send(&again).await;
    let pending = proxy.agent.pending().await;
    assert_eq!(pending.validated.name.as_str(), "a.example.");
    assert_eq!(pending.validated.source, resolver.address);
    assert!(client.has_nothing());
    pending.commit.send(Ok(())).unwrap();
    let reply = client.receive().await;
    assert_eq!((answers(&reply), rcode(&reply)), (1, 0));
    assert_eq!(reply[12..again.len()], again[12..], "the question in the client's case");
    assert_eq!(resolver.queries().len(), 1);
    assert_eq!(
        (proxy.agent.count("cache Miss"), proxy.agent.count("cache Hit")),
        (1, 1)
    );
}

#[tokio::test]
async fn what_was_asked_over_udp_is_not_asked_again_over_tcp_nor_the_other_way_round() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), caching()).await;
    let datagrams = UdpClient::of(proxy.address).await;
    let mut connection = TcpClient::of(proxy.address).await;
    let [first, second] = ["a.example.", "b.example."].map(|name| packets::query(name, "A"));
    assert_eq!(answers(&datagrams.ask(&first).await), 1);
    assert_eq!(answers(&connection.ask(&first).await), 1);
    assert_eq!(answers(&connection.ask(&second).await), 1);
    assert_eq!(answers(&datagrams.ask(&second).await), 1);
    assert_eq!(resolver.queries().len(), 2);
    assert_eq!(
        (proxy.agent.count("cache Miss"), proxy.agent.count("cache Hit")),
        (2, 2)
    );
}

#[tokio::test]
async fn a_client_over_tcp_gets_the_last_answer_when_the_upstream_falls_silent() {
    let asked = AtomicUsize::new(0);
    let resolver = Resolver::start(move |_, query| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let mut answer = address_of(query);
            let ttl = answer.len() - 10..answer.len() - 6;
            answer[ttl].copy_from_slice(&[0, 0, 0, 1]);
            vec![answer]
        }
        _ => vec![],
    })
    .await;
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), caching()).await;
    let mut client = TcpClient::of(proxy.address).await;
    while proxy.agent.count("cache Stale") == 0 {
        let reply = client.ask(&packets::query("a.example.", "A")).await;
        assert_eq!((answers(&reply), rcode(&reply)), (1, 0));
    }
}

#[tokio::test]
async fn a_commit_that_fails_withholds_what_the_cache_has() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), caching()).await;
    let client = UdpClient::of(proxy.address).await;
    for (commit, code) in [
        (Ok(()), 0),
        (
            Err(dns_proxy::AdmissionError {
                kind: dns_proxy::AdmissionErrorKind::TimedOut,
                reason: "the set is full".into(),
            }),
            2,
        ),
    ] {
        client.send(&packets::query("a.example.", "A")).await;
        proxy.agent.pending().await.commit.send(commit).unwrap();
        assert_eq!(rcode(&client.receive().await), code);
    }
    assert_eq!(resolver.queries().len(), 1);
}

#[tokio::test]
async fn a_denied_name_is_not_looked_up_in_the_cache() {
    let proxy = Proxy::start_with(Agent::new(&[]), caching()).await;
    let client = UdpClient::of(proxy.address).await;
    assert_eq!(rcode(&client.ask(&packets::query("x.denied.", "A")).await), 3);
    assert_eq!(proxy.agent.count("cache Miss"), 0);
}

#[tokio::test]
async fn when_the_upstream_falls_silent_its_last_answer_is_given_past_its_time() {
    let asked = AtomicUsize::new(0);
    let resolver = Resolver::start(move |_, query| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => {
            let mut answer = address_of(query);
            let ttl = answer.len() - 10..answer.len() - 6;
            answer[ttl].copy_from_slice(&[0, 0, 0, 1]);
            vec![answer]
        }
        _ => vec![],
    })
    .await;
    let config = ServerConfig {
        upstream_timeout: impatient().upstream_timeout,
        lookup_timeout: impatient().lookup_timeout,
        ..caching()
    };
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), config).await;
    let client = UdpClient::of(proxy.address).await;
    // Fresh for a second, and then past its time: every one of these is answered.
    while proxy.agent.count("cache Stale") == 0 {
        let reply = client.ask(&packets::query("a.example.", "A")).await;
        assert_eq!((answers(&reply), rcode(&reply)), (1, 0));
    }
    // For a while nobody waits for the upstream again.
    let queries = resolver.queries().len();
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!(answers(&reply), 1);
    assert_eq!(reply[reply.len() - 10..reply.len() - 6], [0, 0, 0, 30]);
    assert_eq!(resolver.queries().len(), queries);
}
