//! Connections that are looked into: TLS names and requests, by real clients.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::Topology;
use lab::client::{self, ConnectAttempt};
use lab::process::{find_program, succeed};
use namegate_integration::{Scenario, ScenarioBuilder, ip};
use netns::Namespace;

use super::plan;

/// Two names hold this address.
const SHARED: &str = "198.51.100.7";

fn inspecting() -> ScenarioBuilder {
    plan()
        .flags("--inspect on")
        .records(&["a.example 60 A 198.51.100.7", "b.example 60 A 198.51.100.7"])
}

fn policy(annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p, namespace: shop, annotations: {{{annotations}}}}}\nspec: {spec}\n"
    )
}

/// What curl makes of a URL in a namespace, whose host is at `address`: the status of the response,
/// or its own exit code where there is none.
fn curl(from: &Namespace, address: &str, url: &str, more: &[&str]) -> Result<u16, i32> {
    let (_, rest) = url.split_once("://").unwrap();
    let host = rest.split('/').next().unwrap();
    let (name, port) = host.split_once(':').unwrap();
    let resolve = format!("{name}:{port}:{address}");
    let output = from.run(|| {
        Command::new("curl")
            .args(["-sk", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"])
            .args(["--resolve", &resolve, url])
            .args(more)
            .output()
            .unwrap()
    });
    let output = output.unwrap();
    match output.status.code() {
        Some(0) => Ok(String::from_utf8_lossy(&output.stdout).parse().unwrap()),
        code => Err(code.unwrap_or(-1)),
    }
}

/// A TLS server that tells of the connection, until it is dropped.
struct TlsServer(Child);

impl TlsServer {
    fn start(scenario: &Scenario, at: &str) -> Self {
        let [key, certificate] = ["key.pem", "certificate.pem"].map(|file| scenario.installation().scratch(file));
        let make = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ];
        let mut openssl = Command::new("openssl");
        openssl.args(make).args(["-subj", "/CN=a.example", "-days", "2"]);
        openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
        succeed(&mut openssl).unwrap();
        let child = scenario.lab().internet().namespace().run(|| {
            Command::new("openssl")
                .args(["s_server", "-quiet", "-www", "-accept", at, "-key"])
                .arg(&key)
                .arg("-cert")
                .arg(&certificate)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        });
        let server = Self(child.unwrap());
        let to: SocketAddr = at.parse().unwrap();
        scenario.wait_until("the TLS server listens", || {
            let connected = scenario.lab().internet().namespace().run(|| client::connect(to));
            connected.unwrap().unwrap().is_connected()
        });
        server
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn has_clients() -> bool {
    let has = ["curl", "openssl"]
        .iter()
        .all(|program| find_program(program).is_some());
    if !has {
        eprintln!("skipped: curl or openssl is not here");
    }
    has
}

/// curl: the connection was reset while TLS was agreed on; the server sent nothing.
const TLS_FAILED: Result<u16, i32> = Err(35);

#[test]
fn names_that_share_an_address_are_told_apart() {
    if !has_clients() {
        return;
    }
    let ports = "toPorts: [{ports: [{port: '80', protocol: TCP}, {port: '4433', protocol: TCP}]}]";
    let rules = format!("{{endpointSelector: {{}}, egress: [{{toFQDNs: [{{matchName: a.example}}], {ports}}}]}}");
    let scenario = inspecting()
        .object("p.yaml", policy("namegate.io/verify-names: enforce", &rules))
        .start();
    let _tls = TlsServer::start(&scenario, "198.51.100.7:4433");
    let pod = scenario.pod(0).namespace();
    assert_eq!(scenario.learn(0, "a.example"), ip(SHARED));
    for (url, expected) in [
        ("https://a.example:4433/", Ok(200)),
        ("https://b.example:4433/", TLS_FAILED),
        ("http://a.example:80/", Ok(200)),
        ("http://b.example:80/", Ok(403)),
        ("https://a.example:4433/", Ok(200)),
    ] {
        assert_eq!(curl(pod, SHARED, url, &[]), expected, "{url}");
    }
    // Without a name nothing tells which one is meant.
    assert_eq!(curl(pod, SHARED, "https://198.51.100.7:4433/", &[]), TLS_FAILED);
    // What was refused is told, with what it announced and the policy that asks for something else.
    let observed = scenario
        .installation()
        .inspect("observe", &["--type", "request", "-o", "json"])
        .unwrap();
    let observed = String::from_utf8_lossy(&observed.stdout).into_owned();
    for told in ["b.example", "shop/p", "refused"] {
        assert!(observed.contains(told), "{told}: {observed}");
    }
    // The request of another name on a connection of this one.
    assert_eq!(
        curl(pod, SHARED, "http://a.example:80/", &["-H", "Host: b.example"]),
        Ok(403)
    );
}

#[test]
fn only_the_names_that_a_rule_lists_are_announced() {
    if !has_clients() {
        return;
    }
    let ports = "toPorts: [{ports: [{port: '4433', protocol: TCP}], serverNames: ['*.a.example']}]";
    let rules = format!("{{endpointSelector: {{}}, egress: [{{toCIDR: [198.51.100.7/32], {ports}}}]}}");
    for (topology, mode) in [
        (Topology::Routed, "dnat"),
        (Topology::Bridged, "dnat"),
        (Topology::Routed, "tproxy"),
    ] {
        let scenario = inspecting()
            .topology(topology)
            .flags(&format!("--intercept {mode}"))
            .object("p.yaml", policy("", &rules))
            .start();
        let _tls = TlsServer::start(&scenario, "198.51.100.7:4433");
        let pod = scenario.pod(0).namespace();
        for (url, expected) in [
            ("https://www.a.example:4433/", Ok(200)),
            ("https://a.example:4433/", TLS_FAILED),
            ("https://b.example:4433/", TLS_FAILED),
        ] {
            assert_eq!(curl(pod, SHARED, url, &[]), expected, "{mode} {url}");
        }
    }
}

#[test]
fn an_edit_judges_connections_that_are_open() {
    let rules = |path: &str| {
        let ports =
            format!("toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{path: '{path}'}}]}}}}]");
        policy(
            "",
            &format!("{{endpointSelector: {{}}, egress: [{{toCIDR: [198.51.100.7/32], {ports}}}]}}"),
        )
    };
    let scenario = inspecting().object("p.yaml", rules("/")).start();
    let ConnectAttempt::Connected(mut connection) = scenario.pod(0).connect(ip(SHARED), 80).unwrap() else {
        panic!("it is let through");
    };
    for _ in 0..3 {
        assert!(connection.get("a.example").unwrap().contains("hello"));
    }
    scenario.write("p.yaml", &rules("/other"));
    scenario.wait_until("the open connection is judged by the new rules", || {
        connection.get("a.example").map_or(true, |body| !body.contains("hello"))
    });
}

#[test]
fn a_dead_agent_opens_nothing_that_is_looked_into() {
    let ports = "toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{}]}}, {ports: [{port: '8080', protocol: TCP}]}]";
    let rules = format!("{{endpointSelector: {{}}, egress: [{{toCIDR: [198.51.100.7/32], {ports}}}]}}");
    let mut scenario = inspecting().object("p.yaml", policy("", &rules)).start();
    let get = |scenario: &Scenario, port| scenario.pod(0).http_get(ip(SHARED), port, "a.example");
    for port in [80, 8080] {
        assert!(get(&scenario, port).is_ok(), "{port}");
    }
    scenario.kill();
    assert!(get(&scenario, 8080).is_ok());
    let attempt = scenario.pod(0).connect(ip(SHARED), 80).unwrap();
    assert!(attempt.is_refused(), "{attempt:?}");
    scenario.start();
    assert!(get(&scenario, 80).is_ok());
}

/// Answers every request with the address it came from, until it is dropped.
pub(super) struct WebServer {
    stop: Arc<AtomicBool>,
}

impl WebServer {
    pub(super) fn start(at: &Namespace, address: SocketAddr) -> Self {
        let listener = at.run(|| TcpListener::bind(address).unwrap()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        std::thread::spawn(move || {
            while let Ok((mut stream, from)) = listener.accept() {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::spawn(move || {
                    let (mut read, mut head) = ([0; 4096], String::new());
                    while let Ok(length @ 1..) = stream.read(&mut read) {
                        head += &String::from_utf8_lossy(&read[..length]);
                        if !head.ends_with("\r\n\r\n") {
                            continue;
                        }
                        let body = from.ip().to_canonical().to_string();
                        let of_body = body.len();
                        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {of_body}\r\n\r\n{body}");
                        if head.contains(" HTTP/1.0\r\n") {
                            return;
                        }
                        head.clear();
                    }
                });
            }
        });
        Self { stop }
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// As in the policies that Namegate was commissioned with.
const ALLOW_FRONTEND_HTTP: &str = "apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: allow-frontend-http, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: myservice}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: '80', protocol: TCP}]
      rules:
        http: [{method: 'GET', path: '/users'}]
";

#[test]
fn the_frontend_gets_users_and_nothing_else_and_nobody_else_gets_anything() {
    if !has_clients() {
        return;
    }
    let mut scenario = plan().pods(3).flags("--inspect on").build();
    scenario.remove("pods.yaml");
    for (index, app) in ["frontend", "myservice", "other"].iter().enumerate() {
        let (v4, v6) = (scenario.pod(index).address4(), scenario.pod(index).address6());
        let object = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {app}, namespace: shop, labels: {{app: {app}}}}}\nstatus: {{podIPs: [{{ip: '{v4}'}}, {{ip: '{v6}'}}]}}\n"
        );
        scenario.write(&format!("pod{index}.yaml"), &object);
    }
    scenario.write("policies.yaml", ALLOW_FRONTEND_HTTP);
    scenario.start();
    let service = scenario.pod(1);
    for address in [IpAddr::from(service.address4()), service.address6().into()] {
        let _web = WebServer::start(service.namespace(), (address, 80).into());
        let at = match address {
            IpAddr::V4(v4) => v4.to_string(),
            IpAddr::V6(v6) => format!("[{v6}]"),
        };
        let frontend = |url: &str, more: &[&str]| curl(scenario.pod(0).namespace(), &at, url, more);
        for (path, more, expected) in [
            ("/users", &[][..], Ok(200)),
            ("/users", &["-X", "POST", "-d", "x"], Ok(403)),
            ("/users", &["-I"], Ok(403)),
            ("/users/1", &[], Ok(403)),
            ("/users?all=1", &[], Ok(403)),
            ("/admin", &[], Ok(403)),
            ("/admin/../users", &["--path-as-is"], Ok(200)),
            ("/users/../admin", &["--path-as-is"], Ok(403)),
        ] {
            let url = format!("http://myservice:80{path}");
            assert_eq!(frontend(&url, more), expected, "{address} {path} {more:?}");
        }
        let attempt = scenario
            .pod(2)
            .namespace()
            .run(|| client::connect(SocketAddr::new(address, 80)));
        let attempt: ConnectAttempt = attempt.unwrap().unwrap();
        assert!(attempt.is_refused(), "{address}: {attempt:?}");
    }
}
