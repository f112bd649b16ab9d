//! The chain of a program, one for each family, and the sets that only it uses.
//!
//! ```text
//! deny    exact entries → each group → for each zone: every port, then prefixes with ports     goto refuse
//! allow   exact entries → each group → for each zone: every port, then prefixes with ports     accept
//!         goto refuse, where the program closes egress
//! ```
//!
//! The protocol is part of every key that has a port, so a packet whose protocol has no ports (and of which `th dport` reads
//! something else) matches no such entry. A rule for every port matches every protocol.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use nftables::expr::{Elem, NamedExpression};
use nftables::schema::SetType;
use nftables::stmt::Statement;
use policy::policy::Zone;
use policy::program::Rules;
use policy::{PortRange, PortSet, Program, ProgramId};

use super::document::{Document, SetForm};
use super::expression::{
    Expr, accept, address, address_type, any_of, concat, destination, goto, is, named, named_set, port, port_value,
    ports_value, prefix, protocol, protocol_value,
};
use super::{refusal, zones};
use crate::desired::Desired;
use crate::layout::{Element, ElementKey, Family, LearnedSets, SetId, SetKind, Side};

/// nft counts an element's timeout in milliseconds of a C `int`; 24 days is close to its end.
const LONGEST_TIMEOUT_SECONDS: u64 = 24 * 24 * 3600;

/// The name of a program's chain.
pub(super) fn chain_name(id: ProgramId, family: Family) -> String {
    format!("ep{family}-{id}")
}

/// The chains of all programs, with their sets.
pub(super) fn chains(document: &mut Document<'_>, desired: &Desired, learned: &[(Element, Duration)]) {
    let learned = by_set(learned);
    for (id, program) in &desired.programs {
        for family in Family::BOTH {
            let chain = Chain {
                id: *id,
                family,
                name: chain_name(*id, family),
            };
            chain.write(document, program, desired.capacity.get(), &learned);
        }
    }
}

/// Elements by their set, the longest timeout of each.
type Learned = BTreeMap<SetId, BTreeMap<ElementKey, Duration>>;

fn by_set(learned: &[(Element, Duration)]) -> Learned {
    let mut sets = Learned::new();
    for (Element { set, key }, remaining) in learned {
        let longest = sets.entry(*set).or_default().entry(*key).or_default();
        *longest = (*longest).max(*remaining);
    }
    sets
}

struct Chain {
    id: ProgramId,
    family: Family,
    name: String,
}

impl Chain {
    fn write(&self, document: &mut Document<'_>, program: &Program, capacity: u32, learned: &Learned) {
        document.chain(&self.name);
        for (side, rules) in [(Side::Deny, &program.deny), (Side::Allow, &program.allow)] {
            self.look_up_learned(document, side, rules, capacity, learned);
            self.look_up_prefixes(document, side, rules);
        }
        if program.closed {
            document.rule(&self.name, [goto(refusal::CHAIN)]);
        }
    }

    fn look_up_learned(
        &self,
        document: &mut Document<'_>,
        side: Side,
        rules: &Rules,
        capacity: u32,
        learned: &Learned,
    ) {
        let sets = LearnedSets::of(rules);
        for (kind, ports) in sets.kinds_with_ports() {
            let set = SetId {
                program: self.id,
                side,
                kind,
                family: self.family,
            };
            let (key, destination) = match kind {
                SetKind::Exact => (self.address_and_port_type(), self.destination_and_port()),
                SetKind::Group(_) => (vec![address_type(self.family)], destination(self.family)),
            };
            let name = set.to_string();
            // Expired elements count until the kernel collects them, so there is twice the room.
            let form = SetForm::timeout(key, Some(capacity.saturating_mul(2)));
            document.kept_set(&name, form, || {
                let elements = learned.get(&set).into_iter().flatten();
                elements.map(|(key, remaining)| element(*key, *remaining)).collect()
            });
            let mut statements = vec![is(destination, named_set(&name))];
            statements.extend(ports.and_then(port_condition));
            statements.push(verdict(side));
            document.rule(&self.name, statements);
        }
    }

    fn look_up_prefixes(&self, document: &mut Document<'_>, side: Side, rules: &Rules) {
        for zone in zones::ALL {
            let of_zone = || {
                rules
                    .prefixes
                    .iter()
                    .filter(move |rule| rule.zone == zone && zones::family_of(&rule.prefix) == self.family)
            };
            let every_port = of_zone().filter(|rule| rule.ports == PortSet::All);
            self.look_up_every_port(document, side, zone, every_port.map(|rule| rule.prefix));
            let some_ports = of_zone().filter_map(|rule| match &rule.ports {
                PortSet::All => None,
                PortSet::Ranges(ranges) => Some((rule.prefix, ranges.as_slice())),
            });
            self.look_up_some_ports(document, side, zone, some_ports);
        }
    }

    fn look_up_every_port(
        &self,
        document: &mut Document<'_>,
        side: Side,
        zone: Zone,
        prefixes: impl Iterator<Item = IpNet>,
    ) {
        let prefixes = zones::merged(prefixes, self.family);
        let whole_space = matches!(prefixes[..], [only] if only.prefix_len() == 0);
        if prefixes.is_empty() {
            return;
        }
        let mut statements = Vec::from_iter(zones::condition(zone, self.family));
        if !whole_space {
            let name = format!("{side}{}-{}-{}", self.family, self.id, zone_name(zone));
            document.kept_set(&name, SetForm::interval([address_type(self.family)]), || {
                prefixes.into_iter().map(prefix).collect()
            });
            statements.push(is(destination(self.family), named_set(&name)));
        }
        statements.push(verdict(side));
        document.rule(&self.name, statements);
    }

    fn look_up_some_ports<'r>(
        &self,
        document: &mut Document<'_>,
        side: Side,
        zone: Zone,
        rules: impl Iterator<Item = (IpNet, &'r [PortRange])>,
    ) {
        let elements: Vec<Expr> = rules
            .flat_map(|(of, ranges)| {
                ranges
                    .iter()
                    .map(move |range| concat([prefix(of), protocol_value(range.protocol), ports_value(*range)]))
            })
            .collect();
        if elements.is_empty() {
            return;
        }
        let name = format!("{side}{}-{}-{}-p", self.family, self.id, zone_name(zone));
        document.kept_set(&name, SetForm::interval(self.address_and_port_type()), || elements);
        let mut statements = Vec::from_iter(zones::condition(zone, self.family));
        statements.push(is(self.destination_and_port(), named_set(&name)));
        statements.push(verdict(side));
        document.rule(&self.name, statements);
    }

    fn destination_and_port(&self) -> Expr {
        concat([destination(self.family), protocol(), port()])
    }

    fn address_and_port_type(&self) -> Vec<SetType> {
        vec![address_type(self.family), SetType::InetProto, SetType::InetService]
    }
}

fn verdict(side: Side) -> Statement<'static> {
    match side {
        Side::Deny => goto(refusal::CHAIN),
        Side::Allow => accept(),
    }
}

/// What a packet to an address of a group must be; nothing where the group is every port.
fn port_condition(ports: &PortSet) -> Option<Statement<'static>> {
    match ports {
        PortSet::All => None,
        PortSet::Ranges(ranges) => {
            let doors = ranges
                .iter()
                .map(|range| concat([protocol_value(range.protocol), ports_value(*range)]));
            Some(is(concat([protocol(), port()]), any_of(doors)))
        }
    }
}

fn element(key: ElementKey, remaining: Duration) -> Expr {
    let value = match key.port {
        None => address(key.address),
        Some((protocol, port)) => concat([address(key.address), protocol_value(protocol), port_value(port)]),
    };
    // A timeout of zero would mean none at all.
    let seconds = remaining
        .as_secs()
        .saturating_add(u64::from(remaining.subsec_nanos() > 0));
    let seconds = seconds.clamp(1, LONGEST_TIMEOUT_SECONDS);
    named(NamedExpression::Elem(Elem {
        val: Box::new(value),
        timeout: u32::try_from(seconds).ok(),
        expires: None,
        comment: None,
        counter: None,
    }))
}

fn zone_name(zone: Zone) -> &'static str {
    match zone {
        Zone::Anywhere => "any",
        Zone::World => "world",
        Zone::Cluster => "cluster",
        Zone::Host => "host",
    }
}
