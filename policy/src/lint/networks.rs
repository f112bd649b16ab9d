//! Prefixes and the cluster's own addresses.

use ipnet::IpNet;

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule, Tier};
use crate::policy_id::PolicyKind;
use crate::ports::PortSet;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::context::LintedSpec;
use super::peers::written;

/// CIDRs in which addresses of the cluster lie: in Cilium's kinds these are not meant, in the
/// others they are.
pub(super) fn meet_the_cluster(
    linted: &LintedSpec<'_>,
    cluster: &ClusterContext<'_>,
    report: &mut DiagnosticReport<'_>,
) {
    let mut parts = parts(cluster);
    let mut said = Vec::new();
    for (index, rule) in linted.spec.directions.egress.rules.iter().enumerate() {
        if linted.spec.tier != Tier::Network && linted.spec.directions.egress.rules[..index].iter().any(decides_pods) {
            parts.retain(|part| !part.is_pods);
        }
        let Some(written) = written(&linted.node, rule) else {
            continue;
        };
        for block in blocks(&written) {
            // Of one rule with names and networks two rules were made.
            if !said.contains(&block.node.path) {
                meet(&block, rule.action, linted.id.kind, &parts, report);
                said.push(block.node.path);
            }
        }
    }
}

/// Whether a rule speaks of all traffic to every Pod.
fn decides_pods(rule: &PolicyRule) -> bool {
    let PeerSelector::Objects(selectors) = &rule.peers else {
        return false;
    };
    let is_every_pod =
        |selector: &ObjectSelector| matches!(selector, ObjectSelector::Pods(labels) if labels.requirements.is_empty());
    rule.ports == PortSet::All && selectors.iter().any(is_every_pod)
}

fn meet(block: &Block<'_>, action: Action, kind: PolicyKind, parts: &[NetworkPart], report: &mut DiagnosticReport<'_>) {
    let inside: Vec<&NetworkPart> = parts.iter().filter(|part| block.holds(&part.network)).collect();
    let is_outside_only = matches!(
        kind,
        PolicyKind::CiliumNetworkPolicy | PolicyKind::CiliumClusterwideNetworkPolicy
    );
    let verb = match action {
        Action::Allow => "opened",
        Action::Deny => "denied",
        Action::Pass => "passed on",
    };
    // Whoever denies everything means the cluster too.
    let is_plain = !is_outside_only && action != Action::Allow && block.whole.prefix_len() == 0;
    if !inside.is_empty() && !is_plain {
        let whose = listed(&inside);
        if is_outside_only {
            report
                .warning(
                    "cidr-covers-cluster",
                    &block.node.path,
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
                    &block.node.path,
                    format!("it holds {whose}: in this kind these are {verb} too"),
                )
                .suggest(suggestion);
        }
    } else if is_outside_only && let Some(part) = parts.iter().find(|part| part.network.contains(&block.whole)) {
        report
            .warning(
                "cidr-inside-cluster",
                &block.node.path,
                format!("it lies inside {}: in this kind a CIDR means only what is outside the cluster, so nothing is {verb}", part.name),
            )
            .suggest("select Pods with `toEndpoints`, Services with `toServices`, Nodes with `toNodes`, the API server with `toEntities: [kube-apiserver]`");
    }
}

/// A prefix as it was written, with its holes.
struct Block<'a> {
    node: DocumentNode<'a>,
    whole: IpNet,
    except: Vec<IpNet>,
}

impl Block<'_> {
    fn holds(&self, network: &IpNet) -> bool {
        self.whole.contains(network) && !self.except.iter().any(|hole| hole.contains(network))
    }
}

fn blocks<'a>(rule: &DocumentNode<'a>) -> Vec<Block<'a>> {
    let plain = |node: DocumentNode<'a>| {
        let whole = read(&node)?;
        Some(Block {
            node,
            whole,
            except: Vec::new(),
        })
    };
    let with_holes = |node: DocumentNode<'a>| {
        let except = node.list("except").iter().filter_map(read).collect();
        Some(Block {
            except,
            ..plain(node.get("cidr")?)?
        })
    };
    let mut blocks: Vec<_> = rule.list("toCIDR").into_iter().filter_map(plain).collect();
    blocks.extend(rule.list("toCIDRSet").into_iter().filter_map(with_holes));
    for peer in rule.list("to") {
        blocks.extend(peer.get("ipBlock").and_then(with_holes));
        blocks.extend(peer.list("networks").into_iter().filter_map(plain));
    }
    blocks
}

fn read(node: &DocumentNode<'_>) -> Option<IpNet> {
    let text = node.value.as_str()?;
    let network = text
        .parse()
        .ok()
        .or_else(|| text.parse().ok().map(|ip: std::net::IpAddr| ip.into()));
    network.map(|network: IpNet| network.trunc())
}

/// Addresses of the cluster.
struct NetworkPart {
    network: IpNet,
    name: String,
    /// Of Pods, or of Services, behind which there are Pods.
    is_pods: bool,
}

/// Ranges first: they say the most.
fn parts(cluster: &ClusterContext<'_>) -> Vec<NetworkPart> {
    let of = |network: IpNet, what: &str, is_pods| {
        let single = network.prefix_len() == network.max_prefix_len();
        let shown = if single {
            network.addr().to_string()
        } else {
            network.to_string()
        };
        NetworkPart {
            network,
            name: format!("{what} ({shown})"),
            is_pods,
        }
    };
    let inventory = &cluster.inventory;
    let mut parts: Vec<NetworkPart> = cluster
        .pod_ranges
        .iter()
        .map(|range| of(*range, "the range of Pods of a Node", true))
        .collect();
    for service in &inventory.services {
        let name = format!("the Service {}/{}", service.namespace, service.name);
        parts.extend(
            service
                .addresses
                .iter()
                .map(|address| of((*address).into(), &name, true)),
        );
    }
    for node in &inventory.nodes {
        parts.extend(
            node.addresses
                .iter()
                .map(|address| of((*address).into(), "a Node", false)),
        );
    }
    for pod in &inventory.pods {
        parts.extend(pod.addresses.iter().map(|address| of((*address).into(), "a Pod", true)));
    }
    parts
}

/// The first few, each kind once.
fn listed(parts: &[&NetworkPart]) -> String {
    const MAX: usize = 3;
    let kind = |part: &NetworkPart| part.name.split(['(', '/']).next().unwrap_or_default().to_owned();
    let mut shown: Vec<&str> = Vec::new();
    let mut kinds = Vec::new();
    for part in parts {
        if shown.len() < MAX && !kinds.contains(&kind(part)) {
            kinds.push(kind(part));
            shown.push(&part.name);
        }
    }
    let others = parts.len() - shown.len();
    let mut text = shown.join(", ");
    if others > 0 {
        text += &format!(" and {others} more of the cluster's addresses and ranges");
    }
    text
}
