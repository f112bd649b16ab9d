//! What became of a policy is written into it.

use std::collections::BTreeSet;
use std::time::Duration;

use namegate_integration::cluster::{NODE, TestCluster};
use namegate_integration::{allow, policy};
use serde_json::{Value, json};

use super::{ALLOWED, denied, plan};

#[test]
fn a_policy_in_force_says_so_and_kubectl_shows_it() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    let took = cluster.wait_condition("allow-pod0", "Programmed", "True", "Programmed");
    println!("the status was written after {took:?}");
    assert!(cluster.connect(0, denied()).is_refused(), "what the status says is so");
    assert_eq!(
        cluster.condition("allow-pod0", "Valid").unwrap()[..2],
        ["True", "Accepted"]
    );
    let table = cluster.control.kubectl(["get", "cnp", "-n", "shop"]);
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..3], ["allow-pod0", "True", "True"], "{table}");
    // One write, and none after it: what the agent is told of its own write is no news.
    let writes = writes(&cluster);
    cluster.allow_names(0, &[ALLOWED, "b.example"]);
    cluster.wait_condition("allow-pod0", "Programmed", "True", "Programmed");
    assert_eq!(self::writes(&cluster), writes + 1);
}

#[test]
fn the_statuses_of_many_policies_come_soon() {
    const MANY: usize = 300;
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    let policies: Vec<Value> = (0..MANY)
        .map(|number| {
            json!({
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": format!("p{number}"), "namespace": "shop"},
                "spec": {"endpointSelector": {"matchLabels": {"app": format!("app{number}")}}, "egress": [{"toFQDNs": [{"matchName": ALLOWED}]}]},
            })
        })
        .collect();
    cluster
        .control
        .administer(async |administrator| administrator.burst(&policies).await);
    let programmed = || {
        let shown = cluster.control.kubectl(["get", "cnp", "-n", "shop", "--no-headers"]);
        shown
            .lines()
            .filter(|line| line.split_whitespace().nth(2) == Some("True"))
            .count()
    };
    let took = cluster.wait_long(
        "every policy says that it is in force",
        Duration::from_secs(120),
        || programmed() == MANY,
    );
    // By ten a second it would take half a minute.
    patience::assert_took(&format!("{MANY} statuses are written"), took, Duration::from_secs(25));
}

#[test]
fn invalid_objects_say_what_is_wrong_and_leave_nothing_open() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.expect_errors("cluster::kubernetes");
    let broken = |index: usize, names: &[&str]| {
        // The API server lets any annotation in.
        allow(index, names).replace(
            "namespace: shop}",
            "namespace: shop, annotations: {namegate.io/mode: sometimes, namegate.io/grace: long}}",
        )
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    cluster.under_traffic("invalid objects", ALLOWED, denied(), |cluster| {
        // The last good version stays in force.
        cluster.control.apply(&broken(0, &["b.example"]));
        cluster.wait_condition("allow-pod0", "Valid", "False", "Refused");
        cluster.wait_condition("allow-pod0", "Programmed", "False", "LastGoodInForce");
        // Where there is none, it is closed until mended.
        cluster.control.apply(&broken(1, &["b.example"]));
        cluster.wait_until("the other is closed", || cluster.connect(1, denied()).is_refused());
        cluster.wait_condition("allow-pod1", "Programmed", "False", "Refused");
    });
    let [_, _, message] = cluster.condition("allow-pod1", "Valid").unwrap();
    for part in ["namegate.io/mode", "namegate.io/grace"] {
        assert!(message.contains(part), "{message}");
    }
    cluster.wait_until("there is an Event", || {
        events(&cluster)
            .iter()
            .any(|event| event["regarding"]["name"] == "allow-pod1" && event["reason"] == "PolicyRefused")
    });

    cluster.control.kubectl([
        "annotate",
        "cnp",
        "allow-pod1",
        "-n",
        "shop",
        "namegate.io/mode-",
        "namegate.io/grace-",
    ]);
    cluster.wait_condition("allow-pod1", "Valid", "True", "Accepted");
    cluster.learn(1, "b.example");
}

#[test]
fn a_repair_is_an_event_of_the_node() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_condition("allow-pod0", "Programmed", "True", "Programmed");
    cluster.nft("flush chain inet namegate forward");
    cluster.wait_until("there is an Event of the node", || {
        events_in(&cluster, "default").iter().any(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            event["regarding"]["kind"] == "Node"
                && event["regarding"]["name"] == NODE
                && event["reason"] == "Repaired"
                && note.contains("rules of chain forward")
        })
    });
}

#[test]
fn parts_that_are_not_enforced_are_named() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    let rules = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '443', protocol: TCP}], rules: {http: [{method: GET}]}}]\n";
    cluster.control.apply(&policy("l7", 0, rules));
    cluster.wait_condition("l7", "Valid", "True", "PartlyEnforced");
    let [_, _, message] = cluster.condition("l7", "Valid").unwrap();
    assert!(message.contains("http"), "{message}");
}

#[test]
fn a_node_whose_kernel_refuses_a_policy_says_so_and_takes_it_back() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.expect_errors("agent::reconcile");
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_condition("allow-pod0", "Programmed", "True", "Programmed");
    // Which sets the other policy will need.
    let before = sets(&cluster);
    let rules =
        "  egress:\n  - toFQDNs: [{matchName: b.example}]\n    toPorts: [{ports: [{port: '8443', protocol: TCP}]}]\n";
    let refused = policy("refused", 1, rules);
    cluster.control.apply(&refused);
    cluster.wait_condition("refused", "Programmed", "True", "Programmed");
    let needed: Vec<String> = sets(&cluster).difference(&before).cloned().collect();
    cluster.delete("cnp", "refused");
    cluster.wait_until("they are removed", || sets(&cluster) == before);

    cluster.under_traffic("a policy that the kernel refuses", ALLOWED, denied(), |cluster| {
        // Somebody has put a set of another type in the place of one.
        cluster.nft(&format!("add set inet namegate {} {{ type inet_service; }}", needed[0]));
        cluster.control.apply(&refused);
        let own = format!("{NODE}.namegate.io/Programmed");
        // A failure is news when it lasts.
        let took = cluster.wait_long("the node says why", Duration::from_secs(120), || {
            cluster.condition("refused", &own).is_some_and(|[is, reason, message]| {
                (is.as_str(), reason.as_str()) == ("False", "InstallFailed") && !message.is_empty()
            })
        });
        println!("a failed installation was told after {took:?}");
        cluster.wait_condition("refused", "Programmed", "False", "FailedOnNodes");
        assert!(cluster.condition("refused", "Programmed").unwrap()[2].contains(NODE));
        assert_eq!(cluster.condition("refused", "Valid").unwrap()[0], "True");
        let row = cluster
            .control
            .kubectl(["get", "cnp", "refused", "-n", "shop", "--no-headers"]);
        let row: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(row[..3], ["refused", "True", "False"]);
        cluster.wait_until("there is an Event", || {
            let is_ours =
                |event: &Value| event["reason"] == "PolicyNotProgrammed" && event["regarding"]["name"] == "refused";
            events(cluster).iter().any(is_ours)
        });
        assert!(cluster.connect(1, denied()).is_connected(), "what stood before stands");

        cluster.nft(&format!("delete set inet namegate {}", needed[0]));
        let took = cluster.wait_until("the policy is in force", || cluster.connect(1, denied()).is_refused());
        println!("in force {took:?} after the kernel could");
        cluster.wait_long("it is taken back", Duration::from_secs(120), || {
            cluster.condition("refused", &own).is_none()
        });
        cluster.wait_condition("refused", "Programmed", "True", "Programmed");
    });
}

#[test]
fn the_agent_asks_for_nothing_that_its_role_does_not_grant() {
    let Some(cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_condition("allow-pod0", "Programmed", "True", "Programmed");
    let rights = cluster.control.rights();
    assert!(rights.refused.is_empty(), "{rights:?}");
}

/// The names of the sets in the agent's table.
fn sets(cluster: &TestCluster) -> BTreeSet<String> {
    let table = cluster.nft("list table inet namegate");
    let names = table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("set ")?.strip_suffix(" {"));
    names.map(str::to_owned).collect()
}

fn events(cluster: &TestCluster) -> Vec<Value> {
    events_in(cluster, "shop")
}

fn events_in(cluster: &TestCluster, namespace: &str) -> Vec<Value> {
    let events = cluster
        .control
        .kubectl(["get", "events.events.k8s.io", "-n", namespace, "-o", "json"]);
    let events: Value = serde_json::from_str(&events).unwrap();
    events["items"].as_array().unwrap().clone()
}

/// How often the agent has written a status.
fn writes(cluster: &TestCluster) -> usize {
    cluster
        .control
        .audit_log()
        .lines()
        .filter(|line| line.contains("\"verb\":\"patch\"") && line.contains("\"subresource\":\"status\""))
        .count()
}
