//! Where an address lies: two sets for each family and the whole table, so that no program has the
//! cluster's addresses.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::stmt::Statement;

use crate::desired::DesiredState;
use crate::layout::IpFamily;
use crate::netlink::set_key::{KeyRange, address_key};

use super::expression::{destination, is, named_set};
use super::set_names;

/// The ranges of the set of the cluster's addresses: sorted, and joined where they meet, because an
/// interval set refuses what overlaps.
pub(super) fn cluster_ranges(desired: &DesiredState, family: IpFamily) -> Vec<KeyRange> {
    let own = desired.host.iter().copied().map(IpNet::from);
    ranges(desired.cluster.iter().copied().chain(own), family)
}

/// Prefixes as an interval set takes them.
pub(super) fn ranges(prefixes: impl Iterator<Item = IpNet>, family: IpFamily) -> Vec<KeyRange> {
    let mut ranges = Vec::new();
    for prefix in merged(prefixes, family) {
        let range = KeyRange {
            first: address_key(prefix.network()),
            last: address_key(prefix.broadcast()),
        };
        range.append_to(&mut ranges);
    }
    ranges
}

/// The destination is an address of this node.
pub(super) fn is_host(family: IpFamily) -> Statement<'static> {
    is(destination(family), named_set(&set_names::host(family)))
}

/// The prefixes of one family, sorted and aggregated.
fn merged(prefixes: impl IntoIterator<Item = IpNet>, family: IpFamily) -> Vec<IpNet> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => v4.push(prefix),
            IpNet::V6(prefix) => v6.push(prefix),
        }
    }
    match family {
        IpFamily::V4 => Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4).collect(),
        IpFamily::V6 => Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6).collect(),
    }
}
