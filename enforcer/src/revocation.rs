//! Which live flows policies do not allow any more. Pure.
//!
//! Rules judge the first packet of a flow. When policies change, or the labels of a pod, flows that
//! began before go on as established ones. So after such a change each tracked flow is judged once
//! more, in the way in which the rules would judge its first packet, and those that are denied are
//! cut ([`crate::writer`]).
//!
//! # Expired is not revoked
//! A lease that has ended stops new flows, and no flow that began while it lived. When the rules
//! would refuse a flow now, that is no revocation if only the lease of a name is missing which the
//! policies still allow. What the pod was told tells which name it was
//! ([`FlowJudge::new`], `told`): if policies allow that name, the flow goes on; if they do not, it
//! is cut. Where nothing is known of the address but some allowed name might lead there, the flow
//! is [unattributed](FlowVerdict::Unattributed).
//!
//! # What is left alone
//! Intercepted lookups, which the proxy judges one by one; connections that were handed over to be
//! looked into, and those that are made in their place; flows that protocol helpers expected,
//! which passed because of another flow; and what ingress programs are not asked about, which is
//! this node's own traffic unless settings say otherwise.

mod narrowing;
mod roles;

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

use ahash::HashMap;
use names::Name;
use policy::address::ZoneMap;
use policy::classifier::{AddressContext, ClassifierEntry, RuleIndex, SetClass, SetLayout};
use policy::{Direction, PortSet, ProgramId, Protocol, Verdict};

use crate::conntrack::ConntrackEntry;
use crate::desired::{DesiredState, KernelTiers, LocalHost};
use crate::layout::{Element, elements_of_packet};

pub use narrowing::may_deny_more;
pub use roles::{FlowRole, FlowRoles};

/// A tracked flow, as the rules see the packets of who opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Who opened it; port 0 where the protocol has none.
    pub source: SocketAddr,
    /// Whom it goes to, behind any translation.
    pub destination: SocketAddr,
    /// Whom the first packet was sent to, before any translation.
    pub asked: SocketAddr,
    /// The IANA protocol number.
    pub protocol: u8,
    /// The type of the first message, of ICMP and ICMPv6.
    pub icmp_type: Option<u8>,
    /// Whether it passed because of another flow.
    pub is_expected: bool,
    /// The conntrack zone of its original direction.
    pub zone: u16,
}

/// What becomes of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowVerdict {
    /// It goes on: it is allowed, or nothing judges it.
    Allowed,
    /// It is cut: the program of this direction does not allow it.
    Denied(Direction),
    /// No lease holds the address, and nothing tells which name led there. Some name that policies
    /// allow might have.
    Unattributed,
}

/// Judges flows under one desired state.
pub struct FlowJudge<'a> {
    desired: &'a DesiredState,
    zones: ZoneMap,
    roles: FlowRoles,
    is_learned: &'a dyn Fn(&Element) -> bool,
    told: &'a dyn Fn(IpAddr, IpAddr) -> Option<Name>,
    /// Whether some name might open this traffic to an address. Going through all names takes long.
    openable: RefCell<HashMap<(ProgramId, IpAddr, Traffic), bool>>,
}

/// The receiver's port, or the type of an ICMP message; `None` for what is not told apart.
type Traffic = Option<(Protocol, u16)>;

impl Flow {
    /// The flow of a conntrack entry.
    pub fn of(entry: &ConntrackEntry) -> Self {
        Self {
            source: SocketAddr::new(entry.source, entry.source_port),
            destination: entry.reply_source,
            asked: entry.original_destination,
            protocol: entry.protocol,
            icmp_type: entry.icmp_type,
            is_expected: entry.is_expected,
            zone: entry.zone,
        }
    }

    fn traffic(&self) -> Traffic {
        let known = Protocol::ALL
            .into_iter()
            .find(|known| known.number() == self.protocol)?;
        match known {
            Protocol::Tcp | Protocol::Udp | Protocol::Sctp => Some((known, self.destination.port())),
            Protocol::Icmp | Protocol::Icmpv6 => Some((known, self.icmp_type?.into())),
        }
    }
}

impl<'a> FlowJudge<'a> {
    /// `is_learned` tells whether an element of a lease is in force, and `told` which name an
    /// endpoint's address (the first) was told to have the other address.
    pub fn new(
        desired: &'a DesiredState,
        is_learned: &'a dyn Fn(&Element) -> bool,
        told: &'a dyn Fn(IpAddr, IpAddr) -> Option<Name>,
    ) -> Self {
        Self {
            zones: ZoneMap::new(desired.host.iter().copied(), desired.cluster.iter().copied()),
            roles: FlowRoles::new(desired),
            desired,
            is_learned,
            told,
            openable: RefCell::default(),
        }
    }

    /// What becomes of a flow. Both ends decide, as in the rules: a denial of either counts.
    pub fn verdict(&self, flow: &Flow) -> FlowVerdict {
        if flow.is_expected || self.roles.of(self.desired, flow) != FlowRole::Direct {
            return FlowVerdict::Allowed;
        }
        let (source, destination) = (flow.source.ip(), flow.destination.ip());
        let egress = self.of_direction(Direction::Egress, source, destination, flow);
        if let FlowVerdict::Denied(_) = egress {
            return egress;
        }
        let is_own = self.desired.host.contains(&source) || source.is_loopback();
        if is_own && self.desired.local_host == LocalHost::Always {
            return egress;
        }
        match self.of_direction(Direction::Ingress, destination, source, flow) {
            FlowVerdict::Allowed => egress,
            decided => decided,
        }
    }

    fn of_direction(&self, direction: Direction, judged: IpAddr, peer: IpAddr, flow: &Flow) -> FlowVerdict {
        let Some(id) = self.desired.dispatch[direction].get(&judged) else {
            return FlowVerdict::Allowed;
        };
        let Some(program) = self.desired.programs.get(id) else {
            return FlowVerdict::Denied(direction);
        };
        let (tiers, traffic) = (&program.enforced, flow.traffic());
        let in_force = |element: &Element| self.is_member(element) || (self.is_learned)(element);
        match self.looked_up(tiers, peer, traffic, in_force, None) {
            Verdict::Allow => FlowVerdict::Allowed,
            // Nobody looks into a flow that began before.
            Verdict::Deny | Verdict::Inspect => self.without_lease(direction, tiers, judged, peer, traffic),
        }
    }

    /// The verdict on a flow that the rules would refuse, because of what leases may have opened.
    fn without_lease(
        &self,
        direction: Direction,
        tiers: &KernelTiers,
        judged: IpAddr,
        peer: IpAddr,
        traffic: Traffic,
    ) -> FlowVerdict {
        let denied = FlowVerdict::Denied(direction);
        // Names select no sources.
        if direction == Direction::Ingress || !self.is_openable(tiers, peer, traffic) {
            return denied;
        }
        let Some(name) = (self.told)(judged, peer) else {
            return FlowVerdict::Unattributed;
        };
        let rules = tiers.classifier.name_rules();
        let matching = rules.filter(|(_, pattern)| pattern.matches(&name));
        match self.opened_by(tiers, matching.map(|(index, _)| index), peer, traffic) {
            true => FlowVerdict::Allowed,
            false => denied,
        }
    }

    /// Whether a name could open this traffic to the address.
    fn is_openable(&self, tiers: &KernelTiers, peer: IpAddr, traffic: Traffic) -> bool {
        let key = (tiers.id, peer, traffic);
        if let Some(known) = self.openable.borrow().get(&key) {
            return *known;
        }
        let rules = tiers.classifier.name_rules().map(|(index, _)| index);
        let mut each = rules.map(|index| self.opened_by(tiers, [index].into_iter(), peer, traffic));
        let is_openable = each.any(|opened| opened);
        self.openable.borrow_mut().insert(key, is_openable);
        is_openable
    }

    /// Whether the address would be open if leases held it for names that these rules match.
    fn opened_by(
        &self,
        tiers: &KernelTiers,
        rules: impl Iterator<Item = RuleIndex>,
        peer: IpAddr,
        traffic: Traffic,
    ) -> bool {
        let at = AddressContext {
            address: peer,
            zone: self.zones.of(peer),
            objects: &[],
        };
        let entries = rules.flat_map(|index| tiers.classifier.entries_for_name(index, at));
        let leased: Vec<ClassifierEntry> = entries.collect();
        let is_member = |element: &Element| self.is_member(element);
        self.looked_up(tiers, peer, traffic, is_member, Some(&leased)) == Verdict::Allow
    }

    /// The verdict of the rules, where the sets hold these elements and those of these entries.
    fn looked_up(
        &self,
        tiers: &KernelTiers,
        peer: IpAddr,
        traffic: Traffic,
        holds: impl Fn(&Element) -> bool,
        leased: Option<&[ClassifierEntry]>,
    ) -> Verdict {
        let classifier = &tiers.classifier;
        let is_held = |id: ProgramId, layout: &SetLayout, class: SetClass| {
            elements_of_packet(id, layout, class, peer, traffic).any(|element| holds(&element))
        };
        let layout = classifier.layout();
        let own = layout.classes.iter().copied();
        let own = own.filter(|class| is_held(tiers.id, layout, *class));
        // Members of a shared rule stand in the sets of other tiers.
        let shared = classifier.shared().iter().filter(|shared| {
            let mut classes = shared.layout.classes.iter();
            classes.any(|class| is_held(shared.id, &shared.layout, *class))
        });
        let names = classifier.shared_names().iter().filter_map(|names| {
            let class = classifier.class_of_names(names, peer, self.zones.of(peer), traffic)?;
            let mut classes = names.layout.classes.iter();
            let is_held = classes.any(|class| is_held(names.id, &names.layout, *class));
            is_held.then_some(class)
        });
        // A class that holds the packet holds it whatever its ports.
        let held: Vec<ClassifierEntry> = own
            .chain(shared.map(|shared| shared.class))
            .chain(names)
            .map(|class| ClassifierEntry {
                class,
                ports: PortSet::All,
            })
            .collect();
        let entries = held.iter().chain(leased.into_iter().flatten());
        classifier.verdict(peer, self.zones.of(peer), entries, traffic)
    }

    fn is_member(&self, element: &Element) -> bool {
        let members = self.desired.members.get(&element.set.program);
        members.is_some_and(|members| members.contains(element))
    }
}

#[cfg(test)]
mod tests;
