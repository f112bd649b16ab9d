//! Transparent interception, with real rules in a network namespace of the test's own.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use dns_proxy::{Listener, ListenerKind, QueryTarget};
use socket2::{Domain, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::agent::{Agent, Proxy};
use crate::client::{TcpClient, UdpClient, answers};
use crate::packets;
use crate::resolver::Resolver;

const TEST: &str = "tproxy::a_transparent_lookup_is_answered_as_the_resolver_that_was_asked";

/// Set in the run inside the namespace.
const INSIDE: &str = "DNS_PROXY_TEST_NAMESPACE";

/// Where lookups are sent, and where nobody is.
const RESOLVERS: [&str; 3] = ["198.51.100.53:53", "198.51.100.54:53", "[2001:db8::53]:53"];

/// Lookups that leave are routed back in through `lo`, and there to the listener.
const RULES: &str = "
    sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.lo.rp_filter=0
    ip link set lo up
    ip address add 10.1.1.2/32 dev lo
    ip address add fd00::2/128 dev lo nodad
    ip route add default dev lo src 10.1.1.2
    ip -6 route add default dev lo src fd00::2
    ip rule add fwmark 1 lookup 100
    ip -6 rule add fwmark 1 lookup 100
    ip route add local default dev lo table 100
    ip -6 route add local default dev lo table 100
    nft -f - <<EOF
        table inet test {
            chain output {
                type route hook output priority mangle
                meta l4proto { tcp, udp } th dport 53 meta mark set 1
            }
            chain prerouting {
                type filter hook prerouting priority mangle
                meta l4proto { tcp, udp } th dport 53 tproxy to :5353 meta mark set 1 accept
            }
        }
EOF
";

#[test]
fn a_transparent_lookup_is_answered_as_the_resolver_that_was_asked() {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(inside());
    }
    let available = Command::new("unshare").args(["-n", "nft", "list", "ruleset"]).output();
    if !available.is_ok_and(|output| output.status.success()) {
        println!("skipped: needs root, unshare and nft");
        return;
    }
    let run = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", TEST, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && output.contains("1 passed"), "{output}");
}

async fn inside() {
    let rules = Command::new("sh").args(["-ec", RULES]).status().unwrap();
    assert!(rules.success());
    let resolver = Resolver::with_an_address().await;
    let mut proxy = Proxy::start(Agent::new(&[resolver.address])).await;
    let tproxy = |address: &str| Listener {
        address: address.parse().unwrap(),
        kind: ListenerKind::Tproxy,
    };
    let listeners = [tproxy("0.0.0.0:5353"), tproxy("[::]:5353")];
    proxy.server.listen(&listeners).await.unwrap();
    assert_eq!(proxy.server.listeners(), listeners);

    for asked in RESOLVERS {
        let asked: SocketAddr = asked.parse().unwrap();
        let client: SocketAddr = if asked.is_ipv4() { "10.1.1.2:0" } else { "[fd00::2]:0" }
            .parse()
            .unwrap();
        let query = packets::query("a.example.", "A");
        // The client is connected: it takes an answer from the address that it asked, and from no
        // other.
        let udp = UdpClient::bound_to(client, asked).await;
        assert_eq!(answers(&udp.ask(&query).await), 1, "UDP {asked}");
        assert_eq!(answers(&udp.ask(&query).await), 1, "UDP {asked}, again");
        assert_eq!(answers(&TcpClient::of(asked).await.ask(&query).await), 1, "TCP {asked}");

        let seen = proxy.agent.questions();
        assert_eq!(seen.len(), 3);
        for (source, whom, _) in seen {
            assert_eq!((source, whom), (client.ip(), QueryTarget::Resolver(asked)));
        }
        proxy.agent.forget_questions();
    }

    a_resolver_of_this_node_keeps_what_is_sent_to_it().await;
}

/// The socket that answers in its name takes nothing that is meant for it.
async fn a_resolver_of_this_node_keeps_what_is_sent_to_it() {
    let address: SocketAddr = "10.1.1.2:53".parse().unwrap();
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking(), None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&address.into()).unwrap();
    let resolver = UdpSocket::from_std(socket.into()).unwrap();

    let client: SocketAddr = "10.1.1.2:0".parse().unwrap();
    let intercepted = UdpClient::bound_to(client, address).await;
    assert_eq!(answers(&intercepted.ask(&packets::query("a.example.", "A")).await), 1);

    let rules_gone = Command::new("nft")
        .args(["delete", "table", "inet", "test"])
        .status()
        .unwrap();
    assert!(rules_gone.success());
    // Each from another port, so that the kernel would spread them over all sockets that are there
    // for the address.
    for _ in 0..50 {
        UdpClient::bound_to(client, address).await.send(b"hello").await;
        let mut buffer = [0; 16];
        let received = timeout(Duration::from_secs(10), resolver.recv(&mut buffer)).await;
        assert_eq!(received.unwrap().unwrap(), 5);
    }
}
