//! `toPorts` and `icmps` of a rule → a [`PortSet`], what is looked into, and its DNS rules.

use std::sync::Arc;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::direction::Direction;
use crate::dns_rules::DnsRule;
use crate::l7::L7Rules;
use crate::peer_selector::NamedPort;
use crate::policy::InspectedPorts;
use crate::ports::{PortRange, PortSet, Protocol};
use crate::shape::DocumentNode;

use super::icmp;
use super::l7::{self, Inspected};
use super::names::{self, NameWithPattern};
use super::port::{self, PortMeaning, PortNames};
use super::written_list::{Side, WrittenList};

/// The CRD's limit (`maxItems`).
const MAX_PORTS: usize = 40;

/// The ports of a rule, and what may be asked there.
pub(super) struct ToPorts {
    pub(super) set: PortSet,
    /// Ports by the names that containers give them.
    pub(super) named: Vec<NamedPort>,
    /// Ports whose connections are looked into.
    pub(super) inspected: Vec<InspectedPorts>,
    /// DNS rules, each with the path of its `rules.dns`. Their ports are not in `set`, because
    /// lookups are intercepted and never let through.
    pub(super) dns: Vec<(String, DnsRule)>,
}

impl ToPorts {
    fn of(set: PortSet) -> Self {
        Self {
            set,
            named: Vec::new(),
            inspected: Vec::new(),
            dns: Vec::new(),
        }
    }

    fn add(&mut self, meaning: PortMeaning) {
        match meaning {
            PortMeaning::Ranges(ranges) => self.set = self.set.union(&PortSet::from_ranges(ranges)),
            PortMeaning::Named(named) => self.named.push(named),
            PortMeaning::Everything => self.set = PortSet::All,
        }
    }
}

pub(super) fn read(
    rule: &DocumentNode<'_>,
    list: WrittenList,
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
        return ToPorts::of(icmp::read(&icmps, list.side, report));
    }
    if entries.is_empty() {
        return ToPorts::of(PortSet::All);
    }
    let mut ports = ToPorts::of(PortSet::Ranges(Vec::new()));
    for entry in &entries {
        read_entry(entry, list, names, &mut ports, report);
    }
    ports
}

fn read_entry(
    entry: &DocumentNode<'_>,
    list: WrittenList,
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
    let inspected = l7::read(entry, report);
    if let Some(node) = entry.get("rules").and_then(|rules| rules.get("dns")) {
        if list.direction == Direction::Ingress {
            report
                .error(
                    "dns-at-ingress",
                    &node.path,
                    "DNS rules filter what the selected endpoints ask, and ingress rules speak of who connects to them",
                )
                .suggest("write the rule under `egress`");
            return;
        }
        read_dns(&node, entry, &ports, &mut into.dns, report);
        return;
    }
    if ports.is_empty() {
        let effect = match list.side {
            Side::Allow => "opens none",
            Side::Deny => "denies every one",
        };
        report
            .warning("no-ports", &entry.path, format!("it lists no ports, and {effect}"))
            .suggest("list `ports`, or leave `toPorts` out to speak of every port");
    }
    let mut meanings: Vec<PortMeaning> = ports
        .iter()
        .map(|port| port::read(port, list.side, names, report))
        .collect();
    if ports.is_empty() && list.side == Side::Deny {
        meanings.push(PortMeaning::Everything);
    }
    match inspected {
        Inspected::Nothing => meanings.into_iter().for_each(|meaning| into.add(meaning)),
        Inspected::By(rules) => {
            report.unenforced(
                &l7::written(entry).path,
                "connections are looked into by agents with `--inspect on` alone; elsewhere this rule does not open these ports",
            );
            let ports = inspected_ports(entry, meanings, rules, report);
            into.inspected.push(ports);
        }
        Inspected::Unenforced => {}
    }
}

/// The part of an entry's ports that is TCP: names and requests are read there alone.
fn inspected_ports(
    entry: &DocumentNode<'_>,
    meanings: Vec<PortMeaning>,
    rules: L7Rules,
    report: &mut DiagnosticReport<'_>,
) -> InspectedPorts {
    let mut ports = ToPorts::of(PortSet::Ranges(Vec::new()));
    meanings.into_iter().for_each(|meaning| ports.add(meaning));
    let tcp = PortSet::from_ranges([PortRange::every(Protocol::Tcp)]);
    let mut has_others = !ports.set.subtract(&tcp).is_empty();
    let mut named = Vec::new();
    for port in ports.named {
        has_others |= port.protocols.iter().any(|protocol| *protocol != Protocol::Tcp);
        if port.protocols.contains(&Protocol::Tcp) {
            named.push(NamedPort {
                protocols: vec![Protocol::Tcp],
                ..port
            });
        }
    }
    if has_others {
        let path = format!("{}.ports", entry.path);
        match rules.http.is_some() {
            // As in Cilium.
            true => report.error("l7-needs-tcp", &path, "requests of HTTP are read from TCP alone"),
            false => report.warning(
                "l7-needs-tcp",
                &path,
                "names are read from TCP alone, and the entry opens no other protocol",
            ),
        }
        .suggest("write `protocol: TCP`");
    }
    InspectedPorts {
        path: entry.path.clone(),
        ports: ports.set.intersection(&tcp),
        named,
        rules: Arc::new(rules),
    }
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
        .flat_map(|entry| names::patterns(&entry, NameWithPattern::Allowed, report))
        .collect();
    if ports.is_empty() {
        report
            .error("bad-dns-port", &entry.path, "a DNS rule needs an explicit port")
            .suggest("write `ports: [{port: \"53\", protocol: ANY}]`");
    }
    let first = dns.len();
    for port in ports {
        let Some(text) = port.text("port") else {
            port::report_missing(port, report);
            port::protocols(port, report);
            continue;
        };
        port::protocols(port, report);
        let path = format!("{}.port", port.path);
        let number = match text.parse::<u16>() {
            Ok(number) if number != 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => number,
            _ => {
                let reason = format!("a DNS rule needs the number of one port, and {} is none", quoted(text));
                report.error("bad-dns-port", &path, reason).suggest("write \"53\"");
                continue;
            }
        };
        if port::end(port, report).is_some_and(|end| end > number) {
            report
                .error(
                    "bad-dns-port",
                    &format!("{}.endPort", port.path),
                    "a DNS rule takes no range of ports",
                )
                .suggest("list the ports one by one");
        }
        // A port that is listed for UDP and for TCP is one resolver.
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
