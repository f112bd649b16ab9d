//! The agent as it is shipped.

use super::shared;

#[test]
fn the_shipped_daemon_set_is_ready_under_its_own_rights_probes_and_limits() {
    let Some(node) = shared() else { return };
    let agents = node.agents();
    let [agent] = agents.as_slice() else {
        panic!("one agent on one node: {agents:?}");
    };
    assert_eq!(agent["spec"]["hostNetwork"], true);
    let status = &agent["status"]["containerStatuses"][0];
    assert_eq!(status["restartCount"], 0, "{status}");
    let rights = node.control.rights();
    assert!(
        rights.refused.is_empty(),
        "the ServiceAccount may do all that it does: {rights:?}"
    );
    // `kubectl exec` goes by the API server and the kubelet.
    let name = agent["metadata"]["name"].as_str().unwrap();
    let said = node
        .control
        .kubectl(["exec", "-n", "namegate", name, "--", "namegate", "status"]);
    assert!(
        said.lines()
            .any(|line| line.starts_with("Ready:") && line.ends_with("yes")),
        "{said}"
    );
    println!(
        "the agent: {} restarts, {}",
        status["restartCount"],
        said.lines().next().unwrap_or_default()
    );
}
