//! `ports` of a rule → a [`PortSet`], and the ports that containers name.

use serde_json::Value;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::NamedPort;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::service_names;
use crate::shape::DocumentNode;

/// Every port and protocol where the list is absent or empty.
pub(super) fn read(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> (PortSet, Vec<NamedPort>) {
    let entries = rule.list("ports");
    if entries.is_empty() {
        return (PortSet::All, Vec::new());
    }
    let mut ranges = Vec::new();
    let mut named = Vec::new();
    for entry in entries.iter().filter(|entry| entry.value.is_object()) {
        match port(entry, report) {
            Some(PolicyPort::Range(range)) => ranges.push(range),
            Some(PolicyPort::Named(port)) => named.push(port),
            None => {}
        }
    }
    (PortSet::from_ranges(ranges), named)
}

enum PolicyPort {
    Range(PortRange),
    Named(NamedPort),
}

/// `None` for one that is refused.
fn port(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<PolicyPort> {
    let protocol = protocol(entry, report)?;
    let end = entry.get("endPort");
    let Some(node) = entry.get("port") else {
        if let Some(end) = end {
            report.error("bad-port", &end.path, "`endPort` stands without `port`");
            return None;
        }
        return Some(PolicyPort::Range(PortRange::every(protocol)));
    };
    let name = match node.value {
        Value::Number(number) => {
            let first = in_range(&node, number.as_i64(), report)?;
            let last = match end {
                Some(end) => in_range(&end, end.value.as_i64(), report)?,
                None => first,
            };
            if last < first {
                let reason = format!("the range ends at {last}, before it begins at {first}");
                report.error("bad-port", &format!("{}.endPort", entry.path), reason);
                return None;
            }
            return Some(PolicyPort::Range(PortRange { protocol, first, last }));
        }
        Value::String(name) => name,
        // Its type was reported with the shape.
        _ => return None,
    };
    if !service_names::is_valid_at_a_container(name) {
        let finding = report.error(
            "bad-port",
            &node.path,
            format!("{} is not the name of a port", quoted(name)),
        );
        if name.parse::<u16>().is_ok() {
            finding.suggest(format!("write it without quotes: {name}"));
        }
        return None;
    }
    if let Some(end) = end {
        report
            .error("bad-port", &end.path, "a named port has no range")
            .suggest("write the number");
        return None;
    }
    Some(PolicyPort::Named(NamedPort {
        name: name.clone(),
        protocols: vec![protocol],
    }))
}

/// TCP where there is none.
fn protocol(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Protocol> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let Some(node) = entry.get("protocol") else {
        return Some(Protocol::Tcp);
    };
    let text = node.value.as_str()?;
    let found = protocols.into_iter().find(|protocol| protocol.to_string() == text);
    if found.is_none() {
        let reason = format!("{} is not one of TCP, UDP and SCTP", quoted(text));
        report.error("bad-protocol", &node.path, reason);
    }
    found
}

fn in_range(node: &DocumentNode<'_>, number: Option<i64>, report: &mut DiagnosticReport<'_>) -> Option<u16> {
    let port = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0);
    if port.is_none() && (node.value.is_i64() || node.value.is_u64()) {
        let reason = format!("{} is not a port number, which are 1 to 65535", node.value);
        report.error("bad-port", &node.path, reason);
    }
    port
}
