//! Other clusters that the agent knows.

use api::OtherClusterStatus;

use crate::{NodeFacts, NodeFinding};

/// As old objects are told. A watch on which nothing happens is heard of every minute or so.
const OLD_SECONDS: u64 = 600;

pub(crate) fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    let clusters = facts.running.iter().flat_map(|agent| &agent.other_clusters);
    clusters.flat_map(of_cluster).collect()
}

fn of_cluster(cluster: &OtherClusterStatus) -> Vec<NodeFinding> {
    let OtherClusterStatus {
        name,
        pods,
        contested,
        masked,
        source,
        ..
    } = cluster;
    let mut findings = Vec::new();
    if let Some(source) = source.as_ref().filter(|source| {
        source.recalled || source.age_seconds > OLD_SECONDS || !source.awaited.is_empty() || !source.troubles.is_empty()
    }) {
        let why = source
            .troubles
            .first()
            .map(|why| format!(": {why}"))
            .unwrap_or_default();
        findings.push(NodeFinding::problem(
            "cluster-away",
            format!(
                "the cluster {name} is not heard of ({} s){why}; what it said last is in force, with {pods} pods",
                source.age_seconds
            ),
            "look at its API server, and at the kubeconfig and the token that the agent has for it",
        ));
    }
    if let Some(first) = contested.first() {
        findings.push(NodeFinding::problem(
            "contested-cluster",
            format!("of the cluster {name}: {first} ({} in all)", contested.len()),
            "give each cluster pod ranges and node addresses of its own",
        ));
    }
    if let Some(first) = masked.first() {
        findings.push(NodeFinding::problem(
            "remote-peers-may-be-masked",
            format!("of the cluster {name}: {first} ({} in all)", masked.len()),
            "have the way between the clusters keep the pods' own addresses, or let the nodes in (`fromNodes`, `remote-node`)",
        ));
    }
    if findings.is_empty() {
        findings.push(NodeFinding::ok(
            "clusters",
            format!("{pods} pods of the cluster {name} are known"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use api::SourceStatus;

    use super::*;

    fn codes(cluster: &OtherClusterStatus) -> Vec<&'static str> {
        of_cluster(cluster).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_cluster_that_is_away_contested_or_masked_is_told() {
        let source = SourceStatus {
            server: "https://192.0.2.1".into(),
            age_seconds: 3,
            recalled: false,
            awaited: Vec::new(),
            absent: Vec::new(),
            troubles: Vec::new(),
        };
        let well = OtherClusterStatus {
            name: "west".into(),
            pods: 7,
            nodes: 1,
            contested: Vec::new(),
            masked: Vec::new(),
            source: Some(source.clone()),
        };
        assert_eq!(codes(&well), ["clusters"]);
        let away = OtherClusterStatus {
            source: Some(SourceStatus {
                troubles: vec!["Pod: connection refused".into()],
                ..source
            }),
            ..well.clone()
        };
        let found = of_cluster(&away);
        assert_eq!(codes(&away), ["cluster-away"]);
        assert!(found[0].found.contains("west") && found[0].found.contains("connection refused"));
        let wrong = OtherClusterStatus {
            contested: vec!["10.0.0.0/8 overlaps".into()],
            masked: vec!["192.0.2.9 was refused".into()],
            source: None,
            ..well
        };
        assert_eq!(codes(&wrong), ["contested-cluster", "remote-peers-may-be-masked"]);
    }
}
