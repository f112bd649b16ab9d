//! Servers of encrypted DNS that a policy leaves open.

use std::net::IpAddr;

use names::{Name, Pattern};

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::encrypted_dns::{DnsProvider, HTTPS_PORT, PROVIDERS, TLS_PORT};
use crate::peer_selector::PeerSelector;
use crate::policy::{Action, PolicyRule, PolicySpec, Tier};
use crate::ports::{PortSet, Protocol};
use crate::zone::Zone;

use super::names::top_level_domain;
use super::path_of;

/// Warns of servers of encrypted DNS that a spec opens by name; and, where the spec has rules about
/// names, of those that it opens by address. A workload that resolves there is bound to no list of
/// names.
pub(super) fn left_open(spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    open_by_name(spec, report);
    let is_about_names = |rule: &PolicyRule| matches!(rule.peers, PeerSelector::Names(_)) || !rule.dns.is_empty();
    if spec.directions.egress.rules.iter().any(is_about_names) {
        open_by_address(spec, report);
    }
}

fn open_by_name(spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    for rule in spec
        .directions
        .egress
        .rules_that(Action::Allow)
        .filter(|rule| serves(&rule.ports))
    {
        let PeerSelector::Names(patterns) = &rule.peers else {
            continue;
        };
        for pattern in patterns.iter().filter(|pattern| !has_another_finding(pattern)) {
            let hosts = PROVIDERS
                .iter()
                .flat_map(|provider| provider.hosts.iter().map(move |host| (provider, host)));
            let found = hosts
                .into_iter()
                .find(|(_, host)| Name::parse(host).is_ok_and(|name| pattern.matches(&name)));
            if let Some((provider, host)) = found {
                let reason = format!(
                    "{} opens {host}, where {} answers DNS over HTTPS: names that are resolved there are not seen",
                    quoted(pattern.as_str()),
                    provider.name
                );
                report
                    .warning("encrypted-dns-open", path_of(&rule.origin), reason)
                    .suggest("deny it with `egressDeny`, or name what is needed more closely");
            }
        }
    }
}

fn open_by_address(spec: &PolicySpec, report: &mut DiagnosticReport<'_>) {
    for (port, what) in [(HTTPS_PORT, "HTTPS"), (TLS_PORT, "TLS")] {
        let open: Vec<(&DnsProvider, &PolicyRule)> = PROVIDERS
            .iter()
            .filter_map(|provider| {
                let opened = |address: &IpAddr| allowing(spec, *address, port);
                Some((provider, provider.addresses.iter().find_map(opened)?))
            })
            .collect();
        let Some((_, rule)) = open.first() else { continue };
        let names: Vec<&str> = open.iter().map(|(provider, _)| provider.name).collect();
        let reason = format!(
            "this opens servers that answer DNS over {what} at port {port} ({}): beside its names the workload may \
             resolve any other there, unseen",
            names.join(", ")
        );
        report
            .warning("encrypted-dns-open", path_of(&rule.origin), reason)
            .suggest(match port {
                TLS_PORT => "deny port 853 with `egressDeny` and `toPorts`",
                _ => "name the networks that are needed, or take the servers out with `except`",
            });
    }
}

/// The rule that allows TCP to an address and port; `None` when the spec denies or does not allow
/// it.
fn allowing(spec: &PolicySpec, address: IpAddr, port: u16) -> Option<&PolicyRule> {
    let matches = |rule: &&PolicyRule| rule.ports.contains(Protocol::Tcp, port) && holds(&rule.peers, address);
    let mut matching = spec.directions.egress.rules.iter().filter(matches);
    let first = match spec.tier {
        Tier::Network => {
            if matching.clone().any(|rule| rule.action == Action::Deny) {
                return None;
            }
            matching.next()
        }
        Tier::Admin { .. } | Tier::Baseline { .. } => matching.next(),
    };
    first.filter(|rule| rule.action == Action::Allow)
}

fn holds(peers: &PeerSelector, address: IpAddr) -> bool {
    match peers {
        PeerSelector::Prefixes(prefixes) => prefixes
            .iter()
            .any(|(zone, prefix)| matches!(zone, Zone::Anywhere | Zone::World) && prefix.contains(&address)),
        PeerSelector::Names(_) | PeerSelector::Objects(_) | PeerSelector::Unresolved => false,
    }
}

/// Whether another lint warns of the pattern already, because it opens far more than these servers.
fn has_another_finding(pattern: &Pattern) -> bool {
    pattern.is_every_name() || top_level_domain(pattern.as_str()).is_some()
}

fn serves(ports: &PortSet) -> bool {
    [HTTPS_PORT, TLS_PORT]
        .iter()
        .any(|port| ports.contains(Protocol::Tcp, *port))
}
