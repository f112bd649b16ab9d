//! Which name led an endpoint to an address.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use api::AnsweredNameRow;
use names::Name;
use parking_lot::{Mutex, MutexGuard};
use policy::EndpointId;
use smallvec::SmallVec;

use planner::Governed;

use super::fair_lru::{FairLru, FairLruLimits};

/// A full store takes about 10 MiB: 160 bytes an address, its name included.
const LIMITS: FairLruLimits = FairLruLimits {
    total: NonZeroUsize::new(65_536).unwrap(),
    per_owner: NonZeroUsize::new(1_024).unwrap(),
};

/// So many wait at most to be filed: a batch of lookups.
const WAITING: usize = 64;

/// For each endpoint, the name that last resolved to an address in an answer to it, whether or not
/// any selector matches the name.
///
/// By endpoint and not by its address, since a pod may ask over IPv4 and connect over IPv6. A view
/// for people: leases play no part in it, and nothing is decided by it.
#[derive(Debug)]
pub struct AnswerLog {
    store: Mutex<AnswerStore>,
}

/// An answer is put down before it is released, and filed once it is: in a full store filing takes
/// a microsecond or two, and nobody should wait for it. Who looks for a name files what waits
/// first, so nobody sees a difference.
#[derive(Debug)]
struct AnswerStore {
    filed: FairLru<EndpointId, IpAddr, Name>,
    waiting: Vec<SeenAnswer>,
}

/// An answer to an endpoint.
#[derive(Debug)]
struct SeenAnswer {
    endpoint: Arc<Governed>,
    name: Name,
    addresses: SmallVec<[IpAddr; 2]>,
}

impl Default for AnswerLog {
    fn default() -> Self {
        Self {
            store: Mutex::new(AnswerStore {
                filed: FairLru::new(LIMITS),
                waiting: Vec::with_capacity(WAITING),
            }),
        }
    }
}

impl AnswerLog {
    /// Notes an answer. Called for every answer to a governed endpoint; [`file`](Self::file) is to
    /// follow.
    pub fn saw(&self, endpoint: &Arc<Governed>, name: &Name, addresses: impl IntoIterator<Item = IpAddr>) {
        let addresses: SmallVec<_> = addresses.into_iter().collect();
        if addresses.is_empty() {
            return;
        }
        let mut store = self.lock();
        if store.waiting.len() == WAITING {
            store.file();
        }
        store.waiting.push(SeenAnswer {
            endpoint: Arc::clone(endpoint),
            name: name.clone(),
            addresses,
        });
    }

    /// Files what waits. Does not allocate for what is known.
    pub fn file(&self) {
        self.lock().file();
    }

    /// The name that last led `endpoint` to `address`.
    pub fn name(&self, endpoint: &EndpointId, address: IpAddr) -> Option<Name> {
        let mut store = self.lock();
        store.file();
        store.filed.peek(endpoint, &address).cloned()
    }

    /// The addresses that `name` was answered to `endpoint` with of late, whatever they opened.
    pub fn addresses(&self, endpoint: &EndpointId, name: &Name) -> Vec<IpAddr> {
        let mut store = self.lock();
        store.file();
        let seen = store.filed.iter();
        let of_name = seen.filter(|(owner, _, seen)| *owner == endpoint && *seen == name);
        of_name.map(|(_, address, _)| *address).collect()
    }

    /// All that is remembered, ordered by endpoint and name.
    pub fn rows(&self) -> Vec<AnsweredNameRow> {
        let mut answered: BTreeMap<(EndpointId, Name), Vec<IpAddr>> = BTreeMap::new();
        {
            let mut store = self.lock();
            store.file();
            for (endpoint, address, name) in store.filed.iter() {
                let of_name = answered.entry((endpoint.clone(), name.clone())).or_default();
                of_name.push(*address);
            }
        }
        let rows = answered.into_iter().map(|((endpoint, name), mut addresses)| {
            addresses.sort_unstable();
            AnsweredNameRow {
                pod: endpoint.to_string(),
                name: name.to_string(),
                addresses,
            }
        });
        rows.collect()
    }

    fn lock(&self) -> MutexGuard<'_, AnswerStore> {
        self.store.lock()
    }
}

impl AnswerStore {
    fn file(&mut self) {
        for SeenAnswer {
            endpoint,
            name,
            addresses,
        } in self.waiting.drain(..)
        {
            self.filed.put_all(&endpoint.id, addresses.iter().copied(), &name);
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::ProgramId;

    use super::*;

    fn endpoint(name: &str) -> Arc<Governed> {
        Arc::new(Governed {
            id: EndpointId {
                namespace: "shop".into(),
                name: name.into(),
            },
            program: ProgramId(1),
            questions: None,
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_name_is_told_to_whom_it_was_answered() {
        let answer_log = AnswerLog::default();
        let (web, api) = (endpoint("web"), endpoint("api"));
        let (a, b) = (Name::parse("a.example").unwrap(), Name::parse("b.example").unwrap());
        let (v4, v6) = (ip("192.0.2.1"), ip("2001:db8::1"));
        answer_log.saw(&web, &a, [v4, v6]);
        answer_log.saw(&api, &b, [v4]);
        assert_eq!(answer_log.name(&web.id, v4), Some(a.clone()));
        answer_log.saw(&web, &b, [v4]);
        answer_log.file();
        assert_eq!(answer_log.name(&web.id, v4), Some(b.clone()));
        assert_eq!(answer_log.name(&web.id, v6), Some(a));
        assert_eq!(answer_log.name(&api.id, v4), Some(b));
        assert_eq!(answer_log.name(&api.id, v6), None);
    }

    #[test]
    fn an_endpoint_that_looks_up_without_end_forgets_only_its_own() {
        let answer_log = AnswerLog::default();
        let (web, noisy) = (endpoint("web"), endpoint("noisy"));
        let name = Name::parse("a.example").unwrap();
        answer_log.saw(&web, &name, [ip("192.0.2.1")]);
        for n in 0..5_000u32 {
            answer_log.saw(&noisy, &name, [IpAddr::from(n.to_be_bytes())]);
        }
        assert!(answer_log.name(&web.id, ip("192.0.2.1")).is_some());
        assert!(answer_log.name(&noisy.id, ip("0.0.19.135")).is_some());
        assert!(answer_log.name(&noisy.id, ip("0.0.0.1")).is_none());
    }

    #[test]
    fn what_nobody_files_does_not_pile_up() {
        let answer_log = AnswerLog::default();
        let (web, name) = (endpoint("web"), Name::parse("a.example").unwrap());
        for n in 0..1_000u32 {
            answer_log.saw(&web, &name, [IpAddr::from(n.to_be_bytes())]);
            assert!(answer_log.lock().waiting.len() <= WAITING);
        }
    }
}
