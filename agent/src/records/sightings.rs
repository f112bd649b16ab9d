//! Which name led an endpoint to an address.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::Name;
use policy::endpoint::EndpointId;

use super::fair_lru::{FairLru, Limits};

/// A full memory takes about 10 MiB: 160 bytes an address, its name included.
const LIMITS: Limits = Limits {
    total: NonZeroUsize::new(65_536).unwrap(),
    per_owner: NonZeroUsize::new(1_024).unwrap(),
};

/// For each endpoint, the name that last resolved to an address in an answer to it, whether or not any selector matches the name.
///
/// By endpoint and not by its address, since a pod may ask over IPv4 and connect over IPv6. A view for people: leases play no part in it,
/// and nothing is decided by it.
#[derive(Debug)]
pub struct Sightings {
    seen: Mutex<FairLru<EndpointId, IpAddr, Name>>,
}

impl Default for Sightings {
    fn default() -> Self {
        Self {
            seen: Mutex::new(FairLru::new(LIMITS)),
        }
    }
}

impl Sightings {
    /// Notes an answer. Called for every answer to a governed endpoint: does not allocate for what is known.
    pub fn saw(&self, endpoint: &EndpointId, name: &Name, addresses: impl Iterator<Item = IpAddr> + Clone) {
        self.lock().put_all(endpoint, addresses, name);
    }

    /// The name that last led `endpoint` to `address`.
    pub fn name(&self, endpoint: &EndpointId, address: IpAddr) -> Option<Name> {
        self.lock().peek(endpoint, &address).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, FairLru<EndpointId, IpAddr, Name>> {
        // It is whole between calls.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str) -> EndpointId {
        EndpointId {
            namespace: "shop".into(),
            name: name.into(),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_name_is_told_to_whom_it_was_answered() {
        let sightings = Sightings::default();
        let (a, b) = (Name::parse("a.example").unwrap(), Name::parse("b.example").unwrap());
        let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
        sightings.saw(&endpoint("web"), &a, [v4, v6].into_iter());
        sightings.saw(&endpoint("api"), &b, [v4].into_iter());
        assert_eq!(sightings.name(&endpoint("web"), v4), Some(a.clone()));
        sightings.saw(&endpoint("web"), &b, [v4].into_iter());
        assert_eq!(sightings.name(&endpoint("web"), v4), Some(b.clone()));
        assert_eq!(sightings.name(&endpoint("web"), v6), Some(a));
        assert_eq!(sightings.name(&endpoint("api"), v6), None);
    }

    #[test]
    fn an_endpoint_that_looks_up_without_end_forgets_only_its_own() {
        let sightings = Sightings::default();
        let name = Name::parse("a.example").unwrap();
        sightings.saw(&endpoint("web"), &name, [ip("192.0.2.1")].into_iter());
        let many = (0..5_000u32).map(|n| IpAddr::from(n.to_be_bytes()));
        sightings.saw(&endpoint("noisy"), &name, many);
        assert!(sightings.name(&endpoint("web"), ip("192.0.2.1")).is_some());
        assert!(sightings.name(&endpoint("noisy"), ip("0.0.19.135")).is_some());
        assert!(sightings.name(&endpoint("noisy"), ip("0.0.0.1")).is_none());
    }
}
