//! Prefixes and the cluster's own addresses.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::diagnostic_report::DiagnosticReport;
use crate::peer_selector::{ObjectSelector, PeerSelector};
use crate::policy::{Action, PolicyRule, Tier};
use crate::policy_id::PolicyKind;
use crate::ports::PortSet;
use crate::shape::DocumentNode;

use super::cluster_context::ClusterContext;
use super::context::LintedSpec;
use super::peers::{PEER_LISTS, written_rule};

/// Addresses and ranges of the cluster.
pub(super) struct IndexedNetworks {
    /// Ranges first: they say the most.
    parts: Vec<NetworkPart>,
    /// The indices of the parts by the first address of each.
    by_address: BTreeMap<(IpAddr, u8), Vec<usize>>,
    /// What was said of a block that was asked for before.
    said: RefCell<HashMap<MetBlock, Option<String>>>,
}

/// A prefix with holes; and whether addresses of Pods count.
type MetBlock = (IpNet, Vec<IpNet>, bool);

impl IndexedNetworks {
    pub(super) fn of(cluster: &ClusterContext<'_>) -> Self {
        let parts = parts(cluster);
        let mut by_address: BTreeMap<(IpAddr, u8), Vec<usize>> = BTreeMap::new();
        for (index, part) in parts.iter().enumerate() {
            let place = (part.network.network(), part.network.prefix_len());
            by_address.entry(place).or_default().push(index);
        }
        Self {
            parts,
            by_address,
            said: RefCell::default(),
        }
    }

    /// CIDRs in which addresses of the cluster lie: in Cilium's kinds these are not meant, in the
    /// others they are.
    pub(super) fn are_met_by(&self, linted: &LintedSpec<'_>, report: &mut DiagnosticReport<'_>) {
        let directions = linted.spec.directions.iter();
        directions.for_each(|(_, spec)| self.are_met_in(linted, &spec.rules, report));
    }

    fn are_met_in(&self, linted: &LintedSpec<'_>, rules: &[PolicyRule], report: &mut DiagnosticReport<'_>) {
        let mut with_pods = true;
        let mut said = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let before = index.checked_sub(1).map(|before| &rules[before]);
            with_pods &= linted.spec.tier == Tier::Network || !before.is_some_and(decides_pods);
            let Some(written) = written_rule(&linted.node, rule) else {
                continue;
            };
            for block in blocks(&written) {
                // Of one rule with names and networks two rules were made.
                if !said.contains(&block.node.path) {
                    self.meet(&block, rule.action, linted.id.kind, with_pods, report);
                    said.push(block.node.path);
                }
            }
        }
    }

    /// What lies in a block, as a phrase; `None` where nothing does.
    fn inside(&self, block: &Block<'_>, with_pods: bool) -> Option<String> {
        let key = (block.whole, block.except.clone(), with_pods);
        if let Some(known) = self.said.borrow().get(&key) {
            return known.clone();
        }
        let range = (block.whole.network(), 0)..=(block.whole.broadcast(), u8::MAX);
        let met = self.by_address.range(range).flat_map(|(_, parts)| parts);
        let mut met: Vec<usize> = met.copied().collect();
        met.sort_unstable();
        let met = met.into_iter().map(|part| &self.parts[part]);
        let met = met.filter(|part| (with_pods || !part.is_pods) && block.holds(&part.network));
        let met: Vec<&NetworkPart> = met.collect();
        let inside = (!met.is_empty()).then(|| listed(&met));
        self.said.borrow_mut().insert(key, inside.clone());
        inside
    }

    /// The first part that a prefix lies in.
    fn around(&self, prefix: &IpNet, with_pods: bool) -> Option<&NetworkPart> {
        let wider = (0..=prefix.prefix_len()).filter_map(|length| IpNet::new(prefix.addr(), length).ok());
        let parts = wider.filter_map(|wider| self.by_address.get(&(wider.network(), wider.prefix_len())));
        let parts = parts.flatten().filter(|part| with_pods || !self.parts[**part].is_pods);
        parts.min().map(|part| &self.parts[*part])
    }

    fn meet(
        &self,
        block: &Block<'_>,
        action: Action,
        kind: PolicyKind,
        with_pods: bool,
        report: &mut DiagnosticReport<'_>,
    ) {
        let inside = self.inside(block, with_pods);
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
        if let Some(whose) = inside.filter(|_| !is_plain) {
            if is_outside_only {
                report
                    .warning(
                        "cidr-covers-cluster",
                        &block.node.path,
                        format!("it holds {whose}: in this kind a CIDR means only what is outside the cluster, so these are not {verb}"),
                    )
                    .suggest(match block.is_source {
                        false => "add `toEndpoints` or `toEntities: [cluster]` in a rule of its own if they are meant, or leave them out with `toCIDRSet` and `except` to say that they are not",
                        true => "add `fromEndpoints` or `fromEntities: [cluster]` in a rule of its own if they are meant, or leave them out with `fromCIDRSet` and `except` to say that they are not",
                    });
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
        } else if is_outside_only && let Some(part) = self.around(&block.whole, with_pods) {
            report
                .warning(
                    "cidr-inside-cluster",
                    &block.node.path,
                    format!("it lies inside {}: in this kind a CIDR means only what is outside the cluster, so nothing is {verb}", part.name),
                )
                .suggest(match block.is_source {
                    false => "select Pods with `toEndpoints`, Services with `toServices`, Nodes with `toNodes`, the API server with `toEntities: [kube-apiserver]`",
                    true => "select Pods with `fromEndpoints`, Nodes with `fromNodes`, the API server with `fromEntities: [kube-apiserver]`",
                });
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

/// A prefix as it was written, with its holes.
pub(super) struct Block<'a> {
    pub(super) node: DocumentNode<'a>,
    pub(super) whole: IpNet,
    except: Vec<IpNet>,
    /// Whether it is about where traffic comes from.
    is_source: bool,
}

impl Block<'_> {
    fn holds(&self, network: &IpNet) -> bool {
        self.whole.contains(network) && !self.except.iter().any(|hole| hole.contains(network))
    }
}

/// The prefixes of a rule.
pub(super) fn blocks<'a>(rule: &DocumentNode<'a>) -> Vec<Block<'a>> {
    let is_source = rule.fields().any(|(field, _)| field.starts_with("from"));
    let plain = |node: DocumentNode<'a>| {
        let whole = read(&node)?;
        Some(Block {
            node,
            whole,
            except: Vec::new(),
            is_source,
        })
    };
    let with_holes = |node: DocumentNode<'a>| {
        let except = node.list("except").iter().filter_map(read).collect();
        Some(Block {
            except,
            ..plain(node.get("cidr")?)?
        })
    };
    let list = |field| rule.list(field).into_iter();
    let mut blocks: Vec<_> = list("toCIDR").chain(list("fromCIDR")).filter_map(plain).collect();
    blocks.extend(list("toCIDRSet").chain(list("fromCIDRSet")).filter_map(with_holes));
    for peer in PEER_LISTS.into_iter().flat_map(list) {
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
    /// The length of what the name begins with, up to a namespace or an address.
    kind: usize,
    /// Of Pods, or of Services, behind which there are Pods.
    is_pods: bool,
}

fn parts(cluster: &ClusterContext<'_>) -> Vec<NetworkPart> {
    let of = |network: IpNet, what: &str, is_pods| {
        let single = network.prefix_len() == network.max_prefix_len();
        let shown = if single {
            network.addr().to_string()
        } else {
            network.to_string()
        };
        let name = format!("{what} ({shown})");
        NetworkPart {
            network,
            kind: name.find(['(', '/']).unwrap_or(name.len()),
            name,
            is_pods,
        }
    };
    let inventory = &cluster.inventory;
    let mut parts: Vec<NetworkPart> = cluster
        .pod_ranges
        .iter()
        .map(|range| of(*range, "the range of Pods of a Node", true))
        .collect();
    for service in inventory.services.iter() {
        let name = format!("the Service {}/{}", service.namespace, service.name);
        parts.extend(
            service
                .addresses
                .iter()
                .map(|address| of((*address).into(), &name, true)),
        );
    }
    for node in inventory.nodes.values() {
        parts.extend(
            node.addresses
                .iter()
                .map(|address| of((*address).into(), "a Node", false)),
        );
    }
    for pod in inventory.pods.iter() {
        parts.extend(
            pod.addresses()
                .iter()
                .map(|address| of((*address).into(), "a Pod", true)),
        );
    }
    parts
}

/// The first few, each kind once.
fn listed(parts: &[&NetworkPart]) -> String {
    const MAX: usize = 3;
    let mut shown: Vec<&str> = Vec::new();
    let mut kinds = Vec::new();
    for part in parts {
        if shown.len() == MAX {
            break;
        }
        let kind = &part.name[..part.kind];
        if !kinds.contains(&kind) {
            kinds.push(kind);
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
