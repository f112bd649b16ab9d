//! What nearly matches: the one thing that is missing.

use std::fmt;
use std::sync::Arc;

use names::{Name, Pattern};

use super::decision::{denial_of, matched_peer};
use super::{ExplainContext, KnownName, KnownPeer, LeaseState, Matched, shown_origin, shown_ports};
use crate::direction::Direction;
use crate::endpoint::keys;
use crate::l7::{L7Denial, L7Rules};
use crate::labels::{LabelSelector, Labels, Requirement};
use crate::peer_selector::ObjectSelector;
use crate::policy::{Action, PolicySpec, SubjectKind};
use crate::ports::PortSet;
use crate::program::{Origin, Peer, Rule, Tiers};
use crate::zone::{AddressZone, Zone};

/// How many are told.
const TOLD: usize = 3;

/// A rule that would let it through but for one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearMiss {
    /// The rule that nearly matches.
    pub origin: Origin,
    /// The direction that it speaks of.
    pub direction: Direction,
    /// What is missing.
    pub kind: NearMissKind,
}

/// What is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NearMissKind {
    /// The name held the address, and does no more.
    ExpiredLease(Pattern, KnownName),
    /// It matches, and lets only connections through that announce something. The reason, where it
    /// is known what this one announces.
    Announcement(Arc<L7Rules>, Option<L7Denial>),
    /// The peer matches, and other ports are open.
    Port(PortSet),
    /// The name has more labels in front than the pattern's one star stands for.
    MoreLabels(Pattern, Name),
    /// The pattern stands for names below this one, and not for it.
    Apex(Pattern, Name),
    /// The pattern is a name, and this one lies below it.
    Below(Pattern, Name),
    /// The address lies in the prefix, which speaks of another zone.
    Zone(Zone, AddressZone),
    /// The peer's pod lacks this label.
    PeerLabel(Requirement),
    /// The policy would select the endpoint if it had this label.
    SubjectLabel(Requirement),
}

/// One sentence without its full stop.
impl fmt::Display for NearMiss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.direction.peer();
        write!(f, "{}: ", shown_origin(&self.origin))?;
        match &self.kind {
            NearMissKind::ExpiredLease(pattern, KnownName { name, lease }) => {
                let ago = match lease {
                    LeaseState::Expired(ago) => ago.as_secs(),
                    LeaseState::Assumed | LeaseState::Remaining(_) => 0,
                };
                write!(
                    f,
                    "{pattern} matches {name}, whose lease on the address ended {ago} s ago; a new lookup opens it again"
                )
            }
            NearMissKind::Announcement(rules, None) => {
                write!(
                    f,
                    "lets through {rules}, where the agent looks into connections (--inspect on)"
                )
            }
            NearMissKind::Announcement(rules, Some(denial)) => write!(f, "lets through {rules}: it {denial}"),
            NearMissKind::Port(ports) => write!(f, "matches the {peer}, but only with {}", shown_ports(ports)),
            NearMissKind::MoreLabels(pattern, name) => write!(
                f,
                "{pattern} stands for exactly one more label, and {name} has more; `*{pattern}` stands for one or more"
            ),
            NearMissKind::Apex(pattern, name) => {
                write!(f, "{pattern} does not match {name} itself; add `matchName: {name}`")
            }
            NearMissKind::Below(pattern, name) => {
                write!(
                    f,
                    "{pattern} matches that name alone, and {name} lies below it; add `matchPattern: \"**.{pattern}\"`"
                )
            }
            NearMissKind::Zone(zone, place) => {
                let meant = match zone {
                    Zone::Anywhere => "everything".to_owned(),
                    Zone::World => format!("{peer}s outside the cluster"),
                    Zone::Cluster => format!("{peer}s in the cluster"),
                    Zone::Mesh => format!("{peer}s in a cluster of the mesh"),
                    Zone::Host => "this node".to_owned(),
                };
                let lies = match place {
                    AddressZone::World => "outside the cluster",
                    AddressZone::Cluster => "inside the cluster",
                    AddressZone::Host => "on this node",
                };
                write!(f, "means {meant}, and the address lies {lies}")
            }
            NearMissKind::PeerLabel(missing) if missing.key == keys::CLUSTER => write!(
                f,
                "speaks of {peer}s with {missing}; a selector means the own cluster unless it speaks of {}",
                keys::CLUSTER
            ),
            NearMissKind::PeerLabel(missing) => write!(f, "would match if the {peer}'s pod had {missing}"),
            NearMissKind::SubjectLabel(missing) => write!(f, "would select the pod if it had {missing}"),
        }
    }
}

/// The near misses among rules that allow, the nearest first, the nearest first.
pub(super) fn nearest(context: ExplainContext<'_>, tiers: &Tiers, peer: &KnownPeer) -> Vec<NearMiss> {
    let allowing = tiers.rules().filter(|rule| rule.action == Action::Allow);
    let mut near_misses: Vec<NearMiss> = allowing.filter_map(|rule| missed(rule, context, peer)).collect();
    near_misses.extend(of_other_subjects(context, peer));
    near_misses.sort_by_key(|miss| miss.kind.distance());
    near_misses.dedup();
    near_misses.truncate(TOLD);
    near_misses
}

impl NearMissKind {
    fn distance(&self) -> u8 {
        match self {
            NearMissKind::ExpiredLease(..) | NearMissKind::Announcement(..) => 0,
            NearMissKind::Port(_) => 1,
            NearMissKind::MoreLabels(..) | NearMissKind::Apex(..) => 2,
            NearMissKind::Below(..) | NearMissKind::Zone(..) => 3,
            NearMissKind::PeerLabel(_) => 4,
            NearMissKind::SubjectLabel(_) => 5,
        }
    }
}

fn missed(rule: &Rule, context: ExplainContext<'_>, peer: &KnownPeer) -> Option<NearMiss> {
    let origin = rule.origins.first()?.clone();
    let of = |kind| {
        Some(NearMiss {
            origin: origin.clone(),
            direction: context.direction,
            kind,
        })
    };
    if let Some((_, ports)) = matched_peer(rule, context.inventory, peer) {
        let open = |(protocol, port)| ports.contains(protocol, port);
        let is_open = peer.traffic.map_or(!ports.is_empty(), open);
        if let Some(through) = rule.through.as_ref().filter(|_| is_open) {
            let denial = context
                .announced
                .and_then(|announced| denial_of(rule, Some(announced), peer));
            return of(NearMissKind::Announcement(Arc::clone(through), denial));
        }
        // One that matches wholly was overruled by a denial; nothing is missing of it.
        return match peer.traffic.is_some_and(open) {
            true => None,
            false if ports.is_empty() => None,
            false => of(NearMissKind::Port(ports)),
        };
    }
    if !speaks_of_port(rule, peer) {
        return None;
    }
    match (&rule.peer, peer.address) {
        (Peer::Name(pattern), _) => name_missed(pattern, peer).and_then(of),
        (Peer::Prefix(zone, prefix), Some((address, place))) => {
            let other_zone = prefix.contains(&address) && !place.is_in(*zone);
            other_zone.then_some(NearMissKind::Zone(*zone, place)).and_then(of)
        }
        (Peer::Object(ObjectSelector::Pods(selector)), Some((address, _))) => {
            let labels = context.inventory.pods.at(address).map(|pod| pod.labels());
            labels
                .filter_map(|labels| one_lacks(selector, labels))
                .next()
                .and_then(|missing| of(NearMissKind::PeerLabel(missing)))
        }
        _ => None,
    }
}

fn speaks_of_port(rule: &Rule, peer: &KnownPeer) -> bool {
    match peer.traffic {
        Some((protocol, port)) => rule.ports.contains(protocol, port),
        None => !rule.ports.is_empty(),
    }
}

fn name_missed(pattern: &Pattern, peer: &KnownPeer) -> Option<NearMissKind> {
    let expired = |known: &&KnownName| !known.lease.is_live() && pattern.matches(&known.name);
    if let Some(known) = peer.names.iter().find(expired) {
        return Some(NearMissKind::ExpiredLease(pattern.clone(), known.clone()));
    }
    let text = pattern.as_str();
    peer.names.iter().find_map(|KnownName { name, .. }| {
        if let Some(below) = text.strip_prefix("*.").filter(|below| !below.contains('*')) {
            let wider = Pattern::pattern(&format!("**.{below}")).ok()?;
            if wider.matches(name) {
                return Some(NearMissKind::MoreLabels(pattern.clone(), name.clone()));
            }
        }
        let apex = text.strip_prefix("**.").or_else(|| text.strip_prefix("*."));
        if apex == Some(name.as_str()) {
            return Some(NearMissKind::Apex(pattern.clone(), name.clone()));
        }
        let is_name = !text.contains('*');
        let below = is_name
            && name
                .as_str()
                .strip_suffix(text)
                .is_some_and(|front| front.ends_with('.'));
        below.then(|| NearMissKind::Below(pattern.clone(), name.clone()))
    })
}

/// Rules that would match wholly, of policies that would select the endpoint but for one label.
fn of_other_subjects(context: ExplainContext<'_>, peer: &KnownPeer) -> Vec<NearMiss> {
    let mut near_misses = Vec::new();
    for policy in context.policies {
        let of_kind = |spec: &&PolicySpec| (spec.subject_kind == SubjectKind::Nodes) == context.endpoint.id.is_node();
        for spec in policy.specs.iter().filter(of_kind) {
            let Some(missing) = one_lacks(&spec.subject, &context.endpoint.labels) else {
                continue;
            };
            let mut nearly = context.endpoint.clone();
            nearly.labels.extend(missing.example());
            let only = crate::Policy {
                specs: vec![spec.clone()],
                ..(*policy).clone()
            };
            let governed = crate::compile::gather(&nearly, [&only], context.inventory);
            let Some(program) = governed.and_then(|governed| governed.programs.take(context.direction)) else {
                continue;
            };
            let tiers = program.audited.as_ref().unwrap_or(&program.enforced);
            let matching = tiers.rules().filter(|rule| rule.action == Action::Allow).find(|rule| {
                let found = matched_peer(rule, context.inventory, peer);
                found.is_some_and(|(matched, ports)| {
                    let everything = matches!(matched, Matched::Prefix(_, prefix) if prefix.prefix_len() == 0);
                    !everything
                        && peer
                            .traffic
                            .is_none_or(|(protocol, port)| ports.contains(protocol, port))
                })
            });
            if let Some(origin) = matching.and_then(|rule| rule.origins.first()) {
                near_misses.push(NearMiss {
                    origin: origin.clone(),
                    direction: context.direction,
                    kind: NearMissKind::SubjectLabel(missing),
                });
            }
        }
    }
    near_misses
}

/// The only requirement of a selector that the labels do not meet, if it is one that a label could.
fn one_lacks(selector: &LabelSelector, labels: &Labels) -> Option<Requirement> {
    let mut unmet = selector
        .requirements
        .iter()
        .filter(|requirement| !requirement.holds(labels));
    let missing = unmet.next()?;
    (unmet.next().is_none() && !crate::endpoint::is_special(&missing.key)).then(|| missing.clone())
}
