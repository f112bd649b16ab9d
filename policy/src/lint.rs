//! What is valid but probably not meant.

use crate::diagnostic::{Diagnostic, Report, quoted};
use crate::document::Document;
use crate::name::Name;
use crate::pattern::Pattern;
use crate::policy::{Policy, PolicyKind};
use crate::shape::Node;

/// Findings about one valid policy, each with a stable code and a suggestion.
///
/// Rules are compared within one `spec` only: another may select other endpoints. Of the kinds other than Cilium's, whatever is worth a remark
/// was made with [validation](crate::validate).
pub fn lint(document: &Document, policy: &Policy) -> Vec<Diagnostic> {
    if matches!(
        policy.id.kind,
        PolicyKind::NetworkPolicy | PolicyKind::ClusterNetworkPolicy
    ) {
        return Vec::new();
    }
    let mut report = Report::new(document);
    let root = Node::root(&document.value);
    for spec in root.get("spec").into_iter().chain(root.list("specs")) {
        if policy.id.kind == PolicyKind::CiliumClusterwideNetworkPolicy {
            selector(&spec, &mut report);
        }
        empty_rules(&spec, &mut report);
        let allowed = Selectors::of(&spec, "egress");
        let denied = Selectors::of(&spec, "egressDeny");
        for selector in allowed.names.iter().chain(&denied.names).chain(&allowed.questions) {
            one_selector(selector, &mut report);
        }
        for selector in &allowed.names {
            without_apex(selector, &allowed, &mut report);
            hidden_by_dns_rules(selector, &allowed, &mut report);
            met_by_denial(selector, &denied, &mut report);
            too_wide(selector, &mut report);
        }
    }
    report.finish()
}

/// The name selectors under one list of rules.
#[derive(Default)]
struct Selectors<'a> {
    /// `toFQDNs` entries.
    names: Vec<Selector<'a>>,
    /// `rules.dns` entries.
    questions: Vec<Selector<'a>>,
    /// Whether there is any `rules.dns`, empty ones included.
    has_dns_rules: bool,
}

/// One entry; its patterns are empty for `{}`.
struct Selector<'a> {
    node: Node<'a>,
    written: Vec<Written<'a>>,
}

struct Written<'a> {
    field: &'static str,
    text: &'a str,
    pattern: Pattern,
}

impl<'a> Selectors<'a> {
    fn of(spec: &Node<'a>, list: &str) -> Self {
        let mut selectors = Self::default();
        for rule in spec.list(list) {
            selectors
                .names
                .extend(rule.list("toFQDNs").into_iter().map(Selector::new));
            for entry in rule.list("toPorts") {
                if let Some(dns) = entry.get("rules").and_then(|rules| rules.get("dns")) {
                    selectors.has_dns_rules = true;
                    selectors.questions.extend(dns.items().map(Selector::new));
                }
            }
        }
        selectors
    }
}

impl<'a> Selector<'a> {
    fn new(node: Node<'a>) -> Self {
        let read = |field: &'static str, read: fn(&str) -> Result<Pattern, _>| {
            let text = node.text(field)?;
            Some(Written {
                field,
                text,
                pattern: read(text).ok()?,
            })
        };
        let written = [read("matchName", Pattern::name), read("matchPattern", Pattern::pattern)];
        Self {
            written: written.into_iter().flatten().collect(),
            node,
        }
    }

    fn path(&self, written: &Written<'_>) -> String {
        format!("{}.{}", self.node.path, written.field)
    }
}

/// A clusterwide policy that closes egress for every Pod, those of the cluster's own services included.
fn selector(spec: &Node<'_>, report: &mut Report<'_>) {
    let Some(node) = spec.get("endpointSelector") else {
        return;
    };
    let is_empty = node
        .get("matchLabels")
        .is_none_or(|labels| labels.fields().next().is_none())
        && node.list("matchExpressions").is_empty();
    if is_empty {
        report
            .warning(
                "selector-selects-all",
                &node.path,
                "it selects every Pod of every namespace, kube-system's too",
            )
            .suggest("select by `k8s:io.kubernetes.pod.namespace`, or exclude namespaces with a `NotIn` expression");
    }
}

/// Lists and rules that have no effect although they look as if they did.
fn empty_rules(spec: &Node<'_>, report: &mut Report<'_>) {
    for list in ["egress", "egressDeny"] {
        if let Some(node) = spec.get(list).filter(Node::is_empty_list) {
            report
                .warning(
                    "empty-rule-list",
                    &node.path,
                    "an empty list has no effect: it does not close egress",
                )
                .suggest("write `egress: [{}]` to close egress, or leave it out");
        }
    }
    for rule in spec.list("egressDeny") {
        if rule.fields().next().is_none() {
            report
                .warning("empty-deny-rule", &rule.path, "an empty rule denies nothing")
                .suggest("write `toEntities: [all]` to deny everything");
        }
    }
}

fn one_selector(selector: &Selector<'_>, report: &mut Report<'_>) {
    if selector.written.is_empty() {
        report
            .warning(
                "empty-fqdn-selector",
                &selector.node.path,
                "an entry without `matchName` and `matchPattern` matches nothing",
            )
            .suggest("write `matchPattern: \"*\"` to match every name");
    }
    for written in selector
        .written
        .iter()
        .filter(|written| has_single_star_in_disguise(written.text))
    {
        let reason = format!(
            "in {} the stars that do not lead as `**.` stand for a single star: part of one label",
            quoted(written.text)
        );
        report
            .warning("mid-double-star", &selector.path(written), reason)
            .suggest("write one star there, or `**.` at the start for any number of labels");
    }
}

/// Whether two stars stand in a row anywhere but as a leading `**.`.
fn has_single_star_in_disguise(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let without_lead = text.trim_start_matches('*');
    let leads = without_lead.is_empty() || without_lead.starts_with('.');
    if leads {
        without_lead.contains("**")
    } else {
        text.contains("**")
    }
}

/// `*.example.com` does not match `example.com`, which people expect.
fn without_apex(selector: &Selector<'_>, allowed: &Selectors<'_>, report: &mut Report<'_>) {
    for written in &selector.written {
        let text = written.pattern.as_str();
        let Some(apex) = text.strip_prefix("**.").or_else(|| text.strip_prefix("*.")) else {
            continue;
        };
        let Ok(name) = Name::parse(apex) else { continue };
        // `*.com`: nobody means `com`.
        if name.labels_from_the_right().count() < 2 {
            continue;
        }
        let patterns = allowed.names.iter().flat_map(|selector| &selector.written);
        if !patterns.into_iter().any(|other| other.pattern.matches(&name)) {
            report
                .warning(
                    "pattern-without-apex",
                    &selector.path(written),
                    format!("it does not match {name} itself"),
                )
                .suggest(format!("add `- matchName: {name}` if that is meant too"));
        }
    }
}

/// A name that is allowed and cannot be looked up.
fn hidden_by_dns_rules(selector: &Selector<'_>, allowed: &Selectors<'_>, report: &mut Report<'_>) {
    if !allowed.has_dns_rules {
        return;
    }
    for written in &selector.written {
        let Some(name) = example(&written.pattern) else {
            continue;
        };
        let mut questions = allowed.questions.iter().flat_map(|selector| &selector.written);
        if !questions.any(|question| question.pattern.matches(&name)) {
            let reason = format!(
                "the DNS rules of this policy do not let {name} be asked, so the selector learns no address for it"
            );
            report
                .warning("dns-rule-hides-fqdn", &selector.path(written), reason)
                .suggest(format!("add `- {}: {:?}` to `rules.dns`", written.field, written.text));
        }
    }
}

/// A name that is allowed and denied.
fn met_by_denial(selector: &Selector<'_>, denied: &Selectors<'_>, report: &mut Report<'_>) {
    for written in &selector.written {
        let Some(name) = example(&written.pattern) else {
            continue;
        };
        let mut denials = denied
            .names
            .iter()
            .flat_map(|selector| selector.written.iter().map(move |w| (selector, w)));
        if let Some((denial, by)) = denials.find(|(_, denial)| denial.pattern.matches(&name)) {
            report
                .warning(
                    "deny-meets-allow",
                    &selector.path(written),
                    format!("{name} is denied by {}, and deny wins", denial.path(by)),
                )
                .suggest("take it out of one of the two");
        }
    }
}

/// Selectors that open less, or more, than they seem to.
fn too_wide(selector: &Selector<'_>, report: &mut Report<'_>) {
    for written in &selector.written {
        let text = written.pattern.as_str();
        if text == "*." {
            report
                .warning(
                    "pattern-matches-all",
                    &selector.path(written),
                    "it matches every name: whatever is looked up is opened",
                )
                .suggest("name the domains, or write `toEntities: [world]`");
        } else if text.ends_with(".cluster.local.") {
            report
                .warning(
                    "cluster-name",
                    &selector.path(written),
                    "addresses of pods and services are never opened by a name",
                )
                .suggest("write `toServices` or `toEndpoints`");
        }
    }
}

/// A name that a pattern matches; for `**.` one that a single star does not reach.
fn example(pattern: &Pattern) -> Option<Name> {
    const LABEL: &str = "any-label";
    let text = match pattern.as_str() {
        "*." => format!("{LABEL}.{LABEL}"),
        text => match text.strip_prefix("**.") {
            Some(rest) => format!("{LABEL}.{LABEL}.{}", rest.replace('*', LABEL)),
            None => text.replace('*', LABEL),
        },
    };
    Name::parse(&text).ok().filter(|name| pattern.matches(name))
}

#[cfg(test)]
mod tests;
