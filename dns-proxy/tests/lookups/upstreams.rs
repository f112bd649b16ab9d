//! What upstreams do wrong, and what comes of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dns_proxy::Transport;
use tokio::net::UdpSocket;

use crate::agent::{Agent, Proxy, free_address};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

async fn ask(proxy: &Proxy) -> Vec<u8> {
    let client = UdpClient::of(proxy.address).await;
    client.ask(&packets::query_with_edns("a.example.", "A", 1_232)).await
}

/// Of servers that cannot read EDNS, or another part of the query.
#[tokio::test]
async fn an_error_without_a_question_is_relayed_with_the_clients() {
    for (code, opt) in [(1, false), (4, false), (0, true)] {
        let resolver = Resolver::start(move |_, query| {
            let mut error = [&query[..2], &[0x81, 0x80 | code, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
            if opt {
                // BADVERS: the upper bits of its code stand in OPT.
                error[11] = 1;
                error.extend([0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
            }
            vec![error]
        })
        .await;
        let proxy = Proxy::start_impatient(Agent::new(&[resolver.address])).await;
        let query = packets::query_with_edns("A.example.", "A", 1_232);
        let question = &query[12..query.len() - 11];
        let mut tcp = TcpClient::of(proxy.address).await;
        for reply in [
            UdpClient::of(proxy.address).await.ask(&query).await,
            tcp.ask(&query).await,
        ] {
            assert_eq!((&reply[..2], rcode(&reply)), (&query[..2], code));
            assert_eq!(reply[4..12], [0, 1, 0, 0, 0, 0, 0, u8::from(opt)]);
            assert!(reply[12..].starts_with(question), "{reply:02x?}");
        }
        // Once over each transport, and once more without our cookie, which may be what it cannot
        // read.
        assert_eq!(resolver.queries().len(), if opt { 2 } else { 4 });
    }
}

#[tokio::test]
async fn another_upstream_is_asked_after_an_error_without_a_question() {
    let old = Resolver::start(|_, query| vec![[&query[..2], &[0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]].concat()]).await;
    let other = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[old.address, other.address])).await;
    let reply = UdpClient::of(proxy.address)
        .await
        .ask(&packets::query("a.example.", "A"))
        .await;
    assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
}

#[tokio::test]
async fn answers_that_do_not_belong_to_the_question_are_waited_out() {
    let resolver = Resolver::start(|_, query| {
        let good = address_of(query);
        let mut id = packets::answer(query, &["a.example. 60 A 192.0.2.66"]);
        id[0] ^= 1;
        let mut name = good.clone();
        name[13] = b'b';
        let mut none = good.clone();
        none[5] = 0;
        vec![id, name, none, query.to_vec(), b"noise".to_vec(), good]
    })
    .await;
    let proxy = Proxy::start_impatient(Agent::new(&[resolver.address])).await;
    let reply = ask(&proxy).await;
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 1]);
    assert_eq!(proxy.agent.count("upstream Udp Mismatched"), 5);
    assert_eq!(proxy.agent.count("upstream Udp Answered"), 1);
}

#[tokio::test]
async fn an_answer_from_another_address_is_not_even_seen() {
    let resolver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start_impatient(Agent::new(&[resolver.local_addr().unwrap()])).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;

    let mut query = [0; 512];
    let (length, asker) = resolver.recv_from(&mut query).await.unwrap();
    let forger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let forged = packets::answer(&query[..length], &["a.example. 60 A 192.0.2.66"]);
    forger.send_to(&forged, asker).await.unwrap();
    resolver.send_to(&address_of(&query[..length]), asker).await.unwrap();

    let reply = client.receive().await;
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 1]);
    assert_eq!(proxy.agent.count("upstream Udp Mismatched"), 0);
}

#[tokio::test]
async fn a_lost_packet_is_sent_again_and_its_late_answer_is_harmless() {
    let asked = AtomicUsize::new(0);
    let resolver = Resolver::start(move |_, query| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => vec![],
        _ => vec![address_of(query)],
    })
    .await;
    let proxy = Proxy::start_impatient(Agent::new(&[resolver.address])).await;
    assert_eq!(answers(&ask(&proxy).await), 1);
    assert_eq!(proxy.agent.count("upstream Udp TimedOut"), 1);
}

#[tokio::test]
async fn a_silent_upstream_is_passed_over_for_the_next() {
    let silent = Resolver::start(|_, _| vec![]).await;
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[silent.address, resolver.address])).await;
    assert_eq!(answers(&ask(&proxy).await), 1);
    assert_eq!(silent.queries().len(), 1);
}

#[tokio::test]
async fn a_dead_upstream_is_passed_over_at_once() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[free_address(), resolver.address])).await;
    assert_eq!(answers(&ask(&proxy).await), 1);
    assert_eq!(proxy.agent.count("upstream Udp Unreachable"), 1);
}

#[tokio::test]
async fn when_nobody_answers_the_client_gets_servfail_and_the_reason() {
    let silent = Resolver::start(|_, _| vec![]).await;
    let proxy = Proxy::start_impatient(Agent::new(&[silent.address])).await;
    let reply = ask(&proxy).await;
    assert_eq!((rcode(&reply), answers(&reply)), (2, 0));
    let (code, text) = packets::extended_error(&reply).unwrap();
    assert!(
        code == 22 && text.contains(&silent.address.to_string()),
        "{code} {text}"
    );
    assert_eq!(silent.queries().len(), 2, "asked once more before giving up");

    let dead: SocketAddr = free_address();
    let proxy = Proxy::start_impatient(Agent::new(&[dead])).await;
    let (code, _) = packets::extended_error(&ask(&proxy).await).unwrap();
    assert_eq!(code, 23);

    let proxy = Proxy::start_impatient(Agent::new(&[])).await;
    let (code, _) = packets::extended_error(&ask(&proxy).await).unwrap();
    assert_eq!(code, 22);
}

#[tokio::test]
async fn an_upstream_that_apologises_is_believed_only_when_no_other_does_better() {
    let sorry = Resolver::start(|_, query| vec![packets::answer_with_rcode(query, 2)]).await;
    let refusing = Resolver::start(|_, query| vec![packets::answer_with_rcode(query, 5)]).await;
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[sorry.address, refusing.address, resolver.address])).await;
    assert_eq!(answers(&ask(&proxy).await), 1);

    let proxy = Proxy::start_impatient(Agent::new(&[refusing.address])).await;
    let reply = ask(&proxy).await;
    assert_eq!(rcode(&reply), 5);
    assert_eq!(packets::extended_error(&reply), None, "as the upstream said it");
    assert_eq!(refusing.queries().len(), 2, "one for each proxy");
}

#[tokio::test]
async fn a_bogus_answer_is_passed_over_for_the_next_upstream() {
    let bogus = Resolver::start(|_, query| vec![packets::answer(query, &["b.example. 60 A 192.0.2.66"])]).await;
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[bogus.address, resolver.address])).await;
    let reply = ask(&proxy).await;
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 1]);
}

#[tokio::test]
async fn a_silent_upstream_costs_a_client_its_patience_three_times_and_no_more() {
    let silent = Resolver::start(|_, _| vec![]).await;
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[silent.address, resolver.address])).await;
    for _ in 0..10 {
        assert_eq!(answers(&ask(&proxy).await), 1);
    }
    assert_eq!(proxy.agent.count("upstream Udp TimedOut"), 3);
    let told = format!("upstream {} answers=false", silent.address);
    assert_eq!(proxy.agent.count(&told), 1);
}

#[tokio::test]
async fn who_is_silent_over_tcp_is_asked_last_there_and_first_over_udp() {
    let silent_over_tcp = Resolver::start(|transport, query| match transport {
        Transport::Tcp => vec![],
        _ => vec![address_of(query)],
    })
    .await;
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start_impatient(Agent::new(&[silent_over_tcp.address, resolver.address])).await;
    let mut client = TcpClient::of(proxy.address).await;
    for _ in 0..6 {
        assert_eq!(answers(&client.ask(&packets::query("a.example.", "A")).await), 1);
        assert_eq!(answers(&ask(&proxy).await), 1);
    }
    assert_eq!(proxy.agent.count("upstream Tcp TimedOut"), 3);
    assert_eq!(proxy.agent.count("upstream Udp Answered"), 6);
    let asked = silent_over_tcp.queries();
    assert_eq!(asked.len(), 3 + 6, "over UDP it is the first still");
}
