//! Connections that are looked into, to Services and between pods of one bridge.

use std::net::{IpAddr, SocketAddr};

use lab::client;
use lab::process::find_program;
use lab::{NODE4, NODE6, Topology};
use namegate_integration::kube_proxy::{self, KubeProxyMode, ServiceTranslation};
use namegate_integration::{Scenario, ip};
use netns::Namespace;

use super::inspection::WebServer;
use super::networks::pass_bridged_frames;
use super::plan;

/// Of Service `web`, whose backend is pod 1.
const WEB: [&str; 2] = ["10.96.7.7", "fd00:10:96::77"];
/// Of Service `plain`, whose backend is pod 2. Nothing looks into what goes there.
const PLAIN: [&str; 2] = ["10.96.7.8", "fd00:10:96::78"];
const SERVICE_PORT: u16 = 80;
const NODE_PORT: u16 = 30_080;
const BACKEND_PORT: u16 = 8080;
const REQUIRED: &str = "iptables-nft-restore";

fn service(name: &str, addresses: [&str; 2], backends: [IpAddr; 2]) -> String {
    let [v4, v6] = addresses;
    let slice = |family: &str, backend: IpAddr| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-{}, namespace: shop, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: {family}\nendpoints: [{{addresses: ['{backend}']}}]\nports: [{{name: http, port: {BACKEND_PORT}, protocol: TCP}}]\n---\n",
            family.to_lowercase()
        )
    };
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{type: NodePort, clusterIP: {v4}, clusterIPs: [{v4}, '{v6}'], ports: [{{name: http, port: {SERVICE_PORT}, nodePort: {NODE_PORT}, targetPort: http, protocol: TCP}}]}}\n---\n"
    ) + &slice("IPv4", backends[0])
        + &slice("IPv6", backends[1])
}

/// Pods 0 and 1 may ask pod 1 for `/users`, and everybody may do that with pod 1; pod 0 may reach
/// pod 2 whatever it asks. Pod 2 is not governed.
fn policies() -> String {
    let egress = |pod: u8| {
        format!(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: egress{pod}, namespace: shop}}\nspec:\n  \
             endpointSelector: {{matchLabels: {{app: pod{pod}}}}}\n  egress:\n  \
             - toEndpoints: [{{matchLabels: {{app: pod1}}}}]\n    toPorts:\n    - ports: [{{port: '{BACKEND_PORT}', protocol: TCP}}]\n      \
             rules: {{http: [{{method: GET, path: '/users'}}]}}\n  - toEndpoints: [{{matchLabels: {{app: pod2}}}}]\n---\n"
        )
    };
    let ingress = format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: ingress, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: pod1}}}}\n  ingress:\n  - fromEntities: [all]\n    toPorts:\n    \
         - ports: [{{port: '{BACKEND_PORT}', protocol: TCP}}]\n      rules: {{http: [{{path: '/users'}}, {{path: '/ingress-alone'}}]}}\n"
    );
    egress(0) + &egress(1) + &ingress
}

fn addresses(scenario: &Scenario, pod: usize) -> [IpAddr; 2] {
    let pod = scenario.pod(pod);
    [pod.address4().into(), pod.address6().into()]
}

fn translations(scenario: &Scenario) -> Vec<ServiceTranslation> {
    let node = [NODE4.to_string(), NODE6.to_string()];
    let mut translations = Vec::new();
    for (name, pod, at, port) in [
        ("shop/web/http", 1, WEB.map(str::to_owned), SERVICE_PORT),
        ("shop/plain/plain", 2, PLAIN.map(str::to_owned), SERVICE_PORT),
        ("shop/web/node", 1, node, NODE_PORT),
    ] {
        for (at, backend) in at.iter().zip(addresses(scenario, pod)) {
            translations.push(ServiceTranslation {
                name,
                protocol: "tcp",
                service: (ip(at), port).into(),
                backend: (backend, BACKEND_PORT).into(),
            });
        }
    }
    translations
}

/// What a request gets: the status, and of a response with 200 whom the server saw.
fn get(from: &Namespace, to: &str, port: u16, path: &str) -> Result<(u16, String), String> {
    let to = SocketAddr::new(ip(to), port);
    let got = from.run(|| client::http(to, path)).unwrap();
    let (status, body) = got.map_err(|error| error.to_string())?;
    Ok((status, if status == 200 { body } else { String::new() }))
}

fn behind_kube_proxy(topology: Topology, mode: KubeProxyMode) {
    if mode == KubeProxyMode::Iptables && find_program(REQUIRED).is_none() {
        eprintln!("skipped: iptables-nft is not installed (package iptables)");
        return;
    }
    let mut scenario = plan().pods(3).topology(topology).flags("--inspect on").build();
    pass_bridged_frames(&scenario, true);
    let node = scenario.lab().node();
    for range in ["10.96.0.0/12", "fd00:10:96::/112"] {
        node.add_route(range.parse().unwrap(), None, "resolver").unwrap();
    }
    kube_proxy::install(node, mode, &translations(&scenario));
    let services = service("web", WEB, addresses(&scenario, 1)) + &service("plain", PLAIN, addresses(&scenario, 2));
    scenario.write("services.yaml", &services);
    scenario.write("policies.yaml", &policies());
    let servers = [1, 2].map(|pod| {
        let namespace = scenario.pod(pod).namespace();
        addresses(&scenario, pod).map(|address| WebServer::start(namespace, (address, BACKEND_PORT).into()))
    });
    scenario.start();

    let (client, hairpin) = (scenario.pod(0).namespace(), scenario.pod(1).namespace());
    let own = addresses(&scenario, 0).map(|address| address.to_string());
    let node_at = [NODE4.to_string(), NODE6.to_string()];
    for family in 0..2 {
        let what = format!("{topology:?} {mode:?} {}", WEB[family]);
        let backend = addresses(&scenario, 1)[family].to_string();
        for (to, port) in [
            (backend.as_str(), BACKEND_PORT),
            (WEB[family], SERVICE_PORT),
            (&node_at[family], NODE_PORT),
        ] {
            let ask = |path| get(client, to, port, path);
            assert_eq!(ask("/users"), Ok((200, own[family].clone())), "{what} {to}");
            // One end alone allows it.
            assert_eq!(ask("/ingress-alone"), Ok((403, String::new())), "{what} {to}");
            assert_eq!(ask("/admin"), Ok((403, String::new())), "{what} {to}");
        }
        // A pod asks itself, by its Service.
        let itself = |path| get(hairpin, WEB[family], SERVICE_PORT, path).map(|(status, _)| status);
        assert_eq!(itself("/users"), Ok(200), "{what}");
        assert_eq!(itself("/admin"), Ok(403), "{what}");
        // What nothing looks into passes, whatever it asks.
        let plain = get(client, PLAIN[family], SERVICE_PORT, "/admin");
        assert_eq!(plain, Ok((200, own[family].clone())), "{what}");
        // Somebody whom no policy selects meets the receiver's rules.
        let other = scenario.pod(2).namespace();
        let outside = scenario.lab().internet().namespace();
        for (from, to, port) in [
            (other, WEB[family], SERVICE_PORT),
            (other, &*node_at[family], NODE_PORT),
            (outside, &*node_at[family], NODE_PORT),
        ] {
            let status = |path| get(from, to, port, path).map(|(status, _)| status);
            assert_eq!(status("/users"), Ok(200), "{what} {to}");
            assert_eq!(status("/ingress-alone"), Ok(200), "{what} {to}");
            assert_eq!(status("/admin"), Ok(403), "{what} {to}");
        }
    }
    drop(servers);
}

#[test]
fn services_on_routed_links_under_iptables() {
    behind_kube_proxy(Topology::Routed, KubeProxyMode::Iptables);
}

#[test]
fn services_on_routed_links_under_nftables() {
    behind_kube_proxy(Topology::Routed, KubeProxyMode::Nftables);
}

#[test]
fn services_on_a_bridge_under_iptables() {
    behind_kube_proxy(Topology::Bridged, KubeProxyMode::Iptables);
}

#[test]
fn services_on_a_bridge_under_nftables() {
    behind_kube_proxy(Topology::Bridged, KubeProxyMode::Nftables);
}

#[test]
fn a_masqueraded_connection_is_looked_into_and_arrives_from_the_node() {
    let rules = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec:\n  \
                 endpointSelector: {}\n  egress:\n  - toCIDR: [198.51.100.7/32, '2001:db8:7::7/128']\n    \
                 toPorts: [{ports: [{port: '9090', protocol: TCP}], rules: {http: [{path: '/users'}]}}]\n";
    for topology in [Topology::Routed, Topology::Bridged] {
        let scenario = plan()
            .topology(topology)
            .flags("--inspect on")
            .object("p.yaml", rules)
            .start();
        scenario.nft(
            "add table inet outward; add chain inet outward post { type nat hook postrouting priority srcnat; }; \
             add rule inet outward post oifname internet masquerade",
        );
        let internet = scenario.lab().internet().namespace();
        let _web = WebServer::start(internet, (ip("::"), 9090).into());
        for (server, node) in [("198.51.100.7", "192.0.2.1"), ("2001:db8:7::7", "fd00:192::1")] {
            let ask = |path| get(scenario.pod(0).namespace(), server, 9090, path);
            assert_eq!(ask("/users"), Ok((200, node.to_owned())), "{topology:?}");
            assert_eq!(ask("/admin"), Ok((403, String::new())), "{topology:?} {server}");
        }
    }
}
