//! What the prefixes of a zone decide, as ranges of keys.

use policy::classifier::AddressInterval;
use policy::{Protocol, Verdict};

use crate::layout::{self, IpFamily};
use crate::netlink::set_key::{KeyRange, SetKey, address_key};

use super::{TrafficKind, ports_key};

/// What the prefixes of a zone decide about some traffic, as the ranges of three sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PlaceRanges {
    /// Address and port, where the base is the default verdict and the port has the other one.
    pub(super) excepted_from_rest: Vec<KeyRange>,
    /// Address and port, where the base is the other verdict and the port has the default one.
    pub(super) back_to_rest: Vec<KeyRange>,
    /// Addresses whose base is not the default verdict.
    pub(super) base: Vec<KeyRange>,
}

impl PlaceRanges {
    pub(super) fn new(intervals: &[AddressInterval], rest: Verdict, traffic: TrafficKind) -> Self {
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

    pub(super) fn is_empty(&self) -> bool {
        self.excepted_from_rest.is_empty() && self.back_to_rest.is_empty() && self.base.is_empty()
    }
}

/// Whether these addresses are of a family that has this protocol.
fn family_has(interval: &AddressInterval, protocol: Protocol) -> bool {
    layout::family_of(protocol).is_none_or(|only| only == IpFamily::of(interval.first))
}

/// Joins two keys. Each field of a concatenation is padded to four octets.
pub(super) fn joined(address: &SetKey, port: &SetKey) -> SetKey {
    let mut key = address.clone();
    key.extend_from_slice(port);
    while !key.len().is_multiple_of(4) {
        key.push(0);
    }
    key
}
