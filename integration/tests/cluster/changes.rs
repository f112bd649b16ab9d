//! Objects that come, change and go, while a pod resolves and connects.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use lab::client::ConnectAttempt;
use namegate_integration::cluster::{NODE, TestCluster};
use namegate_integration::{ip, policy};

use super::{ALLOWED, denied, plan};

#[test]
fn a_policy_is_applied_changed_and_removed_under_traffic() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("policy edits", ALLOWED, denied(), |cluster| {
        for round in 0..10 {
            let names: &[&str] = if round % 2 == 0 {
                &[ALLOWED, "b.example"]
            } else {
                &[ALLOWED]
            };
            cluster.allow_names(0, names);
            let is_open = || {
                cluster
                    .ask(0, "b.example", hickory_proto::rr::RecordType::A)
                    .address()
                    .is_some()
            };
            // In a cluster every name may be asked: what changes is what its address opens. It is
            // asked each time, since an answer from before the edit teaches nothing for after it.
            let wanted = round % 2 == 0;
            cluster.wait_until("the edit is in force", || {
                assert!(is_open());
                cluster.connect(0, ip("198.51.100.2")).is_connected() == wanted
            });
        }
        // Another pod's policy comes and goes.
        cluster.allow_names(1, &["b.example"]);
        cluster.wait_until("the other is closed", || cluster.connect(1, denied()).is_refused());
        cluster.delete("cnp", "allow-pod1");
        cluster.wait_until("the other is open again", || {
            cluster.connect(1, denied()).is_connected()
        });
    });
    cluster.delete("cnp", "allow-pod0");
    cluster.wait_until("the policy is gone", || cluster.connect(0, denied()).is_connected());
}

#[test]
fn labels_of_pods_and_namespaces_decide() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.control.apply(
        "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: closed-teams}\nspec:\n  \
         endpointSelector: {matchLabels: {io.cilium.k8s.namespace.labels.team: closed, app: pod1}}\n  egress: [{}]\n",
    );
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("label changes", ALLOWED, denied(), |cluster| {
        for _ in 0..3 {
            cluster.run_pod(2, "{app: pod0}");
            cluster.wait_until("the label closes", || cluster.connect(2, denied()).is_refused());
            cluster.run_pod(2, "{app: other}");
            cluster.wait_until("the label opens", || cluster.connect(2, denied()).is_connected());
            cluster
                .control
                .kubectl(["label", "namespace", "shop", "team=closed", "--overwrite"]);
            cluster.wait_until("the namespace closes", || cluster.connect(1, denied()).is_refused());
            cluster
                .control
                .kubectl(["label", "namespace", "shop", "team=shop", "--overwrite"]);
            cluster.wait_until("the namespace opens", || cluster.connect(1, denied()).is_connected());
        }
    });
}

#[test]
fn an_address_is_reused_by_another_pod_at_once() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("address reuse", ALLOWED, denied(), |cluster| {
        let mut former = "pod1".to_owned();
        for round in 0..6 {
            let next = format!("reuse-{round}");
            // The former holder is deleted in the moment in which the next has its address.
            cluster.delete("pod", &former);
            let closed = round % 2 == 0;
            cluster.run_pod_as(&next, 1, if closed { "{app: pod0}" } else { "{app: free}" });
            cluster.wait_until("the new holder counts", || match closed {
                true => cluster.connect(1, denied()).is_refused(),
                false => cluster.connect(1, denied()).is_connected(),
            });
            former = next;
        }
    });
}

#[test]
fn a_services_endpoints_move() {
    let Some(mut cluster) = TestCluster::build(plan()) else {
        return;
    };
    let rules = format!(
        "  egress:\n  - toServices: [{{k8sService: {{serviceName: store, namespace: shop}}}}]\n    toPorts: [{{ports: [{{port: '8080', protocol: TCP}}]}}]\n  \
         - toFQDNs: [{{matchName: {ALLOWED}}}]\n"
    );
    cluster.control.apply(&policy("store", 0, &rules));
    cluster.control.apply(
        "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: shop}, spec: {clusterIP: None, ports: [{port: 8080}]}}",
    );
    slice(&cluster, 1);
    cluster.start();
    let _servers = [1, 2].map(|pod| serve(&cluster, pod));
    cluster.under_traffic("endpoints", ALLOWED, denied(), |cluster| {
        for backend in [1, 2, 1, 2] {
            slice(cluster, backend);
            cluster.wait_until("the new backend is open", || to(cluster, backend).is_connected());
            cluster.wait_until("the old one is closed", || to(cluster, 3 - backend).is_refused());
        }
    });
}

#[test]
fn pods_of_other_nodes_are_followed_only_while_a_policy_speaks_of_them() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    let server = cluster.pod(2);
    let _server = serve(&cluster, 2);
    // The third pod of the lab is on another node of the cluster.
    cluster.delete("pod", "pod2");
    cluster.control.run_pod(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: db, namespace: shop, labels: {{role: db}}}}, spec: {{nodeName: node-2, containers: [{{name: main, image: none}}]}},
           status: {{phase: Running, podIP: {0}, podIPs: [{{ip: {0}}}]}}}}",
        server.address4()
    ));
    let pods = || cluster.agent().metric("namegate_objects{kind=\"Pod\"}").unwrap();
    cluster.wait_until("the local pods are counted", || pods() == 2.0);
    let rules = "  egress:\n  - toEndpoints: [{matchLabels: {role: db}}]\n    toPorts: [{ports: [{port: '8080', protocol: TCP}]}]\n";
    cluster.control.apply(&policy("db", 0, rules));
    cluster.wait_until("the pod is open", || {
        to(&cluster, 2).is_connected() && cluster.connect(0, denied()).is_refused()
    });
    cluster.wait_until("all pods are counted", || pods() == 3.0);
    cluster.delete("cnp", "db");
    cluster.wait_until("the local pods are counted", || pods() == 2.0);
}

#[test]
fn a_startup_taint_is_taken_from_the_node_when_its_agent_is_ready_and_others_stay() {
    const TAINT: &str = "namegate.io/agent-not-ready";
    let Some(mut cluster) = TestCluster::build(plan().flags(&format!("--startup-taint {TAINT}"))) else {
        return;
    };
    let taints = |cluster: &TestCluster| {
        cluster
            .control
            .kubectl(["get", "node", NODE, "-o", "jsonpath={.spec.taints[*].key}"])
    };
    let both = format!("{TAINT}=:NoSchedule");
    cluster
        .control
        .kubectl(["taint", "node", NODE, &both, "other=:NoSchedule"]);
    // Who has not opted in has not the right; Pods wait, and the log says for what.
    cluster.start();
    cluster.wait_until("it is said that the taint stays", || {
        cluster
            .agent()
            .log()
            .iter()
            .any(|line| line.contains("cannot be taken from this node"))
    });
    assert!(taints(&cluster).contains(TAINT));
    cluster.control.install("overlays/startup-taint");
    cluster.wait_long("the taint is gone", Duration::from_secs(120), || {
        !taints(&cluster).contains(TAINT)
    });
    assert!(taints(&cluster).contains("other"));
}

#[test]
fn kinds_that_appear_later_are_picked_up() {
    let Some(mut cluster) = TestCluster::build(plan()) else {
        return;
    };
    cluster.control.kubectl(["delete", "crd", "--all"]);
    cluster.start();
    assert!(cluster.connect(0, denied()).is_connected());
    // Ready, but nobody shall believe that a policy could be in force.
    let absent = || cluster.installation().status().unwrap().source.unwrap().absent;
    cluster.wait_until("what is missing is known", || absent().len() == 4);
    assert!(
        absent().contains(&"CiliumNetworkPolicy (cilium.io/v2)".to_owned()),
        "{:?}",
        absent()
    );
    let shown = cluster.installation().inspect("status", &[]).unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("yes, but") && shown.contains("ABSENT:"), "{shown}");
    let (code, page) = cluster.agent().http("/readyz").unwrap();
    assert!(code == 200 && page.contains("ClusterNetworkPolicy"), "{page}");
    assert_eq!(cluster.agent().metric("namegate_absent_kinds").unwrap(), 4.0);
    assert!(
        cluster
            .agent()
            .log()
            .iter()
            .any(|line| line.contains("WARN") && line.contains("does not have this kind"))
    );
    cluster.control.install("crds");
    cluster.control.install("overlays/default");
    cluster.wait_long("the definitions are served", Duration::from_secs(120), || {
        cluster
            .control
            .try_feed(&["apply", "--server-side"], &namegate_integration::allow(0, &[ALLOWED]))
            .status
            .success()
    });
    let took = cluster.wait_long("the policy is in force", Duration::from_secs(120), || {
        cluster.connect(0, denied()).is_refused()
    });
    println!("a kind that appeared was in force after {took:?}");
    cluster.wait_long("nothing is missing", Duration::from_secs(120), || absent().is_empty());
    cluster.learn(0, ALLOWED);
    assert!(cluster.connect(0, ip("198.51.100.1")).is_connected());
}

/// Makes a pod the only backend of `shop/store`.
fn slice(cluster: &TestCluster, pod: usize) {
    cluster.control.apply(&format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: store-1, namespace: shop, labels: {{kubernetes.io/service-name: store}}}},
           addressType: IPv4, endpoints: [{{addresses: [{}]}}], ports: [{{port: 8080}}]}}",
        cluster.pod(pod).address4()
    ));
}

fn serve(cluster: &TestCluster, pod: usize) -> TcpListener {
    let address = SocketAddr::new(cluster.pod(pod).address4().into(), 8080);
    cluster
        .pod(pod)
        .namespace()
        .run(|| TcpListener::bind(address))
        .unwrap()
        .unwrap()
}

fn to(cluster: &TestCluster, pod: usize) -> ConnectAttempt {
    cluster.pod(0).connect(cluster.pod(pod).address4(), 8080).unwrap()
}
