//! One rule: peers, crossed with ports.

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, PolicyRule};
use crate::policy_id::PolicyId;
use crate::prefix;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::{peers, ports};

/// A rule whose peers stand under `field`. Without peers it speaks of every peer, without ports of
/// every port.
pub(super) fn read(
    rule: &DocumentNode<'_>,
    field: &str,
    id: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> PolicyRule {
    let entries = rule.list(field);
    let peers = if entries.is_empty() {
        PeerSelector::Prefixes(prefix::everything(Zone::Anywhere))
    } else {
        let selectors = entries.iter().flat_map(|peer| peers::read(peer, id, report));
        selectors.collect::<Vec<_>>().into()
    };
    let (ports, named) = ports::read(rule, report);
    PolicyRule {
        origin: rule.path.clone(),
        action: Action::Allow,
        peers,
        ports,
        named,
        inspected: Vec::new(),
        dns: Vec::new(),
    }
}
