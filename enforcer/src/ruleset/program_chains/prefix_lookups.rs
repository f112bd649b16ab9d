//! The lookups among prefixes.

use policy::classifier::AddressInterval;
use policy::{AddressZone, PortRange, Verdict};

use crate::netlink::objects::{NftRule, RuleLookup, RuleMatch};
use crate::ruleset::set_names;

use super::place_ranges::PlaceRanges;
use super::{ProgramWriter, TrafficKind, always, found, goto};

/// What prefixes decide in one family.
pub(super) struct PrefixVerdicts {
    /// The intervals of each of [`AddressZone::ALL`].
    pub(super) intervals: [Vec<AddressInterval>; 3],
    /// The verdict on everything else.
    pub(super) rest: Verdict,
}

impl PrefixVerdicts {
    /// Of each of [`AddressZone::ALL`].
    pub(super) fn ranges(&self, traffic: TrafficKind) -> [PlaceRanges; 3] {
        AddressZone::ALL.map(|zone| PlaceRanges::new(&self.intervals[zone as usize], self.rest, traffic))
    }

    /// The ports that are decided otherwise than the rest of their address.
    pub(super) fn exceptions(&self) -> impl Iterator<Item = &PortRange> {
        let intervals = self.intervals.iter().flatten();
        intervals.flat_map(|interval| interval.verdicts.exceptions.iter().map(|(range, _)| range))
    }
}

impl ProgramWriter<'_> {
    /// The rules that decide by prefixes, in this chain and in those that it goes to, which are
    /// added before. `ranges` are of each of [`AddressZone::ALL`], and everything else is `rest`.
    pub(super) fn look_up_prefixes(
        &mut self,
        name: &str,
        traffic: TrafficKind,
        [world, cluster, host]: [PlaceRanges; 3],
        rest: Verdict,
    ) -> Vec<NftRule> {
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
                    self.verdict(rest)
                } else {
                    let name = format!("{name}-{suffix}");
                    let there = self.decide(traffic, of_place, rest);
                    self.add(&name, there);
                    goto(&name)
                };
                rules.push(NftRule {
                    test,
                    verdict: Some(verdict),
                });
            }
        }
        rules.extend(self.decide(traffic, &world, rest));
        rules
    }

    /// The rules for exceptions, for the base, and for the rest.
    fn decide(&self, traffic: TrafficKind, of_place: &PlaceRanges, rest: Verdict) -> Vec<NftRule> {
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
}

fn other_than(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny | Verdict::Inspect => Verdict::Allow,
    }
}
