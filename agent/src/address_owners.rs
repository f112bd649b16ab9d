//! Who had an address last. Pure.
//!
//! Flows belong to pods, and the kernel knows them by addresses: when another pod is given an
//! address, what was established with the one before must not be with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::{Endpoint, EndpointId};

/// Former owners are remembered up to so many addresses: those that a node gives to its pods in
/// turn.
const REMEMBERED: usize = 8192;

/// The owners of local addresses, also of those that nobody has at the moment.
#[derive(Debug, Default)]
pub struct AddressOwners {
    last: BTreeMap<IpAddr, BTreeSet<EndpointId>>,
}

impl AddressOwners {
    /// Takes in who has which address now, and returns the addresses that have gone from one pod to
    /// another.
    pub fn update(&mut self, local: &[Endpoint]) -> Vec<IpAddr> {
        let mut now: BTreeMap<IpAddr, BTreeSet<EndpointId>> = BTreeMap::new();
        for endpoint in local {
            for address in &endpoint.addresses {
                now.entry(*address).or_default().insert(endpoint.id.clone());
            }
        }
        if self.last.len() + now.len() > REMEMBERED {
            self.last.retain(|address, _| now.contains_key(address));
        }
        let mut changed = Vec::new();
        for (address, owners) in now {
            let before = self.last.insert(address, owners.clone());
            // While two pods claim it, it is still the first one's too.
            if before.is_some_and(|before| !before.is_subset(&owners)) {
                changed.push(address);
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use policy::labels::Labels;

    use super::*;

    fn pod(name: &str, addresses: &[&str]) -> Endpoint {
        Endpoint {
            id: EndpointId {
                namespace: "shop".into(),
                name: name.into(),
            },
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            labels: Labels::default(),
            ports: Vec::new(),
        }
    }

    #[test]
    fn an_address_changes_hands_at_once_or_after_a_while() {
        let mut owners = AddressOwners::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        assert!(
            owners.update(&[pod("a", &["10.0.0.1", "fd00::1"])]).is_empty(),
            "nobody had it"
        );
        assert!(owners.update(&[pod("a", &["10.0.0.1"])]).is_empty(), "it has it still");
        assert_eq!(owners.update(&[pod("b", &["10.0.0.1"])]), [address]);
        assert!(owners.update(&[]).is_empty());
        assert!(owners.update(&[pod("b", &["10.0.0.1"])]).is_empty(), "it came back");
        assert!(owners.update(&[]).is_empty());
        assert_eq!(owners.update(&[pod("c", &["10.0.0.1"])]), [address]);
    }

    #[test]
    fn a_claim_of_two_is_a_change_when_one_of_them_has_gone() {
        let mut owners = AddressOwners::default();
        let (a, b) = (pod("a", &["10.0.0.1"]), pod("b", &["10.0.0.1"]));
        owners.update(std::slice::from_ref(&a));
        assert!(owners.update(&[a, b.clone()]).is_empty());
        assert_eq!(owners.update(&[b]).len(), 1);
    }
}
