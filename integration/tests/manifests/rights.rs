//! What the agent's ServiceAccount may do, and what it may not.

use crate::shared;

#[test]
fn the_agent_may_read_what_policies_speak_of_and_nothing_else() {
    let Some(cluster) = shared() else { return };
    for kind in [
        "pods",
        "namespaces",
        "nodes",
        "services",
        "endpointslices",
        "networkpolicies",
        "ciliumnetworkpolicies",
        "ciliumclusterwidenetworkpolicies",
        "ciliumcidrgroups",
        "clusternetworkpolicies",
    ] {
        let output = cluster.kubectl_as_agent(["get", kind, "--all-namespaces"]);
        assert!(
            output.status.success(),
            "{kind}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    for kind in ["secrets", "configmaps", "serviceaccounts", "daemonsets", "clusterroles"] {
        let output = cluster.kubectl_as_agent(["get", kind, "--all-namespaces"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("Forbidden"), "{kind}");
    }
}

#[test]
fn the_agent_may_say_what_became_of_a_policy_and_not_change_it() {
    let Some(cluster) = shared() else { return };
    let can = |verb: &str, resource: &str| {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let subresource = format!("--subresource={subresource}");
        let output = cluster.kubectl_as_agent(["auth", "can-i", verb, resource, &subresource, "-n", "shop"]);
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    assert!(can("patch", "ciliumnetworkpolicies.cilium.io/status"));
    for (verb, resource) in [
        ("patch", "ciliumnetworkpolicies.cilium.io"),
        ("update", "ciliumnetworkpolicies.cilium.io"),
        ("delete", "ciliumnetworkpolicies.cilium.io"),
        ("patch", "pods"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("patch", "nodes"),
        ("delete", "events.events.k8s.io"),
    ] {
        assert!(!can(verb, resource), "{verb} {resource}");
    }
}
