//! The chains of a program, for each direction and family.
//!
//! A program reads the address of the *other end* and the port of the *receiver*. So at egress the
//! address is the destination's, and at ingress, in chains named `in4-X`, `in6-X` and `ai4-T`, the
//! source's; all else is the same, and so are the sets, which are named by the tiers alone. Names
//! select no sources: the tiers of ingress programs have no rules about names, and nothing is
//! learned into their sets.
//!
//! They follow from the program alone, so that the chains of a program that stays are never
//! touched.
//!
//! ```text
//! ep4-X            ICMP, where types of its messages matter: goto ep4-X-icmp
//!                  of each class that is possible, in order:
//!                    exact set (address . protocol . port)              verdict
//!                    set for every port (address)                       verdict
//!                    the set of each shared rule (either of both)       verdict
//!                  prefixes:
//!                    this node's, the cluster's addresses, where prefixes decide otherwise there:
//!                      goto ep4-X-host, ep4-X-cluster
//!                    two sets of exceptions (address . protocol . port), one of addresses
//!                    the rest
//! ep4-X-icmp       the same with types in place of ports
//! au4-T            what X lets through is evaluated once more, by all of its policies, where some
//!                  are in mode audit
//! ```
//!
//! Where ranges of ports have sets of their own, the port is looked up behind the first exact set:
//!
//! ```text
//! ep4-X            first exact set; the port's range: goto ep4-X-c<number>; the rest as above
//! ep4-X-c<number>  the classes as above, with the range's set (address) behind each exact set
//! ep4-X-prefixes   the prefixes, for all of these chains
//! ```
//!
//! # What is looked into
//! A program that looks into connections has these chains three times, which differ in what becomes
//! of [`SetClass::Inspect`] ([`ChainPurpose`]):
//!
//! ```text
//! ep4-X, in4-X     refused: who looks into a connection makes one of their own. Nothing is looked
//!                  up for it: such a packet meets what decides behind that class, and by the order
//!                  of classes that refuses it
//! ho4-X, hi4-X     in prerouting: handed over; whatever else decides, the packet goes on untouched
//! ho4-X-found      behind the sets of what is looked into: unless another class comes first
//! re4-X, ri4-X     in output, of what is sent in a client's place: let through
//! ```
//!
//! # Verdicts
//! A packet that is allowed *returns* from its program to the caller of its dispatch: behind the
//! sender's program the receiver's is asked. No rule here accepts. No rule uses `jump` either, so
//! that `return` leaves the whole program from any of its chains. A packet that is denied goes to a
//! chain of [`refusal`].
//!
//! # What a packet costs
//! The number of lookups does not depend on the number of rules, names, addresses and prefixes. For
//! each of four classes there are at most three: the exact set, the set of the port's range, the
//! set for every port. One lookup finds that range, two find the zone of the address, and three are
//! among prefixes. That is at most 4 × 3 + 1 + 2 + 3 = 18, as
//! [`longest_path`](super::longest_path()) counts; twice that where policies are in mode audit, and
//! as much again where a program of the other end decides too. A usual program, which only allows
//! names and objects on single ports, costs one, because sets that
//! [`SetLayout`](policy::classifier::SetLayout) excludes are not looked up. Rules that select whole
//! namespaces are shared among programs ([`Classifier::shared`]), four at most and no more than the
//! same bound allows: each costs one.
//!
//! The prefixes of a zone are merged into disjoint intervals, each with one verdict for all traffic
//! (the *base*) and exceptions from it. A base that is the default verdict needs no lookup. So only
//! the other verdict needs a set, and plain sets suffice. A verdict map would be slow, because the
//! kernel walks the chain of each element's verdict whenever it validates the table.

use std::sync::Arc;

use policy::classifier::{AddressInterval, Classifier, SetClass};
use policy::{AddressZone, Direction, PortRange, ProgramId, Protocol, Verdict};

use crate::desired::{KernelProgram, KernelTiers};
use crate::layout::{self, IpFamily, SetId, SetKind};
use crate::netlink::objects::{self, NftRule, PacketField, RuleLookup, RuleMatch};
use crate::netlink::set_key::{KeyRange, SetKey, address_key};

use super::{chain_names, handover, refusal, set_names};

/// A chain with its rules. In a list of chains, those that it goes to stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramChain {
    pub(crate) name: Arc<str>,
    pub(crate) rules: Vec<NftRule>,
}

/// The chains of a program, without those of its audited tiers.
pub(crate) fn chains(direction: Direction, id: ProgramId, program: &KernelProgram) -> Vec<ProgramChain> {
    let refuse = refusal::chain(direction, program.response);
    let of_family = |family| {
        let allow = match &program.audited {
            None => objects::NftVerdict::Return,
            Some(audited) => goto(&chain_names::audit(direction, audited.id, family)),
        };
        let name = chain_names::program(direction, id, family);
        let verdicts = [allow, goto(refuse)];
        write_chains(
            name,
            direction,
            family,
            &program.enforced,
            ChainPurpose::LetThrough,
            verdicts,
        )
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

/// The chains that find which connections a program hands over.
pub(crate) fn handover_chains(direction: Direction, id: ProgramId, program: &KernelProgram) -> Vec<ProgramChain> {
    let of_family = |family| {
        let name = chain_names::handover(direction, id, family);
        let mut writer = ProgramWriter::new(
            name,
            direction,
            family,
            &program.enforced,
            ChainPurpose::HandOver,
            [objects::NftVerdict::Return, objects::NftVerdict::Return],
        );
        writer.write_handover();
        writer.chains
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

/// The chains that judge the connections which are made in a client's place. They let through what
/// the program lets through, and what it looks into.
pub(crate) fn resumed_chains(direction: Direction, id: ProgramId, program: &KernelProgram) -> Vec<ProgramChain> {
    let refuse = refusal::chain(direction, program.response);
    let of_family = |family| {
        let name = chain_names::resumed(direction, id, family);
        let verdicts = [objects::NftVerdict::Return, goto(refuse)];
        write_chains(
            name,
            direction,
            family,
            &program.enforced,
            ChainPurpose::Resume,
            verdicts,
        )
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

/// The chains that evaluate all policies, those in mode audit included. They refuse nothing.
pub(crate) fn audit_chains(direction: Direction, audited: &KernelTiers) -> Vec<ProgramChain> {
    let verdicts = || [objects::NftVerdict::Return, goto(refusal::audited_chain(direction))];
    let of_family = |family| {
        let name = chain_names::audit(direction, audited.id, family);
        write_chains(name, direction, family, audited, ChainPurpose::LetThrough, verdicts())
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

fn write_chains(
    name: String,
    direction: Direction,
    family: IpFamily,
    evaluation: &KernelTiers,
    purpose: ChainPurpose,
    verdicts: [objects::NftVerdict; 2],
) -> Vec<ProgramChain> {
    let mut writer = ProgramWriter::new(name, direction, family, evaluation, purpose, verdicts);
    writer.write();
    writer.chains
}

/// What chains are for, and so what they do with connections that are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChainPurpose {
    /// Packets pass: such connections do not.
    LetThrough,
    /// Connections are handed over: such ones are.
    HandOver,
    /// Connections are made in a client's place: such ones pass.
    Resume,
}

/// Which packets a chain evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrafficKind {
    /// All packets, distinguished by their ports.
    Ports,
    /// ICMP packets, distinguished by their types.
    Icmp,
}

struct ProgramWriter<'a> {
    name: String,
    direction: Direction,
    family: IpFamily,
    tiers: ProgramId,
    classifier: &'a Classifier,
    purpose: ChainPurpose,
    /// The intervals of each of [`AddressZone::ALL`].
    intervals: [Vec<AddressInterval>; 3],
    allow: objects::NftVerdict,
    deny: objects::NftVerdict,
    chains: Vec<ProgramChain>,
}

impl<'a> ProgramWriter<'a> {
    fn new(
        name: String,
        direction: Direction,
        family: IpFamily,
        evaluation: &'a KernelTiers,
        purpose: ChainPurpose,
        [allow, deny]: [objects::NftVerdict; 2],
    ) -> Self {
        let intervals = AddressZone::ALL.map(|place| {
            let intervals = evaluation.classifier.intervals(place).into_iter();
            let of_family = intervals.filter(|interval| IpFamily::of(interval.first) == family);
            of_family.map(|interval| purpose.decided(interval)).collect()
        });
        Self {
            name,
            direction,
            family,
            tiers: evaluation.id,
            classifier: &evaluation.classifier,
            purpose,
            intervals,
            allow,
            deny,
            chains: Vec::new(),
        }
    }

    /// The sets of what is looked into are looked up first, so that other connections cost no more
    /// than these lookups.
    fn write_handover(&mut self) {
        let found = format!("{}-found", self.name);
        let hand_over = || goto(handover::CHAIN);
        let before = SetClass::ALL.into_iter().filter(|class| *class < SetClass::Inspect);
        let mut rules: Vec<NftRule> = before
            .flat_map(|class| self.look_up_class(TrafficKind::Ports, None, class))
            .collect();
        let ranges = self.port_ranges(TrafficKind::Ports);
        if !ranges.is_empty() {
            let mut by_range = Vec::new();
            for (number, range) in &ranges {
                let of_range = format!("{found}-c{number}");
                let before = SetClass::ALL.into_iter().filter(|class| *class < SetClass::Inspect);
                let mut rules: Vec<NftRule> = before
                    .flat_map(|class| self.look_up_class(TrafficKind::Ports, Some(*number), class))
                    .collect();
                rules.push(always(hand_over()));
                self.add(&of_range, rules);
                by_range.push((ports_key(TrafficKind::Ports, *range), goto(&of_range)));
            }
            by_range.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            rules.insert(
                0,
                NftRule {
                    test: RuleMatch::In(self.port_fields(TrafficKind::Ports), RuleLookup::Verdicts(by_range)),
                    verdict: None,
                },
            );
        }
        rules.push(always(hand_over()));
        self.add(&found, rules);

        let name = self.name.clone();
        let mut rules = self.find_inspected(&found);
        rules.extend(self.find_inspected_prefixes(&name, &found));
        rules.push(always(objects::NftVerdict::Return));
        self.add(&name, rules);
    }

    /// The lookups in the sets of what is looked into.
    fn find_inspected(&mut self, found: &str) -> Vec<NftRule> {
        if !self.classifier.layout().classes.contains(&SetClass::Inspect) {
            return Vec::new();
        }
        let to_found = |rules: Vec<NftRule>| -> Vec<NftRule> {
            let each = rules.into_iter().map(|rule| NftRule {
                verdict: Some(goto(found)),
                ..rule
            });
            each.collect()
        };
        let mut rules = to_found(self.look_up_class(TrafficKind::Ports, None, SetClass::Inspect));
        let ranges = self.port_ranges(TrafficKind::Ports);
        if ranges.is_empty() {
            return rules;
        }
        // The chain of a range ends in the one that follows, where prefixes are looked up.
        let after = format!("{}-prefixes", self.name);
        let mut prefixes = self.find_inspected_prefixes(&after, found);
        prefixes.push(always(objects::NftVerdict::Return));
        self.add(&after, prefixes);
        let mut by_range = Vec::new();
        let done = rules.len();
        for (number, range) in ranges {
            let of_range = format!("{}-c{number}", self.name);
            let of_class = self.look_up_class(TrafficKind::Ports, Some(number), SetClass::Inspect);
            // What the packet was looked up in before stands first.
            let mut rules = to_found(of_class).split_off(done);
            rules.push(always(goto(&after)));
            self.add(&of_range, rules);
            by_range.push((ports_key(TrafficKind::Ports, range), goto(&of_range)));
        }
        by_range.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        rules.push(NftRule {
            test: RuleMatch::In(self.port_fields(TrafficKind::Ports), RuleLookup::Verdicts(by_range)),
            verdict: None,
        });
        rules
    }

    /// The lookups of ports that prefixes look into: of the node's addresses and the cluster's by
    /// themselves, where these differ.
    fn find_inspected_prefixes(&mut self, name: &str, found: &str) -> Vec<NftRule> {
        let [world, cluster, host] = AddressZone::ALL.map(|place| self.inspected_ranges(place));
        let branches = [
            (host != cluster, set_names::host(self.family), "host", host),
            (cluster != world, set_names::cluster(self.family), "cluster", cluster),
        ];
        let mut rules = Vec::new();
        for (differs, addresses, suffix, ranges) in branches {
            if !differs {
                continue;
            }
            let of_place = format!("{name}-{suffix}");
            let mut there = self.in_ranges(&ranges, found);
            there.push(always(objects::NftVerdict::Return));
            self.add(&of_place, there);
            let test = RuleMatch::In(vec![self.peer()], RuleLookup::Set(addresses.into()));
            rules.push(NftRule {
                test,
                verdict: Some(goto(&of_place)),
            });
        }
        rules.extend(self.in_ranges(&world, found));
        rules
    }

    fn in_ranges(&self, ranges: &[KeyRange], found_in: &str) -> Vec<NftRule> {
        if ranges.is_empty() {
            return Vec::new();
        }
        let mut fields = vec![self.peer()];
        fields.extend(self.port_fields(TrafficKind::Ports));
        vec![found(fields, RuleLookup::Ranges(ranges.to_vec()), &goto(found_in))]
    }

    /// Addresses and ports of a place that prefixes look into. Only ports of TCP are.
    fn inspected_ranges(&self, place: AddressZone) -> Vec<KeyRange> {
        let mut ranges = Vec::new();
        for interval in &self.intervals[place as usize] {
            let exceptions = interval.verdicts.exceptions.iter();
            for (range, _) in exceptions.filter(|(_, verdict)| *verdict == Verdict::Inspect) {
                let ports = ports_key(TrafficKind::Ports, *range);
                ranges.push(KeyRange {
                    first: joined(&address_key(interval.first), &ports.first),
                    last: joined(&address_key(interval.last), &ports.last),
                });
            }
        }
        ranges
    }

    fn write(&mut self) {
        let mut rules = Vec::new();
        if self.tells_icmp_apart() {
            let name = format!("{}-icmp", self.name);
            let icmp = self.evaluate(TrafficKind::Icmp, &name);
            rules.push(NftRule {
                test: RuleMatch::Is(self.icmp()),
                verdict: Some(goto(&name)),
            });
            self.add(&name, icmp);
        }
        let name = self.name.clone();
        rules.extend(self.evaluate(TrafficKind::Ports, &name));
        self.add(&name, rules);
    }

    fn add(&mut self, name: &str, rules: Vec<NftRule>) {
        self.chains.push(ProgramChain {
            name: name.into(),
            rules,
        });
    }

    fn tells_icmp_apart(&self) -> bool {
        let icmp = self.icmp();
        let layout = self
            .classifier
            .layout()
            .port_ranges
            .iter()
            .any(|range| range.protocol == icmp);
        let mut exceptions = self
            .intervals
            .iter()
            .flatten()
            .flat_map(|interval| &interval.verdicts.exceptions);
        layout || exceptions.any(|(range, _)| range.protocol == icmp)
    }

    fn icmp(&self) -> Protocol {
        match self.family {
            IpFamily::V4 => Protocol::Icmp,
            IpFamily::V6 => Protocol::Icmpv6,
        }
    }

    /// The address of the other end. The port is the receiver's in both directions.
    fn peer(&self) -> PacketField {
        match self.direction {
            Direction::Egress => PacketField::Destination(self.family),
            Direction::Ingress => PacketField::Source(self.family),
        }
    }

    /// The rules of a chain. The chains that it goes to are added before.
    ///
    /// The port's range is looked up once, behind the exact set of the first class. A packet whose
    /// port lies in a range goes to the chain of that range, which looks up the same sets of every
    /// class, and the range's own set besides. All these chains share one chain of the prefixes,
    /// because the kernel's validation walks a chain once for each path to it.
    fn evaluate(&mut self, traffic: TrafficKind, name: &str) -> Vec<NftRule> {
        let ranges = self.port_ranges(traffic);
        let mut prefixes = self.look_up_prefixes(traffic, name);
        let classes = self.look_up_classes(traffic, None);
        // Without exact sets and sets for every port, `classes` is empty here although there are
        // ranges.
        if ranges.is_empty() || self.classes().next().is_none() {
            return [classes, prefixes].concat();
        }
        if prefixes.len() > 1 {
            let shared = format!("{name}-prefixes");
            self.add(&shared, prefixes);
            prefixes = vec![always(goto(&shared))];
        }
        let before_range = match self.has_exact_sets(traffic) {
            // The first of the tiers' own lookups is in an exact set.
            true => 1 + self.look_up_shared(traffic, |class| self.comes_before_own(class)).len(),
            false => 0,
        };
        let mut by_range = Vec::new();
        for (number, range) in ranges {
            let of_range = format!("{name}-c{number}");
            let mut rules = self.look_up_classes(traffic, Some(number)).split_off(before_range);
            rules.extend_from_slice(&prefixes);
            self.add(&of_range, rules);
            by_range.push((ports_key(traffic, range), goto(&of_range)));
        }
        by_range.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let mut rules = classes;
        let find_range = NftRule {
            test: RuleMatch::In(self.port_fields(traffic), RuleLookup::Verdicts(by_range)),
            verdict: None,
        };
        rules.insert(before_range, find_range);
        rules.append(&mut prefixes);
        rules
    }

    /// The port ranges that have sets of their own, with their numbers.
    fn port_ranges(&self, traffic: TrafficKind) -> Vec<(u16, PortRange)> {
        let is_of_traffic =
            |(_, range): &(u16, PortRange)| range.protocol.has_ports() == (traffic == TrafficKind::Ports);
        // What is only looked into is not looked up where packets are let through.
        let is_looked_up = |(_, range): &(u16, PortRange)| {
            self.purpose != ChainPurpose::LetThrough || self.classifier.has_entries_beside_inspected(*range)
        };
        layout::range_sets(self.classifier.layout(), self.family)
            .filter(is_of_traffic)
            .filter(is_looked_up)
            .collect()
    }

    fn has_exact_sets(&self, traffic: TrafficKind) -> bool {
        let mut kinds = layout::kinds(self.classifier.layout(), self.family);
        traffic == TrafficKind::Ports && kinds.any(|kind| kind == SetKind::Exact)
    }

    /// The lookups in the sets of each class, in the order of classes: the exact set, the set of
    /// the packet's port range, the set for every port, and those of shared rules.
    fn look_up_classes(&self, traffic: TrafficKind, range: Option<u16>) -> Vec<NftRule> {
        let each = SetClass::ALL.into_iter();
        each.flat_map(|class| self.look_up_class(traffic, range, class))
            .collect()
    }

    /// As [`look_up_classes`](Self::look_up_classes), of one class.
    fn look_up_class(&self, traffic: TrafficKind, range: Option<u16>, class: SetClass) -> Vec<NftRule> {
        let layout = self.classifier.layout();
        let mut kinds = Vec::new();
        if self.classes().any(|own| own == class) {
            if self.has_exact_sets(traffic) {
                let fields = vec![self.peer(), PacketField::Protocol, PacketField::Port];
                kinds.push((SetKind::Exact, fields));
            }
            kinds.extend(range.map(|number| (SetKind::Range(number), vec![self.peer()])));
            // What is looked into is TCP, and never all traffic.
            if layout.all_traffic && class != SetClass::Inspect {
                kinds.push((SetKind::All, vec![self.peer()]));
            }
        }
        let verdict = self.verdict(class.verdict());
        let own = kinds.into_iter().map(|(kind, fields)| {
            let set = SetId {
                program: self.tiers,
                class,
                kind,
                family: self.family,
            };
            found(fields, RuleLookup::Set(set.to_string().into()), &verdict)
        });
        own.chain(self.look_up_shared(traffic, |shared| shared == class))
            .collect()
    }

    fn comes_before_own(&self, class: SetClass) -> bool {
        self.classes().next().is_some_and(|own| class < own)
    }

    /// The classes whose sets are looked up, in order.
    fn classes(&self) -> impl Iterator<Item = SetClass> {
        let classes = self.classifier.layout().classes.iter().copied();
        let is_looked_up = |class: &SetClass| *class != SetClass::Inspect || self.purpose != ChainPurpose::LetThrough;
        classes.filter(is_looked_up)
    }

    /// The lookups in the sets of shared rules of some classes. ICMP has no ports, so it is in the
    /// sets for every port alone.
    fn look_up_shared(&self, traffic: TrafficKind, is_wanted: impl Fn(SetClass) -> bool) -> Vec<NftRule> {
        let shared = self.classifier.shared().iter().filter(|shared| is_wanted(shared.class));
        let sets = shared.flat_map(|shared| {
            let sets = layout::sets(shared.id, &shared.layout, self.family);
            sets.map(|set| (set, shared.class))
        });
        let rules = sets.filter_map(|(set, class)| {
            let fields = match (set.kind, traffic) {
                (SetKind::Exact, TrafficKind::Ports) => vec![self.peer(), PacketField::Protocol, PacketField::Port],
                (SetKind::Exact, TrafficKind::Icmp) => return None,
                (SetKind::Range(_) | SetKind::All, _) => vec![self.peer()],
            };
            let verdict = self.verdict(class.verdict());
            Some(found(fields, RuleLookup::Set(set.to_string().into()), &verdict))
        });
        rules.collect()
    }

    fn look_up_prefixes(&mut self, traffic: TrafficKind, name: &str) -> Vec<NftRule> {
        let [world, cluster, host] = AddressZone::ALL.map(|place| {
            PlaceRanges::new(
                &self.intervals[place as usize],
                self.classifier.default_verdict(),
                traffic,
            )
        });
        // This node's addresses are among the cluster's.
        let branches = [
            (host != cluster, set_names::host(self.family), "host", &host),
            (cluster != world, set_names::cluster(self.family), "cluster", &cluster),
        ];
        let mut rules = Vec::new();
        // The node's addresses have a branch also when they are decided like those outside, but the
        // cluster's are not.
        for (differs, addresses, suffix, of_place) in branches {
            if differs {
                let test = RuleMatch::In(vec![self.peer()], RuleLookup::Set(addresses.into()));
                let verdict = if of_place.is_empty() {
                    self.verdict(self.classifier.default_verdict())
                } else {
                    let name = format!("{name}-{suffix}");
                    let there = self.decide(traffic, of_place);
                    self.add(&name, there);
                    goto(&name)
                };
                rules.push(NftRule {
                    test,
                    verdict: Some(verdict),
                });
            }
        }
        rules.extend(self.decide(traffic, &world));
        rules
    }

    /// The rules for exceptions, for the base, and for everything else.
    fn decide(&self, traffic: TrafficKind, of_place: &PlaceRanges) -> Vec<NftRule> {
        let rest = self.classifier.default_verdict();
        let other = other_than(rest);
        let mut with_port = vec![self.peer()];
        with_port.extend(self.port_fields(traffic));
        let steps = [
            (&of_place.excepted_from_rest, with_port.clone(), other),
            (&of_place.back_to_rest, with_port, rest),
            (&of_place.base, vec![self.peer()], other),
        ];
        let mut rules = Vec::new();
        for (ranges, fields, verdict) in steps {
            if !ranges.is_empty() {
                rules.push(found(
                    fields,
                    RuleLookup::Ranges(ranges.clone()),
                    &self.verdict(verdict),
                ));
            }
        }
        rules.push(always(self.verdict(rest)));
        rules
    }

    fn port_fields(&self, traffic: TrafficKind) -> Vec<PacketField> {
        match traffic {
            TrafficKind::Ports => vec![PacketField::Protocol, PacketField::Port],
            TrafficKind::Icmp => vec![PacketField::MessageType(self.family)],
        }
    }

    fn verdict(&self, verdict: Verdict) -> objects::NftVerdict {
        match verdict {
            Verdict::Allow => self.allow.clone(),
            Verdict::Inspect if self.purpose == ChainPurpose::Resume => self.allow.clone(),
            Verdict::Deny | Verdict::Inspect => self.deny.clone(),
        }
    }
}

/// What the prefixes of a zone decide about some traffic, as the ranges of three sets.
#[derive(Debug, PartialEq, Eq)]
struct PlaceRanges {
    /// Address and port, where the base is the default verdict and the port has the other one.
    excepted_from_rest: Vec<KeyRange>,
    /// Address and port, where the base is the other verdict and the port has the default one.
    back_to_rest: Vec<KeyRange>,
    /// Addresses whose base is not the default verdict.
    base: Vec<KeyRange>,
}

impl PlaceRanges {
    fn new(intervals: &[AddressInterval], rest: Verdict, traffic: TrafficKind) -> Self {
        let mut of_place = Self {
            excepted_from_rest: Vec::new(),
            back_to_rest: Vec::new(),
            base: Vec::new(),
        };
        for interval in intervals {
            let addresses = KeyRange {
                first: address_key(interval.first),
                last: address_key(interval.last),
            };
            let exceptions = if interval.verdicts.base == rest {
                &mut of_place.excepted_from_rest
            } else {
                &mut of_place.back_to_rest
            };
            for (range, _) in &interval.verdicts.exceptions {
                if range.protocol.has_ports() == (traffic == TrafficKind::Ports) && family_has(interval, range.protocol)
                {
                    let ports = ports_key(traffic, *range);
                    exceptions.push(KeyRange {
                        first: joined(&addresses.first, &ports.first),
                        last: joined(&addresses.last, &ports.last),
                    });
                }
            }
            if interval.verdicts.base != rest {
                addresses.append_to(&mut of_place.base);
            }
        }
        of_place
    }

    fn is_empty(&self) -> bool {
        self.excepted_from_rest.is_empty() && self.back_to_rest.is_empty() && self.base.is_empty()
    }
}

/// Whether these addresses are of a family that has this protocol.
fn family_has(interval: &AddressInterval, protocol: Protocol) -> bool {
    layout::family_of(protocol).is_none_or(|only| only == IpFamily::of(interval.first))
}

fn other_than(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny | Verdict::Inspect => Verdict::Allow,
    }
}

impl ChainPurpose {
    /// An interval as chains of this purpose decide it.
    fn decided(self, interval: AddressInterval) -> AddressInterval {
        let verdicts = interval.verdicts.map(|verdict| match (verdict, self) {
            (Verdict::Inspect, ChainPurpose::LetThrough) => Verdict::Deny,
            (Verdict::Inspect, ChainPurpose::Resume) => Verdict::Allow,
            (verdict, _) => verdict,
        });
        AddressInterval { verdicts, ..interval }
    }
}

fn found(fields: Vec<PacketField>, lookup: RuleLookup, verdict: &objects::NftVerdict) -> NftRule {
    NftRule {
        test: RuleMatch::In(fields, lookup),
        verdict: Some(verdict.clone()),
    }
}

fn always(verdict: objects::NftVerdict) -> NftRule {
    NftRule {
        test: RuleMatch::Always,
        verdict: Some(verdict),
    }
}

fn goto(chain: &str) -> objects::NftVerdict {
    objects::NftVerdict::Goto(chain.into())
}

/// The key of a port range, with the fields of [`ProgramWriter::port_fields`].
fn ports_key(traffic: TrafficKind, range: PortRange) -> KeyRange {
    let key = |port: u16| {
        let [high, low] = port.to_be_bytes();
        match traffic {
            TrafficKind::Ports => SetKey::from_slice(&[range.protocol.number(), 0, 0, 0, high, low, 0, 0]),
            TrafficKind::Icmp => SetKey::from_slice(&[low]),
        }
    };
    KeyRange {
        first: key(range.first),
        last: key(range.last),
    }
}

/// Joins two keys. Each field of a concatenation is padded to four octets.
fn joined(address: &SetKey, port: &SetKey) -> SetKey {
    let mut key = address.clone();
    key.extend_from_slice(port);
    while !key.len().is_multiple_of(4) {
        key.push(0);
    }
    key
}

#[cfg(test)]
mod tests;
