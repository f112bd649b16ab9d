//! The chains of a program, for each family. They follow from the program alone, so one that stands
//! is never touched.
//!
//! ```text
//! ep4-X        ICMP, where types of its messages matter: goto ep4-X-icmp
//!              of each class that is possible, in order:
//!                exact set (address . protocol . port)                   verdict
//!                the port's piece → jump ep4-X-<class>-c<number>:        there the piece's set of addresses: verdict
//!                set for every port                                      verdict
//!              this node's, cluster's addresses: goto ep4-X-host, ep4-X-cluster, where prefixes decide otherwise there
//!              prefixes: two sets of exceptions (address . protocol . port), one of addresses
//!              the rest
//! ep4-X-icmp   the same with types in place of ports
//! au4-T        what X lets through is evaluated once more, by all of its policies, where some are in mode audit
//! ```
//!
//! # What a packet pays
//! Lookups, whatever the number of rules, names, addresses and prefixes: for each class at most
//! four (exact set, piece, its set, every port), two for the place, three among prefixes. That is
//! at most 4 × 4 + 2 + 3 = 21, and [`longest_path`] counts them; twice that where policies are in
//! mode audit. A usual program, which only allows names and objects on single ports, costs one.
//! [`SetLayout`](policy::classifier::SetLayout) says what there may be, and what cannot be is not
//! looked up.
//!
//! The prefixes of a place are folded into disjoint intervals, each with one verdict for all
//! traffic (the *base*) and exceptions. Where the base is what the rest gets, it need not be looked
//! up at all. So of two verdicts each set needs one only, and plain sets do: a verdict map of
//! thousands of ranges would make the kernel go through the chain of its verdict thousands of times
//! whenever it validates the table.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use policy::classifier::{AddressInterval, Classifier, SetClass};
use policy::{AddressZone, DenyResponse, PortRange, ProgramId, Protocol, Verdict};

use crate::desired::{KernelProgram, KernelTiers};
use crate::layout::{self, IpFamily, SetId, SetKind, class_name};
use crate::netlink::batch::SetKey;
use crate::netlink::objects::{self, KeyRange, NftRule, PacketField, RuleLookup, RuleMatch};

use super::{refusal, zones};

/// A chain with its rules. Those that it calls stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProgramChain {
    pub(crate) name: Arc<str>,
    pub(crate) rules: Vec<NftRule>,
}

/// The name of a program's chain.
pub(crate) fn chain_name(id: ProgramId, family: IpFamily) -> String {
    format!("ep{family}-{id}")
}

fn audit_chain_name(id: ProgramId, family: IpFamily) -> String {
    format!("au{family}-{id}")
}

/// Whether a chain of this name is, or was, a program's.
pub(crate) fn is_chain_name(name: &str) -> bool {
    let kinds = ["ep4-", "ep6-", "au4-", "au6-"];
    kinds.iter().any(|kind| name.starts_with(kind))
}

/// The chains of a program but for those of its audited policies.
pub(crate) fn chains(id: ProgramId, program: &KernelProgram) -> Vec<ProgramChain> {
    let refuse = match program.response {
        None => refusal::CHAIN,
        Some(DenyResponse::Reject) => refusal::REJECT_CHAIN,
        Some(DenyResponse::Drop) => refusal::DROP_CHAIN,
    };
    let of_family = |family| {
        let allow = match &program.audited {
            None => objects::NftVerdict::Accept,
            Some(audited) => goto(&audit_chain_name(audited.id, family)),
        };
        written(chain_name(id, family), family, &program.enforced, allow, goto(refuse))
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

/// The chains that evaluate the policies of mode audit together with all others. Nothing is refused
/// there.
pub(crate) fn audit_chains(audited: &KernelTiers) -> Vec<ProgramChain> {
    let of_family = |family| {
        let name = audit_chain_name(audited.id, family);
        written(
            name,
            family,
            audited,
            objects::NftVerdict::Accept,
            goto(refusal::AUDITED_CHAIN),
        )
    };
    IpFamily::BOTH.into_iter().flat_map(of_family).collect()
}

/// The most lookups that a packet may pay in the chains of a program.
pub fn longest_path(program: &KernelProgram) -> usize {
    let id = ProgramId(0);
    let audited = program.audited.iter().flat_map(audit_chains);
    let chains: BTreeMap<Arc<str>, Vec<NftRule>> = chains(id, program)
        .into_iter()
        .chain(audited)
        .map(|chain| (chain.name, chain.rules))
        .collect();
    let of_family = |family| path(&chains, &chain_name(id, family));
    IpFamily::BOTH.into_iter().map(of_family).max().unwrap_or(0)
}

fn path(chains: &BTreeMap<Arc<str>, Vec<NftRule>>, name: &str) -> usize {
    let beyond = |verdict: &objects::NftVerdict| match verdict {
        objects::NftVerdict::Accept | objects::NftVerdict::Drop => 0,
        objects::NftVerdict::Jump(chain) | objects::NftVerdict::Goto(chain) => path(chains, chain),
    };
    let (mut so_far, mut longest) = (0, 0);
    for rule in chains.get(name).into_iter().flatten() {
        if let RuleMatch::In(_, lookup) = &rule.test {
            so_far += 1;
            if let RuleLookup::Verdicts(verdicts) = lookup {
                so_far += verdicts.iter().map(|(_, verdict)| beyond(verdict)).max().unwrap_or(0);
            }
        }
        let here = so_far + rule.verdict.as_ref().map_or(0, beyond);
        longest = longest.max(here);
    }
    longest.max(so_far)
}

fn written(
    name: String,
    family: IpFamily,
    evaluation: &KernelTiers,
    allow: objects::NftVerdict,
    deny: objects::NftVerdict,
) -> Vec<ProgramChain> {
    let intervals = AddressZone::ALL.map(|place| {
        let mut intervals = evaluation.fold.intervals(place);
        intervals.retain(|interval| IpFamily::of(interval.first) == family);
        intervals
    });
    let mut writer = ProgramWriter {
        name,
        family,
        tiers: evaluation.id,
        fold: &evaluation.fold,
        intervals,
        allow,
        deny,
        chains: Vec::new(),
    };
    writer.write();
    writer.chains
}

/// Which packets a chain is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrafficKind {
    /// All of them, told apart by their ports.
    Ports,
    /// ICMP, told apart by types.
    Icmp,
}

struct ProgramWriter<'a> {
    name: String,
    family: IpFamily,
    tiers: ProgramId,
    fold: &'a Classifier,
    /// For each of [`AddressZone::ALL`].
    intervals: [Vec<AddressInterval>; 3],
    allow: objects::NftVerdict,
    deny: objects::NftVerdict,
    chains: Vec<ProgramChain>,
}

impl ProgramWriter<'_> {
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
        let possible = self
            .fold
            .layout()
            .port_ranges
            .iter()
            .any(|piece| piece.protocol == icmp);
        let mut exceptions = self
            .intervals
            .iter()
            .flatten()
            .flat_map(|interval| &interval.verdicts.exceptions);
        possible || exceptions.any(|(range, _)| range.protocol == icmp)
    }

    fn icmp(&self) -> Protocol {
        match self.family {
            IpFamily::V4 => Protocol::Icmp,
            IpFamily::V6 => Protocol::Icmpv6,
        }
    }

    /// The rules of a chain, and before it the chains that it calls.
    fn evaluate(&mut self, traffic: TrafficKind, name: &str) -> Vec<NftRule> {
        let mut rules = Vec::new();
        for class in &self.fold.layout().classes {
            self.look_up_class(*class, traffic, &mut rules);
        }
        self.look_up_prefixes(traffic, name, &mut rules);
        rules
    }

    fn look_up_class(&mut self, class: SetClass, traffic: TrafficKind, rules: &mut Vec<NftRule>) {
        let verdict = self.verdict(class.verdict());
        let possible = self.fold.layout();
        let set = |kind| {
            let set = SetId {
                program: self.tiers,
                class,
                kind,
                family: self.family,
            };
            RuleLookup::Set(set.to_string().into())
        };
        let address = || PacketField::Destination(self.family);
        let is_exact =
            traffic == TrafficKind::Ports && layout::kinds(possible, self.family).any(|kind| kind == SetKind::Exact);
        if is_exact {
            let fields = vec![address(), PacketField::Protocol, PacketField::Port];
            rules.push(found(fields, set(SetKind::Exact), &verdict));
        }
        let mut pieces = Vec::new();
        let mut cells = Vec::new();
        for (number, piece) in layout::cells(possible, self.family) {
            if piece.protocol.has_ports() != (traffic == TrafficKind::Ports) {
                continue;
            }
            let name = format!("{}-{}-c{number}", self.name, class_name(class));
            cells.push(ProgramChain {
                name: name.as_str().into(),
                rules: vec![found(vec![address()], set(SetKind::Cell(number)), &verdict)],
            });
            pieces.push((ports_key(traffic, piece), objects::NftVerdict::Jump(name.into())));
        }
        if !pieces.is_empty() {
            pieces.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            rules.push(NftRule {
                test: RuleMatch::In(self.port_fields(traffic), RuleLookup::Verdicts(pieces)),
                verdict: None,
            });
        }
        if possible.all_traffic {
            rules.push(found(vec![address()], set(SetKind::All), &verdict));
        }
        self.chains.append(&mut cells);
    }

    fn look_up_prefixes(&mut self, traffic: TrafficKind, name: &str, rules: &mut Vec<NftRule>) {
        let [world, cluster, host] = AddressZone::ALL
            .map(|place| PlaceRanges::new(&self.intervals[place as usize], self.fold.default_verdict(), traffic));
        // This node's addresses are among the cluster's.
        let branches = [
            (host != cluster, zones::host(self.family), "host", &host),
            (cluster != world, zones::cluster(self.family), "cluster", &cluster),
        ];
        // Where the node's addresses are decided as those outside, and the cluster's are not, both
        // branches stand.
        for (differs, addresses, suffix, folded) in branches {
            if differs {
                let test = RuleMatch::In(
                    vec![PacketField::Destination(self.family)],
                    RuleLookup::Set(addresses.into()),
                );
                let verdict = if folded.is_empty() {
                    self.verdict(self.fold.default_verdict())
                } else {
                    let name = format!("{name}-{suffix}");
                    let there = self.decide(traffic, folded);
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
    }

    /// Exceptions, base, rest.
    fn decide(&self, traffic: TrafficKind, folded: &PlaceRanges) -> Vec<NftRule> {
        let rest = self.fold.default_verdict();
        let other = other_than(rest);
        let mut with_port = vec![PacketField::Destination(self.family)];
        with_port.extend(self.port_fields(traffic));
        let steps = [
            (&folded.excepted_from_rest, with_port.clone(), other),
            (&folded.back_to_rest, with_port, rest),
            (&folded.base, vec![PacketField::Destination(self.family)], other),
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
        rules.push(NftRule {
            test: RuleMatch::Always,
            verdict: Some(self.verdict(rest)),
        });
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
            Verdict::Deny => self.deny.clone(),
        }
    }
}

/// What the prefixes of a place say of some traffic, as the ranges of three sets.
#[derive(Debug, PartialEq, Eq)]
struct PlaceRanges {
    /// Address and port, where the base is the rest's verdict and the port has the other.
    excepted_from_rest: Vec<KeyRange>,
    /// Address and port, where it is the other way round.
    back_to_rest: Vec<KeyRange>,
    /// Addresses whose base is not the rest's verdict.
    base: Vec<KeyRange>,
}

impl PlaceRanges {
    fn new(intervals: &[AddressInterval], rest: Verdict, traffic: TrafficKind) -> Self {
        let mut folded = Self {
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
                &mut folded.excepted_from_rest
            } else {
                &mut folded.back_to_rest
            };
            for (range, _) in &interval.verdicts.exceptions {
                if range.protocol.has_ports() == (traffic == TrafficKind::Ports) && speaks_of(interval, range.protocol)
                {
                    let ports = ports_key(traffic, *range);
                    exceptions.push(KeyRange {
                        first: joined(&addresses.first, &ports.first),
                        last: joined(&addresses.last, &ports.last),
                    });
                }
            }
            if interval.verdicts.base != rest {
                push_joined(&mut folded.base, addresses);
            }
        }
        folded
    }

    fn is_empty(&self) -> bool {
        self.excepted_from_rest.is_empty() && self.back_to_rest.is_empty() && self.base.is_empty()
    }
}

/// Whether messages of this protocol go to these addresses at all.
fn speaks_of(interval: &AddressInterval, protocol: Protocol) -> bool {
    layout::family_of(protocol).is_none_or(|only| only == IpFamily::of(interval.first))
}

/// Adds a range; one that begins where the last has ended continues it.
pub(super) fn push_joined(ranges: &mut Vec<KeyRange>, next: KeyRange) {
    match ranges.last_mut() {
        Some(before) if objects::successor(&before.last).as_ref() == Some(&next.first) => before.last = next.last,
        _ => ranges.push(next),
    }
}

fn other_than(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny => Verdict::Allow,
    }
}

fn found(fields: Vec<PacketField>, lookup: RuleLookup, verdict: &objects::NftVerdict) -> NftRule {
    NftRule {
        test: RuleMatch::In(fields, lookup),
        verdict: Some(verdict.clone()),
    }
}

fn goto(chain: &str) -> objects::NftVerdict {
    objects::NftVerdict::Goto(chain.into())
}

/// Ports as [`ProgramWriter::port_fields`] has them; as a single part, or several that are padded.
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

/// Two keys as one: each part of a concatenation is padded to four octets.
fn joined(address: &SetKey, port: &SetKey) -> SetKey {
    let mut key = address.clone();
    key.extend_from_slice(port);
    while !key.len().is_multiple_of(4) {
        key.push(0);
    }
    key
}

pub(super) fn address_key(address: IpAddr) -> SetKey {
    match address {
        IpAddr::V4(v4) => SetKey::from_slice(&v4.octets()),
        IpAddr::V6(v6) => SetKey::from_slice(&v6.octets()),
    }
}

#[cfg(test)]
mod tests;
