//! The rule that decides: the first that matches, tier by tier.

use std::fmt;

use ipnet::IpNet;
use names::{Name, Pattern};

use super::{ExplainContext, KnownAnnouncement, KnownName, KnownPeer, LeaseState, shown_origin, shown_ports};
use crate::direction::Direction;
use crate::inventory::Inventory;
use crate::l7::{Announcement, HttpRequest, L7Decision, L7Denial};
use crate::peer_selector::ObjectSelector;
use crate::policy::Action;
use crate::ports::PortSet;
use crate::program::{Origin, Peer, Rule, Tiers, Verdict};
use crate::zone::Zone;

/// What decides about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The first rule that matches.
    Rule {
        /// The direction that the rule speaks of.
        direction: Direction,
        /// What the rule does with the connection.
        verdict: Verdict,
        /// Where it is written.
        origin: Origin,
        /// What of the peer it matches.
        matched: Matched,
        /// The ports that it speaks of.
        ports: PortSet,
    },
    /// No rule matches, and some policies close this direction.
    Closed {
        /// The direction that is closed.
        direction: Direction,
        /// The policies that close it.
        by: Vec<Origin>,
    },
    /// No rule matches, and no policy that selects the endpoint closes this direction.
    Open(Direction),
    /// No policy says anything of this direction of the endpoint.
    Unselected(Direction),
}

/// What of a peer a rule matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Matched {
    /// A name that resolves to its address.
    Name(Pattern, KnownName),
    /// Its address, by a prefix.
    Prefix(Zone, IpNet),
    /// The object that has the address.
    Object(ObjectSelector),
    /// A pod, by a port's name.
    PortName,
}

impl Decision {
    /// What becomes of a packet.
    pub fn verdict(&self) -> Verdict {
        match self {
            Decision::Rule { verdict, .. } => *verdict,
            Decision::Closed { .. } => Verdict::Deny,
            Decision::Open(_) | Decision::Unselected(_) => Verdict::Allow,
        }
    }
}

/// One sentence without its full stop.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Decision::Rule {
                direction,
                verdict,
                origin,
                matched,
                ports,
            } => {
                let verb = match verdict {
                    Verdict::Allow => "allows",
                    Verdict::Deny => "denies",
                    Verdict::Inspect => "looks into",
                };
                let matched = matched.shown(*direction);
                write!(f, "{} {verb} {} ({matched})", shown_origin(origin), shown_ports(ports))
            }
            Decision::Closed { direction, by } => {
                let by: Vec<String> = by.iter().map(shown_origin).collect();
                write!(
                    f,
                    "no rule allows it, and {direction} is closed by {}",
                    by.join(" and ")
                )
            }
            Decision::Open(direction) => {
                write!(
                    f,
                    "no rule speaks of it, and no policy that selects the pod closes {direction}"
                )
            }
            Decision::Unselected(direction) => write!(f, "no policy selects the pod for {direction}"),
        }
    }
}

impl Matched {
    /// As people read it, of a peer in this direction.
    fn shown(&self, direction: Direction) -> String {
        let peer = direction.peer();
        match self {
            Matched::Name(pattern, KnownName { name, lease }) => {
                let lease = match lease {
                    LeaseState::Assumed => String::new(),
                    LeaseState::Remaining(left) => format!("; its lease has {} s left", left.as_secs()),
                    LeaseState::Expired(ago) => format!("; its lease ended {} s ago", ago.as_secs()),
                };
                format!("the name {name} matches {pattern}{lease}")
            }
            // Nobody writes prefixes of it: what is left of the whole without other clusters.
            Matched::Prefix(Zone::Cluster, _) => format!("any {peer} in the cluster"),
            Matched::Prefix(zone, prefix) if prefix.prefix_len() == 0 => match zone {
                Zone::Anywhere => format!("any {peer}"),
                Zone::World => format!("any {peer} outside the cluster"),
                Zone::Cluster => format!("any {peer} in the cluster"),
                Zone::Mesh => format!("any {peer} in a cluster of the mesh"),
                Zone::Host => "this node".to_owned(),
            },
            Matched::Prefix(_, prefix) => format!("the address lies in {prefix}"),
            Matched::Object(selector) => selector.to_string(),
            Matched::PortName => "a pod whose container names the port".to_owned(),
        }
    }
}

/// Goes through the tiers.
pub(super) fn decide(context: ExplainContext<'_>, tiers: &Tiers, peer: &KnownPeer) -> Decision {
    let (direction, inventory) = (context.direction, context.inventory);
    let first = |rules: &[Rule]| {
        rules
            .iter()
            .filter(|rule| denial_of(rule, context.announced, peer).is_none())
            .find_map(|rule| matching(rule, inventory, peer).map(|it| (rule.clone(), it)))
    };
    let of = |rule: Rule, (matched, ports): (Matched, PortSet), verdict| {
        rule.origins.into_iter().next().map(|origin| Decision::Rule {
            direction,
            verdict,
            origin,
            matched,
            ports,
        })
    };
    for (rules, is_network) in [(&tiers.admin, false), (&tiers.network, true), (&tiers.baseline, false)] {
        let decision = first(rules).and_then(|(rule, matched)| match rule.action {
            Action::Allow => of(rule, matched, Verdict::Allow),
            Action::Deny => of(rule, matched, Verdict::Deny),
            Action::Pass => None,
        });
        if let Some(decision) = decision {
            return decision;
        }
        if is_network && tiers.closed() {
            return Decision::Closed {
                direction,
                by: tiers.closed_by.clone(),
            };
        }
    }
    Decision::Open(direction)
}

/// Why a rule does not let a connection through that announces this, where it looks into it;
/// `None` where it does, or does not care.
pub(super) fn denial_of(rule: &Rule, announced: Option<&KnownAnnouncement>, peer: &KnownPeer) -> Option<L7Denial> {
    let through = rule.through.as_ref()?;
    let Some(announced) = announced else {
        return Some(L7Denial::OtherProtocol);
    };
    let is_of_rule = |name: &Name| {
        let mut live = peer.names.iter().filter(|known| known.lease.is_live());
        live.any(|known| known.name == *name) && matches!(&rule.peer, Peer::Name(pattern) if pattern.matches(name))
    };
    let decided = match announced {
        KnownAnnouncement::Tls(name) => through.decide(
            Announcement::Tls {
                server_name: Some(name),
                is_encrypted: false,
            },
            is_of_rule,
        ),
        KnownAnnouncement::Http { method, path, host } => {
            let request = HttpRequest {
                method: method.as_bytes(),
                path: path.as_bytes(),
                host: host.as_bytes(),
                headers: &[],
            };
            through.decide(Announcement::Http(&request), is_of_rule)
        }
        KnownAnnouncement::Secured {
            server_name,
            method,
            path,
        } => {
            let host = server_name.to_string();
            let request = HttpRequest {
                method: method.as_bytes(),
                path: path.as_bytes(),
                host: host.as_bytes(),
                headers: &[],
            };
            through.decide(
                Announcement::Secured {
                    server_name,
                    request: &request,
                },
                is_of_rule,
            )
        }
    };
    match decided {
        L7Decision::Denied(denial) => Some(denial),
        L7Decision::Allowed { .. } | L7Decision::Terminated(_) | L7Decision::Audited(_) => None,
    }
}

/// What a rule matches of the peer, with the ports that it speaks of there; `None` when it does not
/// match.
fn matching(rule: &Rule, inventory: &Inventory, peer: &KnownPeer) -> Option<(Matched, PortSet)> {
    let (matched, ports) = matched_peer(rule, inventory, peer)?;
    let speaks = match (peer.traffic, rule.action) {
        (Some((protocol, port)), _) => ports.contains(protocol, port),
        // Of any port: what some port is let through by, and what none is.
        (None, Action::Allow) => !ports.is_empty(),
        (None, Action::Deny | Action::Pass) => ports == PortSet::All,
    };
    speaks.then_some((matched, ports))
}

/// What a rule matches of the peer, whatever the port.
pub(super) fn matched_peer(rule: &Rule, inventory: &Inventory, peer: &KnownPeer) -> Option<(Matched, PortSet)> {
    let matched = match (&rule.peer, peer.address) {
        (Peer::Name(pattern), _) => {
            let known = peer
                .names
                .iter()
                .find(|known| known.lease.is_live() && pattern.matches(&known.name))?;
            Matched::Name(pattern.clone(), known.clone())
        }
        (Peer::Prefix(zone, prefix), Some((address, place))) => {
            let lies_in = place.is_in(*zone) && prefix.contains(&address);
            lies_in.then_some(Matched::Prefix(*zone, *prefix))?
        }
        // A name's address is never one of the cluster's, and nothing else is known of it.
        (Peer::Prefix(zone @ (Zone::Anywhere | Zone::World), prefix), None) if prefix.prefix_len() == 0 => {
            Matched::Prefix(*zone, *prefix)
        }
        (Peer::Object(selector), Some((address, _))) => {
            let ports = Some(inventory.ports_at(rule, address)).filter(|ports| !ports.is_empty())?;
            return Some((Matched::Object(selector.clone()), ports));
        }
        (Peer::PodsWithin(..), Some((address, _))) => {
            let ports = Some(inventory.ports_at(rule, address)).filter(|ports| !ports.is_empty())?;
            return Some((Matched::PortName, ports));
        }
        (_, None) => return None,
    };
    Some((matched, rule.ports.clone()))
}
