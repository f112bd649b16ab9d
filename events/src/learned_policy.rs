//! The policy that would have been enough for what was seen. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;
use names::Pattern;
use policy::address::Teachable;

use crate::account::{FlowTraffic, FlowUse, NameUse, NetworkAccount};

/// ICMP and ICMPv6 (IANA protocol numbers).
const ICMP: [u8; 2] = [1, 58];
/// The echo requests of both.
const ECHO: [(u8, u16); 2] = [(1, 8), (58, 128)];

/// How a policy is made of what was seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LearnOptions {
    /// So many names below one parent, used on the same ports, become a pattern; `None`: never.
    pub generalize: Option<usize>,
    /// The TCP port on which a name is opened whose lookups were refused, so that nothing has
    /// connected to it; `None`: it stays closed.
    pub assumed_port: Option<u16>,
}

/// What stands above the rules.
#[derive(Debug, Clone, Copy)]
pub struct PolicyHead<'a> {
    /// What is said of the policy as a whole, one a line.
    pub comments: &'a [String],
    /// The name of the object.
    pub name: &'a str,
    /// Its namespace, where it is to have one.
    pub namespace: Option<&'a str>,
    /// The labels of the Pods that it selects; none: all of the namespace.
    pub labels: &'a BTreeMap<String, String>,
}

/// One rule of the policy.
#[derive(Debug, Default)]
struct LearnedRule {
    comments: Vec<String>,
    selectors: Vec<LearnedSelector>,
}

#[derive(Debug, PartialEq, Eq)]
enum LearnedSelector {
    Name(String),
    Pattern(String),
}

/// What rules about names allow, beside the names.
type TrafficSet = BTreeSet<FlowTraffic>;

/// The policy, as the text of a file.
pub fn policy(account: &NetworkAccount, head: &PolicyHead<'_>, options: LearnOptions) -> String {
    let mut text = String::new();
    for comment in head.comments {
        let _ = writeln!(text, "# {}", one_line(comment));
    }
    if account.lost > 0 {
        let _ = writeln!(
            text,
            "# INCOMPLETE: {} lookups or packets were not seen; learn again.",
            account.lost
        );
    }
    text += "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata:\n";
    let _ = writeln!(text, "  name: {:?}", head.name);
    if let Some(namespace) = head.namespace {
        let _ = writeln!(text, "  namespace: {namespace:?}");
    }
    text += "spec:\n";
    if head.labels.is_empty() {
        text += "  endpointSelector: {}\n";
    } else {
        text += "  endpointSelector:\n    matchLabels:\n";
        for (key, value) in head.labels {
            let _ = writeln!(text, "      {key:?}: {value:?}");
        }
    }
    let (rules, remarks) = rules(account, options);
    text += "  egress:\n";
    let mut written = String::new();
    for (traffic, rule) in &rules {
        write_rule(&mut written, traffic, rule);
    }
    if !written.lines().any(|line| line.starts_with("  - ")) {
        // A rule that allows nothing closes all the same.
        text += "  - {}\n";
    }
    text += &written;
    for remark in remarks {
        let _ = writeln!(text, "  # {remark}");
    }
    write_nameless(&mut text, account);
    text
}

/// The rules by what they allow, and what is to be said beside them.
fn rules(account: &NetworkAccount, options: LearnOptions) -> (BTreeMap<TrafficSet, LearnedRule>, Vec<String>) {
    let mut by_traffic: BTreeMap<TrafficSet, BTreeMap<String, Vec<String>>> = BTreeMap::new();
    let mut remarks = Vec::new();
    for (name, of_name) in &account.names {
        let text = name.to_string();
        if Pattern::name(&text).is_err() {
            remarks.push(format!(
                "A policy cannot name {}, which was looked up.",
                one_line(&text)
            ));
            continue;
        }
        let mut traffic: TrafficSet = of_name.flows.keys().map(|end| end.traffic).collect();
        let mut comment = uses(of_name);
        if traffic.is_empty() {
            // Whoever holds the same address may be meant by the flows of another name.
            traffic = traffic_to(account, &of_name.addresses);
            if !traffic.is_empty() {
                comment += "; its address was connected to by another name";
            }
        }
        if of_name.refused > 0
            && traffic.is_empty()
            && let Some(port) = options.assumed_port
        {
            comment += &format!("; refused so far, port {port} is assumed");
            traffic.insert(FlowTraffic {
                protocol: 6,
                port: Some(port),
            });
        }
        if of_name.addresses.is_empty() && traffic.is_empty() {
            remarks.push(format!(
                "{text} was looked up and has no address; its lookup stays refused."
            ));
            continue;
        }
        if traffic.is_empty() {
            comment += "; with ping it may be looked up, and nothing connects";
            let families: BTreeSet<bool> = of_name.addresses.iter().map(IpAddr::is_ipv6).collect();
            let echo = |is_v6: bool| ECHO[usize::from(is_v6)];
            traffic = families
                .into_iter()
                .map(|is_v6| FlowTraffic {
                    protocol: echo(is_v6).0,
                    port: Some(echo(is_v6).1),
                })
                .collect();
        }
        let mut comments = vec![format!("{text}: {comment}")];
        comments.extend(private(of_name).map(|address| {
            format!(
                "{text} resolves to {address}, which names may not open by default: --allow-rebind {}",
                IpNet::from(address)
            )
        }));
        by_traffic.entry(traffic).or_default().insert(text, comments);
    }
    let rules = by_traffic
        .into_iter()
        .map(|(traffic, names)| (traffic, rule(names, options)))
        .collect();
    (rules, remarks)
}

/// The rule of names that are used alike.
fn rule(names: BTreeMap<String, Vec<String>>, options: LearnOptions) -> LearnedRule {
    let mut by_parent: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names.keys() {
        if let Some((_, parent)) = name.split_once('.') {
            by_parent.entry(parent).or_default().push(name);
        }
    }
    // A pattern directly below a top-level domain would be a wish of everybody.
    let is_wide = |parent: &str, children: &[&str]| {
        let enough = options.generalize.is_some_and(|enough| children.len() >= enough.max(2));
        enough && parent.contains('.')
    };
    by_parent.retain(|parent, children| is_wide(parent, children));
    let covered: BTreeSet<&str> = by_parent.values().flatten().copied().collect();
    let mut rule = LearnedRule::default();
    for (parent, children) in &by_parent {
        rule.selectors.push(LearnedSelector::Pattern(format!("*.{parent}")));
        rule.comments
            .push(format!("*.{parent} stands for {} names that were seen", children.len()));
    }
    for (name, comments) in &names {
        rule.comments.extend(comments.iter().cloned());
        if !covered.contains(name.as_str()) {
            rule.selectors.push(LearnedSelector::Name(name.clone()));
        }
    }
    rule
}

fn write_rule(text: &mut String, traffic: &TrafficSet, rule: &LearnedRule) {
    for comment in &rule.comments {
        let _ = writeln!(text, "  # {comment}");
    }
    let mut peers = "- toFQDNs:\n".to_owned();
    for selector in &rule.selectors {
        let _ = match selector {
            LearnedSelector::Name(name) => writeln!(peers, "  - matchName: {name:?}"),
            LearnedSelector::Pattern(pattern) => writeln!(peers, "  - matchPattern: {pattern:?}"),
        };
    }
    for line in with_traffic(&peers, traffic).lines() {
        let _ = writeln!(text, "  {line}");
    }
}

/// Rules to these peers: one with `toPorts`, one with `icmps`. A rule cannot have both.
fn with_traffic(peers: &str, traffic: &TrafficSet) -> String {
    let mut text = String::new();
    let ports: Vec<_> = traffic
        .iter()
        .filter_map(|it| Some((protocol(it.protocol)?, it.port?)))
        .collect();
    if !ports.is_empty() {
        let _ = writeln!(text, "{peers}  toPorts:\n  - ports:");
        for (protocol, port) in ports {
            let _ = writeln!(text, "    - {{port: \"{port}\", protocol: {protocol}}}");
        }
    }
    let messages: Vec<_> = traffic.iter().filter(|it| ICMP.contains(&it.protocol)).collect();
    if !messages.is_empty() {
        let _ = writeln!(text, "{peers}  icmps:\n  - fields:");
        for message in messages {
            let family = if message.protocol == ICMP[0] { "IPv4" } else { "IPv6" };
            let kind = message.port.unwrap_or_default();
            let _ = writeln!(text, "    - {{type: {kind}, family: {family}}}");
        }
    }
    let others: Vec<_> = traffic.iter().filter(|it| !is_written(it)).collect();
    for other in others {
        let _ = writeln!(text, "# {other} was used too, which no rule of ports allows.");
    }
    text
}

/// Whether `toPorts` or `icmps` can say it.
fn is_written(traffic: &FlowTraffic) -> bool {
    let has_port = protocol(traffic.protocol).is_some() && traffic.port.is_some();
    has_port || ICMP.contains(&traffic.protocol)
}

/// The destinations that no name led to, commented out.
fn write_nameless(text: &mut String, account: &NetworkAccount) {
    let mut by_address: BTreeMap<IpAddr, TrafficSet> = BTreeMap::new();
    for (end, FlowUse { passed, refused }) in &account.nameless {
        if passed + refused > 0 {
            by_address.entry(end.address).or_default().insert(end.traffic);
        }
    }
    if by_address.is_empty() {
        return;
    }
    text.push_str("  # Addresses that no lookup led to. They are closed; take the # away from those that are meant.\n");
    for (address, traffic) in by_address {
        let peers = format!("- toCIDR: [\"{}\"]\n", IpNet::from(address));
        for line in with_traffic(&peers, &traffic).lines() {
            let _ = writeln!(text, "  # {line}");
        }
    }
}

/// How a name was used, in words.
fn uses(of_name: &NameUse) -> String {
    let flows: u64 = of_name.flows.values().map(|flow| flow.passed + flow.refused).sum();
    let lookups = of_name.answered + of_name.refused;
    format!("{}, {}", times(lookups, "lookup"), times(flows, "connection"))
}

fn times(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// What other names were used for at these addresses.
fn traffic_to(account: &NetworkAccount, addresses: &BTreeSet<IpAddr>) -> TrafficSet {
    let flows = account.names.values().flat_map(|other| other.flows.keys());
    flows
        .filter(|end| addresses.contains(&end.address))
        .map(|end| end.traffic)
        .collect()
}

/// The addresses of a name that were connected to, and that names may not open by default.
fn private(of_name: &NameUse) -> impl Iterator<Item = IpAddr> {
    let teachable = Teachable::default().without_private();
    let addresses: BTreeSet<IpAddr> = of_name.flows.keys().map(|end| end.address).collect();
    addresses
        .into_iter()
        .filter(move |address| teachable.judge(*address).is_err())
}

/// The word for a protocol with ports, as policies write it.
fn protocol(number: u8) -> Option<&'static str> {
    match number {
        6 => Some("TCP"),
        17 => Some("UDP"),
        132 => Some("SCTP"),
        _ => None,
    }
}

/// Without anything that would end a comment.
fn one_line(text: &str) -> String {
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use policy::{document, validate};

    use super::*;
    use crate::account::samples::{account, flow, lookup};
    use crate::event::EventVerdict::{Allowed, Audited, Refused};

    fn seen() -> NetworkAccount {
        account(&[
            lookup(Allowed, "index.example", &["198.51.100.1"]),
            lookup(Allowed, "index.example", &["2001:db8::1"]),
            flow(Audited, "198.51.100.1", (6, 443), Some("index.example")),
            lookup(Allowed, "a.files.example", &["198.51.100.2"]),
            lookup(Allowed, "b.files.example", &["198.51.100.3"]),
            flow(Audited, "198.51.100.2", (6, 443), Some("a.files.example")),
            flow(Audited, "198.51.100.3", (6, 443), Some("b.files.example")),
            flow(Audited, "198.51.100.3", (6, 443), Some("b.files.example")),
            lookup(Allowed, "quic.example", &["198.51.100.4"]),
            flow(Audited, "198.51.100.4", (6, 443), Some("quic.example")),
            flow(Audited, "198.51.100.4", (17, 443), Some("quic.example")),
            lookup(Allowed, "only-asked.example", &["198.51.100.5"]),
            lookup(Allowed, "nothing.example", &[]),
            flow(Audited, "198.51.100.4", (1, 8), Some("quic.example")),
            lookup(Allowed, "printer.example", &["192.168.7.7"]),
            flow(Audited, "192.168.7.7", (6, 631), Some("printer.example")),
            flow(Audited, "203.0.113.9", (6, 25), None),
            flow(Audited, "203.0.113.9", (1, 8), None),
        ])
    }

    /// The policy of a command.
    fn learned(account: &NetworkAccount, command: &str, options: LearnOptions) -> String {
        let head = PolicyHead {
            comments: &[format!("Of: {command}")],
            name: "learned",
            namespace: None,
            labels: &BTreeMap::new(),
        };
        policy(account, &head, options)
    }

    /// Every finding that `namegate check` would have.
    fn findings(text: &str) -> Vec<String> {
        let (documents, mut found) = document::parse(text);
        assert_eq!(documents.len(), 1, "{text}");
        let (verdict, diagnostics) = validate::validate(&documents[0]);
        found.extend(diagnostics);
        assert!(verdict.accepted().is_some(), "{found:?}\n{text}");
        found
            .into_iter()
            .map(|finding| format!("{} {}", finding.code, finding.reason))
            .collect()
    }

    #[test]
    fn names_are_rules_with_their_ports_and_addresses_are_commented_out() {
        let text = learned(&seen(), "pip download six", LearnOptions::default());
        assert_eq!(findings(&text), [""; 0], "{text}");
        for part in [
            "    - matchName: \"index.example\"\n",
            "  # index.example: 2 lookups, 1 connection\n",
            "  # b.files.example: 1 lookup, 2 connections\n",
            "      - {port: \"443\", protocol: UDP}\n",
            "      - {type: 8, family: IPv4}\n",
            "--allow-rebind 192.168.7.7/32",
            "nothing.example was looked up and has no address",
            "  # - toCIDR: [\"203.0.113.9/32\"]\n",
            "  #   icmps:\n",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
        assert!(!text.contains("matchPattern"), "{text}");
    }

    #[test]
    fn an_address_that_is_uncommented_is_a_rule() {
        let text = learned(&seen(), "x", LearnOptions::default());
        let (rules, addresses) = text.split_once("those that are meant.\n").unwrap();
        let opened: String = addresses
            .lines()
            .map(|line| line.replacen("# ", "", 1) + "\n")
            .collect();
        assert_eq!(findings(&format!("{rules}those that are meant.\n{opened}")), [""; 0]);
    }

    #[test]
    fn names_below_one_parent_become_a_pattern_where_that_is_asked_for() {
        let generalized = |enough| {
            learned(
                &seen(),
                "x",
                LearnOptions {
                    generalize: Some(enough),
                    ..LearnOptions::default()
                },
            )
        };
        let text = generalized(2);
        assert!(text.contains("    - matchPattern: \"*.files.example\"\n"), "{text}");
        assert!(!text.contains("matchName: \"a.files.example\""), "{text}");
        assert!(
            !text.contains("\"*.example\""),
            "no pattern for a top-level domain: {text}"
        );
        assert_eq!(findings(&text), [""; 0]);
        assert!(!generalized(3).contains("matchPattern"));
    }

    #[test]
    fn a_name_whose_address_another_name_was_connected_by_gets_its_ports() {
        let text = learned(
            &account(&[
                lookup(Allowed, "first.example", &["198.51.100.1"]),
                lookup(Allowed, "second.example", &["198.51.100.1"]),
                flow(Audited, "198.51.100.1", (6, 443), Some("second.example")),
            ]),
            "x",
            LearnOptions::default(),
        );
        assert!(text.contains("matchName: \"first.example\""), "{text}");
        assert!(!text.contains("icmps"), "{text}");
    }

    #[test]
    fn a_command_that_did_nothing_gets_a_policy_that_closes_everything() {
        let text = learned(&NetworkAccount::default(), "true\nnext", LearnOptions::default());
        let (documents, _) = document::parse(&text);
        let (verdict, diagnostics) = validate::validate(&documents[0]);
        assert!(verdict.accepted().is_some(), "{diagnostics:?}\n{text}");
        assert!(text.contains("true\\nnext"), "{text}");
        // As well where only such protocols were seen as no rule can allow.
        let tunnel = account(&[flow(Audited, "198.51.100.4", (47, 0), Some("tunnel.example"))]);
        let text = learned(&tunnel, "x", LearnOptions::default());
        assert_eq!(document::parse(&text).1, []);
        assert!(text.contains("  - {}\n") && text.contains("protocol 47"), "{text}");
    }

    #[test]
    fn that_something_was_not_seen_is_said() {
        let mut seen = seen();
        seen.lost = 7;
        assert!(learned(&seen, "x", LearnOptions::default()).contains("# INCOMPLETE: 7"));
    }

    #[test]
    fn a_policy_is_for_the_pods_with_the_labels_of_its_head() {
        let labels = BTreeMap::from([("app.kubernetes.io/name".to_owned(), "web".to_owned())]);
        let head = PolicyHead {
            comments: &[],
            name: "web-suggested",
            namespace: Some("shop"),
            labels: &labels,
        };
        let text = policy(&seen(), &head, LearnOptions::default());
        assert_eq!(findings(&text), [""; 0], "{text}");
        assert!(text.contains("      \"app.kubernetes.io/name\": \"web\"\n"), "{text}");
        assert!(text.contains("  namespace: \"shop\"\n"), "{text}");
    }

    #[test]
    fn a_name_whose_lookup_was_refused_is_opened_where_a_port_is_assumed() {
        let refused = account(&[lookup(Refused, "mail.example", &[])]);
        assert!(!learned(&refused, "x", LearnOptions::default()).contains("toFQDNs"));
        let options = LearnOptions {
            assumed_port: Some(443),
            ..LearnOptions::default()
        };
        let text = learned(&refused, "x", options);
        assert_eq!(findings(&text), [""; 0], "{text}");
        assert!(
            text.contains("matchName: \"mail.example\"") && text.contains("port 443 is assumed"),
            "{text}"
        );
    }
}
