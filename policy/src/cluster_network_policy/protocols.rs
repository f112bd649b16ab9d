//! `protocols` of a rule → its ports.

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::NamedPort;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::service_names;
use crate::shape::DocumentNode;

use super::one_of::{OneOf, Unknown};
use super::{missing, schema, some_items};

/// The ports of a rule.
pub(super) struct ProtocolPorts {
    pub(super) set: PortSet,
    pub(super) named: Vec<NamedPort>,
    pub(super) unknown: Vec<Unknown>,
}

/// Every port and protocol where the list is absent.
pub(super) fn read(rule: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> ProtocolPorts {
    let mut ports = ProtocolPorts {
        set: PortSet::All,
        named: Vec::new(),
        unknown: Vec::new(),
    };
    if rule.get("protocols").is_none() {
        return ports;
    }
    let mut ranges = Vec::new();
    for entry in some_items(rule, "protocols", report) {
        match OneOf::read(&entry, &schema::PROTOCOLS, report) {
            OneOf::Known("tcp", node) => ranges.extend(range(Protocol::Tcp, &node, report)),
            OneOf::Known("udp", node) => ranges.extend(range(Protocol::Udp, &node, report)),
            OneOf::Known("sctp", node) => ranges.extend(range(Protocol::Sctp, &node, report)),
            OneOf::Known(_, node) => ports.named.extend(named(&node, report)),
            OneOf::Unknown(unknown) => ports.unknown.push(unknown),
            OneOf::Refused => {}
        }
    }
    ports.set = PortSet::from_ranges(ranges);
    ports
}

fn range(protocol: Protocol, node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<PortRange> {
    let Some(port) = node.get("destinationPort") else {
        missing(
            node,
            "destinationPort",
            "write `destinationPort: {number: 443}`",
            report,
        );
        return None;
    };
    match (port.get("number"), port.get("range")) {
        (Some(number), None) => Some(PortRange::single(protocol, self::port(&number, report)?)),
        (None, Some(range)) => {
            let mut end_of = |field: &str| match range.get(field) {
                Some(node) => self::port(&node, report),
                None => {
                    missing(&range, field, "write `range: {start: 8000, end: 8999}`", report);
                    None
                }
            };
            let (first, last) = (end_of("start"), end_of("end"));
            let (first, last) = first.zip(last)?;
            if last <= first {
                let reason = format!("the range ends at {last}, and must end after it begins at {first}");
                report.error("bad-port", &range.path, reason);
                return None;
            }
            Some(PortRange { protocol, first, last })
        }
        (Some(_), Some(_)) => {
            report.error("two-selectors", &port.path, "`number` and `range` stand in one port");
            None
        }
        (None, None) => {
            missing(&port, "number` or `range", "write `number: 443`", report);
            None
        }
    }
}

fn port(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<u16> {
    let number = node.value.as_u64().and_then(|number| u16::try_from(number).ok());
    let port = number.filter(|port| *port != 0);
    if port.is_none() && (node.value.is_i64() || node.value.is_u64()) {
        let reason = format!("{} is not a port number, which are 1 to 65535", node.value);
        report.error("bad-port", &node.path, reason);
    }
    port
}

/// Of whichever protocol the container gives the name to.
fn named(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<NamedPort> {
    let name = node.value.as_str()?;
    if !service_names::is_valid_at_a_container(name) {
        report.error(
            "bad-port",
            &node.path,
            format!("{} is not the name of a port", quoted(name)),
        );
        return None;
    }
    Some(NamedPort {
        name: name.to_owned(),
        protocols: Protocol::ANY.to_vec(),
    })
}
