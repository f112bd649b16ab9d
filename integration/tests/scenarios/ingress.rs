//! Who may connect to a pod: both ends of a connection decide.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};

use api::{ExplainAnswer, ExplainVerdict, TrafficDirection};
use lab::client::{self, ConnectAttempt};
use namegate_integration::{Scenario, ip};
use netns::Namespace;

use super::plan;

/// The ports at which the pods that are connected to listen.
const PORTS: [u16; 3] = [80, 6379, 8080];

/// A pod of the lab with labels of the test's, in place of the one that the lab writes.
fn pod_object(scenario: &Scenario, index: usize, namespace: &str, labels: &str, ports: &str) -> String {
    let pod = scenario.pod(index);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}, namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: main, image: none, ports: [{ports}]}}]}}\n\
         status: {{podIPs: [{{ip: '{}'}}, {{ip: '{}'}}]}}\n",
        pod.address4(),
        pod.address6()
    )
}

/// Starts an agent whose pods have these namespaces and labels, under some policies.
fn start(pods: &[(&str, &str)], policies: &str) -> Scenario {
    let count = u8::try_from(pods.len()).unwrap();
    let mut scenario = plan().pods(count).build();
    scenario.remove("pods.yaml");
    for (index, (namespace, labels)) in pods.iter().enumerate() {
        let ports = "{name: web, containerPort: 8080}";
        let object = pod_object(&scenario, index, namespace, labels, ports);
        scenario.write(&format!("pod{index}.yaml"), &object);
    }
    scenario.write("policies.yaml", policies);
    scenario.start();
    scenario
}

/// Listens in a pod, on both families, until it is dropped.
fn serve(scenario: &Scenario, index: usize) -> Vec<TcpListener> {
    let pod = scenario.pod(index);
    let addresses: [IpAddr; 2] = [pod.address4().into(), pod.address6().into()];
    let bind = || -> Vec<TcpListener> {
        let each = addresses
            .iter()
            .flat_map(|address| PORTS.map(|port| SocketAddr::new(*address, port)));
        each.map(|address| TcpListener::bind(address).unwrap()).collect()
    };
    pod.namespace().run(bind).unwrap()
}

/// One attempt over each family.
fn attempts(scenario: &Scenario, from: &Namespace, to: usize, port: u16) -> [ConnectAttempt; 2] {
    let pod = scenario.pod(to);
    let addresses: [IpAddr; 2] = [pod.address4().into(), pod.address6().into()];
    addresses.map(|address| {
        let connect = || client::connect(SocketAddr::new(address, port));
        from.run(connect).unwrap().unwrap()
    })
}

/// Whether both families connect; `None` where they differ, as they may while an edit takes effect.
fn passes_by_now(scenario: &Scenario, from: &Namespace, to: usize, port: u16) -> Option<bool> {
    let attempts = attempts(scenario, from, to, port);
    if attempts.iter().all(ConnectAttempt::is_connected) {
        return Some(true);
    }
    if attempts.iter().all(ConnectAttempt::is_refused) {
        return Some(false);
    }
    let is_decided = |attempt: &ConnectAttempt| attempt.is_connected() || attempt.is_refused();
    assert!(
        attempts.iter().all(is_decided),
        "to pod {to}, port {port}: {attempts:?}"
    );
    None
}

/// Whether both families connect; that they differ, or that one is neither let through nor refused,
/// fails the test.
fn passes(scenario: &Scenario, from: &Namespace, to: usize, port: u16) -> bool {
    let passes = passes_by_now(scenario, from, to, port);
    passes.unwrap_or_else(|| panic!("to pod {to}, port {port}: one family passes, and the other does not"))
}

fn from_pod(scenario: &Scenario, from: usize, to: usize, port: u16) -> bool {
    passes(scenario, scenario.pod(from).namespace(), to, port)
}

fn explained(scenario: &Scenario, from: &str, to: &str, port: u16) -> ExplainAnswer {
    let port = port.to_string();
    let arguments = ["--from", from, "--to", to, "--port", &port, "-o", "json"];
    let told = scenario.installation().inspect("explain", &arguments).unwrap();
    serde_json::from_slice(&told.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&told.stderr)))
}

#[test]
fn a_network_policy_lets_in_whom_it_names_at_its_port_and_the_own_node_always() {
    let scenario = start(
        &[
            ("data", "role: db"),
            ("data", "role: frontend"),
            ("data", "role: other"),
            ("else", "role: frontend"),
        ],
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: guard, namespace: data}\nspec:\n  \
         podSelector: {matchLabels: {role: db}}\n  policyTypes: [Ingress]\n  ingress:\n  \
         - from: [{podSelector: {matchLabels: {role: frontend}}}]\n    ports: [{port: 6379}]\n",
    );
    let _servers = [0, 1].map(|pod| serve(&scenario, pod));
    for (from, port, expected) in [(1, 6379, true), (1, 8080, false), (2, 6379, false), (3, 6379, false)] {
        assert_eq!(from_pod(&scenario, from, 0, port), expected, "pod {from}, port {port}");
        let told = explained(&scenario, &name_of(from), "data/p0", port);
        assert_eq!(told.verdict == ExplainVerdict::Allowed, expected, "{told:?}");
    }
    for port in PORTS {
        assert!(
            passes(&scenario, scenario.lab().node(), 0, port),
            "a probe of the own node"
        );
        assert!(
            from_pod(&scenario, 0, 1, port),
            "its egress, and others' ingress, are left alone"
        );
    }
    let own = scenario.pod(0).address4().to_string();
    assert_eq!(
        explained(&scenario, "data/p0", &own, 1).verdict,
        ExplainVerdict::Allowed
    );
}

fn name_of(pod: usize) -> String {
    let namespace = if pod == 3 { "else" } else { "data" };
    format!("{namespace}/p{pod}")
}

#[test]
fn a_denial_beats_what_other_policies_let_in() {
    let scenario = start(
        &[
            ("team", "app: backend"),
            ("team", "app: frontend"),
            ("team", "app: frontend, env: staging"),
        ],
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: split, namespace: team}\nspec:\n  \
         endpointSelector: {matchLabels: {app: backend}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {app: frontend}}]\n  \
         ingressDeny:\n  - fromEndpoints: [{matchLabels: {env: staging}}]\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: open, namespace: team}\n\
         spec: {podSelector: {}, ingress: [{}]}\n",
    );
    let _server = serve(&scenario, 0);
    for port in PORTS {
        assert!(from_pod(&scenario, 1, 0, port), "{port}");
        assert!(!from_pod(&scenario, 2, 0, port), "{port}");
    }
    let told = explained(&scenario, "team/p2", "team/p0", 80);
    let part = &told.parts[0];
    assert_eq!(part.direction, Some(TrafficDirection::Ingress));
    assert_eq!(part.rule.as_deref(), Some("spec.ingressDeny[0]"));
    let each: BTreeMap<String, ExplainVerdict> = part
        .decisions
        .iter()
        .map(|decision| (decision.direction.to_string(), decision.verdict))
        .collect();
    let expected = [("egress", ExplainVerdict::Allowed), ("ingress", ExplainVerdict::Denied)];
    assert_eq!(
        each,
        expected
            .map(|(direction, verdict)| (direction.to_owned(), verdict))
            .into()
    );
}

#[test]
fn the_senders_egress_and_the_receivers_ingress_both_decide() {
    let scenario = start(
        &[("n", "app: a"), ("n", "app: b"), ("n", "app: c")],
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out, namespace: n}\nspec:\n  \
         podSelector: {matchLabels: {app: a}}\n  policyTypes: [Egress]\n  egress: [{ports: [{port: 80}, {port: 8080}]}]\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: in, namespace: n}\nspec:\n  \
         podSelector: {matchLabels: {app: b}}\n  ingress: [{from: [{podSelector: {matchLabels: {app: a}}}], ports: [{port: web}, {port: 6379}]}]\n",
    );
    let _servers = [1, 2].map(|pod| serve(&scenario, pod));
    // `web` is 8080 at the receiver.
    for (port, expected) in [(80, false), (6379, false), (8080, true)] {
        assert_eq!(from_pod(&scenario, 0, 1, port), expected, "{port}");
        assert!(!from_pod(&scenario, 2, 1, port), "{port}: no rule lets it in");
    }
    assert!(from_pod(&scenario, 0, 2, 80), "nobody closes this one's ingress");
    assert!(!from_pod(&scenario, 0, 2, 6379), "the sender may not");
    for (port, decides) in [(80, TrafficDirection::Ingress), (6379, TrafficDirection::Egress)] {
        let told = explained(&scenario, "n/p0", "n/p1", port);
        assert_eq!(told.parts[0].direction, Some(decides), "{told:?}");
    }
}

#[test]
fn an_ip_block_means_what_comes_from_outside_but_for_its_exceptions() {
    let scenario = start(
        &[("n", "app: a"), ("n", "app: b")],
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: outside, namespace: n}\nspec:\n  \
         podSelector: {matchLabels: {app: a}}\n  ingress:\n  \
         - from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.128/25]}}]\n    ports: [{port: 8080}]\n",
    );
    let _servers = serve(&scenario, 0);
    let internet = scenario.lab().internet().namespace();
    let to = SocketAddr::new(scenario.pod(0).address4().into(), 8080);
    let from = |source: &str| {
        let source = ip(source);
        internet.run(|| client::connect_from(source, to)).unwrap().unwrap()
    };
    assert!(from("198.51.100.1").is_connected());
    assert!(from("198.51.100.200").is_refused(), "it is excepted");
    assert!(from("203.0.113.1").is_refused());
    assert!(attempts(&scenario, scenario.pod(1).namespace(), 0, 8080)[0].is_refused());
}

#[test]
fn an_edit_is_in_force_for_those_who_connect_next() {
    let closed = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: n}\nspec: {podSelector: {matchLabels: {app: a}}}\n";
    let scenario = start(&[("n", "app: a"), ("n", "app: b")], closed);
    let _servers = serve(&scenario, 0);
    assert!(!from_pod(&scenario, 1, 0, 8080), "default deny");
    assert!(
        passes(&scenario, scenario.lab().node(), 0, 8080),
        "and the own node's probes pass"
    );
    let open = closed.replace(
        "{podSelector: {matchLabels: {app: a}}}",
        "{podSelector: {matchLabels: {app: a}}, ingress: [{from: [{podSelector: {matchLabels: {app: b}}}]}]}",
    );
    let is_let_in = || passes_by_now(&scenario, scenario.pod(1).namespace(), 0, 8080);
    scenario.write("policies.yaml", &open);
    scenario.wait_until("the pod lets it in", || is_let_in() == Some(true));
    let relabelled = pod_object(&scenario, 1, "n", "app: c", "");
    scenario.write("pod1.yaml", &relabelled);
    scenario.wait_until("another pod is not let in", || is_let_in() == Some(false));
    scenario.write("policies.yaml", "# no policy\n");
    scenario.wait_until("nothing is closed", || is_let_in() == Some(true));
}

#[test]
fn a_broken_policy_closes_the_direction_that_it_speaks_of() {
    let broken = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: n}\nspec:\n  \
                  endpointSelector: {matchLabels: {app: a}}\n  ingress: [{fromEndpoint: [{}]}]\n";
    let mut scenario = plan().pods(2).build();
    scenario.remove("pods.yaml");
    for (index, labels) in [(0, "app: a"), (1, "app: b")] {
        let object = pod_object(&scenario, index, "n", labels, "");
        scenario.write(&format!("pod{index}.yaml"), &object);
    }
    scenario.write("policies.yaml", broken);
    scenario.expect_errors("policies.yaml");
    scenario.start();
    let _servers = [0, 1].map(|pod| serve(&scenario, pod));
    assert!(!from_pod(&scenario, 1, 0, 8080));
    assert!(from_pod(&scenario, 0, 1, 8080), "its egress is not spoken of");
    assert!(passes(&scenario, scenario.lab().node(), 0, 8080));
    let status = scenario.installation().status().unwrap();
    let row = status.endpoints.iter().find(|row| row.endpoint == "n/p0").unwrap();
    assert_eq!(
        (row.egress.as_str(), row.ingress.as_str()),
        ("unselected", "default-deny")
    );
}
