//! What an event leaves of the plan before.

use cluster::{Object, ObjectChange, ObjectKey};
use serde_json::{Value, json};

use super::*;

/// A cluster with one local pod, whose program speaks of the pods with label `app: db`.
fn cluster() -> Cluster {
    let peers = "{toEndpoints: [{matchLabels: {app: db}}], toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}";
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: there}\nspec: {podCIDRs: [10.0.1.0/24]}\n".to_owned();
    cluster_of(&[pod("web", "10.0.0.1"), policy_of("web", peers), node], &settings())
}

/// A pod of another node, in the range of that.
fn remote(name: &str, app: &str, address: &str) -> ObjectChange {
    apply_pod(json!({
        "metadata": {"name": name, "namespace": "n", "labels": {"app": app}},
        "spec": {"nodeName": "there", "containers": []},
        "status": {"podIPs": [{"ip": address}]},
    }))
}

fn apply_pod(pod: Value) -> ObjectChange {
    ObjectChange::Apply(Object::Pod(Arc::new(serde_json::from_value(pod).unwrap())))
}

fn members(plan: &Plan) -> usize {
    plan.desired.members.values().map(|members| members.len()).sum()
}

#[test]
fn an_event_of_a_pod_that_no_rule_in_force_speaks_of_changes_nothing_but_the_inventory() {
    let (mut cluster, mut planner) = (cluster(), Planner::default());
    let mut before = planner.plan(&cluster, &settings(), &network());
    for (change, pods) in [
        (remote("cache", "cache", "10.0.1.2"), 2),
        (remote("cache", "queue", "10.0.1.2"), 2),
        (remote("cache", "queue", "10.0.1.3"), 2),
        (ObjectChange::Delete(ObjectKey::Pod("n".into(), "cache".into())), 1),
    ] {
        cluster.apply(change);
        let plan = planner.plan(&cluster, &settings(), &network());
        assert!(plan.decides_as(&before));
        assert_eq!(plan.inventory.pods.iter().count(), pods);
        before = plan;
    }
}

#[test]
fn an_event_of_a_pod_that_a_rule_in_force_selects_makes_another_plan() {
    let (mut cluster, mut planner) = (cluster(), Planner::default());
    let mut before = planner.plan(&cluster, &settings(), &network());
    for (change, count) in [
        (remote("db", "db", "10.0.1.2"), 1),
        (remote("db", "db", "10.0.1.3"), 1),
        (remote("db", "cache", "10.0.1.3"), 0),
    ] {
        cluster.apply(change);
        let plan = planner.plan(&cluster, &settings(), &network());
        assert!(!plan.decides_as(&before) && plan.differs_in_members_alone(&before));
        assert_eq!(members(&plan), count);
        before = plan;
    }
}

#[test]
fn where_connections_are_handed_over_is_kept_by_the_plans_that_follow() {
    let (mut cluster, mut planner) = (cluster(), Planner::default());
    let handover = handover();
    let first = planner.plan(&cluster, &settings(), &network());
    let handing_over = planner.hand_over(first.clone(), Some(handover.clone()), &cluster);
    assert!(!handing_over.decides_as(&first));
    cluster.apply(remote("cache", "cache", "10.0.1.2"));
    let same = planner.plan(&cluster, &settings(), &network());
    let same = planner.hand_over(same, Some(handover.clone()), &cluster);
    assert!(same.decides_as(&handing_over));
    cluster.apply(remote("db", "db", "10.0.1.3"));
    let other_members = planner.plan(&cluster, &settings(), &network());
    assert!(other_members.differs_in_members_alone(&same));
    assert_eq!(other_members.desired.handover, Some(handover));
}

#[test]
fn what_lies_around_makes_another_plan() {
    let (mut cluster, mut planner) = (cluster(), Planner::default());
    let before = planner.plan(&cluster, &settings(), &network());
    // Outside its node's range, so that the cluster is larger by an address.
    cluster.apply(remote("cache", "cache", "10.9.9.9"));
    let larger = planner.plan(&cluster, &settings(), &network());
    assert!(!larger.decides_as(&before) && !larger.differs_in_members_alone(&before));
    assert!(larger.desired.cluster.contains(&"10.9.9.9/32".parse().unwrap()));

    let other = NodeNetwork {
        own: BTreeSet::from([ip("10.0.0.253")]),
        ..NodeNetwork::default()
    };
    let moved = planner.plan(&cluster, &settings(), &Arc::new(other));
    assert!(!moved.decides_as(&larger));
    assert_eq!(moved.desired.host, BTreeSet::from([ip("10.0.0.253")]));

    let dns = json!({
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    cluster.apply(ObjectChange::Apply(Object::Service(Arc::new(
        serde_json::from_value(dns).unwrap(),
    ))));
    let with_dns = planner.plan(&cluster, &settings(), &network());
    assert!(!with_dns.decides_as(&moved));
    assert!(with_dns.resolvers.contains_key(&at("10.96.0.10:53")));
}
