//! Which addresses of Services are handed over.

use cluster::{Object, ObjectChange, ObjectKey};
use policy::PerDirection;
use serde_json::json;

use super::*;

/// A Service at 10.96.0.`last`, port 80, of one pod at port 8080.
fn service(name: &str, last: u8, backend: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: n}}\n\
         spec: {{clusterIP: 10.96.0.{last}, ports: [{{name: http, port: 80, nodePort: 300{last}}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: {name}, namespace: n, labels: {{kubernetes.io/service-name: {name}}}}}\n\
         endpoints: [{{addresses: [{backend}]}}]\nports: [{{name: http, port: 8080}}]\n"
    )
}

/// Pod `web` may ask `db` for `/`, and `cache` for anything.
fn objects() -> Vec<String> {
    let ports = |rules: &str| format!("toPorts: [{{ports: [{{port: '8080', protocol: TCP}}]{rules}}}]");
    let egress = format!(
        "{{toEndpoints: [{{matchLabels: {{app: db}}}}], {}}}, {{toEndpoints: [{{matchLabels: {{app: cache}}}}], {}}}",
        ports(", rules: {http: [{path: '/'}]}"),
        ports("")
    );
    vec![
        pod("web", "10.0.0.1"),
        pod("db", "10.0.0.2"),
        pod("cache", "10.0.0.3"),
        service("db", 10, "10.0.0.2"),
        service("cache", 11, "10.0.0.3"),
        policy_of("web", &egress),
    ]
}

fn found(plan: &Plan) -> PerDirection<Vec<String>> {
    let services = plan.desired.inspected_services.clone();
    services.map(|_, at| at.iter().map(ToString::to_string).collect())
}

#[test]
fn of_a_senders_rules_those_services_count_whose_backends_are_looked_into() {
    let mut cluster = cluster_of(&objects(), &settings());
    let mut planner = Planner::default();
    let plan = planner.plan(&cluster, &settings(), &network());
    assert_eq!(found(&plan), PerDirection::default(), "nobody looks into connections");
    let plan = planner.hand_over(plan, Some(handover()), &cluster);
    // The own address of the node is that of `network`.
    assert_eq!(found(&plan).egress, ["10.0.0.254:30010", "10.96.0.10:80"]);
    assert_eq!(found(&plan).ingress, [""; 0]);

    // What changes nothing of it leaves the plan as it is.
    cluster.apply(ObjectChange::Delete(ObjectKey::Service("n".into(), "cache".into())));
    let same = planner.plan(&cluster, &settings(), &network());
    let same = planner.hand_over(same, Some(handover()), &cluster);
    assert_eq!(found(&same), found(&plan));

    // Another pod behind the Service, which nothing looks into.
    let slice = json!({
        "metadata": {"name": "db", "namespace": "n", "labels": {"kubernetes.io/service-name": "db"}},
        "endpoints": [{"addresses": ["10.0.0.3"]}], "ports": [{"name": "http", "port": 8080}],
    });
    let slice = Arc::new(serde_json::from_value(slice).unwrap());
    cluster.apply(ObjectChange::Apply(Object::EndpointSlice(slice)));
    let plan = planner.plan(&cluster, &settings(), &network());
    let plan = planner.hand_over(plan, Some(handover()), &cluster);
    assert_eq!(found(&plan), PerDirection::default());
}

#[test]
fn of_a_receivers_rules_its_own_services_count_whoever_asks() {
    let mut objects = objects();
    objects.pop();
    objects.push(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: db, namespace: n}\n\
         spec: {endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{}], \
         toPorts: [{ports: [{port: '8080', protocol: TCP}], rules: {http: [{path: '/'}]}}]}]}\n"
            .into(),
    );
    let cluster = cluster_of(&objects, &settings());
    let mut planner = Planner::default();
    let plan = planner.plan(&cluster, &settings(), &network());
    let plan = planner.hand_over(plan, Some(handover()), &cluster);
    assert_eq!(found(&plan).ingress, ["10.0.0.254:30010", "10.96.0.10:80"]);
    assert_eq!(found(&plan).egress, [""; 0]);
}
