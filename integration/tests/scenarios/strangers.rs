//! What comes from a pod's link and is no pod's: addresses of the link, addresses that nobody was
//! given, and pods that no object names yet.

use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpListener};

use hickory_proto::rr::RecordType;
use lab::client::{self, CONNECT_TIMEOUT, ConnectAttempt};
use lab::{NODE4, NODE6, Topology};
use namegate_integration::{Scenario, ScenarioBuilder, ip};
use netns::Namespace;
use socket2::{Domain, Socket, Type};

use super::plan;

const PORT: u16 = 8080;

fn governed() -> ScenarioBuilder {
    plan()
        .allow(0, &["a.example"])
        .records(&["a.example 60 A 198.51.100.1", "b.example 60 A 198.51.100.2"])
}

#[test]
fn a_closed_pod_on_a_routed_link_reaches_nothing_from_its_link_local_address() {
    let scenario = governed().start();
    let _listener = listen(scenario.lab().node());
    let to_node = |pod| from_link_local(&scenario, pod, scenario.lab().node(), &format!("pod{pod}"));
    assert!(to_node(1).is_connected(), "no policy selects it");
    assert!(!to_node(0).is_connected());
    // Under its own address it is what it was.
    let allowed = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, allowed).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());

    // A sandbox that is made anew has a new link, and no object says so.
    let (node, pod) = (scenario.lab().node(), scenario.pod(0).clone());
    node.delete_link("pod0").unwrap();
    node.connect("pod0", pod.namespace(), "eth0").unwrap();
    for (address, gateway) in [
        (IpAddr::from(pod.address4()), IpAddr::from(NODE4)),
        (pod.address6().into(), NODE6.into()),
    ] {
        node.add_address("pod0", gateway.into()).unwrap();
        node.add_route(address.into(), None, "pod0").unwrap();
        pod.namespace().add_address("eth0", address.into()).unwrap();
        pod.namespace().add_route(gateway.into(), None, "eth0").unwrap();
    }
    scenario.wait_until("its new link is seen", || !to_node(0).is_connected());
    assert!(to_node(1).is_connected());
}

#[test]
fn a_closed_pod_on_a_bridge_reaches_nothing_from_its_link_local_address() {
    let mut scenario = governed().topology(Topology::Bridged).build();
    for key in ["bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"] {
        scenario.lab().node().set_sysctl(key, "1").unwrap();
    }
    scenario.start();
    let _at_node = listen(scenario.lab().node());
    let _at_pod = listen(scenario.pod(1).namespace());
    let node = scenario.lab().node();
    assert!(!from_link_local(&scenario, 0, node, "cni0").is_connected());
    let beside = scenario.pod(1).namespace();
    assert!(!from_link_local(&scenario, 0, beside, "eth0").is_connected());

    let allowed = scenario.learn(0, "a.example");
    assert!(scenario.connect(0, allowed).is_connected());
    // Its neighbour is selected by nothing, nor is one that no object names yet.
    let neighbour = scenario.pod(1).namespace();
    neighbour
        .add_address("eth0", "10.244.0.77/24".parse().unwrap())
        .unwrap();
    for source in ["10.244.0.11", "10.244.0.77"] {
        let reached = connect_from(neighbour, source, "198.51.100.2", 443);
        assert!(reached.is_ok(), "{source}: {reached:?}");
    }
    assert!(scenario.try_ask(1, "b.example", RecordType::A).is_ok());
    // An address that is not of the bridge's network is nobody's.
    let pod = scenario.pod(0).namespace();
    pod.add_address("eth0", "10.99.0.7/32".parse().unwrap()).unwrap();
    let stray = connect_from(pod, "10.99.0.7", &NODE4.to_string(), PORT);
    assert!(stray.is_err(), "{stray:?}");
}

/// Connects from an address of a namespace.
fn connect_from(namespace: &Namespace, source: &str, to: &str, port: u16) -> std::io::Result<()> {
    namespace.run(|| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(ip(source), 0).into())?;
        socket.connect_timeout(&SocketAddr::new(ip(to), port).into(), CONNECT_TIMEOUT)
    })?
}

/// Connects from a pod's link-local address to another's on the same link.
fn from_link_local(scenario: &Scenario, pod: usize, to: &Namespace, link: &str) -> ConnectAttempt {
    let pod = scenario.pod(pod).namespace();
    let (_, index) = link_local(pod, "eth0");
    let (address, _) = link_local(to, link);
    let IpAddr::V6(address) = address else {
        panic!("{address}")
    };
    let to = SocketAddrV6::new(address, PORT, 0, index);
    pod.run(|| client::connect(to.into())).unwrap().unwrap()
}

/// The address that a link gave itself, and the link's index.
fn link_local(namespace: &Namespace, link: &str) -> (IpAddr, u32) {
    let mut command = namespace.command("ip");
    let output = command
        .args(["-6", "-o", "addr", "show", "dev", link, "scope", "link"])
        .output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let mut words = text.split_whitespace();
    let index = words.next().unwrap().trim_end_matches(':').parse().unwrap();
    let address = words.find(|word| word.contains('/')).unwrap();
    (ip(address.split('/').next().unwrap()), index)
}

fn listen(at: &Namespace) -> TcpListener {
    at.run(|| TcpListener::bind(("::", PORT))).unwrap().unwrap()
}
