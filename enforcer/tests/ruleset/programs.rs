//! Programs and desired states, written by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use enforcer::layout::targets;
use enforcer::{Desired, Element, FailMode, Interception, Refusal};
use policy::policy::Zone;
use policy::program::{NameRule, PrefixRule};
use policy::{Pattern, PortRange, PortSet, Program, ProgramId, Protocol};

/// Nothing governed, nothing intercepted.
pub(crate) fn desired() -> Desired {
    Desired {
        table: "namegate".to_owned(),
        programs: BTreeMap::new(),
        dispatch: BTreeMap::new(),
        intercepted: BTreeSet::new(),
        resolvers: Vec::new(),
        listening: Vec::new(),
        interception: Interception::Off,
        fail_mode: FailMode::Closed,
        cluster: Vec::new(),
        host: BTreeSet::new(),
        refusal: Refusal::Reject,
        capacity: NonZeroU32::new(1000).unwrap(),
    }
}

/// The same with a program for these addresses, whose lookups are intercepted.
pub(crate) fn governs<const N: usize>(
    mut desired: Desired,
    addresses: [&str; N],
    id: ProgramId,
    program: Program,
) -> Desired {
    desired.programs.insert(id, Arc::new(program));
    for address in addresses {
        let address = address.parse().unwrap();
        desired.dispatch.insert(address, id);
        desired.intercepted.insert(address);
    }
    desired
}

/// The elements of addresses that a name taught.
pub(crate) fn learn(
    id: ProgramId,
    program: &Program,
    name: &str,
    addresses: &[&str],
    lease: Duration,
) -> Vec<(Element, Duration)> {
    let pattern = Pattern::name(name).unwrap();
    let targets = targets(id, program);
    let of_name = targets.iter().filter(|(of, _)| **of == pattern);
    let elements = of_name.flat_map(|(_, target)| {
        let each = addresses.iter().map(|address| address.parse().unwrap());
        each.flat_map(|address| target.elements(address))
    });
    elements.map(|element| (element, lease)).collect()
}

pub(crate) fn name_rule(name: &str, ports: PortSet) -> NameRule {
    NameRule {
        pattern: Pattern::name(name).unwrap(),
        ports,
        origins: vec![],
    }
}

pub(crate) fn prefix_rule(zone: Zone, prefix: &str, ports: PortSet) -> PrefixRule {
    PrefixRule {
        zone,
        prefix: prefix.parse().unwrap(),
        ports,
    }
}

/// Sorted, disjoint ranges.
pub(crate) fn ports<const N: usize>(ranges: [PortRange; N]) -> PortSet {
    PortSet::Ranges(ranges.to_vec())
}

pub(crate) fn single(protocol: Protocol, port: u16) -> PortRange {
    PortRange::single(protocol, port)
}

pub(crate) fn range(protocol: Protocol, first: u16, last: u16) -> PortRange {
    PortRange { protocol, first, last }
}
