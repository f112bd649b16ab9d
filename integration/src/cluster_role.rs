//! Compares what a ClusterRole grants with the requests that were made under it.

use std::collections::BTreeSet;

use serde_json::Value;

/// One verb on one kind of object: `list discovery.k8s.io/endpointslices`,
/// `patch cilium.io/ciliumnetworkpolicies/status`.
pub type Right = String;

/// The differences between a ClusterRole and an audit log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ApiRights {
    /// Granted and never used.
    pub unused: BTreeSet<Right>,
    /// Asked for and refused (403).
    pub refused: BTreeSet<Right>,
}

impl ApiRights {
    /// `role` is the object as `kubectl get clusterrole -o json` prints it; `log` holds events of
    /// `audit.k8s.io/v1`, one a line.
    ///
    /// Requests for what is no resource (`/readyz`, discovery) are everybody's and left out.
    pub fn compare(role: &Value, log: &str) -> Self {
        let events: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let asked: BTreeSet<Right> = events.iter().filter_map(asked_for).collect();
        let granted = granted(role);
        Self {
            unused: granted.difference(&asked).cloned().collect(),
            refused: events
                .iter()
                .filter(|event| event["responseStatus"]["code"] == 403)
                .filter_map(asked_for)
                .collect(),
        }
    }
}

fn asked_for(event: &Value) -> Option<Right> {
    let object = &event["objectRef"];
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let subresource = object["subresource"]
        .as_str()
        .map(|name| format!("/{name}"))
        .unwrap_or_default();
    object["resource"].as_str()?;
    Some(right(
        event["verb"].as_str()?,
        text("apiGroup"),
        &format!("{}{subresource}", text("resource")),
    ))
}

fn granted(role: &Value) -> BTreeSet<Right> {
    let texts = |rule: &Value, field: &str| -> Vec<String> {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for verb in texts(rule, "verbs") {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    granted.insert(right(&verb, &group, &resource));
                }
            }
        }
    }
    granted
}

fn right(verb: &str, group: &str, resource: &str) -> Right {
    match group {
        "" => format!("{verb} {resource}"),
        group => format!("{verb} {group}/{resource}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_granted_and_not_asked_for_is_unused() {
        let role = json!({"rules": [
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": ["cilium.io"], "resources": ["ciliumnetworkpolicies/status"], "verbs": ["patch"]},
        ]});
        let log = [
            json!({"verb": "list", "objectRef": {"resource": "pods"}, "responseStatus": {"code": 200}}),
            json!({"verb": "get", "requestURI": "/readyz", "responseStatus": {"code": 200}}),
            json!({"verb": "patch", "objectRef": {"apiGroup": "cilium.io", "resource": "ciliumnetworkpolicies", "subresource": "status"}}),
            json!({"verb": "get", "objectRef": {"resource": "secrets"}, "responseStatus": {"code": 403}}),
        ];
        let log: Vec<String> = log.iter().map(Value::to_string).collect();
        let rights = ApiRights::compare(&role, &log.join("\n"));
        assert_eq!(rights.unused, ["watch pods".to_owned()].into());
        assert_eq!(rights.refused, ["get secrets".to_owned()].into());
    }
}
