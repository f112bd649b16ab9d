//! What stands in for a policy that is refused: nothing that it may have been meant to close stays open (docs/security.md, 7).

use crate::diagnostic::{Diagnostic, Report, closest};
use crate::document::Document;
use crate::labels::LabelSelector;
use crate::policy::{Action, EgressRule, Extensions, Peers, Policy, PolicyId, Spec, Tier, Zone};
use crate::ports::PortSet;
use crate::prefix::everything;
use crate::shape::{self, Node, Shape};

use super::schema;
use super::spec::endpoints;

/// What stands in for a refused policy as long as no earlier version of it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StandIn {
    /// Closes egress of the endpoints that the policy selects, and allows nothing. `None` when nothing is to be closed, or nothing can be.
    pub policy: Option<Policy>,
    /// What that means for endpoints. To be said only where it stands in.
    pub findings: Vec<Diagnostic>,
}

/// Reads no more of each spec than whom it selects and whether it is about egress.
pub(super) fn read(document: &Document, root: &Node<'_>, id: &PolicyId, extensions: Extensions) -> StandIn {
    let mut report = Report::new(document);
    // A field of unknown meaning beside `spec` may be a part of it that was indented too little.
    let astray = guess(root, &schema::POLICY).is_some();
    let mut specs = Vec::new();
    for node in super::specs(root) {
        let is_of_nodes = node.get("nodeSelector").is_some() && node.get("endpointSelector").is_none();
        if is_of_nodes {
            continue;
        }
        let Some(subject) = subject(document, &node, id) else {
            cannot_close(&node.path, &mut report);
            continue;
        };
        let (closes, denies) = meant(document, &node);
        if !closes && !astray {
            continue;
        }
        closed(&node.path, denies, &mut report);
        specs.push(Spec {
            subject,
            tier: Tier::Network,
            closes_egress: true,
            rules: if denies {
                vec![deny_everything(&node.path)]
            } else {
                Vec::new()
            },
        });
    }
    let unreadable_list = root.get("specs").filter(|specs| !specs.value.is_array());
    if unreadable_list.is_some() || super::specs(root).is_empty() {
        cannot_close(unreadable_list.map_or("", |_| "specs"), &mut report);
    }
    StandIn {
        policy: (!specs.is_empty()).then(|| Policy {
            id: id.clone(),
            extensions,
            specs,
        }),
        findings: report.finish(),
    }
}

/// Whom a spec selects, where not the least of it is in doubt: half a selector would select whom nobody meant.
fn subject(document: &Document, spec: &Node<'_>, id: &PolicyId) -> Option<LabelSelector> {
    let node = spec.get("endpointSelector")?;
    let mut report = Report::new(document);
    shape::check(&node, &schema::SELECTOR, &mut report);
    let subject = endpoints(&node, id, &mut report)?;
    (!report.is_refused()).then_some(subject)
}

/// Whether a spec may have been meant to close egress, and whether to deny.
fn meant(document: &Document, spec: &Node<'_>) -> (bool, bool) {
    let has_rules = |field| spec.get(field).is_some_and(|rules| !rules.is_empty_list());
    let guessed = guess(spec, &schema::RULE);
    let denies = has_rules("egressDeny") || guessed == Some(Guess::Deny);
    let default_deny = spec.get("enableDefaultDeny");
    let doubtful = default_deny.as_ref().is_some_and(|node| {
        let mut report = Report::new(document);
        shape::check(node, &schema::DEFAULT_DENY, &mut report);
        report.is_refused()
    });
    let said = default_deny
        .and_then(|node| node.get("egress"))
        .and_then(|node| node.value.as_bool());
    let closes = denies || doubtful || guessed.is_some() || said.unwrap_or_else(|| has_rules("egress"));
    (closes, denies)
}

/// What an unknown field may have been meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Guess {
    Egress,
    Deny,
}

/// `None` when there is no unknown field, or each is a misspelt one that does not speak of egress.
fn guess(node: &Node<'_>, shape: &Shape) -> Option<Guess> {
    let Shape::Object(known) = shape else { return None };
    let names = || known.iter().map(|(name, _)| *name);
    node.fields()
        .filter(|(name, _)| !names().any(|known| known == *name))
        .filter_map(|(name, _)| match closest(name, names()) {
            Some("egressDeny") => Some(Guess::Deny),
            Some("egress" | "enableDefaultDeny") | None => Some(Guess::Egress),
            Some(_) => None,
        })
        .max()
}

/// What `egressDeny` was meant to deny is not known, and must not be let through by what other policies allow.
fn deny_everything(path: &str) -> EgressRule {
    EgressRule {
        origin: format!("{path}.egressDeny"),
        action: Action::Deny,
        peers: Peers::Prefixes(everything(Zone::Anywhere)),
        ports: PortSet::All,
        named: Vec::new(),
        dns: Vec::new(),
    }
}

fn closed(path: &str, denies: bool, report: &mut Report<'_>) {
    let extent = match denies {
        false => "only what other policies allow is let through",
        true => "nothing is let through, since what its `egressDeny` denies is not known",
    };
    report
        .warning(
            "closed-until-mended",
            &format!("{path}.endpointSelector"),
            format!("as long as this policy is refused, the endpoints that it selects are closed for egress: {extent}"),
        )
        .suggest("mend what is named as an error; then the policy is in force as written");
}

fn cannot_close(path: &str, report: &mut Report<'_>) {
    report
        .error(
            "cannot-close",
            path,
            "whom this policy selects cannot be told, so nothing is closed by it: endpoints that no other policy selects stay OPEN",
        )
        .suggest("mend its `endpointSelector` first");
}
