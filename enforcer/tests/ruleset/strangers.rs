//! Sources that are no pod's, and answers that are no resolver's, on links that lead to pods.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use enforcer::pod_links::PodLinks;
use enforcer::routing;
use policy::ProgramId;
use socket2::SockRef;

use crate::lab::{Lab, NODE_V4, Namespace, Outcome, POD_V4, POD_V6, ip};
use crate::programs::{Program, desired, governs};

const ID: ProgramId = ProgramId(7);
const SERVERS: [&str; 2] = ["10.88.0.1", "fd88::1"];
/// For what must arrive; what must not is asked for after something that did.
pub(crate) fn patience() -> Duration {
    patience::scaled(Duration::from_secs(30))
}

#[test]
fn from_its_link_local_address_a_closed_pod_reaches_nothing_and_others_go_on() {
    let Some(lab) = lab() else { return };
    let _listener = listen(&lab.node, "[::]:8080");
    let to_node = |from: &Namespace, device: &str| {
        let mut node = link_local(&lab.node, device);
        node.set_port(8080);
        node.set_scope_id(link_local(from, "eth0").scope_id());
        outcome(from.enter(|| TcpStream::connect_timeout(&node.into(), patience())))
    };
    assert_eq!(to_node(&lab.other, "other"), Outcome::Connected, "it is not governed");
    assert_ne!(to_node(&lab.pod, "pod"), Outcome::Connected);
    assert!(lab.refused() > 0);
    // What IPv6 itself needs goes on: the neighbour is found anew.
    lab.pod.ip(&["neigh", "flush", "dev", "eth0"]);
    assert_eq!(lab.pod.tries("fd66:0:0:0::1", 8080), Outcome::Refused, "by its program");
}

#[test]
fn from_an_address_that_is_no_pods_nothing_passes() {
    let Some(lab) = lab() else { return };
    lab.serve_outside(&[80]);
    let _listener = listen(&lab.node, "[::]:8080");
    // One of its own choice on the link's network; one of a governed pod's neighbour; one of the
    // node's.
    for address in ["fd66:0:0:0::99", "fd66:0:0:1::2", "fd77::1"] {
        lab.pod.add_address(address);
        for to in ["[fd77::2]:80", "[fd66:0:0:0::1]:8080"] {
            let refused = lab.refused();
            let to: SocketAddr = to.parse().unwrap();
            send_from(&lab.pod, SocketAddr::new(ip(address), 0), to, b"?");
            wait_refused(&lab, refused + 1, &format!("{address} to {to}"));
        }
    }
    for (to, port) in [("fd77::2", 80), ("10.77.0.2", 80)] {
        assert_eq!(lab.other.tries(to, port), Outcome::Connected, "{to}");
    }
}

#[test]
fn the_node_may_be_asked_for_an_address() {
    let Some(lab) = lab() else { return };
    let servers: Ipv6Addr = "ff02::1:2".parse().unwrap();
    let index = |namespace: &Namespace, device: &str| link_local(namespace, device).scope_id();
    let at_node = lab.node.enter(|| {
        let socket = UdpSocket::bind("[::]:547").unwrap();
        socket.join_multicast_v6(&servers, index(&lab.node, "pod")).unwrap();
        socket
    });
    let to = SocketAddrV6::new(servers, 547, 0, index(&lab.pod, "eth0"));
    let mut from = link_local(&lab.pod, "eth0");
    from.set_port(546);
    send_from(&lab.pod, from.into(), to.into(), b"solicit");
    assert_eq!(received(&at_node), b"solicit");

    let at_node = lab.node.enter(|| UdpSocket::bind("0.0.0.0:67").unwrap());
    lab.pod.ip(&["-4", "addr", "flush", "dev", "eth0"]);
    lab.pod.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
        socket.set_broadcast(true).unwrap();
        SockRef::from(&socket).bind_device(Some(b"eth0")).unwrap();
        socket.send_to(b"discover", "255.255.255.255:67").unwrap();
    });
    assert_eq!(received(&at_node), b"discover");
}

#[test]
fn answers_that_claim_a_resolver_are_dropped_before_anybody_believes_them() {
    let Some(lab) = lab() else { return };
    for (server, node, outside) in [
        (SERVERS[0], NODE_V4, "10.77.0.2"),
        (SERVERS[1], "fd66:0:0:0::1", "fd77::2"),
    ] {
        // The proxy's socket, not connected: even without a flow there would be one.
        let proxy = lab
            .node
            .enter(|| UdpSocket::bind(SocketAddr::new(ip(node), 0)).unwrap());
        let to = proxy.local_addr().unwrap();
        let server = SocketAddr::new(ip(server), 53);
        // A flow that the answer would belong to.
        lab.node.enter(|| proxy.send_to(b"a?", server).unwrap());
        for from in [&lab.pod, &lab.other] {
            from.add_address(&server.ip().to_string());
            let refused = lab.refused();
            send_from(from, server, to, b"forged");
            wait_refused(&lab, refused + 1, &format!("{server}"));
        }
        // From where it should come it arrives, and nothing has before it.
        let resolver = lab.outside.enter(|| UdpSocket::bind(server).unwrap());
        lab.outside.enter(|| resolver.send_to(b"true", to).unwrap());
        assert_eq!(received(&proxy), b"true");
        // Who is not governed may serve names under its own address.
        let own = if node == NODE_V4 { "10.66.1.2" } else { "fd66:0:0:1::2" };
        let at = lab
            .outside
            .enter(|| UdpSocket::bind(SocketAddr::new(ip(outside), 0)).unwrap());
        send_from(
            &lab.other,
            SocketAddr::new(ip(own), 53),
            at.local_addr().unwrap(),
            b"served",
        );
        assert_eq!(received(&at), b"served");
    }
}

/// The pod is closed, the other one is known and not governed. What routes the node has says which
/// links lead to them.
pub(crate) fn lab() -> Option<Lab> {
    let lab = Lab::new()?;
    for setting in ["all", "default", "pod", "other"] {
        lab.node.sysctl(&format!("net.ipv4.conf.{setting}.rp_filter=0"));
    }
    let closed = Program {
        closed: true,
        ..Program::default()
    };
    let mut desired = governs(desired(), [POD_V4, POD_V6], ID, closed);
    desired.servers = SERVERS.map(|server| SocketAddr::new(ip(server), 53)).into();
    let network = lab.node.enter(routing::network).unwrap();
    let others = ["10.66.1.2", "fd66:0:0:1::2"].map(|address| (ip(address), false));
    let local = [POD_V4, POD_V6].map(|address| (ip(address), true));
    desired.pod_links = PodLinks::find(&network, local.into_iter().chain(others), SERVERS.map(ip));
    assert_eq!(
        (desired.pod_links.links.len(), desired.pod_links.governed.len()),
        (2, 1)
    );
    lab.install(&desired, &[]);
    // Nobody is asked for a neighbour before that, and a packet waits three seconds at most.
    for (namespace, device) in [
        (&lab.pod, "eth0"),
        (&lab.other, "eth0"),
        (&lab.node, "pod"),
        (&lab.node, "outside"),
    ] {
        link_local(namespace, device);
    }
    Some(lab)
}

/// The first packet waits for a neighbour to be found.
pub(crate) fn wait_refused(lab: &Lab, packets: u64, what: &str) {
    let began = Instant::now();
    while lab.refused() < packets {
        assert!(began.elapsed() < patience(), "{what} was not refused");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn listen(at: &Namespace, address: &str) -> TcpListener {
    at.enter(|| TcpListener::bind(address).unwrap())
}

/// One datagram; whether anybody takes it is seen elsewhere.
pub(crate) fn send_from(namespace: &Namespace, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
    namespace.enter(|| {
        let socket = UdpSocket::bind(from).unwrap();
        socket.send_to(payload, to).unwrap();
    });
}

fn received(socket: &UdpSocket) -> Vec<u8> {
    socket.set_read_timeout(Some(patience())).unwrap();
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

fn outcome(attempt: std::io::Result<TcpStream>) -> Outcome {
    match attempt {
        Ok(_) => Outcome::Connected,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

/// The address that a link gave itself, with the link's index.
pub(crate) fn link_local(namespace: &Namespace, device: &str) -> SocketAddrV6 {
    let show = || namespace.ip(&["-6", "-o", "addr", "show", "dev", device, "scope", "link"]);
    let mut text = show();
    // Until nobody else on the link has it.
    let began = Instant::now();
    while text.contains("tentative") && began.elapsed() < patience() {
        std::thread::sleep(Duration::from_millis(50));
        text = show();
    }
    let mut words = text.split_whitespace();
    let index = words.next().unwrap().trim_end_matches(':').parse().unwrap();
    let address = words.find(|word| word.contains('/')).unwrap();
    let IpAddr::V6(address) = ip(address.split('/').next().unwrap()) else {
        panic!("{text}")
    };
    SocketAddrV6::new(address, 0, 0, index)
}
