//! The policies that this project was made for (`commissioned.yaml`), packet by packet: TCP, UDP
//! and ping, over both families, from Pods, from the own node and from outside.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::{self, ConnectAttempt};
use namegate_integration::{Scenario, ip};
use netns::Namespace;

use super::plan;

const ALL: &str = include_str!("commissioned.yaml");
/// What no test but this one serves.
const DATABASE: u16 = 6379;

/// One of the policies, by its name.
fn policy(name: &str) -> &'static str {
    let is_it = |document: &&str| document.contains(&format!("{{name: {name}"));
    ALL.split("---\n").find(is_it).unwrap_or_else(|| panic!("{name}"))
}

/// An agent whose pods have these namespaces and labels, under one of the policies and others.
fn start(pods: &[(&str, &str)], name: &str, besides: &str) -> Scenario {
    let count = u8::try_from(pods.len()).unwrap();
    let mut scenario = plan().pods(count).build();
    scenario.remove("pods.yaml");
    for (index, (namespace, labels)) in pods.iter().enumerate() {
        let pod = scenario.pod(index);
        let object = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}, namespace: {namespace}, labels: {{{labels}}}}}\n\
             spec: {{containers: [{{name: main, image: none}}]}}\nstatus: {{podIPs: [{{ip: '{}'}}, {{ip: '{}'}}]}}\n",
            pod.address4(),
            pod.address6()
        );
        scenario.write(&format!("pod{index}.yaml"), &object);
    }
    scenario.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: project, labels: {project: myproject}}\n",
    );
    scenario.write("policy.yaml", policy(name));
    scenario.write("besides.yaml", besides);
    scenario.start();
    scenario
}

/// Servers of a pod, until they are dropped.
struct Servers {
    _tcp: Vec<TcpListener>,
    ended: Arc<AtomicBool>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Listens at these TCP ports, and echoes what comes to the first one over UDP.
fn serve(scenario: &Scenario, pod: usize, ports: &[u16]) -> Servers {
    let namespace = scenario.pod(pod).namespace();
    let addresses = addresses(scenario, pod);
    let bind = |port: &u16| addresses.map(|address| TcpListener::bind(SocketAddr::new(address, *port)).unwrap());
    let tcp = namespace.run(|| ports.iter().flat_map(bind).collect()).unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    for address in addresses {
        let at = SocketAddr::new(address, ports[0]);
        let socket = namespace.run(|| UdpSocket::bind(at)).unwrap().unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ended = Arc::clone(&ended);
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while !ended.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
    }
    Servers { _tcp: tcp, ended }
}

fn addresses(scenario: &Scenario, pod: usize) -> [IpAddr; 2] {
    let pod = scenario.pod(pod);
    [pod.address4().into(), pod.address6().into()]
}

/// Whether TCP is let through, over both families alike; one that is neither let through nor
/// refused fails the test.
fn tcp(scenario: &Scenario, from: &Namespace, to: usize, port: u16) -> bool {
    let attempts = addresses(scenario, to).map(|address| {
        let connect = || client::connect(SocketAddr::new(address, port));
        from.run(connect).unwrap().unwrap()
    });
    let passes = attempts.iter().all(ConnectAttempt::is_connected);
    assert!(
        passes || attempts.iter().all(ConnectAttempt::is_refused),
        "{port}: {attempts:?}"
    );
    passes
}

/// The same of UDP.
fn udp(scenario: &Scenario, from: &Namespace, to: usize, port: u16) -> bool {
    let answers = addresses(scenario, to).map(|address| {
        let exchange = || client::exchange_udp(SocketAddr::new(address, port), b"ping");
        match from.run(exchange).unwrap() {
            Ok(_) => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("UDP {port}: no answer and no refusal"),
            Err(_) => false,
        }
    });
    assert_eq!(answers[0], answers[1], "UDP {port}");
    answers[0]
}

fn ping(scenario: &Scenario, from: usize, to: usize) -> bool {
    scenario.pod(from).ping(scenario.pod(to).address4()).unwrap()
}

/// Gives the internet of the lab the addresses of a range.
fn add_range(scenario: &Scenario, range: &str) {
    let internet = scenario.lab().internet().namespace();
    let added = internet
        .command("ip")
        .args(["route", "add", "local", range, "dev", "lo"])
        .status()
        .unwrap();
    assert!(added.success());
    scenario.shell(&format!(
        "set -- $(ip -4 route show 198.51.100.0/24); shift; ip route add {range} \"$@\""
    ));
}

fn from_outside(scenario: &Scenario, source: &str, to: usize, port: u16) -> ConnectAttempt {
    let (source, to) = (ip(source), SocketAddr::new(scenario.pod(to).address4().into(), port));
    let internet = scenario.lab().internet().namespace();
    internet.run(|| client::connect_from(source, to)).unwrap().unwrap()
}

#[test]
fn the_database_is_reached_by_frontends_and_by_a_range_at_its_port_alone() {
    let pods = [
        ("default", "role: db"),
        ("default", "role: frontend"),
        ("default", "role: other"),
        ("elsewhere", "role: frontend"),
    ];
    let scenario = start(&pods, "test-network-policy", "# nothing\n");
    let _servers = [0, 2].map(|pod| serve(&scenario, pod, &[DATABASE, 8080]));
    add_range(&scenario, "172.17.0.0/16");
    for (from, is_frontend) in [(1, true), (2, false), (3, false)] {
        let namespace = scenario.pod(from).namespace();
        assert_eq!(tcp(&scenario, namespace, 0, DATABASE), is_frontend, "pod {from}");
        assert!(!tcp(&scenario, namespace, 0, 8080), "pod {from}: another port");
        assert!(!udp(&scenario, namespace, 0, DATABASE), "pod {from}: UDP");
        assert!(!ping(&scenario, from, 0), "pod {from}: ping");
    }
    assert!(from_outside(&scenario, "172.17.3.9", 0, DATABASE).is_connected());
    assert!(from_outside(&scenario, "172.17.3.9", 0, 8080).is_refused());
    assert!(from_outside(&scenario, "198.51.100.9", 0, DATABASE).is_refused());
    // The own node, and the database's own connections.
    let node = scenario.lab().node();
    for port in [DATABASE, 8080] {
        assert!(tcp(&scenario, node, 0, port), "a probe at {port}");
        assert!(
            tcp(&scenario, scenario.pod(0).namespace(), 2, port),
            "its egress at {port}"
        );
    }
    assert!(udp(&scenario, node, 0, DATABASE));
    assert!(udp(&scenario, scenario.pod(0).namespace(), 2, DATABASE));
    assert!(ping(&scenario, 0, 2));
    assert!(scenario.connect(0, ip("198.51.100.1")).is_connected());
}

#[test]
fn namespaces_of_a_project_and_pods_with_a_label_named_cluster_reach_the_database() {
    let pods = [
        ("default", "role: db"),
        ("project", "app: anything"),
        ("default", "cluster: cluster1"),
        ("elsewhere", "cluster: cluster1"),
        ("default", "cluster: cluster2"),
    ];
    let scenario = start(&pods, "allow-from-project-and-cluster1", "# nothing\n");
    let _servers = serve(&scenario, 0, &[DATABASE, 8080]);
    for (from, expected) in [(1, true), (2, true), (3, false), (4, false)] {
        let namespace = scenario.pod(from).namespace();
        assert_eq!(tcp(&scenario, namespace, 0, DATABASE), expected, "pod {from}");
        assert!(!tcp(&scenario, namespace, 0, 8080), "pod {from}: another port");
        assert!(!udp(&scenario, namespace, 0, DATABASE), "pod {from}: UDP");
        assert!(!ping(&scenario, from, 0), "pod {from}: ping");
    }
    // A namespace that loses the label loses the way.
    scenario.write(
        "namespace.yaml",
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: project}\n",
    );
    scenario.wait_until("the namespace is of no project", || {
        let to = addresses(&scenario, 0)[0];
        scenario.pod(1).connect(to, DATABASE).unwrap().is_refused()
    });
    assert!(tcp(&scenario, scenario.pod(2).namespace(), 0, DATABASE));
}

#[test]
fn staging_is_denied_the_backend_whatever_others_allow_but_tier_admin() {
    let pods = [
        ("default", "app: backend"),
        ("default", "app: frontend"),
        ("default", "app: frontend, env: staging"),
        ("default", "app: other"),
        ("elsewhere", "app: frontend"),
    ];
    let scenario = start(&pods, "backend-policy-with-deny", "# nothing\n");
    let _servers = serve(&scenario, 0, &[80, 8080]);
    let verdicts = || {
        [1, 2, 3, 4].map(|from| {
            let namespace = scenario.pod(from).namespace();
            let each = [
                tcp(&scenario, namespace, 0, 80),
                tcp(&scenario, namespace, 0, 8080),
                udp(&scenario, namespace, 0, 80),
                ping(&scenario, from, 0),
            ];
            assert!(each.iter().all(|verdict| *verdict == each[0]), "pod {from}: {each:?}");
            each[0]
        })
    };
    assert_eq!(verdicts(), [true, false, false, false]);
    assert!(tcp(&scenario, scenario.lab().node(), 0, 80), "a probe");
    let everybody = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open, namespace: default}\n\
                     spec: {podSelector: {}, ingress: [{}]}\n---\n\
                     apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: open, namespace: default}\n\
                     spec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}\n";
    scenario.write("besides.yaml", everybody);
    let is_let_in = |from: usize| {
        scenario
            .pod(from)
            .connect(addresses(&scenario, 0)[0], 80)
            .unwrap()
            .is_connected()
    };
    scenario.wait_until("everybody else is let in", || is_let_in(3));
    assert_eq!(verdicts(), [true, false, true, true]);
    let admin = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: staging}\n\
                 spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{action: Accept, \
                 from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {env: staging}}}}]}]}\n";
    scenario.write("besides.yaml", admin);
    // A ping goes on as the flow that it was, until that is cut.
    scenario.wait_until("tier Admin decides before", || {
        is_let_in(2) && !is_let_in(3) && !ping(&scenario, 3, 0)
    });
    assert_eq!(verdicts(), [true, true, false, false]);
}

/// `role=db` reaches what the name resolves to, at its port and from the first packet on, and
/// nothing else, in these namespaces of the pods 0 and 1.
fn reaches_the_external_service(name: &str, namespaces: [(&str, bool); 2]) {
    let pods = namespaces.map(|(namespace, _)| (namespace, "role: db"));
    let scenario = start(&pods, name, "# nothing\n");
    scenario.set(&[
        "external-service.com 60 A 198.51.100.7",
        "external-service.com 60 AAAA 2001:db8::7",
        "other.example 60 A 198.51.100.8",
    ]);
    let internet = scenario.lab().internet().namespace();
    let any = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 0], DATABASE));
    let _server = internet.run(|| TcpListener::bind(any)).unwrap().unwrap();
    let [before, after, other] = ["198.51.100.7", "198.51.100.9", "198.51.100.8"].map(ip);
    for (pod, (namespace, is_selected)) in namespaces.iter().enumerate() {
        let connect = |to: IpAddr, port: u16| scenario.pod(pod).connect(to, port).unwrap();
        if !is_selected {
            assert!(connect(other, DATABASE).is_connected(), "{namespace} is left alone");
            continue;
        }
        // What one of them has learned is open to the other, which is governed alike.
        assert!(
            pod > 0 || connect(before, DATABASE).is_refused(),
            "{namespace}: nothing is learned"
        );
        assert_eq!(scenario.learn(pod, "external-service.com"), before);
        assert!(
            connect(before, DATABASE).is_connected(),
            "{namespace}: the first packet"
        );
        scenario.ask(pod, "external-service.com", RecordType::AAAA);
        assert!(connect(ip("2001:db8::7"), DATABASE).is_connected(), "{namespace}: IPv6");
        assert!(connect(before, 80).is_refused(), "{namespace}: another port");
        assert!(connect(other, DATABASE).is_refused(), "{namespace}: another address");
        let denied = scenario.ask(pod, "other.example", RecordType::A);
        assert_eq!(denied.code(), ResponseCode::NXDomain, "{namespace}: another name");
        assert!(
            !scenario.pod(pod).ping("198.51.100.7".parse().unwrap()).unwrap(),
            "{namespace}: ping"
        );
        scenario.set(&["external-service.com 60 A 198.51.100.9"]);
        assert_eq!(scenario.learn(pod, "external-service.com"), after);
        assert!(
            connect(after, DATABASE).is_connected(),
            "{namespace}: it follows the name"
        );
        scenario.set(&[
            "external-service.com 60 A 198.51.100.7",
            "external-service.com 60 AAAA 2001:db8::7",
        ]);
    }
}

#[test]
fn the_database_reaches_an_external_service_by_its_name() {
    reaches_the_external_service("allow-external-service", [("default", true), ("elsewhere", false)]);
}

#[test]
fn databases_of_every_namespace_reach_it_by_a_clusterwide_policy() {
    reaches_the_external_service("example-clusterwide-policy", [("default", true), ("elsewhere", true)]);
}
