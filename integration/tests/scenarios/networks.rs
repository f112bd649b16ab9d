//! Beside other people's networks: kube-proxy's modes, pods on routed links and on bridges, a cache
//! on every node.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::thread;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::{DnsReply, LookupTransport};
use lab::process::find_program;
use lab::{NODE4, RESOLVER, RESOLVER6, Topology, dns};
use namegate_integration::kube_proxy::{self, KubeProxyMode, ServiceTranslation};
use namegate_integration::{Scenario, ip, policy};
use netns::Namespace;
use serde_json::Value;

use super::plan;

const DNS4: &str = "10.96.0.10";
const DNS6: &str = "fd00:10:96::a";
const WEB4: &str = "10.96.7.7";
const WEB6: &str = "fd00:10:96::77";
/// The Service's port, and its backend's.
const WEB_PORT: u16 = 80;
const BACKEND_PORT: u16 = 8080;

const NODE_LOCAL: &str = "169.254.20.10";

const RECORDS: [&str; 3] = [
    "api.example 60 A 198.51.100.7",
    "api.example 60 AAAA 2001:db8:7::7",
    "other.example 60 A 198.51.100.8",
];

#[test]
fn on_routed_links_under_iptables() {
    beside_kube_proxy(Topology::Routed, KubeProxyMode::Iptables, "dnat");
}

#[test]
fn on_routed_links_under_nftables() {
    beside_kube_proxy(Topology::Routed, KubeProxyMode::Nftables, "dnat");
}

#[test]
fn on_routed_links_with_tproxy_under_either() {
    beside_kube_proxy(Topology::Routed, KubeProxyMode::Iptables, "tproxy");
    beside_kube_proxy(Topology::Routed, KubeProxyMode::Nftables, "tproxy");
}

#[test]
fn on_a_bridge_under_iptables() {
    beside_kube_proxy(Topology::Bridged, KubeProxyMode::Iptables, "dnat");
}

#[test]
fn on_a_bridge_under_nftables() {
    beside_kube_proxy(Topology::Bridged, KubeProxyMode::Nftables, "dnat");
}

/// Lookups to the DNS Service are intercepted; names open and refuse; ports are those behind a
/// Service.
fn beside_kube_proxy(topology: Topology, mode: KubeProxyMode, intercept: &str) {
    if mode == KubeProxyMode::Iptables && find_program("iptables-nft-restore").is_none() {
        eprintln!("skipped: iptables-nft is not installed (package iptables)");
        return;
    }
    let mut scenario = plan()
        .topology(topology)
        .flags(&format!("--intercept {intercept}"))
        .object("services.yaml", services())
        .object("policy.yaml", by_port(BACKEND_PORT))
        .records(&RECORDS)
        .build();
    pass_bridged_frames(&scenario, true);
    let node = scenario.lab().node();
    for range in ["10.96.0.0/12", "fd00:10:96::/112"] {
        node.add_route(range.parse().unwrap(), None, "resolver").unwrap();
    }
    kube_proxy::install(node, mode, &translations(&scenario));
    serve(scenario.pod(1).namespace());
    scenario.start();
    let what = format!("{topology:?} {mode:?} {intercept}");

    for (server, kind) in [(DNS4, RecordType::A), (DNS6, RecordType::AAAA)] {
        for over in [LookupTransport::Udp, LookupTransport::Tcp] {
            let ask = |name| scenario.pod(0).resolve(dns(ip(server)), name, kind, over).unwrap();
            assert!(ask("api.example").address().is_some(), "{what} {server} {over:?}");
            assert_eq!(
                ask("other.example").code(),
                ResponseCode::NXDomain,
                "{what} {server} {over:?}"
            );
        }
    }
    assert_eq!(scenario.lab().resolver().asked("other.example"), 0, "{what}");
    for open in ["198.51.100.7", "2001:db8:7::7"] {
        assert!(scenario.connect(0, ip(open)).is_connected(), "{what} {open}");
    }
    assert!(scenario.connect(0, ip("198.51.100.8")).is_refused(), "{what}");

    for service in [WEB4, WEB6] {
        let attempt = scenario.pod(0).connect(ip(service), WEB_PORT).unwrap();
        assert!(attempt.is_connected(), "{what} {service}: {attempt:?}");
    }
    scenario.write("policy.yaml", &by_port(WEB_PORT));
    for service in [WEB4, WEB6] {
        scenario.wait_until("the Service's own port opens nothing", || {
            let attempt = scenario.pod(0).connect(ip(service), WEB_PORT).unwrap();
            match topology {
                Topology::Routed => attempt.is_refused(),
                // The kernel sends the reset of a bridged packet past the translation, and the Pod
                // does not know whose it is.
                Topology::Bridged => !attempt.is_connected(),
            }
        });
    }
    // Whom no policy selects goes through kube-proxy as ever.
    let other = scenario
        .pod(1)
        .resolve(dns(ip(DNS4)), "other.example", RecordType::A, LookupTransport::Udp);
    assert_eq!(other.unwrap().addresses(), [ip("198.51.100.8")], "{what}");

    let findings = doctor(&scenario);
    let problems: Vec<&Value> = findings
        .iter()
        .filter(|finding| finding["level"] == "problem")
        .collect();
    assert_eq!(problems, [] as [&Value; 0], "{what}");
}

#[test]
fn a_bridge_that_passes_no_frames_on_is_named_by_doctor_and_the_rest_holds() {
    let scenario = plan()
        .topology(Topology::Bridged)
        .object("policy.yaml", by_port(BACKEND_PORT))
        .records(&RECORDS)
        .build();
    pass_bridged_frames(&scenario, false);
    let mut scenario = scenario;
    serve(scenario.pod(1).namespace());
    scenario.start();
    // What leaves the bridge passes the rules.
    scenario.learn(0, "api.example");
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.8")).is_refused());
    let denied = scenario.ask(0, "other.example", RecordType::A);
    assert_eq!(denied.code(), ResponseCode::NXDomain);
    // What stays on it does not: the policy allows pod 1 at port 8080, and nothing at 9.
    let beside = scenario.pod(1).address4();
    assert!(
        !scenario.pod(0).connect(beside, 9).unwrap().is_connected(),
        "nothing listens there"
    );
    let seen = counted_at_forward(&scenario, beside.into());
    assert!(scenario.pod(0).connect(beside, BACKEND_PORT).unwrap().is_connected());
    assert_eq!(counted_at_forward(&scenario, beside.into()), seen, "no hook saw it");
    assert_eq!(level(&doctor(&scenario), "bridge-netfilter"), "problem");

    // As doctor says, and no restart is needed.
    pass_bridged_frames(&scenario, true);
    assert!(scenario.pod(0).connect(beside, BACKEND_PORT).unwrap().is_connected());
    assert!(scenario.pod(0).connect(beside, 9).unwrap().is_refused());
    assert!(counted_at_forward(&scenario, beside.into()) > seen, "now they pass");
    assert_eq!(level(&doctor(&scenario), "bridge-netfilter"), "ok");
}

#[test]
fn a_cache_on_every_node_is_a_known_resolver_like_any_other() {
    let scenario = beside_node_local_cache();
    assert_intercepted(&scenario);
    assert_eq!(level(&doctor(&scenario), "untracked-lookups"), "ok");
    assert_eq!(level(&doctor(&scenario), "second-resolver"), "ok");
}

#[test]
fn a_cache_that_switches_connection_tracking_off_is_stood_in_front_of_all_the_same() {
    if find_program("iptables-nft-restore").is_none() {
        eprintln!("skipped: iptables-nft is not installed (package iptables)");
        return;
    }
    let mut scenario = beside_node_local_cache();
    untrack_lookups(&scenario);
    assert_intercepted(&scenario);
    assert_eq!(level(&doctor(&scenario), "untracked-lookups"), "ok");
    // Without an agent lookups fall through to the cache, untracked as it wants them.
    scenario.terminate();
    for over in [LookupTransport::Udp, LookupTransport::Tcp] {
        let reply = resolve_locally(&scenario, 0, "other.example", over).unwrap();
        assert_eq!(reply.addresses(), [ip("198.51.100.8")], "{over:?}");
    }
    assert!(scenario.connect(0, ip("198.51.100.8")).is_refused());
}

/// What node-cache writes unless it is told -setupiptables=false.
fn untrack_lookups(scenario: &Scenario) {
    for protocol in ["udp", "tcp"] {
        scenario.shell(&format!(
            "iptables-nft -t raw -A PREROUTING -d {NODE_LOCAL}/32 -p {protocol} --dport 53 -j CT --notrack
             iptables-nft -t raw -A OUTPUT -d {NODE_LOCAL}/32 -p {protocol} --dport 53 -j CT --notrack
             iptables-nft -t raw -A OUTPUT -s {NODE_LOCAL}/32 -p {protocol} --sport 53 -j CT --notrack
             iptables-nft -A INPUT -d {NODE_LOCAL}/32 -p {protocol} --dport 53 -j ACCEPT
             iptables-nft -A OUTPUT -s {NODE_LOCAL}/32 -p {protocol} --sport 53 -j ACCEPT"
        ));
    }
}

#[test]
fn a_pod_that_may_speak_dns_over_tls_to_anybody_is_named_by_doctor() {
    let wide = |ports: &str| {
        policy(
            "wide",
            0,
            &format!("  egress:\n  - toEntities: [world]\n    toPorts: [{{ports: [{ports}]}}]\n"),
        )
    };
    let scenario = plan().object("policy.yaml", wide("{port: '443'}")).start();
    assert_eq!(level(&doctor(&scenario), "encrypted-dns"), "ok");
    scenario.write("policy.yaml", &wide("{port: '800', endPort: 900}"));
    scenario.wait_until("doctor names it", || {
        level(&doctor(&scenario), "encrypted-dns") == "note"
    });
}

/// The agent on a node with a forwarder on 169.254.20.10, which pods are told to ask.
fn beside_node_local_cache() -> Scenario {
    let mut scenario = plan()
        .upstreams(&[NODE_LOCAL])
        .allow(0, &["api.example"])
        .records(&RECORDS)
        .build();
    scenario.shell(&format!("ip addr add {NODE_LOCAL}/32 dev lo"));
    forward(scenario.lab().node(), SocketAddr::new(ip(NODE_LOCAL), 53));
    scenario.start();
    scenario
}

fn assert_intercepted(scenario: &Scenario) {
    for over in [LookupTransport::Udp, LookupTransport::Tcp] {
        let ask = |pod, name| resolve_locally(scenario, pod, name, over).unwrap();
        assert_eq!(ask(0, "api.example").addresses(), [ip("198.51.100.7")], "{over:?}");
        assert_eq!(ask(0, "other.example").code(), ResponseCode::NXDomain, "{over:?}");
        assert_eq!(scenario.lab().resolver().asked("other.example"), 0, "{over:?}");
    }
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.8")).is_refused());
    let other = resolve_locally(scenario, 1, "other.example", LookupTransport::Udp).unwrap();
    let expected = [ip("198.51.100.8")];
    assert_eq!(other.addresses(), expected, "whom no policy selects asks the cache");
}

fn resolve_locally(scenario: &Scenario, pod: usize, name: &str, over: LookupTransport) -> io::Result<DnsReply> {
    scenario
        .pod(pod)
        .resolve(dns(ip(NODE_LOCAL)), name, RecordType::A, over)
}

/// The cluster's DNS and a Service before pod 1, as the API server would have them.
fn services() -> String {
    let service = |namespace: &str, name: &str, addresses: [&str; 2], ports: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec: {{clusterIP: {}, clusterIPs: [{}, '{}'], ports: [{ports}]}}\n---\n",
            addresses[0], addresses[0], addresses[1]
        )
    };
    let dns_ports = "{port: 53, protocol: UDP, name: dns}, {port: 53, protocol: TCP, name: dns-tcp}";
    service("kube-system", "kube-dns", [DNS4, DNS6], dns_ports)
        + &service(
            "shop",
            "web",
            [WEB4, WEB6],
            "{port: 80, targetPort: 8080, protocol: TCP}",
        )
}

/// Pod 0 may reach `api.example`, and pod 1 at `port`.
fn by_port(port: u16) -> String {
    policy(
        "egress",
        0,
        &format!(
            "  egress:\n  - toFQDNs: [{{matchName: api.example}}]\n  - toEndpoints: [{{matchLabels: {{app: pod1}}}}]\n    \
             toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]\n"
        ),
    )
}

fn translations(scenario: &Scenario) -> Vec<ServiceTranslation> {
    let at = |address: IpAddr, port| SocketAddr::new(address, port);
    let pod = scenario.pod(1);
    let mut translations = Vec::new();
    for (service, backend) in [(DNS4, IpAddr::from(RESOLVER)), (DNS6, IpAddr::from(RESOLVER6))] {
        for protocol in ["udp", "tcp"] {
            translations.push(ServiceTranslation {
                name: "kube-system/kube-dns",
                protocol,
                service: at(ip(service), 53),
                backend: at(backend, 53),
            });
        }
    }
    for (service, backend) in [
        (WEB4, IpAddr::from(pod.address4())),
        (WEB6, IpAddr::from(pod.address6())),
    ] {
        translations.push(ServiceTranslation {
            name: "shop/web",
            protocol: "tcp",
            service: at(ip(service), WEB_PORT),
            backend: at(backend, BACKEND_PORT),
        });
    }
    translations
}

/// `bridge-nf-call-*` on the node.
pub(super) fn pass_bridged_frames(scenario: &Scenario, on: bool) {
    for family in ["iptables", "ip6tables"] {
        let key = format!("bridge/bridge-nf-call-{family}");
        scenario
            .lab()
            .node()
            .set_sysctl(&key, if on { "1" } else { "0" })
            .unwrap();
    }
}

/// Packets to `address` that a counter in `forward` saw. The counter is made when it is first asked
/// for.
fn counted_at_forward(scenario: &Scenario, address: IpAddr) -> u64 {
    scenario.nft("add table inet count; add chain inet count forward { type filter hook forward priority -200; }; add counter inet count seen");
    if !scenario.nft("list chain inet count forward").contains("seen") {
        scenario.nft(&format!(
            "add rule inet count forward ip daddr {address} counter name seen"
        ));
    }
    let text = scenario.shell("nft -j list counters table inet count");
    let counters: Value = serde_json::from_str(&text).unwrap();
    let counters = counters["nftables"].as_array().unwrap().iter();
    counters
        .filter_map(|object| object["counter"]["packets"].as_u64())
        .sum()
}

/// `namegate doctor` on the node, as in a Pod on the host's network: `/sys` shows the node's links.
fn doctor(scenario: &Scenario) -> Vec<Value> {
    let run_dir = scenario.installation().scratch("run");
    let mut command = scenario.lab().node().command("unshare");
    let script = r#"mount -t sysfs sysfs /sys; exec "$@""#;
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
    command.arg(env!("CARGO_BIN_EXE_namegate-under-test"));
    command.args(["doctor", "-o", "json", "--run-dir"]).arg(run_dir);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn level<'a>(findings: &'a [Value], code: &str) -> &'a str {
    let mut of_code = findings.iter().filter(|finding| finding["code"] == code);
    of_code
        .next()
        .and_then(|finding| finding["level"].as_str())
        .unwrap_or("not there")
}

/// Accepts connections to the backend's port, until the test's process ends.
fn serve(pod: &Namespace) {
    let listener = pod.run(|| TcpListener::bind(("::", BACKEND_PORT))).unwrap().unwrap();
    thread::spawn(move || for _connection in listener.incoming() {});
}

/// A forwarder to the lab's resolver, over UDP and TCP, until the test's process ends.
fn forward(node: &Namespace, at: SocketAddr) {
    let (udp, tcp) = node
        .run(|| io::Result::Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?)))
        .unwrap()
        .unwrap();
    let upstream = dns(RESOLVER);
    let node_for_udp = node.clone();
    thread::spawn(move || {
        let mut packet = [0; 4096];
        while let Ok((length, client)) = udp.recv_from(&mut packet) {
            let question = &packet[..length];
            let answer = node_for_udp.run(|| {
                let socket = UdpSocket::bind(SocketAddr::new(NODE4.into(), 0))?;
                socket.send_to(question, upstream)?;
                let mut answer = vec![0; 4096];
                let length = socket.recv(&mut answer)?;
                answer.truncate(length);
                io::Result::Ok(answer)
            });
            if let Ok(Ok(answer)) = answer {
                let _ = udp.send_to(&answer, client);
            }
        }
    });
    let node = node.clone();
    thread::spawn(move || {
        for client in tcp.incoming().map_while(Result::ok) {
            let Ok(Ok(server)) = node.run(|| std::net::TcpStream::connect(upstream)) else {
                continue;
            };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut from, &mut to));
            let (mut from, mut to) = (server, client);
            thread::spawn(move || io::copy(&mut from, &mut to));
        }
    });
}
