//! One rule: an action on peers, crossed with protocols.

use crate::diagnostic::{DiagnosticReport, closest, quoted};
use crate::direction::Direction;
use crate::peer_selector::{NamedPort, PeerSelector};
use crate::policy::{Action, PolicyRule, Tier};
use crate::ports::PortSet;
use crate::shape::{DocumentNode, FieldShape};
use crate::stand_in::deny_everything;

use super::{domain_names, peers, protocols};

/// What a rule comes to: nothing, or one rule for its names and one for its other peers.
pub(super) fn read(
    rule: &DocumentNode<'_>,
    direction: Direction,
    tier: Option<Tier>,
    report: &mut DiagnosticReport<'_>,
) -> Vec<PolicyRule> {
    if !rule.value.is_object() {
        return Vec::new();
    }
    let action = action(rule, report);
    let origin = origin(rule, report);
    let destinations = peers::read(rule, direction, report);
    let ports = protocols::read(rule, report);
    if let Some(action) = action {
        domain_names::check_place(&destinations.names, action, tier, report);
    }
    if !ports.named.is_empty()
        && let Some(path) = &destinations.without_named_ports
    {
        report
            .error(
                "named-port",
                path,
                "only Pods have named ports, and this peer stands in a rule with `destinationNamedPort`",
            )
            .suggest("write the number of the port, or another rule");
    }
    let (Some(action), Direction::Egress) = (action, direction) else {
        return Vec::new();
    };
    let unknown: Vec<_> = destinations.unknown.iter().chain(&ports.unknown).collect();
    for unknown in &unknown {
        unknown.say(action, report);
    }
    if !unknown.is_empty() {
        return match action {
            Action::Allow => Vec::new(),
            Action::Deny | Action::Pass => vec![deny_everything(origin)],
        };
    }
    let of = |peers| PolicyRule {
        origin: origin.clone(),
        action,
        peers,
        ports: ports.set.clone(),
        named: ports.named.clone(),
        dns: Vec::new(),
    };
    let names = destinations.names.into_iter().filter_map(|(_, pattern)| pattern);
    let names = Some(names.collect::<Vec<_>>()).filter(|names| !names.is_empty());
    let objects = Some(destinations.objects).filter(|objects| !objects.is_empty());
    let names = names.map(|names| of(PeerSelector::Names(names)));
    names
        .into_iter()
        .chain(objects.map(|objects| of(objects.into())))
        .collect()
}

/// The ports of a rule.
pub(super) struct ProtocolPorts {
    pub(super) set: PortSet,
    pub(super) named: Vec<NamedPort>,
    pub(super) unknown: Vec<Unknown>,
}

/// An entry that has none of the fields that are known, or one beside them that is not.
pub(super) struct Unknown {
    path: String,
    reason: String,
    meant: Option<&'static str>,
}

/// What an entry that must have exactly one field has.
pub(super) enum OneOf<'a> {
    Known(&'static str, DocumentNode<'a>),
    Unknown(Unknown),
    /// An error says why.
    Refused,
}

impl<'a> OneOf<'a> {
    /// Reads an entry, and holds what stands in it against its shape.
    pub(super) fn read(
        entry: &DocumentNode<'a>,
        known: &'static [(&'static str, FieldShape)],
        report: &mut DiagnosticReport<'_>,
    ) -> Self {
        if !entry.value.is_object() {
            return OneOf::Refused;
        }
        let names = || known.iter().map(|(name, _)| *name);
        let mut nulls = entry.nulls().filter(|(name, _)| names().any(|known| known == *name));
        if let Some((name, node)) = nulls.next() {
            crate::shape::no_value(name, &node, report);
            return OneOf::Refused;
        }
        let stranger = entry.fields().find(|(name, _)| !names().any(|known| known == *name));
        if let Some((name, node)) = stranger {
            return OneOf::Unknown(Unknown {
                path: node.path,
                reason: format!("{} is not known here", quoted(name)),
                meant: closest(name, names()),
            });
        }
        let mut present = known
            .iter()
            .filter_map(|(name, shape)| entry.get(name).map(|node| (*name, shape, node)));
        let Some((name, shape, node)) = present.next() else {
            return OneOf::Unknown(Unknown {
                path: entry.path.clone(),
                reason: "nothing that is known stands in it".to_owned(),
                meant: None,
            });
        };
        if let Some((other, ..)) = present.next() {
            report
                .error(
                    "two-selectors",
                    &entry.path,
                    format!("`{name}` and `{other}` stand in one entry"),
                )
                .suggest("write one entry for each");
            return OneOf::Refused;
        }
        crate::shape::check(&node, shape, report);
        OneOf::Known(name, node)
    }
}

impl Unknown {
    fn say(&self, action: Action, report: &mut DiagnosticReport<'_>) {
        let effect = match action {
            Action::Allow => "the rule matches nothing",
            Action::Deny | Action::Pass => "the rule denies everything",
        };
        let finding = report.unenforced(&self.path, format!("{}, so {effect}", self.reason));
        if let Some(meant) = self.meant {
            finding.suggest(format!("did you mean `{meant}`?"));
        }
    }
}

fn action(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Action> {
    const ACTIONS: [(&str, Action); 3] = [
        ("Accept", Action::Allow),
        ("Deny", Action::Deny),
        ("Pass", Action::Pass),
    ];
    let Some(node) = rule.get("action") else {
        super::missing(rule, "action", "write Accept, Deny or Pass", report);
        return None;
    };
    let text = node.value.as_str()?;
    let found = ACTIONS.into_iter().find(|(name, _)| *name == text);
    if found.is_none() {
        let reason = format!("{} is not Accept, Deny or Pass", quoted(text));
        let finding = report.error("bad-value", &node.path, reason);
        if text.eq_ignore_ascii_case("allow") {
            finding.suggest("write Accept");
        }
    }
    found.map(|(_, action)| action)
}

/// Where the rule stands, and what it calls itself.
fn origin(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> String {
    const MAX_CHARS: usize = 100;
    let Some(name) = rule.text("name").filter(|name| !name.is_empty()) else {
        return rule.path.clone();
    };
    let chars = name.chars().count();
    if chars > MAX_CHARS {
        let path = format!("{}.name", rule.path);
        report.error(
            "too-long",
            &path,
            format!("it has {chars} characters, and at most {MAX_CHARS} are allowed"),
        );
    }
    format!("{} {}", rule.path, quoted(name))
}
