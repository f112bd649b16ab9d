//! What the ledger opens and closes under a plan.

use ahash::{HashMap, RandomState};
use clock::Time;
use enforcer::writer::{Holder, LeaseScope};
use enforcer::{Element, SetId};
use fqdn_cache::{LeaseOwner, Ledger, LedgerEntry};
use hashbrown::HashTable;
use policy::ProgramId;

use super::Plan;
use super::selectors::MatchedName;

impl Plan {
    /// Everything that the ledger opens or closes under this plan, ordered; of each set no more
    /// than it may hold, of which each owner of names has a share. So what it takes is bounded by
    /// the sets and not by the ledger.
    pub fn all_elements(&self, ledger: &Ledger, now: Time) -> Vec<(Element, Time, Holder)> {
        self.elements_in(ledger, &LeaseScope::Everything, now)
    }

    /// As [`all_elements`](Self::all_elements), as far as somebody asks for it. Single addresses
    /// cost what they concern; for tiers it takes a look at every name.
    pub fn elements_in(&self, ledger: &Ledger, scope: &LeaseScope, now: Time) -> Vec<(Element, Time, Holder)> {
        let mut found = FoundElements::of(self.desired.capacity.get());
        match scope {
            LeaseScope::Everything => self.find(ledger.fairly(now), |_| true, &mut found),
            LeaseScope::Some { tiers, addresses } => {
                let of_addresses = addresses.iter().flat_map(|address| ledger.at(now, *address));
                self.find(of_addresses, |_| true, &mut found);
                if !tiers.is_empty() {
                    self.find(ledger.fairly(now), |id| tiers.contains(&id), &mut found);
                }
            }
        }
        found.sorted()
    }

    fn find<'a>(
        &self,
        entries: impl Iterator<Item = (LeaseOwner, LedgerEntry<'a>)>,
        is_wanted: impl Fn(ProgramId) -> bool,
        found: &mut FoundElements,
    ) {
        // The entries of a name stand together.
        let mut last: Option<MatchedName<'_>> = None;
        for (owner, entry) in entries {
            if self.teachable.judge(entry.address).is_err() {
                continue;
            }
            if last.as_ref().is_none_or(|last| last.name != entry.name) {
                last = self.selectors.matched(entry.name);
            }
            let Some(matched) = &last else { continue };
            for rule in matched.rules().filter(|rule| is_wanted(rule.tiers.0)) {
                if self.may_teach(entry.teacher, rule.tiers.0) {
                    rule.elements(&self.evaluations, entry.address, &self.places, |element| {
                        found.add(element, entry.expires, Holder(owner.0));
                    });
                }
            }
        }
    }
}

/// Elements, each once in memory: there may be hundreds of thousands.
struct FoundElements {
    capacity: u32,
    /// How many more each set may hold.
    room: HashMap<SetId, u32>,
    found: Vec<(Element, Time, Holder)>,
    /// Where each stands in `found`.
    places: HashTable<usize>,
    hasher: RandomState,
}

impl FoundElements {
    fn of(capacity: u32) -> Self {
        Self {
            capacity,
            room: HashMap::default(),
            found: Vec::new(),
            places: HashTable::new(),
            hasher: RandomState::new(),
        }
    }

    fn add(&mut self, element: Element, end: Time, holder: Holder) {
        let Self {
            capacity,
            room,
            found,
            places,
            hasher,
        } = self;
        let hash = hasher.hash_one(element);
        if let Some(known) = places.find(hash, |place| found[*place].0 == element) {
            let (_, known_end, _) = &mut found[*known];
            *known_end = (*known_end).max(end);
            return;
        }
        let left = room.entry(element.set).or_insert(*capacity);
        if *left > 0 {
            *left -= 1;
            places.insert_unique(hash, found.len(), |place| hasher.hash_one(found[*place].0));
            found.push((element, end, holder));
        }
    }

    fn sorted(self) -> Vec<(Element, Time, Holder)> {
        let mut found = self.found;
        drop(self.places);
        found.sort_unstable();
        found
    }
}
