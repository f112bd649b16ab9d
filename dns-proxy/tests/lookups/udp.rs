//! What a client gets over UDP, and how listeners come and go.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

use dns_proxy::{DnsServer, Listener, ListenerKind, QueryTarget, ServerConfig, ServerError, SocketStore, Transport};

use crate::agent::{Agent, Proxy, free_address, impatient, plain};
use crate::client::{TcpClient, UdpClient, answers, rcode};
use crate::packets;
use crate::resolver::{Resolver, address_of};

#[tokio::test]
async fn queries_and_answers_pass_unchanged_but_for_the_id() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    // Mixed case, an option that nobody knows, the DO and the CD bit.
    let mut query = packets::query("WwW.eXample.", "A");
    query[3] |= 0x10;
    query[11] = 1;
    query.extend([0, 0, 41, 0x10, 0, 0, 0, 0x80, 0, 0, 6, 0xfd, 0xe9, 0, 2, 0xab, 0xcd]);
    let reply = client.ask(&query).await;

    let forwarded = &resolver.queries()[0];
    assert_eq!(forwarded[2..], query[2..]);
    let answer = address_of(forwarded);
    assert_eq!(reply[2..], answer[2..]);
    assert_eq!(reply[..2], query[..2]);
}

#[tokio::test]
async fn each_lookup_is_forwarded_under_an_id_of_its_own() {
    let resolver = Resolver::with_an_address().await;
    let proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;
    for _ in 0..20 {
        client.ask(&packets::query("a.example.", "A")).await;
    }
    let mut ids: Vec<_> = resolver.queries().iter().map(|query| query[..2].to_vec()).collect();
    ids.sort();
    ids.dedup();
    assert!(ids.len() > 15, "{ids:?}");
}

#[tokio::test]
async fn a_denied_name_is_answered_at_once_with_the_reason() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let client = UdpClient::of(proxy.address).await;
    let reply = client.ask(&packets::query_with_edns("X.denied.", "A", 1_232)).await;
    assert_eq!(rcode(&reply), 3);
    assert_eq!(
        packets::extended_error(&reply),
        Some((15, "no policy allows this name".into()))
    );
    proxy.agent.observed("query forwarded=false", 1).await;
    proxy.agent.observed("reply 3", 1).await;
}

#[tokio::test]
async fn what_is_no_query_gets_no_answer_and_the_next_one_does() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let client = UdpClient::of(proxy.address).await;
    client.send(b"short").await;
    client
        .send(&packets::answer(&packets::query("a.example.", "A"), &[]))
        .await;
    client.send(b"").await;
    let reply = client.ask(&packets::query("x.denied.", "A")).await;
    assert_eq!(rcode(&reply), 3);
    proxy.agent.observed("discarded NotAQuery", 3).await;
    assert!(client.has_nothing());
}

#[tokio::test]
async fn bad_queries_are_answered_by_their_kind() {
    let proxy = Proxy::start(Agent::new(&[])).await;
    let client = UdpClient::of(proxy.address).await;
    let query = packets::query("a.example.", "A");
    let mut update = query.clone();
    update[2] = 0x28;
    assert_eq!(rcode(&client.ask(&update).await), 4);
    let garbage = [&query[..], b"garbage"].concat();
    assert_eq!(rcode(&client.ask(&garbage).await), 1);
    for transfer in [252, 251] {
        let mut query = packets::query("example.", "AXFR");
        let qtype = query.len() - 3;
        query[qtype] = transfer;
        assert_eq!(rcode(&client.ask(&query).await), 5);
    }
    assert!(proxy.agent.questions().is_empty(), "none of them reaches the gate");
}

#[tokio::test]
async fn a_long_answer_is_learned_whole_and_truncated_for_the_client() {
    let resolver = Resolver::start(|transport, query| {
        let records: Vec<String> = (0..100).map(|i| format!("a.example. 60 A 192.0.2.{i}")).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let mut answer = packets::answer(query, &records);
        if transport == Transport::Udp {
            // As much as fits, which is not to be believed in.
            answer = packets::answer(query, &records[..3]);
            answer[2] |= 0x02;
        }
        vec![answer]
    })
    .await;
    let proxy = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(proxy.address).await;

    client.send(&packets::query_with_edns("A.example.", "A", 600)).await;
    let pending = proxy.agent.pending().await;
    assert_eq!(pending.validated.addresses.len(), 100);
    pending.commit.send(Ok(())).unwrap();
    let reply = client.receive().await;
    assert_eq!((rcode(&reply), answers(&reply)), (0, 0));
    assert_eq!(reply[2] & 0x02, 0x02, "TC");
    assert_eq!(
        reply[12..23],
        *b"\x01A\x07example\x00",
        "the question in the client's case"
    );
    assert_eq!(reply[11], 1, "OPT, since the client sent one");
    proxy.agent.observed("upstream Udp Truncated", 1).await;
    proxy.agent.observed("upstream Tcp Answered", 1).await;

    // One that takes more gets all of it, and so does one over TCP.
    client.send(&packets::query_with_edns("a.example.", "A", 4_096)).await;
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 100);
    let mut client = TcpClient::of(proxy.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    proxy.agent.pending().await.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 100);
}

#[tokio::test]
async fn listeners_say_whom_their_clients_asked() {
    let resolver = Resolver::with_an_address().await;
    let mut proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let dnat = Listener {
        address: free_address(),
        kind: ListenerKind::Dnat("198.51.100.53:53".parse().unwrap()),
    };
    proxy.server.listen(&[plain(proxy.address), dnat]).await.unwrap();
    assert_eq!(proxy.server.listeners().len(), 2);

    for address in [proxy.address, dnat.address] {
        UdpClient::of(address)
            .await
            .ask(&packets::query("a.example.", "A"))
            .await;
        TcpClient::of(address)
            .await
            .ask(&packets::query("a.example.", "A"))
            .await;
    }
    let asked: Vec<QueryTarget> = proxy.agent.questions().into_iter().map(|(_, asked, _)| asked).collect();
    let intercepted = QueryTarget::Resolver("198.51.100.53:53".parse().unwrap());
    assert_eq!(
        asked,
        [QueryTarget::Proxy, QueryTarget::Proxy, intercepted, intercepted]
    );
}

#[tokio::test]
async fn a_wildcard_listener_answers_from_the_address_that_was_asked() {
    let resolver = Resolver::with_an_address().await;
    let mut proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    // Below the range that other sockets get their ports from.
    let port = 20_000 + (std::process::id() % 10_000) as u16;
    let v4: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
    // Both families side by side on one port.
    let v6: SocketAddr = (Ipv6Addr::UNSPECIFIED, port).into();
    proxy.server.listen(&[plain(v4), plain(v6)]).await.unwrap();

    // The clients are connected: an answer from another address would not reach them.
    for asked in ["127.0.0.7", "127.0.0.8", "::1"] {
        let asked: IpAddr = asked.parse().unwrap();
        let client = UdpClient::of((asked, port).into()).await;
        let reply = client.ask(&packets::query("a.example.", "A")).await;
        assert_eq!(answers(&reply), 1);
    }
}

#[tokio::test]
async fn a_listener_that_ends_answers_what_it_was_asked_and_leaves_the_rest_to_its_successor() {
    let resolver = Resolver::with_an_address().await;
    let mut old = Proxy::start(Agent::that_holds(&[resolver.address])).await;
    let client = UdpClient::of(old.address).await;
    client.send(&packets::query("a.example.", "A")).await;
    let pending = old.agent.pending().await;

    // Another process on the same address, as in an upgrade.
    let mut new = Proxy::start(Agent::new(&[resolver.address])).await;
    new.server.listen(&[plain(old.address)]).await.unwrap();
    old.server.listen(&[]).await.unwrap();
    assert!(old.server.listeners().is_empty());
    for _ in 0..20 {
        let client = UdpClient::of(old.address).await;
        assert_eq!(rcode(&client.ask(&packets::query("x.denied.", "A")).await), 3);
    }
    assert_eq!(new.agent.count("reply 3"), 20);
    assert_eq!(old.server.in_flight(), 1);
    pending.commit.send(Ok(())).unwrap();
    assert_eq!(answers(&client.receive().await), 1);
    old.agent.observed("reply 0", 1).await;
}

/// Sockets that outlive a proxy, as under the supervisor.
#[derive(Default)]
struct KeptSockets(Mutex<HashMap<String, OwnedFd>>);

impl SocketStore for KeptSockets {
    fn take(&self, name: &str) -> Option<OwnedFd> {
        self.0.lock().unwrap().get(name)?.try_clone().ok()
    }

    fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        let socket = socket.try_clone_to_owned().unwrap();
        self.0.lock().unwrap().insert(name.into(), socket);
    }

    fn forget(&self, name: &str) {
        self.0.lock().unwrap().remove(name);
    }
}

#[tokio::test]
async fn lookups_that_wait_for_the_next_agent_are_answered_whatever_number_of_workers_it_has() {
    const CLIENTS: usize = 32;
    let query = packets::query("x.denied.", "A");
    for (before, after) in [(1, 3), (3, 1), (4, 3), (2, 2)] {
        let (kept, address) = (Arc::new(KeptSockets::default()), free_address());
        let start = async |workers| {
            let config = ServerConfig { workers, ..impatient() };
            let mut server = DnsServer::new(Arc::new(Agent::new(&[])), config);
            server.keep_sockets(kept.clone());
            server.listen(&[plain(address)]).await.unwrap();
            server
        };
        drop(start(before).await);
        // Their queries wait in all sockets that are kept.
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = UdpClient::of(address).await;
            client.send(&query).await;
            clients.push(client);
        }
        let _server = start(after).await;
        for client in clients {
            assert_eq!(rcode(&client.receive().await), 3, "{before} workers, then {after}");
        }
        assert_eq!(kept.0.lock().unwrap().len(), after + 1, "UDP sockets, and one for TCP");
        for _ in 0..CLIENTS {
            let client = UdpClient::of(address).await;
            assert_eq!(rcode(&client.ask(&query).await), 3, "{before} workers, then {after}");
        }
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_named_and_changes_nothing() {
    let mut proxy = Proxy::start(Agent::new(&[])).await;
    let foreign = plain("192.0.2.1:5353".parse().unwrap());
    let error = proxy.server.listen(&[foreign]).await.unwrap_err();
    assert!(matches!(error, ServerError::Bind { transport: "UDP", .. }));
    assert!(error.to_string().contains("192.0.2.1:5353"), "{error}");
    assert_eq!(proxy.server.listeners(), [plain(proxy.address)]);
    let client = UdpClient::of(proxy.address).await;
    assert_eq!(rcode(&client.ask(&packets::query("x.denied.", "A")).await), 3);
}

#[tokio::test]
async fn a_dropped_server_gives_its_addresses_back() {
    let Proxy { server, address, .. } = Proxy::start(Agent::new(&[])).await;
    drop(server);
    // The tasks that own the sockets are cancelled, which the runtime does when it comes to them.
    while std::net::UdpSocket::bind(address).is_err() || std::net::TcpListener::bind(address).is_err() {
        tokio::task::yield_now().await;
    }
}
