//! One entry of `ports`: a number, a range or a name, and a protocol.

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::NamedPort;
use crate::ports::{PortRange, Protocol};
use crate::service_names;
use crate::shape::DocumentNode;

use super::written_list::Side;

/// Who gives the names of the ports that a rule speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortNames {
    /// The IANA registry: all destinations are outside the cluster.
    Iana,
    /// Containers: destinations may be inside the cluster, or the ports are the endpoint's own.
    Containers,
    /// Nobody: the rule opens nothing, and this was reported.
    Irrelevant,
}

/// What one entry of `ports` means.
pub(super) enum PortMeaning {
    /// None where the entry is wrong, or opens nothing.
    Ranges(Vec<PortRange>),
    Named(NamedPort),
    /// Every port and protocol: a denial that could not be enforced as written.
    Everything,
}

pub(super) fn read(
    port: &DocumentNode<'_>,
    side: Side,
    names: PortNames,
    report: &mut DiagnosticReport<'_>,
) -> PortMeaning {
    let nothing = PortMeaning::Ranges(Vec::new());
    // As in Cilium: a protocol without ports needs none.
    let needs_no_port = port.text("protocol").is_some_and(is_without_ports);
    let text = match port.text("port") {
        Some(text) => text,
        None if needs_no_port && port.value.get("port").is_none() => "0",
        None => {
            report_missing(port, report);
            protocols(port, report);
            return nothing;
        }
    };
    let last = end(port, report);
    let Some(protocols) = protocols(port, report) else {
        return nothing;
    };
    if protocols.is_empty() {
        return unenforced_protocol(port, side, report);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        numbered_port(port, text, last, &protocols, report)
    } else {
        named_port(port, text, last, protocols, side, names, report)
    }
}

fn unenforced_protocol(port: &DocumentNode<'_>, side: Side, report: &mut DiagnosticReport<'_>) -> PortMeaning {
    let (effect, meaning) = match side {
        Side::Allow => ("the rule does not open it", PortMeaning::Ranges(Vec::new())),
        Side::Deny => ("the rule denies every port and protocol", PortMeaning::Everything),
    };
    report.unenforced(
        &format!("{}.protocol", port.path),
        format!("this protocol is not enforced yet: {effect}"),
    );
    meaning
}

/// A port by its number, or a range of them. 0 stands for every port.
fn numbered_port(
    port: &DocumentNode<'_>,
    text: &str,
    end: Option<u16>,
    protocols: &[Protocol],
    report: &mut DiagnosticReport<'_>,
) -> PortMeaning {
    let Ok(first) = text.parse::<u16>() else {
        let reason = format!("{} is above 65535", quoted(text));
        report.error("bad-port", &format!("{}.port", port.path), reason);
        return PortMeaning::Ranges(Vec::new());
    };
    match end {
        _ if first == 0 => ranges(protocols, 0, u16::MAX),
        Some(last) if last < first => {
            let reason = format!("the range ends at {last}, before it begins at {first}");
            report.error("bad-port", &format!("{}.endPort", port.path), reason);
            PortMeaning::Ranges(Vec::new())
        }
        end => ranges(protocols, first, end.unwrap_or(first)),
    }
}

fn named_port(
    port: &DocumentNode<'_>,
    name: &str,
    end: Option<u16>,
    protocols: Vec<Protocol>,
    side: Side,
    names: PortNames,
    report: &mut DiagnosticReport<'_>,
) -> PortMeaning {
    let nothing = PortMeaning::Ranges(Vec::new());
    let path = format!("{}.port", port.path);
    if !service_names::is_valid(name) {
        report
            .error(
                "bad-port",
                &path,
                format!("{} is neither a port number nor the name of a port", quoted(name)),
            )
            .suggest("write a number from 0 to 65535 in quotes");
        return nothing;
    }
    if end.is_some() {
        report
            .error(
                "bad-port",
                &format!("{}.endPort", port.path),
                "a named port has no range",
            )
            .suggest("write the number");
        return nothing;
    }
    let number = match names {
        PortNames::Irrelevant => return nothing,
        PortNames::Containers => {
            return PortMeaning::Named(NamedPort {
                name: name.to_owned(),
                protocols,
            });
        }
        PortNames::Iana => service_names::port(name),
    };
    if let Some(number) = number {
        return ranges(&protocols, number, number);
    }
    let (effect, meaning) = match side {
        Side::Allow => ("the rule does not open it", nothing),
        Side::Deny => ("the rule denies every port", ranges(&protocols, 0, u16::MAX)),
    };
    report
        .unenforced(&path, format!("no port named {} is known; {effect}", quoted(name)))
        .suggest("write the number");
    meaning
}

fn ranges(protocols: &[Protocol], first: u16, last: u16) -> PortMeaning {
    let of_each = protocols.iter().map(|protocol| PortRange {
        protocol: *protocol,
        first,
        last,
    });
    PortMeaning::Ranges(of_each.collect())
}

/// The protocols of a port. The list is empty for a protocol that is known and not enforced; `None`
/// for one that is refused, which is reported.
pub(super) fn protocols(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Vec<Protocol>> {
    let Some(text) = port.text("protocol") else {
        return Some(Protocol::ANY.to_vec());
    };
    match text.to_ascii_uppercase().as_str() {
        "" | "ANY" => Some(Protocol::ANY.to_vec()),
        "TCP" => Some(vec![Protocol::Tcp]),
        "UDP" => Some(vec![Protocol::Udp]),
        "SCTP" => Some(vec![Protocol::Sctp]),
        _ if is_without_ports(text) => Some(Vec::new()),
        other => {
            let finding = report.error(
                "bad-protocol",
                &format!("{}.protocol", port.path),
                format!("{} is not one of TCP, UDP, SCTP and ANY", quoted(text)),
            );
            if other.starts_with("ICMP") {
                finding.suggest("write a rule with `icmps` and without `toPorts`");
            } else if let Some(meant) = closest(other, ["TCP", "UDP", "SCTP", "ANY"]) {
                finding.suggest(format!("did you mean {meant}?"));
            }
            None
        }
    }
}

/// Whether Cilium knows the protocol (some since 1.18, all since 1.20), and it has no ports. None
/// of these is enforced.
fn is_without_ports(protocol: &str) -> bool {
    let known = ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"];
    known.iter().any(|known| known.eq_ignore_ascii_case(protocol))
}

/// `endPort`. As in the CRD, 0 is the same as absent.
pub(super) fn end(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<u16> {
    let node = port.get("endPort")?;
    let number = node.value.as_i64()?;
    match u16::try_from(number) {
        Ok(0) => None,
        Ok(number) => Some(number),
        Err(_) => {
            report.error("bad-port", &node.path, format!("{number} is not a port number"));
            None
        }
    }
}

pub(super) fn report_missing(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    // `shape::check` has reported a `port` of the wrong type.
    if port.value.is_object() && port.get("port").is_none() {
        report
            .error("missing-field", &port.path, "`port` is required")
            .suggest("write \"0\" for every port");
    }
}
