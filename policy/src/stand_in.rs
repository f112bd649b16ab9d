//! What stands in for a policy that is refused: nothing that it may have been meant to close stays
//! open (docs/security.md, 7).

use crate::diagnostic::{Diagnostic, closest};
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::PerDirection;
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, Policy, PolicyRule};
use crate::ports::PortSet;
use crate::prefix::everything;
use crate::shape::{DocumentNode, FieldShape};
use crate::zone::Zone;

/// What stands in for a refused policy as long as no earlier version of it is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StandIn {
    /// Closes what the policy may have been meant to close, and allows nothing. `None` when nothing
    /// is to be closed, or nothing can be.
    pub policy: Option<Policy>,
    /// What that means for endpoints. To be said only where it stands in.
    pub findings: Vec<Diagnostic>,
}

/// The known field that each unknown one is a misspelling of, if one is close.
pub(crate) fn misspelt<'n>(
    node: &'n DocumentNode<'_>,
    shape: &'n FieldShape,
) -> impl Iterator<Item = Option<&'static str>> + use<'n> {
    let known = match shape {
        FieldShape::Object(known) => *known,
        _ => &[],
    };
    let names = move || known.iter().map(|(name, _)| *name);
    node.fields()
        .chain(node.nulls())
        .filter(move |(name, _)| !names().any(|known| known == *name))
        .map(move |(name, _)| closest(name, names()))
}

/// What was meant to be denied is not known, and must not be let through by what other policies
/// allow.
pub(crate) fn deny_everything(origin: String) -> PolicyRule {
    PolicyRule {
        origin,
        action: Action::Deny,
        peers: PeerSelector::Prefixes(everything(Zone::Anywhere)),
        ports: PortSet::All,
        named: Vec::new(),
        inspected: Vec::new(),
        dns: Vec::new(),
    }
}

/// Says at the selector in which directions the endpoints are closed, and how far.
pub(crate) fn closed(selector: &str, is_closed: PerDirection<bool>, extent: &str, report: &mut DiagnosticReport<'_>) {
    let directions = is_closed.iter().filter(|(_, is_closed)| **is_closed);
    let directions: Vec<&str> = directions.map(|(direction, _)| direction.as_str()).collect();
    let directions = directions.join(" and ");
    report
        .warning(
            "closed-until-mended",
            selector,
            format!(
                "as long as this policy is refused, the endpoints that it selects are closed for {directions}: {extent}"
            ),
        )
        .suggest("mend what is named as an error; then the policy is in force as written");
}

/// Says that nobody can be closed, because `selector` is in doubt.
pub(crate) fn cannot_close(path: &str, selector: &str, report: &mut DiagnosticReport<'_>) {
    report
        .error(
            "cannot-close",
            path,
            "whom this policy selects cannot be told, so nothing is closed by it: endpoints that no other policy selects stay OPEN",
        )
        .suggest(format!("mend its `{selector}` first"));
}
