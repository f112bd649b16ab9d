//! Destinations that are objects of the cluster: they have the addresses that their objects say.

use std::net::{IpAddr, SocketAddr, TcpListener};

use lab::client::ConnectAttempt;
use namegate_integration::{Scenario, ip, policy};

use super::plan;

const PORT: u16 = 8080;

#[test]
fn pods_reach_the_pods_that_endpoint_selectors_name_and_follow_their_labels() {
    let rules = "  egress:\n  - toEndpoints: [{matchLabels: {role: db}}]\n    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]\n";
    let scenario = plan().pods(4).object("db.yaml", policy("db", 0, rules)).build();
    label(&scenario, 2, "db");
    label(&scenario, 3, "web");
    let mut scenario = scenario;
    scenario.start();
    let _servers = [2, 3].map(|pod| serve(&scenario, pod));

    assert!(both(&scenario, 0, 2).iter().all(ConnectAttempt::is_connected));
    assert!(both(&scenario, 0, 3).iter().all(ConnectAttempt::is_refused));
    assert!(
        both(&scenario, 1, 3).iter().all(ConnectAttempt::is_connected),
        "nobody governs this one"
    );

    label(&scenario, 3, "db");
    scenario.wait_until("the other pod is open too", || {
        both(&scenario, 0, 3).iter().all(ConnectAttempt::is_connected)
    });
    label(&scenario, 2, "web");
    scenario.wait_until("the first pod is closed", || {
        both(&scenario, 0, 2).iter().all(ConnectAttempt::is_refused)
    });
}

#[test]
fn a_denial_of_pods_closes_these_and_no_others() {
    let rules = "  egress:\n  - toEntities: [cluster]\n  egressDeny:\n  - toEndpoints: [{matchLabels: {role: db}}]\n";
    let mut scenario = plan().pods(3).object("db.yaml", policy("db", 0, rules)).build();
    label(&scenario, 1, "db");
    label(&scenario, 2, "web");
    scenario.start();
    let _servers = [1, 2].map(|pod| serve(&scenario, pod));
    assert!(both(&scenario, 0, 1).iter().all(ConnectAttempt::is_refused));
    assert!(both(&scenario, 0, 2).iter().all(ConnectAttempt::is_connected));
}

#[test]
fn a_service_is_reached_at_its_own_address_and_its_backends_follow_the_slices() {
    let rules = "  egress:\n  - toServices: [{k8sService: {serviceName: store, namespace: shop}}]\n    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]\n";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: store, namespace: shop}\nspec: {clusterIP: 10.96.0.80, clusterIPs: [10.96.0.80], ports: [{port: 80, targetPort: 8080}]}\n";
    let mut scenario = plan()
        .pods(3)
        .object("store.yaml", policy("store", 0, rules))
        .object("service.yaml", service)
        .build();
    slice(&scenario, 1);
    scenario.start();
    let _servers = [1, 2].map(|pod| serve(&scenario, pod));
    let backend = scenario.pod(1).address4();
    scenario.nft(&format!(
        "add table ip proxy; add chain ip proxy pre {{ type nat hook prerouting priority dstnat; }}; add rule ip proxy pre ip daddr 10.96.0.80 tcp dport 80 dnat to {backend}:{PORT}"
    ));
    let to_service = scenario.pod(0).connect(ip("10.96.0.80"), 80).unwrap();
    assert!(to_service.is_connected(), "{to_service:?}");
    assert!(both(&scenario, 0, 1)[0].is_connected(), "the backend itself");
    assert!(both(&scenario, 0, 2)[0].is_refused());

    slice(&scenario, 2);
    scenario.wait_until("the new backend is open", || both(&scenario, 0, 2)[0].is_connected());
    let to_service = scenario.pod(0).connect(ip("10.96.0.80"), 80).unwrap();
    assert!(
        to_service.is_refused(),
        "the old backend is none any more: {to_service:?}"
    );
}

/// Makes a pod the only backend of `shop/store`.
fn slice(scenario: &Scenario, pod: usize) {
    let address = scenario.pod(pod).address4();
    let text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: store-1, namespace: shop, labels: {{kubernetes.io/service-name: store}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [{address}]}}]\nports: [{{port: {PORT}}}]\n"
    );
    scenario.write("slice.yaml", &text);
}

/// Gives a pod the label `role`, by another Pod object with the same addresses.
fn label(scenario: &Scenario, pod: usize, role: &str) {
    let [v4, v6] = addresses(scenario, pod);
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {role}-{pod}, namespace: shop, labels: {{role: {role}}}}}\nspec: {{containers: [{{name: main, image: none}}]}}\n\
         status: {{podIPs: [{{ip: '{v4}'}}, {{ip: '{v6}'}}]}}\n"
    );
    scenario.write(&format!("labelled-{pod}.yaml"), &text);
}

/// Listens in a pod on both families until it is dropped.
fn serve(scenario: &Scenario, pod: usize) -> [TcpListener; 2] {
    let namespace = scenario.pod(pod).namespace();
    addresses(scenario, pod).map(|address| {
        let bound = namespace.run(|| TcpListener::bind(SocketAddr::new(address, PORT)));
        bound.unwrap().unwrap()
    })
}

/// One attempt over each family.
fn both(scenario: &Scenario, from: usize, to: usize) -> [ConnectAttempt; 2] {
    addresses(scenario, to).map(|address| scenario.pod(from).connect(address, PORT).unwrap())
}

fn addresses(scenario: &Scenario, pod: usize) -> [IpAddr; 2] {
    let pod = scenario.pod(pod);
    [pod.address4().into(), pod.address6().into()]
}
