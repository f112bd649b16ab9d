//! Destinations that are objects of the cluster: they have the addresses that their objects say.

use std::net::{IpAddr, SocketAddr, TcpListener};

use agent::lab::client::Attempt;
use namegate_integration::{Scenario, policy};

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

    assert!(both(&scenario, 0, 2).iter().all(Attempt::is_connected));
    assert!(both(&scenario, 0, 3).iter().all(Attempt::is_refused));
    assert!(
        both(&scenario, 1, 3).iter().all(Attempt::is_connected),
        "nobody governs this one"
    );

    label(&scenario, 3, "db");
    scenario.wait_until("the other pod is open too", || {
        both(&scenario, 0, 3).iter().all(Attempt::is_connected)
    });
    label(&scenario, 2, "web");
    scenario.wait_until("the first pod is closed", || {
        both(&scenario, 0, 2).iter().all(Attempt::is_refused)
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
    assert!(both(&scenario, 0, 1).iter().all(Attempt::is_refused));
    assert!(both(&scenario, 0, 2).iter().all(Attempt::is_connected));
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
fn both(scenario: &Scenario, from: usize, to: usize) -> [Attempt; 2] {
    addresses(scenario, to).map(|address| scenario.pod(from).connect(address, PORT).unwrap())
}

fn addresses(scenario: &Scenario, pod: usize) -> [IpAddr; 2] {
    let pod = scenario.pod(pod);
    [pod.address4().into(), pod.address6().into()]
}
