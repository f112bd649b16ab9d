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
//!                    shared names: the port, then their set (address)   verdict, or
//!                      goto ep4-X-names where prefixes may deny first
//!                  prefixes:
//!                    this node's, the cluster's addresses, where prefixes decide otherwise there:
//!                      goto ep4-X-host, ep4-X-cluster
//!                    two sets of exceptions (address . protocol . port), one of addresses
//!                    the rest
//! ep4-X-names      prefixes once more, and lets through what none denies
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
//! ho4-X, hi4-X     in prerouting: handed over; whatever else decides, the packet goes on untouched;
//!                  at egress also to a Service behind which something is looked into
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
//! same bound allows: each costs one. So are names ([`Classifier::shared_names`]): a lookup for the
//! addresses of each group, and one for its ports unless there is a single one.
//!
//! The prefixes of a zone are merged into disjoint intervals, each with one verdict for all traffic
//! (the *base*) and exceptions from it. A base that is the default verdict needs no lookup. So only
//! the other verdict needs a set, and plain sets suffice. A verdict map would be slow, because the
//! kernel walks the chain of each element's verdict whenever it validates the table.

mod class_lookups;
mod handed_over;
mod name_lookups;
mod place_ranges;
mod prefix_lookups;

use std::sync::Arc;

use policy::classifier::{AddressInterval, Classifier, SetClass};
use policy::{AddressZone, Direction, PortRange, ProgramId, Protocol, Verdict};

use crate::desired::{KernelProgram, KernelTiers};
use crate::layout::IpFamily;
use crate::netlink::objects::{self, NftRule, PacketField, RuleLookup, RuleMatch};
use crate::netlink::set_key::{KeyRange, SetKey};

use super::{chain_names, refusal};

use prefix_lookups::PrefixVerdicts;

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
    prefixes: PrefixVerdicts,
    /// What prefixes deny before shared names; `None` where they deny nothing, or that is the same
    /// for the purpose.
    before_names: Option<PrefixVerdicts>,
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
        let classifier = &*evaluation.classifier;
        let of_zones = |intervals: &dyn Fn(AddressZone) -> Vec<AddressInterval>, rest| {
            let of_zone = |zone| {
                let of_family = intervals(zone).into_iter();
                let of_family = of_family.filter(|interval| IpFamily::of(interval.first) == family);
                of_family.map(|interval| purpose.decided(interval)).collect()
            };
            PrefixVerdicts {
                intervals: AddressZone::ALL.map(of_zone),
                rest,
            }
        };
        let is_overruled = classifier.shared_names().iter().any(|names| names.is_overruled);
        // Neither what is denied is handed over nor what is let through.
        let asks_before_names = is_overruled && purpose != ChainPurpose::HandOver;
        Self {
            name,
            direction,
            family,
            tiers: evaluation.id,
            classifier,
            purpose,
            prefixes: of_zones(&|zone| classifier.intervals(zone), classifier.default_verdict()),
            before_names: asks_before_names.then(|| of_zones(&|zone| classifier.denials(zone), Verdict::Allow)),
            allow,
            deny,
            chains: Vec::new(),
        }
    }

    fn write(&mut self) {
        let mut rules = Vec::new();
        if self.tells_icmp_apart() {
            let icmp = self.evaluate(TrafficKind::Icmp);
            let name = self.chain(TrafficKind::Icmp);
            rules.push(NftRule {
                test: RuleMatch::Is(self.icmp()),
                verdict: Some(goto(&name)),
            });
            self.add(&name, icmp);
        }
        rules.extend(self.evaluate(TrafficKind::Ports));
        self.add(&self.chain(TrafficKind::Ports), rules);
    }

    /// The chain that evaluates this traffic.
    fn chain(&self, traffic: TrafficKind) -> String {
        match traffic {
            TrafficKind::Ports => self.name.clone(),
            TrafficKind::Icmp => format!("{}-icmp", self.name),
        }
    }

    fn add(&mut self, name: &str, rules: Vec<NftRule>) {
        self.chains.push(ProgramChain {
            name: name.into(),
            rules,
        });
    }

    fn tells_icmp_apart(&self) -> bool {
        let icmp = self.icmp();
        let is_icmp = |range: &PortRange| range.protocol == icmp;
        let prefixes = std::iter::once(&self.prefixes).chain(&self.before_names);
        let mut exceptions = prefixes.flat_map(PrefixVerdicts::exceptions);
        self.classifier.layout().port_ranges.iter().any(is_icmp)
            || self.ranges_of_names().any(is_icmp)
            || exceptions.any(is_icmp)
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
    fn evaluate(&mut self, traffic: TrafficKind) -> Vec<NftRule> {
        let name = self.chain(traffic);
        let ranges = self.port_ranges(traffic);
        let mut prefixes = self.look_up_prefixes(&name, traffic, self.prefixes.ranges(traffic), self.prefixes.rest);
        self.write_before_names(traffic);
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
            true => {
                let before_own = SetClass::ALL.into_iter().filter(|class| self.comes_before_own(*class));
                1 + before_own.flat_map(|class| self.look_up_shared(traffic, class)).count()
            }
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

#[cfg(test)]
mod tests;
