//! CIDRs that hold, or lie in, the cluster's own addresses.

use ipnet::IpNet;

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule, Tier};
use crate::policy_id::PolicyKind;
use crate::ports::PortSet;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::context::LintedSpec;
use super::peers::written_rule;

/// Warns of CIDRs in which addresses of the cluster lie. Cilium's kinds do not mean these
/// addresses, the other kinds do, and neither is obvious.
pub(super) fn meet_the_cluster(
    linted: &LintedSpec<'_>,
    cluster: &ClusterContext<'_>,
    report: &mut DiagnosticReport<'_>,
) {
    let mut networks = cluster_networks(cluster);
    let mut reported = Vec::new();
    for (index, rule) in linted.spec.directions.egress.rules.iter().enumerate() {
        if linted.spec.tier != Tier::Network && linted.spec.directions.egress.rules[..index].iter().any(decides_pods) {
            networks.retain(|network| !network.is_pods);
        }
        let Some(written) = written_rule(&linted.node, rule) else {
            continue;
        };
        for cidr in written_cidrs(&written) {
            // A rule with names and networks was read as two rules, which share what was written.
            if !reported.contains(&cidr.node.path) {
                compare(&cidr, rule.action, linted.id.kind, &networks, report);
                reported.push(cidr.node.path);
            }
        }
    }
}

/// Whether a rule matches all traffic to every Pod.
fn decides_pods(rule: &PolicyRule) -> bool {
    let PeerSelector::Objects(selectors) = &rule.peers else {
        return false;
    };
    let is_every_pod =
        |selector: &ObjectSelector| matches!(selector, ObjectSelector::Pods(labels) if labels.requirements.is_empty());
    rule.ports == PortSet::All && selectors.iter().any(is_every_pod)
}

fn compare(
    cidr: &WrittenCidr<'_>,
    action: Action,
    kind: PolicyKind,
    networks: &[ClusterNetwork],
    report: &mut DiagnosticReport<'_>,
) {
    let inside: Vec<&ClusterNetwork> = networks.iter().filter(|network| cidr.holds(&network.prefix)).collect();
    let is_outside_only = matches!(
        kind,
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy
    );
    let verb = match action {
        Action::Allow => "opened",
        Action::Deny => "denied",
        Action::Pass => "passed on",
    };
    // A rule that denies everything is meant to deny the cluster too.
    let is_deny_all = !is_outside_only && action != Action::Allow && cidr.whole.prefix_len() == 0;
    if !inside.is_empty() && !is_deny_all {
        let whose = listed(&inside);
        if is_outside_only {
            report
                .warning(
                    "cidr-covers-cluster",
                    &cidr.node.path,
                    format!("it holds {whose}: in this kind a CIDR means only what is outside the cluster, so these are not {verb}"),
                )
                .suggest("add `toEndpoints` or `toEntities: [cluster]` in a rule of its own if they are meant, or leave them out with `toCIDRSet` and `except` to say that they are not");
        } else {
            let suggestion = match kind {
                PolicyKind::NetworkPolicy => {
                    "leave them out with `except` if only what is outside the cluster is meant"
                }
                _ => "put a rule for `namespaces` before this one if they are not meant",
            };
            report
                .warning(
                    "cidr-covers-cluster",
                    &cidr.node.path,
                    format!("it holds {whose}: in this kind these are {verb} too"),
                )
                .suggest(suggestion);
        }
    } else if is_outside_only
        && let Some(network) = networks.iter().find(|network| network.prefix.contains(&cidr.whole))
    {
        report
            .warning(
                "cidr-inside-cluster",
                &cidr.node.path,
                format!("it lies inside {}: in this kind a CIDR means only what is outside the cluster, so nothing is {verb}", network.name),
            )
            .suggest("select Pods with `toEndpoints`, Services with `toServices`, Nodes with `toNodes`, the API server with `toEntities: [kube-apiserver]`");
    }
}

/// A CIDR as it was written, with its exceptions.
struct WrittenCidr<'a> {
    node: DocumentNode<'a>,
    whole: IpNet,
    except: Vec<IpNet>,
}

impl WrittenCidr<'_> {
    fn holds(&self, network: &IpNet) -> bool {
        self.whole.contains(network) && !self.except.iter().any(|hole| hole.contains(network))
    }
}

fn written_cidrs<'a>(rule: &DocumentNode<'a>) -> Vec<WrittenCidr<'a>> {
    let plain = |node: DocumentNode<'a>| {
        let whole = read(&node)?;
        Some(WrittenCidr {
            node,
            whole,
            except: Vec::new(),
        })
    };
    let with_except = |node: DocumentNode<'a>| {
        let except = node.list("except").iter().filter_map(read).collect();
        Some(WrittenCidr {
            except,
            ..plain(node.get("cidr")?)?
        })
    };
    let mut cidrs: Vec<_> = rule.list("toCIDR").into_iter().filter_map(plain).collect();
    cidrs.extend(rule.list("toCIDRSet").into_iter().filter_map(with_except));
    for peer in rule.list("to") {
        cidrs.extend(peer.get("ipBlock").and_then(with_except));
        cidrs.extend(peer.list("networks").into_iter().filter_map(plain));
    }
    cidrs
}

fn read(node: &DocumentNode<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    let network = text
        .parse()
        .ok()
        .or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    network.map(|network: IpNet| network.trunc())
}

/// Addresses of the cluster, and how messages name them.
struct ClusterNetwork {
    prefix: IpNet,
    name: String,
    /// Whether they lead to Pods: their own addresses, or those of Services.
    is_pods: bool,
}

/// The cluster's networks, ranges first, because messages name the first few.
fn cluster_networks(cluster: &ClusterContext<'_>) -> Vec<ClusterNetwork> {
    let of = |prefix: IpNet, what: &str, is_pods| {
        let single = prefix.prefix_len() == prefix.max_prefix_len();
        let shown = if single {
            prefix.addr().to_string()
        } else {
            prefix.to_string()
        };
        ClusterNetwork {
            prefix,
            name: format!("{what} ({shown})"),
            is_pods,
        }
    };
    let inventory = &cluster.inventory;
    let mut networks: Vec<ClusterNetwork> = cluster
        .pod_ranges
        .iter()
        .map(|range| of(*range, "the range of Pods of a Node", true))
        .collect();
    for service in inventory.services.iter() {
        let name = format!("the Service {}/{}", service.namespace, service.name);
        networks.extend(
            service
                .addresses
                .iter()
                .map(|address| of((*address).into(), &name, true)),
        );
    }
    for node in inventory.nodes.values() {
        networks.extend(
            node.addresses
                .iter()
                .map(|address| of((*address).into(), "a Node", false)),
        );
    }
    for pod in inventory.pods.iter() {
        networks.extend(
            pod.addresses()
                .iter()
                .map(|address| of((*address).into(), "a Pod", true)),
        );
    }
    networks
}

/// The names of the first few networks, one of each kind, and how many others there are.
fn listed(networks: &[&ClusterNetwork]) -> String {
    const MAX: usize = 3;
    let kind = |network: &ClusterNetwork| network.name.split(['(', '/']).next().unwrap_or_default().to_owned();
    let mut shown: Vec<&str> = Vec::new();
    let mut kinds = Vec::new();
    for network in networks {
        if shown.len() < MAX && !kinds.contains(&kind(network)) {
            kinds.push(kind(network));
            shown.push(&network.name);
        }
    }
    let others = networks.len() - shown.len();
    let mut text = shown.join(", ");
    if others > 0 {
        text += &format!(" and {others} more of the cluster's addresses and ranges");
    }
    text
}
