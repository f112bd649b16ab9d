//! Other clusters, as directories: their pods are peers, and a policy means the own cluster unless
//! it says otherwise.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::thread;

use lab::client::ConnectAttempt;
use namegate_integration::Scenario;

use super::plan;

const PORT: u16 = 6379;

/// Pod 0 is `db` and pod 1 a `frontend` of this cluster, `east`; pods 2 and 3 are a `frontend` and
/// an `other` of the cluster `west`.
fn start(policies: &str) -> Scenario {
    let mut scenario = plan().pods(4).build();
    scenario.remove("pods.yaml");
    for (pod, role) in [(0, "db"), (1, "frontend")] {
        scenario.write(&format!("pod{pod}.yaml"), &pod_object(&scenario, pod, role, ""));
    }
    let west = scenario.installation().scratch("west");
    fs::create_dir(&west).unwrap();
    for (pod, role) in [(2, "frontend"), (3, "other")] {
        write_west(
            &scenario,
            &format!("pod{pod}.yaml"),
            &pod_object(&scenario, pod, role, ""),
        );
    }
    scenario.write("policies.yaml", policies);
    scenario.add_flags(&format!("--cluster-name east --cluster west={}", west.display()));
    scenario.start();
    scenario
}

fn pod_object(scenario: &Scenario, pod: usize, role: &str, spec: &str) -> String {
    let [v4, v6] = addresses(scenario, pod);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{pod}, namespace: data, labels: {{role: {role}}}}}\nspec: {{{spec}}}\n\
         status: {{podIPs: [{{ip: '{v4}'}}, {{ip: '{v6}'}}]}}\n"
    )
}

fn write_west(scenario: &Scenario, file: &str, text: &str) {
    fs::write(scenario.installation().scratch("west").join(file), text).unwrap();
}

fn addresses(scenario: &Scenario, pod: usize) -> [IpAddr; 2] {
    let pod = scenario.pod(pod);
    [pod.address4().into(), pod.address6().into()]
}

/// Accepts connections in a pod until the process ends.
fn serve(scenario: &Scenario, pod: usize) {
    let namespace = scenario.pod(pod).namespace();
    for address in addresses(scenario, pod) {
        let bound = namespace.run(|| TcpListener::bind(SocketAddr::new(address, PORT)));
        let listener = bound.unwrap().unwrap();
        thread::spawn(move || listener.incoming().for_each(drop));
    }
}

/// Which of the pods 1, 2 and 3 reach pod 0; `None` where the families differ, as in the moment of
/// a change.
fn reach(scenario: &Scenario) -> [Option<bool>; 3] {
    [1, 2, 3].map(|from| {
        let attempts = addresses(scenario, 0).map(|to| scenario.pod(from).connect(to, PORT).unwrap());
        let is_decided = |it: &ConnectAttempt| it.is_connected() || it.is_refused();
        assert!(attempts.iter().all(is_decided), "{attempts:?}");
        let [v4, v6] = attempts.map(|it| it.is_connected());
        (v4 == v6).then_some(v4)
    })
}

fn ingress(kind: &str, rules: &str) -> String {
    let (api, subject) = match kind {
        "NetworkPolicy" => ("networking.k8s.io/v1", "podSelector"),
        _ => ("cilium.io/v2", "endpointSelector"),
    };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: guard, namespace: data}}\nspec:\n  \
         {subject}: {{matchLabels: {{role: db}}}}\n{rules}"
    )
}

#[test]
fn pods_of_another_cluster_reach_whom_a_policy_lets_them_reach_by_the_clusters_name() {
    let cilium = |peers: &str| ingress("CiliumNetworkPolicy", &format!("  ingress:\n  - {peers}\n"));
    let scenario = start(&cilium("fromEndpoints: [{matchLabels: {role: frontend}}]"));
    serve(&scenario, 0);
    assert_eq!(
        reach(&scenario),
        [true, false, false].map(Some),
        "the own cluster is meant"
    );

    let key = "io.cilium.k8s.policy.cluster";
    for (what, policy, expected) in [
        (
            "one cluster",
            cilium(&format!(
                "fromEndpoints: [{{matchLabels: {{role: frontend, {key}: west}}}}]"
            )),
            [false, true, false],
        ),
        (
            "every cluster",
            cilium(&format!(
                "fromEndpoints: [{{matchExpressions: [{{key: {key}, operator: Exists}}]}}]"
            )),
            [true, true, true],
        ),
        (
            "a NetworkPolicy",
            ingress("NetworkPolicy", "  ingress:\n  - from: [{podSelector: {}}]\n"),
            [true, false, false],
        ),
        (
            "a NetworkPolicy for another cluster",
            ingress(
                "NetworkPolicy",
                &format!("  ingress:\n  - from: [{{podSelector: {{matchLabels: {{{key}: west, role: other}}}}}}]\n"),
            ),
            [false, false, true],
        ),
        (
            "the own cluster",
            cilium("fromEntities: [cluster]"),
            [true, false, false],
        ),
        ("the mesh", cilium("fromEntities: [cluster-mesh]"), [true, true, true]),
        ("the world", cilium("fromEntities: [world]"), [false, false, false]),
        (
            "a CIDR around all of them",
            cilium("fromCIDR: [0.0.0.0/0, '::/0']"),
            [false, false, false],
        ),
        (
            "a denial of another cluster",
            ingress(
                "CiliumNetworkPolicy",
                &format!(
                    "  ingress:\n  - fromEntities: [all]\n  ingressDeny:\n  - fromEndpoints: [{{matchLabels: {{{key}: west, role: other}}}}]\n"
                ),
            ),
            [true, true, false],
        ),
    ] {
        scenario.write("policies.yaml", &policy);
        scenario.wait_until(what, || reach(&scenario) == expected.map(Some));
    }
}

#[test]
fn another_clusters_objects_are_followed_and_its_policies_are_not_applied() {
    let rules =
        "  ingress:\n  - fromEndpoints: [{matchLabels: {role: frontend, io.cilium.k8s.policy.cluster: west}}]\n";
    let scenario = start(&ingress("CiliumNetworkPolicy", rules));
    serve(&scenario, 0);
    assert_eq!(reach(&scenario), [false, true, false].map(Some));
    // It would close pod 0, which has the labels of one of its own pods.
    write_west(
        &scenario,
        "policy.yaml",
        &ingress("CiliumNetworkPolicy", "  ingressDeny:\n  - fromEntities: [all]\n"),
    );
    write_west(
        &scenario,
        "pod3.yaml",
        &pod_object(&scenario, 3, "frontend", "nodeName: n"),
    );
    scenario.wait_until("the other pod has the label", || {
        reach(&scenario) == [false, true, true].map(Some)
    });
    fs::remove_file(scenario.installation().scratch("west").join("pod2.yaml")).unwrap();
    scenario.wait_until("a pod that is gone is no peer", || {
        reach(&scenario) == [false, false, true].map(Some)
    });

    let status = || scenario.installation().status().unwrap();
    // What is known is told after it is in force.
    scenario.wait_until("the pod that is gone is not counted", || {
        status().other_clusters.iter().all(|other| other.pods == 1)
    });
    let status = status();
    assert_eq!(status.cluster, "east");
    let [west] = status.other_clusters.as_slice() else {
        panic!("{:?}", status.other_clusters)
    };
    assert_eq!((west.name.as_str(), west.pods), ("west", 1));
    let endpoints: Vec<&str> = status.endpoints.iter().map(|it| it.endpoint.as_str()).collect();
    assert_eq!(
        endpoints,
        ["data/p0", "data/p1"],
        "pods of another cluster are not governed"
    );
    let pods = scenario
        .agent()
        .metric("namegate_other_cluster_pods{cluster=\"west\"}")
        .unwrap();
    assert_eq!(pods, 1.0);

    let from = scenario.pod(3).address4().to_string();
    let told = scenario
        .installation()
        .inspect("explain", &["--from", &from, "--to", "data/p0", "--port", "6379"])
        .unwrap();
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.starts_with("ALLOWED"), "{told}");
    assert!(
        told.contains("is a pod of the cluster west, in its namespace data"),
        "{told}"
    );
}

#[test]
fn ranges_that_two_clusters_claim_are_nobodys_of_the_other_and_it_is_said() {
    let rules = "  ingress:\n  - fromEndpoints: [{matchExpressions: [{key: io.cilium.k8s.policy.cluster, operator: Exists}]}]\n";
    let scenario = start(&ingress("CiliumNetworkPolicy", rules));
    serve(&scenario, 0);
    assert_eq!(reach(&scenario), [true, true, true].map(Some));
    let node = |range: &str| {
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n}}\nspec: {{podCIDR: {range}, podCIDRs: [{range}, 'fd00:10:244::/64']}}\n"
        )
    };
    scenario.write("node.yaml", &node("10.244.0.0/24"));
    write_west(&scenario, "node.yaml", &node("10.244.0.0/16"));
    scenario.wait_until("pods of a contested range are no peers", || {
        reach(&scenario) == [true, false, false].map(Some)
    });
    // It is told after it is in force.
    scenario.wait_until("it is said", || {
        let status = scenario.installation().status().unwrap();
        let mut of_west = status.reports.iter().filter(|report| report.object == "cluster west");
        let overlap = "10.244.0.0/16 of its Node n overlaps 10.244.0.0/24 of the cluster east";
        of_west.any(|report| report.findings.iter().any(|finding| finding.contains(overlap)))
    });
    write_west(&scenario, "node.yaml", "# none\n");
    fs::remove_file(scenario.installation().objects().join("node.yaml")).unwrap();
    scenario.wait_until("they are again", || reach(&scenario) == [true, true, true].map(Some));
}

#[test]
fn an_imported_service_is_reached_where_the_clusters_that_export_it_have_it() {
    let scenario = start(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: out, namespace: data}\nspec:\n  \
         endpointSelector: {matchLabels: {role: frontend}}\n  \
         egress: [{toServices: [{k8sService: {serviceName: store, namespace: data}}]}]\n",
    );
    [2, 3].iter().for_each(|pod| serve(&scenario, *pod));
    let connects = |to: usize| {
        scenario
            .pod(1)
            .connect(addresses(&scenario, to)[0], PORT)
            .unwrap()
            .is_connected()
    };
    assert!(!connects(2) && !connects(3));
    let slice = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: s, namespace: data, labels: {{kubernetes.io/service-name: store}}}}\n\
         addressType: IPv4\nendpoints: [{{addresses: [{}]}}]\n",
        scenario.pod(3).address4()
    );
    write_west(&scenario, "slice.yaml", &slice);
    let import = |exporter: &str| {
        format!(
            "apiVersion: multicluster.x-k8s.io/v1alpha1\nkind: ServiceImport\nmetadata: {{name: store, namespace: data}}\n\
             spec: {{type: ClusterSetIP, ips: [10.96.7.7], ports: [{{port: {PORT}, protocol: TCP}}]}}\n\
             status: {{clusters: [{{cluster: {exporter}}}]}}\n"
        )
    };
    scenario.write("import.yaml", &import("west"));
    scenario.wait_until("the backend over there is open", || connects(3));
    assert!(!connects(2), "and no other pod");
    scenario.write("import.yaml", &import("north"));
    scenario.wait_until("it is not exported any more", || !connects(3));
}
