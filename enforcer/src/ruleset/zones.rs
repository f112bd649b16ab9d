//! Which part of the address space a destination is in: two sets for the whole table, so that no program carries the
//! cluster's addresses.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nftables::stmt::Statement;
use policy::policy::Zone;

use super::document::{Document, SetForm};
use super::expression::{address, address_type, destination, is, is_not, named_set, prefix};
use crate::desired::Desired;
use crate::layout::Family;

/// In the order in which a program looks them up.
pub(super) const ALL: [Zone; 4] = [Zone::Anywhere, Zone::World, Zone::Cluster, Zone::Host];

/// Declares `cluster4`, `cluster6` (the node's own addresses among them) and `host4`, `host6`.
pub(super) fn declare(document: &mut Document<'_>, desired: &Desired) {
    for family in Family::BOTH {
        let inside = desired
            .cluster
            .iter()
            .copied()
            .chain(desired.host.iter().copied().map(IpNet::from));
        document.set(
            &cluster(family),
            SetForm::interval([address_type(family)]),
            merged(inside, family).into_iter().map(prefix).collect(),
        );
        let own = desired.host.iter().copied().filter(|own| Family::of(*own) == family);
        document.set(
            &host(family),
            SetForm::plain([address_type(family)]),
            own.map(address).collect(),
        );
    }
}

/// What must hold of the destination for it to be in the zone; nothing for [`Zone::Anywhere`].
pub(super) fn condition(zone: Zone, family: Family) -> Option<Statement<'static>> {
    let inside = || named_set(&cluster(family));
    match zone {
        Zone::Anywhere => None,
        Zone::World => Some(is_not(destination(family), inside())),
        Zone::Cluster => Some(is(destination(family), inside())),
        Zone::Host => Some(is(destination(family), named_set(&host(family)))),
    }
}

/// The prefixes of one family, sorted, without those that lie in others and with neighbours joined: an interval set
/// refuses elements that overlap.
pub(super) fn merged(prefixes: impl IntoIterator<Item = IpNet>, family: Family) -> Vec<IpNet> {
    let mut v4 = Vec::new();
    let mut v6 = Vec::new();
    for prefix in prefixes {
        match prefix {
            IpNet::V4(prefix) => v4.push(prefix),
            IpNet::V6(prefix) => v6.push(prefix),
        }
    }
    match family {
        Family::V4 => Ipv4Net::aggregate(&v4).into_iter().map(IpNet::V4).collect(),
        Family::V6 => Ipv6Net::aggregate(&v6).into_iter().map(IpNet::V6).collect(),
    }
}

/// The family of a prefix.
pub(super) fn family_of(prefix: &IpNet) -> Family {
    Family::of(prefix.addr())
}

fn cluster(family: Family) -> String {
    format!("cluster{family}")
}

fn host(family: Family) -> String {
    format!("host{family}")
}
