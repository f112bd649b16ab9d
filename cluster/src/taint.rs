//! The taint that holds Pods back from a new node until its agent is ready (`--startup-taint`).
//!
//! Who makes nodes gives them the taint (`kubelet --register-with-taints`, the node group's
//! settings). The agent takes it away, once for each of its starts: a node that registers again
//! does so with a kubelet that starts again, and usually with its agent.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;
use tracing::{info, warn};

/// Pauses between attempts double from the first to the longest.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60)];

/// What is to be taken away, where.
pub struct StartupTaint {
    /// As the agent.
    pub client: Client,
    /// From this node.
    pub node: String,
    /// Taints with this key, whatever their value and effect.
    pub key: String,
}

impl StartupTaint {
    /// Takes it away. Tries until it is gone: Pods wait for it.
    pub async fn remove(self) {
        let [mut pause, longest] = PAUSE;
        loop {
            match self.attempt().await {
                Ok(true) => return info!(taint = self.key, "the taint is taken from this node: Pods may start"),
                Ok(false) => return info!(taint = self.key, "this node does not have the taint"),
                // Somebody else has changed the node.
                Err(kube::Error::Api(status)) if status.code == 409 => sleep(PAUSE[0]).await,
                Err(error) => {
                    warn!(taint = self.key, %error, "the taint cannot be taken from this node, and holds Pods back; trying again");
                    sleep(pause).await;
                    pause = longest.min(pause * 2);
                }
            }
        }
    }

    async fn attempt(&self) -> Result<bool, kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.get(&self.node).await?;
        let Some(patch) = without(&node, &self.key) else {
            return Ok(false);
        };
        let patch: Patch<Value> = Patch::Merge(patch);
        nodes.patch(&self.node, &PatchParams::default(), &patch).await?;
        Ok(true)
    }
}

/// The change that takes the taint away, if it is there. It is good for this version of the node
/// only: a list of taints has no smaller part that could be merged.
fn without(node: &Node, key: &str) -> Option<Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let others: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
    (others.len() < taints.len()).then(|| {
        json!({
            "metadata": {"resourceVersion": node.metadata.resource_version},
            "spec": {"taints": others},
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_taint_is_taken_away_and_others_stay() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": "7"},
            "spec": {"taints": [
                {"key": "a/start", "effect": "NoSchedule"},
                {"key": "b", "value": "x", "effect": "NoExecute"},
                {"key": "a/start", "effect": "NoExecute"},
            ]},
        }))
        .unwrap();
        let patch = without(&node, "a/start").unwrap();
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(
            patch["spec"]["taints"],
            json!([{"key": "b", "value": "x", "effect": "NoExecute"}])
        );
        assert_eq!(without(&node, "c"), None);
        assert_eq!(without(&Node::default(), "c"), None);
    }
}
