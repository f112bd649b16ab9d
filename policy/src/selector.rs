//! Label selectors as objects write them.

use crate::diagnostic::Report;
use crate::labels::LabelSelector;
use crate::shape::Node;

/// `None` when it is refused; an error says where and why.
pub(crate) fn read(node: &Node<'_>, report: &mut Report<'_>) -> Option<LabelSelector> {
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
            Ok(part) => selector.requirements.extend(part.requirements),
            Err(error) => {
                report.error("bad-selector", &format!("{}.{below}", node.path), error.to_string());
                refused = true;
            }
        }
    }
    (!refused).then_some(selector)
}
