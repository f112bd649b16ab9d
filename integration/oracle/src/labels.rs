//! Label selectors.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::json::{list, text, texts};

pub(crate) type Labels = BTreeMap<String, String>;

/// The labels under `metadata`.
pub(crate) fn of(object: &Value) -> Labels {
    let fields = object["metadata"]["labels"].as_object();
    let fields = fields.into_iter().flatten();
    fields
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// One condition of a selector.
pub(crate) struct Condition<'a> {
    pub(crate) key: &'a str,
    operator: &'a str,
    values: Vec<&'a str>,
}

/// `matchLabels` and `matchExpressions`: all must hold.
pub(crate) fn conditions(selector: &Value) -> Vec<Condition<'_>> {
    let labels = selector["matchLabels"].as_object().into_iter().flatten();
    let equal = labels.map(|(key, value)| Condition {
        key,
        operator: "In",
        values: value.as_str().into_iter().collect(),
    });
    let expressions = list(selector, "matchExpressions").iter().map(|expression| Condition {
        key: text(expression, "key").unwrap_or_default(),
        operator: text(expression, "operator").unwrap_or_default(),
        values: texts(expression, "values").collect(),
    });
    equal.chain(expressions).collect()
}

impl Condition<'_> {
    pub(crate) fn holds(&self, labels: &Labels) -> bool {
        self.holds_for(labels.get(self.key))
    }

    pub(crate) fn holds_for(&self, value: Option<&String>) -> bool {
        let is_listed = value.is_some_and(|value| self.values.contains(&value.as_str()));
        match self.operator {
            "In" => is_listed,
            "NotIn" => !is_listed,
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            other => panic!("no operator {other}"),
        }
    }
}

/// Whether a selector of Kubernetes itself selects what has these labels.
pub(crate) fn select(selector: &Value, labels: &Labels) -> bool {
    conditions(selector).iter().all(|condition| condition.holds(labels))
}
