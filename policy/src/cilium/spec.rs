//! One `spec`: whom it selects, whether it closes egress, and its rules.

use crate::diagnostic::Report;
use crate::endpoint::keys;
use crate::labels::{LabelSelector, Operator, Requirement};
use crate::policy::{PolicyId, PolicyKind, Spec};

use super::egress::{self, Side};
use super::shape::Node;

/// `None` when its subject cannot be told; an error says why.
pub(super) fn read(spec: &Node<'_>, id: &PolicyId, report: &mut Report<'_>) -> Option<Spec> {
    let subject = subject(spec, id, report);
    for field in ["ingress", "ingressDeny"] {
        if spec.get(field).is_some_and(|rules| !rules.is_empty_list()) {
            let path = format!("{}.{field}", spec.path);
            report.unenforced(
                &path,
                "ingress rules are not enforced yet; egress is not affected by them",
            );
        }
    }
    let mut rules = |field, side| -> Vec<_> {
        spec.list(field)
            .iter()
            .filter_map(|rule| egress::read(rule, side, report))
            .collect()
    };
    let allow = rules("egress", Side::Allow);
    let deny = rules("egressDeny", Side::Deny);
    Some(Spec {
        subject: subject?,
        closes_egress: closes_egress(spec),
        allow,
        deny,
    })
}

/// Default deny follows Cilium: a spec with rules for egress closes it unless it says otherwise; an empty list counts as
/// absent ("if omitted or empty, this rule does not apply at egress"); `enableDefaultDeny.egress: true` closes without any.
fn closes_egress(spec: &Node<'_>) -> bool {
    let said = spec
        .get("enableDefaultDeny")
        .and_then(|node| node.get("egress"))
        .and_then(|node| node.value.as_bool());
    said.unwrap_or_else(|| {
        ["egress", "egressDeny"]
            .iter()
            .any(|field| !spec.list(field).is_empty())
    })
}

fn subject(spec: &Node<'_>, id: &PolicyId, report: &mut Report<'_>) -> Option<LabelSelector> {
    if let Some(node) = spec.get("nodeSelector") {
        report
            .error(
                "node-selector",
                &node.path,
                "policies for nodes themselves are not supported; only Pods are governed here",
            )
            .suggest("write an `endpointSelector`, or leave this policy to Cilium");
        return None;
    }
    let Some(node) = spec.get("endpointSelector") else {
        report
            .error("missing-field", &spec.path, "`endpointSelector` is required")
            .suggest("write `endpointSelector: {}` to select every Pod");
        return None;
    };
    endpoints(&node, id, report)
}

/// The endpoints that an `endpointSelector` selects; `None` when it is wrong.
pub(super) fn endpoints(node: &Node<'_>, id: &PolicyId, report: &mut Report<'_>) -> Option<LabelSelector> {
    let mut selector = read_selector(node, report)?;
    if id.kind == PolicyKind::CiliumNetworkPolicy {
        confine(&mut selector, &id.namespace, &node.path, report);
    }
    Some(selector)
}

/// Binds a selector to the policy's own namespace. A namespace that the selector itself asks for is dropped, as Cilium does.
fn confine(selector: &mut LabelSelector, namespace: &str, path: &str, report: &mut Report<'_>) {
    let own = Requirement {
        key: keys::NAMESPACE.to_owned(),
        operator: Operator::In(vec![namespace.to_owned()]),
    };
    let (written, others): (Vec<_>, Vec<_>) = std::mem::take(&mut selector.requirements)
        .into_iter()
        .partition(|requirement| requirement.key == keys::NAMESPACE);
    if written.iter().any(|requirement| *requirement != own) {
        let reason = format!(
            "a CiliumNetworkPolicy selects in its own namespace ({namespace}) only; what the selector says of {} is ignored",
            keys::NAMESPACE
        );
        report
            .warning("foreign-namespace", path, reason)
            .suggest("put the policy into the namespace it is meant for, or write a CiliumClusterwideNetworkPolicy");
    }
    selector.requirements = others;
    selector.requirements.push(own);
}

fn read_selector(node: &Node<'_>, report: &mut Report<'_>) -> Option<LabelSelector> {
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
