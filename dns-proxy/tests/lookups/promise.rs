//! An answer reaches the client only after the gate vouched for it.

use dns_proxy::{AdmissionError, AdmissionErrorKind};

use crate::agent::{Agent, Proxy, impatient};
use crate::client::{UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::Resolver;

#[tokio::test]
async fn an_answer_waits_for_the_commit() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;

    let pending = proxy.agent.pending().await;
    assert_eq!(pending.validated.name.as_str(), "a.example.");
    assert_eq!(pending.validated.source, resolver.address);
    assert!(client.has_nothing());
    // A whole other lookup passes meanwhile, so there was time for the answer to leave.
    let other = UdpClient::of(proxy.address).await;
    assert_eq!(rcode(&other.ask(&packets::query("x.denied.", "A")).await), 3);
    assert!(client.has_nothing());
    assert_eq!(proxy.server.in_flight(), 1);

    pending.commit.send(Ok(())).unwrap();
    let reply = client.receive().await;
    assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
    proxy.agent.observed("commit true", 1).await;
}

#[tokio::test]
async fn a_failed_commit_is_servfail_and_no_answer() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(&packets::query_with_edns("a.example.", "A", 1_232)).await;

    let reason = "the kernel said ENOMEM".to_owned();
    let failed = Err(AdmissionError {
        kind: AdmissionErrorKind::Full,
        reason: reason.clone(),
    });
    proxy.agent.pending().await.commit.send(failed).unwrap();
    let reply = client.receive().await;
    assert_eq!((rcode(&reply), answers(&reply)), (2, 0));
    assert_eq!(packets::extended_error(&reply), Some((0, reason)));
    proxy.agent.observed("commit false", 1).await;
    proxy
        .agent
        .observed("withheld a.example NotAdmitted(Full) true", 1)
        .await;
}

#[tokio::test]
async fn a_commit_that_never_comes_is_servfail_when_the_lookup_s_time_is_up() {
    let resolver = Resolver::with_an_address().await;
    let mut config = impatient();
    config.lookup_timeout = config.upstream_timeout;
    let proxy = Proxy::start_with(Agent::that_holds(&[resolver.address]), config).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!((rcode(&reply), answers(&reply)), (2, 0));
}

#[tokio::test]
async fn an_answer_with_a_broken_chain_is_never_released() {
    let resolver = Resolver::start(|_, query| {
        vec![packets::answer(
            query,
            &["a.example. 60 A 192.0.2.1", "victim.example. 60 A 192.0.2.66"],
        )]
    })
    .await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&packets::query_with_edns("a.example.", "A", 1_232)).await;
    assert_eq!((rcode(&reply), answers(&reply)), (2, 0));
    let (code, text) = packets::extended_error(&reply).unwrap();
    assert!(code == 0 && text.contains("broken chain"), "{text}");
    // Asked twice, and told each time.
    let withheld = "withheld a.example Invalid(BrokenChain) true";
    assert_eq!(proxy.agent.count(withheld), 2);
}

#[tokio::test]
async fn an_answer_without_addresses_waits_for_nothing() {
    let resolver = Resolver::start(|_, query| vec![packets::answer_with_rcode(query, 3)]).await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!(rcode(&reply), 3);
    assert_eq!(proxy.agent.count("commit true"), 0);
}
