//! The lookups of shared names.
//!
//! Their set holds addresses, whatever the ports, so the port is tested before. Where prefixes may
//! deny before names, what is found goes to a chain that looks only for such denials.

use policy::classifier::{SetClass, SharedNames};
use policy::{PortRange, PortSet};

use crate::layout;
use crate::netlink::objects::{NftRule, NftVerdict, RuleLookup, RuleMatch};

use super::{ProgramWriter, TrafficKind, goto, ports_key};

impl ProgramWriter<'_> {
    /// The ports of shared names.
    pub(super) fn ranges_of_names(&self) -> impl Iterator<Item = &PortRange> {
        let groups = self.classifier.shared_names().iter();
        groups.flat_map(|names| ranges(&names.group.ports))
    }

    /// Writes the chain of what prefixes deny before names, if they do.
    pub(super) fn write_before_names(&mut self, traffic: TrafficKind) {
        let Some(denials) = &self.before_names else { return };
        let name = self.chain_before_names(traffic);
        let (ranges, rest) = (denials.ranges(traffic), denials.rest);
        let rules = self.look_up_prefixes(&name, traffic, ranges, rest);
        self.add(&name, rules);
    }

    fn chain_before_names(&self, traffic: TrafficKind) -> String {
        format!("{}-names", self.chain(traffic))
    }

    /// The lookups of the shared names of a class.
    pub(super) fn look_up_names(&self, traffic: TrafficKind, class: SetClass) -> impl Iterator<Item = NftRule> {
        let names = self.classifier.shared_names().iter();
        let names = names.filter(move |names| names.class == class);
        names.flat_map(move |names| self.look_up_group(traffic, names))
    }

    fn look_up_group(&self, traffic: TrafficKind, names: &SharedNames) -> Vec<NftRule> {
        let Some(ports) = self.test_ports(traffic, &names.group.ports) else {
            return Vec::new();
        };
        let verdict: NftVerdict = match names.is_overruled && self.before_names.is_some() {
            true => goto(&self.chain_before_names(traffic)),
            false => self.verdict(names.class.verdict()),
        };
        let sets = layout::sets(names.id, &names.layout, self.family);
        let rules = sets.map(|set| {
            let address = RuleMatch::In(vec![self.peer()], RuleLookup::Set(set.to_string().into()));
            let test = match ports.is_empty() {
                true => address,
                false => RuleMatch::Each(ports.iter().cloned().chain([address]).collect()),
            };
            NftRule {
                test,
                verdict: Some(verdict.clone()),
            }
        });
        rules.collect()
    }

    /// Tests that a packet's port is one of these; `None` where none is of this traffic.
    fn test_ports(&self, traffic: TrafficKind, ports: &PortSet) -> Option<Vec<RuleMatch>> {
        if *ports == PortSet::All {
            return Some(Vec::new());
        }
        let is_of_traffic = |range: &&PortRange| match traffic {
            TrafficKind::Ports => range.protocol.has_ports(),
            TrafficKind::Icmp => range.protocol == self.icmp(),
        };
        let ranges: Vec<PortRange> = ranges(ports).iter().filter(is_of_traffic).copied().collect();
        let are_keys = traffic == TrafficKind::Ports && ranges.iter().all(PortRange::is_single);
        let keys = ranges.iter().map(|range| ports_key(traffic, *range));
        Some(match ranges.as_slice() {
            [] => return None,
            [only] if are_keys => vec![RuleMatch::Is(only.protocol), RuleMatch::IsTo(only.first)],
            _ => {
                let lookup = match are_keys {
                    true => RuleLookup::Keys(keys.map(|range| range.first).collect()),
                    false => RuleLookup::Ranges(keys.collect()),
                };
                vec![RuleMatch::In(self.port_fields(traffic), lookup)]
            }
        })
    }
}

/// The ports that can be told apart.
fn ranges(ports: &PortSet) -> &[PortRange] {
    match ports {
        PortSet::All => &[],
        PortSet::Ranges(ranges) => ranges,
    }
}
