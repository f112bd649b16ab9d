//! Label selectors as objects write them.

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::shape::FieldShape::{self, List, Map, Object, Text};
use crate::shape::{self, DocumentNode};

/// The shape of a `metav1.LabelSelector`.
pub(crate) const SHAPE: FieldShape = Object(&[
    ("matchLabels", Map(&Text)),
    (
        "matchExpressions",
        List(&Object(&[("key", Text), ("operator", Text), ("values", List(&Text))])),
    ),
]);

/// `None` when it is refused; an error says where and why.
pub(crate) fn read(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    let selector = read_of_endpoints(node, report)?;
    if selector.requirements.iter().any(Requirement::is_of_reserved) {
        let reason = "the label source \"reserved\" is not known here; use `k8s:`, `any:` or none";
        report.error("bad-selector", &node.path, reason);
        return None;
    }
    Some(selector)
}

/// As [`read`], of endpoints, some of which are Cilium's own and have labels of the source
/// `reserved`.
pub(crate) fn read_of_endpoints(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<LabelSelector> {
    let owned = |value: Option<&str>| value.unwrap_or_default().to_owned();
    let labels: Vec<_> = node.get("matchLabels").map_or_else(Vec::new, |labels| {
        labels
            .fields()
            .map(|(key, value)| (key.to_owned(), owned(value.value.as_str())))
            .collect()
    });
    let mut expressions = Vec::new();
    for expression in node.list("matchExpressions") {
        for field in ["key", "operator"] {
            if expression.value.is_object() && expression.get(field).is_none() {
                report.error("missing-field", &expression.path, format!("`{field}` is required"));
                return None;
            }
        }
        let values = expression
            .list("values")
            .iter()
            .map(|value| owned(value.value.as_str()))
            .collect();
        expressions.push((
            owned(expression.text("key")),
            owned(expression.text("operator")),
            values,
        ));
    }
    // One requirement at a time, so that the path of the one that is wrong is known.
    let mut selector = LabelSelector::default();
    let mut refused = false;
    let labels = labels
        .into_iter()
        .map(|label| (format!("matchLabels.{}", label.0), LabelSelector::new([label], [])));
    let expressions = expressions
        .into_iter()
        .enumerate()
        .map(|(n, expression)| (format!("matchExpressions[{n}]"), LabelSelector::new([], [expression])));
    for (below, part) in labels.chain(expressions) {
        match part {
            Ok(part) => {
                for requirement in part.requirements {
                    if let Some((reason, meant)) = impossible(&requirement) {
                        let finding = report.error("bad-selector", &format!("{}.{below}", node.path), reason);
                        if let Some(meant) = meant {
                            finding.suggest(format!("did you mean {}?", quoted(&meant)));
                        }
                        refused = true;
                    }
                    selector.requirements.push(requirement);
                }
            }
            Err(error) => {
                report.error("bad-selector", &format!("{}.{below}", node.path), error.to_string());
                refused = true;
            }
        }
    }
    (!refused).then_some(selector)
}

/// Why no object can have, or lack, what a requirement asks for, and what may be meant: labels are
/// held to rules.
fn impossible(requirement: &Requirement) -> Option<(String, Option<String>)> {
    let key = requirement.key.as_str();
    let bare = key.strip_prefix(keys::NAMESPACE_LABELS).unwrap_or(key);
    if !requirement.is_of_reserved() && !is_key(bare) {
        return Some((format!("{} is not the key of a label", quoted(key)), None));
    }
    let (Operator::In(values) | Operator::NotIn(values)) = &requirement.operator else {
        return None;
    };
    let value = values.iter().find(|value| !is_value(value))?;
    let trimmed = Some(value.trim()).filter(|trimmed| is_value(trimmed) && !trimmed.is_empty());
    Some((
        format!("{} is not the value of a label, so nothing can have it", quoted(value)),
        trimmed.map(str::to_owned),
    ))
}

/// A selector of Kubernetes' own kinds, whose keys carry no source: over the labels of Pods or
/// Nodes or, with `before` put before each key, over those of namespaces.
pub(crate) fn read_bare(
    node: &DocumentNode<'_>,
    before: &str,
    report: &mut DiagnosticReport<'_>,
) -> Option<LabelSelector> {
    let mut wrong = Vec::new();
    let mut look = |path: String, key: &str, values: &[&str]| {
        if !is_key(key) {
            wrong.push((path, format!("{} is not the key of a label", quoted(key))));
        } else if let Some(value) = values.iter().find(|value| !is_value(value)) {
            wrong.push((path, format!("{} is not the value of a label", quoted(value))));
        }
    };
    if let Some(labels) = node.get("matchLabels") {
        labels.fields().for_each(|(key, value)| {
            let text = value.value.as_str().unwrap_or_default();
            look(value.path, key, &[text]);
        });
    }
    for expression in node.list("matchExpressions") {
        let values = expression.list("values");
        let values: Vec<&str> = values.iter().filter_map(|value| value.value.as_str()).collect();
        if let Some(key) = expression.text("key") {
            look(expression.path.clone(), key, &values);
        }
    }
    if !wrong.is_empty() {
        for (path, reason) in wrong {
            report.error("bad-selector", &path, reason);
        }
        return None;
    }
    let mut selector = read(node, report)?;
    for requirement in &mut selector.requirements {
        requirement.key.insert_str(0, before);
    }
    Some(selector)
}

/// As [`read_bare`], where not the least of it is in doubt: half a selector would select whom
/// nobody meant.
pub(crate) fn read_whole(
    node: &DocumentNode<'_>,
    before: &str,
    report: &mut DiagnosticReport<'_>,
) -> Option<LabelSelector> {
    shape::check(node, &SHAPE, report);
    let selector = read_bare(node, before, report)?;
    (!report.is_refused()).then_some(selector)
}

/// An optional DNS subdomain and a slash, then a name of at most 63 characters.
fn is_key(key: &str) -> bool {
    let (domain, name) = key
        .split_once('/')
        .map_or((None, key), |(domain, name)| (Some(domain), name));
    let is_subdomain = |domain: &str| {
        let is_label = |label: &str| {
            label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        domain.len() <= 253 && domain.split('.').all(is_label)
    };
    !name.is_empty() && is_value(name) && domain.is_none_or(is_subdomain)
}

/// At most 63 letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.
fn is_value(value: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_end = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    value.len() <= 63 && value.bytes().all(is_inner) && is_end(value.bytes().next()) && is_end(value.bytes().last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_of_labels_are_what_kubernetes_says() {
        for key in ["app", "kubernetes.io/metadata.name", "a_b", "A.1"] {
            assert!(is_key(key), "{key}");
        }
        for key in [
            "",
            "k8s:app",
            "/app",
            "a/",
            "Example.com/a",
            "a/b/c",
            "-a",
            "a b",
            &"a".repeat(64),
        ] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_value("") && is_value("v1.2_3") && !is_value("a b") && !is_value("-"));
    }
}
