//! One rule of one of the four lists: peers, crossed with ports.

use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule};
use crate::policy_id::PolicyId;
use crate::prefix;
use crate::shape::DocumentNode;
use crate::zone::Zone;

use super::peers;
use super::port::PortNames;
use super::to_ports;
use super::written_list::{Side, WrittenList};

/// Reads one rule; `None` when it neither opens nor denies anything (`{}`).
pub(super) fn read(
    rule: &DocumentNode<'_>,
    list: WrittenList,
    policy: &PolicyId,
    report: &mut DiagnosticReport<'_>,
) -> Option<PolicyRule> {
    let WrittenList { direction, side } = list;
    let selected = peers::read(rule, list, policy, report);
    let has_ports = ["toPorts", "icmps"].iter().any(|field| !rule.list(field).is_empty());
    let condition = unenforced_condition(rule, list, report);
    // As in Cilium, a rule without peers and ports decides nothing. It counts only as an item of
    // the list: `egress: [{}]` closes egress.
    if selected.is_none() && !has_ports {
        if let Some(path) = condition {
            report
                .unenforced(
                    &path,
                    "this condition on what other rules let through is not checked yet, and this rule says nothing else",
                )
                .suggest(format!("say in each rule which {}s are meant", direction.peer()));
        }
        return None;
    }
    let mut peers = selected.unwrap_or_else(|| PeerSelector::Prefixes(prefix::everything(Zone::Anywhere)));
    if let Some(path) = condition {
        report.unenforced(
            &path,
            match side {
                Side::Allow => "this condition is not checked yet, so the rule opens nothing",
                Side::Deny => "this condition is not checked yet, so the rule denies without it",
            },
        );
        if side == Side::Allow {
            peers = PeerSelector::Unresolved;
        }
    }
    let ports = to_ports::read(rule, list, port_names(direction, &peers), report);
    if matches!(peers, PeerSelector::Names(_) | PeerSelector::Prefixes(_)) && peers.single_hosts().is_none() {
        for (path, dns) in &ports.dns {
            let reason = format!(
                "these destinations cannot be listed, so port {} of them is not opened (lookups to unknown servers would pass unobserved); the rule filters the questions to every trusted resolver instead",
                dns.port
            );
            report
                .unenforced(path, reason)
                .suggest("name the resolver's addresses with `toCIDR`, as /32 or /128");
        }
    }
    let dns = ports.dns.into_iter().map(|(_, dns)| dns).collect();
    Some(PolicyRule {
        origin: rule.path.clone(),
        action: match side {
            Side::Allow => Action::Allow,
            Side::Deny => Action::Deny,
        },
        peers,
        ports: ports.set,
        named: ports.named,
        inspected: ports.inspected,
        dns,
    })
}

/// The path of a field that narrows the rule in a way that is not enforced.
fn unenforced_condition(
    rule: &DocumentNode<'_>,
    list: WrittenList,
    report: &mut DiagnosticReport<'_>,
) -> Option<String> {
    let requires = match list.direction {
        Direction::Egress => "toRequires",
        Direction::Ingress => "fromRequires",
    };
    if let Some(node) = rule.get(requires).filter(|node| !node.is_empty_list()) {
        return Some(node.path);
    }
    let node = rule.get("authentication").filter(|_| list.side == Side::Allow)?;
    match node.text("mode") {
        // Nothing authenticates here, so that this asks for nothing.
        Some("disabled") => None,
        Some("required" | "test-always-fail") => Some(node.path),
        Some(_) => {
            report.error(
                "bad-value",
                &format!("{}.mode", node.path),
                "it must be disabled, required or test-always-fail",
            );
            None
        }
        None => Some(node.path),
    }
}

/// Where the names of this rule's ports are looked up. At ingress the ports are those of the
/// endpoint that the policy selects, and its containers name them. At egress they are the
/// destination's: outside the cluster a name can only be IANA's; inside, a container gives it.
fn port_names(direction: Direction, peers: &PeerSelector) -> PortNames {
    match peers {
        PeerSelector::Unresolved => PortNames::Irrelevant,
        _ if direction == Direction::Ingress => PortNames::Containers,
        PeerSelector::Names(_) => PortNames::Iana,
        PeerSelector::Prefixes(prefixes) if prefixes.iter().all(|(zone, _)| *zone == Zone::World) => PortNames::Iana,
        PeerSelector::Objects(selectors) if selectors.iter().all(ObjectSelector::is_outside) => PortNames::Iana,
        PeerSelector::Prefixes(_) | PeerSelector::Objects(_) => PortNames::Containers,
    }
}
