//! Upstreams that speak DNS cookies, and those that do not (RFC 7873).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dns_proxy::Transport;

use crate::agent::{Agent, Proxy, impatient};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

/// One worker, which learns what the upstream speaks once.
async fn start(resolver: &Resolver) -> (Proxy, UdpClient) {
    let mut config = impatient();
    config.workers = 1;
    let proxy = Proxy::start_with(Agent::new(&[resolver.address]), config).await;
    let client = UdpClient::of(proxy.address).await;
    (proxy, client)
}

/// The answer, with the cookie of a server that knows ours.
fn with_cookie(query: &[u8], server: &[u8]) -> Vec<u8> {
    let cookie = [&sent_cookie(query).unwrap()[..8], server].concat();
    let mut answer = address_of(query);
    answer[11] = 1;
    answer.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 4 + cookie.len() as u8]);
    answer.extend([0, 10, 0, cookie.len() as u8]);
    answer.extend(cookie);
    answer
}

/// The COOKIE option of a query.
fn sent_cookie(query: &[u8]) -> Option<Vec<u8>> {
    let at = query
        .windows(4)
        .rposition(|it| it[..3] == [0, 10, 0] && matches!(it[3], 8 | 16..=40))?;
    let length = usize::from(query[at + 3]);
    (at + 4 + length == query.len()).then(|| query[at + 4..].to_vec())
}

#[tokio::test]
async fn who_sends_cookies_is_shown_its_own_and_no_client_sees_them() {
    let resolver = Resolver::start(|_, query| vec![with_cookie(query, b"+servers")]).await;
    let (_proxy, client) = start(&resolver).await;
    for query in [
        packets::query("a.example.", "A"),
        packets::query_with_edns("b.example.", "A", 4_096),
    ] {
        let reply = client.ask(&query).await;
        assert_eq!(answers(&reply), 1);
        assert_eq!(sent_cookie(&reply), None);
        assert_eq!(reply[11], query[11], "OPT if the client sent one");
    }
    let cookies: Vec<Vec<u8>> = resolver.queries().iter().map(|it| sent_cookie(it).unwrap()).collect();
    assert_eq!((cookies[0].len(), cookies[1].len()), (8, 16));
    assert_eq!(cookies[1], [&cookies[0][..], b"+servers"].concat());
    let offers_1232 = |query: &Vec<u8>| query.windows(5).any(|it| it == [0, 0, 41, 4, 208]);
    assert!(resolver.queries().iter().all(offers_1232));
}

#[tokio::test]
async fn a_forged_answer_without_the_cookie_is_not_believed() {
    let forges = AtomicBool::new(false);
    let resolver = Resolver::start(move |transport, query| {
        let genuine = with_cookie(query, b"+servers");
        if transport == Transport::Tcp || !forges.swap(true, Ordering::Relaxed) {
            return vec![genuine];
        }
        // It has hit the port and the id.
        let mut forged = address_of(query);
        let address = forged.len() - 1;
        forged[address] = 66;
        vec![forged, genuine]
    })
    .await;
    let (proxy, client) = start(&resolver).await;
    assert_eq!(answers(&client.ask(&packets::query("a.example.", "A")).await), 1);
    let reply = client.ask(&packets::query("b.example.", "A")).await;
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 1]);
    assert_eq!(proxy.agent.count("upstream Udp Unproven"), 1);
    assert_eq!(proxy.agent.count("upstream Tcp Answered"), 1);
}

#[tokio::test]
async fn an_answer_with_another_cookie_is_waited_out() {
    let resolver = Resolver::start(|_, query| {
        let mut forged = with_cookie(query, b"+servers");
        let at = forged.len() - 16;
        forged[at] ^= 1;
        let length = forged.len();
        forged[length - 16 - 4 - 11 - 1] = 66;
        vec![forged, with_cookie(query, b"+servers")]
    })
    .await;
    let (proxy, client) = start(&resolver).await;
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!(reply[reply.len() - 4..], [192, 0, 2, 1]);
    assert_eq!(proxy.agent.count("upstream Udp Mismatched"), 1);
}

#[tokio::test]
async fn an_upstream_that_knows_cookies_no_more_is_believed_after_one_question_by_tcp() {
    let asked = AtomicUsize::new(0);
    let resolver = Resolver::start(move |_, query| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => vec![with_cookie(query, b"+servers")],
        _ => vec![address_of(query)],
    })
    .await;
    let (proxy, client) = start(&resolver).await;
    for _ in 0..5 {
        assert_eq!(answers(&client.ask(&packets::query("a.example.", "A")).await), 1);
    }
    assert_eq!(proxy.agent.count("upstream Tcp Answered"), 1);
}

#[tokio::test]
async fn badcookie_is_answered_with_the_new_cookie_and_then_by_tcp() {
    let resolver = Resolver::start(|transport, query| {
        let mut answer = with_cookie(query, b"+anothr+");
        let wanted = sent_cookie(query).unwrap().ends_with(b"+anothr+");
        let is_picky = query.windows(5).any(|it| it == b"picky");
        if transport == Transport::Udp && (!wanted || is_picky) {
            answer[3] |= 7;
            let rcode = answer.len() - 16 - 4 - 6;
            answer[rcode] = 1;
        }
        vec![answer]
    })
    .await;
    let (proxy, client) = start(&resolver).await;
    let reply = client.ask(&packets::query("a.example.", "A")).await;
    assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
    assert_eq!(resolver.queries().len(), 2);
    let reply = client.ask(&packets::query("picky.", "A")).await;
    assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
    assert_eq!(
        (resolver.queries().len(), proxy.agent.count("upstream Tcp Answered")),
        (5, 1)
    );
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_is_asked_without_from_then_on() {
    for (knows_edns, asked) in [(true, 3), (false, 4)] {
        let resolver = Resolver::start(move |_, query| {
            let too_much = match knows_edns {
                true => sent_cookie(query).is_some(),
                false => query[11] > 0,
            };
            match too_much {
                true => vec![packets::answer_with_rcode(&query[..query.len()], 1)],
                false => vec![address_of(query)],
            }
        })
        .await;
        let (_proxy, client) = start(&resolver).await;
        for name in ["a.example.", "b.example."] {
            let reply = client.ask(&packets::query(name, "A")).await;
            assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
        }
        assert_eq!(resolver.queries().len(), asked);
    }
}

#[tokio::test]
async fn an_upstream_that_falls_silent_at_a_cookie_is_asked_without() {
    let resolver = Resolver::start(|_, query| match sent_cookie(query) {
        Some(_) => vec![],
        None => vec![address_of(query)],
    })
    .await;
    let (proxy, client) = start(&resolver).await;
    for _ in 0..3 {
        assert_eq!(answers(&client.ask(&packets::query("a.example.", "A")).await), 1);
    }
    assert_eq!(proxy.agent.count("upstream Udp TimedOut"), 1);
}

/// Cookies are between neighbours there, too.
#[tokio::test]
async fn a_question_that_came_by_tcp_shows_the_upstream_our_own_cookie() {
    let resolver = Resolver::start(|_, query| match sent_cookie(query) {
        Some(_) => vec![with_cookie(query, b"+servers")],
        None => vec![address_of(query)],
    })
    .await;
    let (proxy, _) = start(&resolver).await;
    let mut client = TcpClient::of(proxy.address).await;
    for query in [
        packets::query("a.example.", "A"),
        packets::query_with_edns("b.example.", "A", 4_096),
    ] {
        let reply = client.ask(&query).await;
        assert_eq!(answers(&reply), 1);
        assert_eq!(sent_cookie(&reply), None);
        assert_eq!(reply[11], query[11], "OPT if the client sent one");
    }
    let cookies: Vec<Option<Vec<u8>>> = resolver.queries().iter().map(|it| sent_cookie(it)).collect();
    let [Some(first), Some(second)] = &cookies[..] else {
        panic!("{cookies:?}");
    };
    assert_eq!((first.len(), second.len()), (8, 16));
    assert_eq!(*second, [&first[..], b"+servers"].concat());
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_edns_is_asked_without_for_clients_over_tcp_too() {
    for (knows_edns, asked) in [(true, 3), (false, 4)] {
        let resolver = Resolver::start(move |_, query| {
            let too_much = match knows_edns {
                true => sent_cookie(query).is_some(),
                false => query[11] > 0,
            };
            match too_much {
                true => vec![packets::answer_with_rcode(query, 1)],
                false => vec![address_of(query)],
            }
        })
        .await;
        let (proxy, _) = start(&resolver).await;
        let mut client = TcpClient::of(proxy.address).await;
        for name in ["a.example.", "b.example."] {
            let reply = client.ask(&packets::query(name, "A")).await;
            assert_eq!((rcode(&reply), answers(&reply)), (0, 1));
        }
        assert_eq!(resolver.queries().len(), asked);
    }
}
