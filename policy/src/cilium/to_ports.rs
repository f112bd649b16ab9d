//! `toPorts` and `icmps` of a rule → a [`PortSet`] and its DNS rules.

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::dns_rules::DnsRule;
use crate::peer_selector::NamedPort;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::service_names;
use crate::shape::DocumentNode;

use super::icmp;
use super::names::{self, Both};
use super::side::Side;

/// As the CRD has it.
const MAX_PORTS: usize = 40;

/// What the name of a port means at the rule's destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PortNames {
    /// IANA's: they are outside the cluster.
    Iana,
    /// A container's: they may be inside.
    Containers,
    /// The rule opens nothing, and this was reported.
    Irrelevant,
}

/// The ports of a rule.
pub(super) struct ToPorts {
    pub(super) set: PortSet,
    /// Those that containers name.
    pub(super) named: Vec<NamedPort>,
    /// Each with the path of its `rules.dns`. Their ports are not in `set`: lookups are
    /// intercepted, and never let through.
    pub(super) dns: Vec<(String, DnsRule)>,
}

impl ToPorts {
    fn of(set: PortSet) -> Self {
        Self {
            set,
            named: Vec::new(),
            dns: Vec::new(),
        }
    }

    fn add(&mut self, opened: Opened) {
        match opened {
            Opened::These(ranges) => self.set = self.set.union(&PortSet::from_ranges(ranges)),
            Opened::Named(named) => self.named.push(named),
            Opened::Everything => self.set = PortSet::All,
        }
    }
}

/// What one of the ports comes to.
enum Opened {
    These(Vec<PortRange>),
    Named(NamedPort),
    /// Every port and protocol: a denial that could not be enforced as written.
    Everything,
}

pub(super) fn read(
    rule: &DocumentNode<'_>,
    side: Side,
    names: PortNames,
    report: &mut DiagnosticReport<'_>,
) -> ToPorts {
    let entries = rule.list("toPorts");
    if let Some(icmps) = rule.get("icmps").filter(|node| !node.is_empty_list()) {
        if !entries.is_empty() {
            report
                .error(
                    "icmps-with-ports",
                    &icmps.path,
                    "`icmps` and `toPorts` stand in one rule",
                )
                .suggest("write one rule for each");
        }
        return ToPorts::of(icmp::read(&icmps, side, report));
    }
    if entries.is_empty() {
        return ToPorts::of(PortSet::All);
    }
    let mut ports = ToPorts::of(PortSet::Ranges(Vec::new()));
    for entry in &entries {
        read_entry(entry, side, names, &mut ports, report);
    }
    ports
}

fn read_entry(
    entry: &DocumentNode<'_>,
    side: Side,
    names: PortNames,
    into: &mut ToPorts,
    report: &mut DiagnosticReport<'_>,
) {
    if !entry.value.is_object() {
        return;
    }
    let ports = entry.list("ports");
    if ports.len() > MAX_PORTS {
        let reason = format!("it has {} ports, and at most {MAX_PORTS} are allowed", ports.len());
        report
            .error("too-many", &format!("{}.ports", entry.path), reason)
            .suggest("write several `toPorts` entries, or `endPort`");
        return;
    }
    let inspected = inspection(entry, report);
    if let Some(node) = entry.get("rules").and_then(|rules| rules.get("dns")) {
        read_dns(&node, entry, &ports, &mut into.dns, report);
        return;
    }
    if ports.is_empty() {
        let effect = match side {
            Side::Allow => "opens none",
            Side::Deny => "denies every one",
        };
        report
            .warning("no-ports", &entry.path, format!("it lists no ports, and {effect}"))
            .suggest("list `ports`, or leave `toPorts` out to speak of every port");
    }
    let mut opened: Vec<Opened> = ports.iter().map(|port| read_port(port, side, names, report)).collect();
    if ports.is_empty() && side == Side::Deny {
        opened.push(Opened::Everything);
    }
    if !inspected {
        opened.into_iter().for_each(|opened| into.add(opened));
    }
}

/// Whether the entry asks to look into connections, which is reported: its ports are not opened.
fn inspection(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> bool {
    let mut found: Vec<DocumentNode<'_>> = ["serverNames", "listener", "terminatingTLS", "originatingTLS"]
        .iter()
        .filter_map(|field| entry.get(field))
        .filter(|node| !node.is_empty_list())
        .collect();
    if let Some(rules) = entry.get("rules") {
        let l7: Vec<_> = ["http", "kafka", "l7proto"]
            .iter()
            .filter_map(|field| rules.get(field))
            .collect();
        if l7.len() + usize::from(rules.get("dns").is_some()) > 1 {
            report
                .error(
                    "two-l7-kinds",
                    &rules.path,
                    "rules of several protocols stand in one entry",
                )
                .suggest("write one `toPorts` entry for each");
        }
        if rules.get("l7").is_some() && rules.get("l7proto").is_none() {
            report.error("missing-field", &rules.path, "`l7` needs `l7proto`");
        }
        found.extend(l7);
    }
    for node in &found {
        report.unenforced(
            &node.path,
            "connections are not looked into yet, so these ports are not opened by this rule",
        );
    }
    !found.is_empty()
}

fn read_dns(
    node: &DocumentNode<'_>,
    entry: &DocumentNode<'_>,
    ports: &[DocumentNode<'_>],
    dns: &mut Vec<(String, DnsRule)>,
    report: &mut DiagnosticReport<'_>,
) {
    let patterns: Vec<_> = node
        .items()
        .flat_map(|entry| names::patterns(&entry, Both::Allowed, report))
        .collect();
    if ports.is_empty() {
        report
            .error("bad-dns-port", &entry.path, "a DNS rule needs an explicit port")
            .suggest("write `ports: [{port: \"53\", protocol: ANY}]`");
    }
    let first = dns.len();
    for port in ports {
        let Some(text) = port.text("port") else {
            missing_port(port, report);
            protocols(port, report);
            continue;
        };
        protocols(port, report);
        let path = format!("{}.port", port.path);
        let number = match text.parse::<u16>() {
            Ok(number) if number != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => {
                let reason = format!("a DNS rule needs the number of one port, and {} is none", quoted(text));
                report.error("bad-dns-port", &path, reason).suggest("write \"53\"");
                continue;
            }
        };
        if end_port(port, report).is_some_and(|end| end > number) {
            report
                .error(
                    "bad-dns-port",
                    &format!("{}.endPort", port.path),
                    "a DNS rule takes no range of ports",
                )
                .suggest("list the ports one by one");
        }
        // The same port for UDP and for TCP is one resolver.
        if !dns[first..].iter().any(|(_, rule)| rule.port == number) {
            dns.push((
                node.path.clone(),
                DnsRule {
                    port: number,
                    patterns: patterns.clone(),
                },
            ));
        }
    }
}

fn read_port(port: &DocumentNode<'_>, side: Side, names: PortNames, report: &mut DiagnosticReport<'_>) -> Opened {
    let nothing = Opened::These(Vec::new());
    // As in Cilium: a protocol without ports needs none.
    let has_none = port.text("protocol").is_some_and(is_without_ports);
    let text = match port.text("port") {
        Some(text) => text,
        None if has_none && port.value.get("port").is_none() => "0",
        None => {
            missing_port(port, report);
            protocols(port, report);
            return nothing;
        }
    };
    let path = format!("{}.port", port.path);
    let end = end_port(port, report);
    let protocols = match protocols(port, report) {
        Some(protocols) if protocols.is_empty() => {
            let effect = match side {
                Side::Allow => "the rule does not open it",
                Side::Deny => "the rule denies every port and protocol",
            };
            report.unenforced(
                &format!("{}.protocol", port.path),
                format!("this protocol is not enforced yet: {effect}"),
            );
            return match side {
                Side::Allow => nothing,
                Side::Deny => Opened::Everything,
            };
        }
        Some(protocols) => protocols,
        None => return nothing,
    };
    let over = |first, last| {
        Opened::These(
            protocols
                .iter()
                .map(|protocol| PortRange {
                    protocol: *protocol,
                    first,
                    last,
                })
                .collect(),
        )
    };
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        let Ok(first) = text.parse::<u16>() else {
            report.error("bad-port", &path, format!("{} is above 65535", quoted(text)));
            return nothing;
        };
        return match end {
            _ if first == 0 => over(0, u16::MAX),
            Some(last) if last < first => {
                let reason = format!("the range ends at {last}, before it begins at {first}");
                report.error("bad-port", &format!("{}.endPort", port.path), reason);
                nothing
            }
            end => over(first, end.unwrap_or(first)),
        };
    }
    if !service_names::is_valid(text) {
        report
            .error(
                "bad-port",
                &path,
                format!("{} is neither a port number nor the name of a port", quoted(text)),
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
    let reason = match (names, service_names::port(text)) {
        (PortNames::Irrelevant, _) => return nothing,
        (PortNames::Iana, Some(number)) => return over(number, number),
        (PortNames::Iana, None) => format!("no port named {} is known", quoted(text)),
        (PortNames::Containers, _) => {
            return Opened::Named(NamedPort {
                name: text.to_owned(),
                protocols,
            });
        }
    };
    match side {
        Side::Allow => {
            report
                .unenforced(&path, format!("{reason}; the rule does not open it"))
                .suggest("write the number");
            nothing
        }
        Side::Deny => {
            report
                .unenforced(&path, format!("{reason}; the rule denies every port"))
                .suggest("write the number");
            over(0, u16::MAX)
        }
    }
}

/// The protocols of a port: none for one that is known and not enforced, `None` for one that is
/// refused.
fn protocols(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Vec<Protocol>> {
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

/// Whether a protocol is known, has no ports, and is not enforced: Cilium's since 1.18, and those
/// since 1.20.
fn is_without_ports(protocol: &str) -> bool {
    let known = ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"];
    known.iter().any(|known| known.eq_ignore_ascii_case(protocol))
}

/// `endPort`; 0 is the same as absent, as in the CRD.
fn end_port(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<u16> {
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

fn missing_port(port: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    // A `port` of the wrong type was reported with its shape.
    if port.value.is_object() && port.get("port").is_none() {
        report
            .error("missing-field", &port.path, "`port` is required")
            .suggest("write \"0\" for every port");
    }
}
