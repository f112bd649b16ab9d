//! Computes one transaction from waiting admissions and the mirror. Pure.

use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use clock::Time;
use smallvec::SmallVec;

use crate::layout::{Element, SetId};
use crate::netlink::batch::{ElementAction, ElementOp};

use super::element_key::encode_key;
use super::error::AdmitError;
use super::renewal::{Renewal, RenewalPass};
use super::set_mirror::{Holder, Lifetime, MirroredSet, SetMirror};

/// The kernel's timeouts count in ticks of at most 10 ms, are rounded down, and its clock may be a
/// tick behind.
pub(super) const TICKS: Duration = Duration::from_millis(20);

/// How much longer than its lease the kernel keeps an element. When the lease is over the writer
/// deletes the element ([`sweep`](super::sweep)); the kernel's timeout is for an agent that is dead
/// or busy. An element that has timed out cannot be deleted any more, so the writer must come
/// first.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// The shortest life of an element, whatever was asked: an answer that waited for the kernel until
/// its lease was over still finds its addresses open.
pub(super) const SHORTEST_LIFE: Duration = Duration::from_secs(1);

/// One transaction for many admissions.
#[derive(Debug, Default)]
pub(super) struct TransactionPlan {
    /// The operations, in the order in which they are sent.
    pub(super) operations: SmallVec<[ElementOp; FEW]>,
    /// For each operation its place in `writes`.
    owners: SmallVec<[usize; FEW]>,
    /// The elements to be written, each once.
    pub(super) writes: SmallVec<[ElementWrite; FEW]>,
    /// The elements that are evicted; they are deleted before anything is written.
    pub(super) evicted: Vec<Element>,
}

/// Most transactions are those of one answer; so many elements are stored inline.
const FEW: usize = 4;

/// The owner of an operation that writes nothing.
const NOBODYS: usize = usize::MAX;

/// One element to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ElementWrite {
    /// The element.
    pub(super) element: Element,
    /// The end of its lease.
    pub(super) end: Time,
    /// Whether the kernel certainly does not hold it yet.
    pub(super) new: bool,
    /// Its holder.
    pub(super) holder: Holder,
}

/// Collects what a transaction must write.
#[derive(Debug)]
pub(super) struct TransactionPlanner<'a> {
    mirror: &'a SetMirror,
    now: Time,
    /// The elements to be written, each once.
    writes: SmallVec<[ElementWrite; FEW]>,
    /// `None` up to the second admission: the first contains nothing twice, and most transactions
    /// have no other.
    index: Option<WriteIndex>,
    /// The elements that are evicted.
    evicted: Vec<Element>,
}

/// Finds the writes planned so far, to merge those of further admissions with them.
#[derive(Debug, Default)]
struct WriteIndex {
    places: HashMap<Element, usize>,
    /// How many new elements each set gets.
    added: HashMap<SetId, u32>,
}

impl<'a> TransactionPlanner<'a> {
    /// Begins a transaction; the mirror was purged at `now`.
    pub(super) fn new(mirror: &'a SetMirror, now: Time) -> Self {
        Self {
            mirror,
            now,
            writes: SmallVec::new(),
            index: None,
            evicted: Vec::new(),
        }
    }

    /// Adds an admission with sorted elements; on an error none of them. Returns whether the
    /// admission must wait for the transaction; otherwise the kernel holds everything already.
    pub(super) fn add(&mut self, elements: &[(Element, Time)], holder: Holder) -> Result<bool, AdmitError> {
        let needed = |&(element, until): &(Element, Time)| self.needed(element, until, holder);
        let needed: SmallVec<[ElementWrite; FEW]> = elements.iter().filter_map(needed).collect();
        if !self.writes.is_empty() && self.index.is_none() {
            self.index = Some(WriteIndex::of(&self.writes));
        }
        for of_set in needed.chunk_by(|a, b| a.element.set == b.element.set) {
            self.check_room(of_set)?;
        }
        let waits = !needed.is_empty();
        match &mut self.index {
            Some(index) => needed
                .into_iter()
                .for_each(|write| index.enter(write, &mut self.writes)),
            None => self.writes = needed,
        }
        Ok(waits)
    }

    /// As [`add`](Self::add), for the only admission of a transaction. Where a set is full, whoever
    /// holds most of it gives up what was written longest ago, but nothing that this admission asks
    /// for.
    pub(super) fn add_evicting(&mut self, elements: &[(Element, Time)], holder: Holder) -> Result<bool, AdmitError> {
        let is_asked = |element: &Element| elements.binary_search_by(|(asked, _)| asked.cmp(element)).is_ok();
        for of_set in elements.chunk_by(|(a, _), (b, _)| a.set == b.set) {
            let Some((Element { set, .. }, _)) = of_set.first() else {
                continue;
            };
            let Some(entry) = self.mirror.set(set) else { continue };
            let is_new = |(element, _): &&(Element, Time)| !self.mirror.knows(element);
            let count = u32::try_from(of_set.iter().filter(is_new).count()).unwrap_or(u32::MAX);
            let lacking = entry.held.saturating_add(count).saturating_sub(entry.capacity);
            if count > 0 && lacking > 0 {
                let victims = self.mirror.victims(set, lacking, holder, self.now, is_asked);
                let given_up = u32::try_from(victims.len()).unwrap_or(u32::MAX);
                if given_up < lacking {
                    return Err(full(entry));
                }
                self.evicted.extend(victims);
            }
        }
        self.evicted.sort_unstable();
        self.add(elements, holder)
    }

    /// The transaction.
    pub(super) fn finish(self, renewal: Renewal) -> TransactionPlan {
        let mut writes = self.writes;
        // Sorted, because neighbours share a message and equal input should give equal bytes.
        writes.sort_unstable_by_key(|write| write.element);
        let mut plan = TransactionPlan {
            writes,
            evicted: self.evicted,
            ..TransactionPlan::default()
        };
        for of_set in plan.evicted.chunk_by(|a, b| a.set == b.set) {
            let Some(entry) = of_set.first().and_then(|first| self.mirror.set(&first.set)) else {
                continue;
            };
            let deletions = of_set.iter().map(|element| deletion(&entry.name, element));
            plan.operations.extend(deletions);
            plan.owners.extend(of_set.iter().map(|_| NOBODYS));
        }
        let mut first = 0;
        while let Some(head) = plan.writes.get(first) {
            let set = head.element.set;
            let length = plan.writes[first..]
                .iter()
                .take_while(|write| write.element.set == set)
                .count();
            if let Some(entry) = self.mirror.set(&set) {
                plan.push_set(first..first + length, &entry.name, self.now, renewal);
            }
            first += length;
        }
        plan
    }

    /// The write that an element needs, if any.
    fn needed(&self, element: Element, until: Time, holder: Holder) -> Option<ElementWrite> {
        let lifetime = self.mirror.lifetime(&element);
        let is_held = match lifetime {
            Some(lifetime) => lifetime.lasts(self.now, until, Duration::ZERO),
            None => self.mirror.is_permanent(&element),
        };
        (!is_held).then(|| ElementWrite {
            element,
            end: until.max(self.now + SHORTEST_LIFE),
            new: lifetime.is_none(),
            holder,
        })
    }

    /// Whether there is room for these writes, which are all of one set.
    fn check_room(&self, writes: &[ElementWrite]) -> Result<(), AdmitError> {
        let Some(ElementWrite {
            element: Element { set, .. },
            ..
        }) = writes.first()
        else {
            return Ok(());
        };
        let Some(entry) = self.mirror.set(set) else {
            return Err(AdmitError::Rejected {
                set: set.to_string(),
                errno: libc::ENOENT,
                error: "no such set is installed".to_owned(),
            });
        };
        let index = self.index.as_ref();
        let is_planned = |write: &ElementWrite| index.is_some_and(|index| index.places.contains_key(&write.element));
        let count = writes.iter().filter(|write| write.new && !is_planned(write)).count();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let added = index.and_then(|index| index.added.get(set)).copied().unwrap_or(0);
        let gone = self.evicted.iter().filter(|element| element.set == *set).count();
        let held = entry.held.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
        let after = held.saturating_add(added).saturating_add(count);
        // What the set holds already is renewed even where its capacity has shrunk.
        if count > 0 && after > entry.capacity {
            return Err(full(entry));
        }
        Ok(())
    }
}

fn full(entry: &MirroredSet) -> AdmitError {
    AdmitError::Full {
        set: entry.name.to_string(),
        capacity: entry.capacity,
    }
}

/// Deletes an element before its timeout.
pub(super) fn deletion(set: &Arc<str>, element: &Element) -> ElementOp {
    ElementOp {
        set: Arc::clone(set),
        key: encode_key(&element.key),
        action: ElementAction::Delete,
    }
}

impl WriteIndex {
    fn of(writes: &[ElementWrite]) -> Self {
        let mut index = Self::default();
        for (place, write) in writes.iter().enumerate() {
            index.places.insert(write.element, place);
            index.count(write);
        }
        index
    }

    /// Merges a write with the others, one of which may be for the same element.
    fn enter(&mut self, write: ElementWrite, writes: &mut SmallVec<[ElementWrite; FEW]>) {
        match self.places.entry(write.element) {
            Entry::Occupied(place) => {
                let planned = &mut writes[*place.get()];
                planned.end = planned.end.max(write.end);
            }
            Entry::Vacant(place) => {
                place.insert(writes.len());
                writes.push(write);
                self.count(&write);
            }
        }
    }

    fn count(&mut self, write: &ElementWrite) {
        if write.new {
            *self.added.entry(write.element.set).or_default() += 1;
        }
    }
}

impl TransactionPlan {
    /// The write that an operation belongs to.
    pub(super) fn owner(&self, operation: usize) -> Option<&ElementWrite> {
        self.writes.get(*self.owners.get(operation)?)
    }

    /// The lifetimes that the mirror may note once the transaction is acknowledged: planned at
    /// `now`, acknowledged at `acknowledged`.
    pub(super) fn lifetimes(
        &self,
        now: Time,
        acknowledged: Time,
    ) -> impl Iterator<Item = (&ElementWrite, Lifetime)> + '_ {
        self.writes.iter().map(move |write| {
            let gone = acknowledged + write.end.since(now) + LINGER + TICKS;
            (write, Lifetime { end: write.end, gone })
        })
    }

    /// The operations of one set. Renewing by replacement must work whether the kernel holds the
    /// element or not, even if another agent wrote it which this one is about to follow. So the
    /// element is added, so that it can be deleted, then deleted, and added again with the new
    /// timeout. Packets see only the outcome.
    fn push_set(&mut self, writes: Range<usize>, set: &Arc<str>, now: Time, renewal: Renewal) {
        for pass in renewal.passes() {
            for at in writes.clone() {
                let Some(write) = self.writes.get(at).copied() else {
                    continue;
                };
                self.operations.push(ElementOp {
                    set: Arc::clone(set),
                    key: encode_key(&write.element.key),
                    action: match pass {
                        RenewalPass::Add => ElementAction::Add(write.end.since(now) + LINGER),
                        RenewalPass::Delete => ElementAction::Delete,
                    },
                });
                self.owners.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::ProgramId;
    use policy::classifier::SetClass;

    use super::*;
    use crate::layout::{ElementKey, IpFamily, SetKind};

    const NOW: Time = Time::from_millis(1_000_000);

    fn element(program: u64, last: u8) -> Element {
        Element {
            set: SetId {
                program: ProgramId(program),
                class: SetClass::Allow,
                kind: SetKind::All,
                family: IpFamily::V4,
            },
            key: ElementKey {
                address: [192, 0, 2, last].into(),
                port: None,
            },
        }
    }

    /// Two sets with room for three each; the first holds address 1 for ten seconds.
    fn mirror() -> SetMirror {
        let mut mirror = SetMirror::default();
        mirror.replace_sets([(element(1, 0).set, 3), (element(2, 0).set, 3)]);
        let end = NOW + Duration::from_secs(10);
        mirror.record(element(1, 1), Lifetime { end, gone: end }, Holder(1), NOW);
        mirror
    }

    fn until(seconds: u64) -> Time {
        NOW + Duration::from_secs(seconds)
    }

    fn written(plan: &TransactionPlan) -> Vec<(Element, Time)> {
        plan.writes.iter().map(|write| (write.element, write.end)).collect()
    }

    #[test]
    fn an_element_that_many_ask_for_is_written_once_until_its_latest_end() {
        let mirror = mirror();
        let mut planner = TransactionPlanner::new(&mirror, NOW);
        for end in [20, 30, 25] {
            assert_eq!(planner.add(&[(element(1, 2), until(end))], Holder(1)), Ok(true));
        }
        assert_eq!(written(&planner.finish(Renewal::Refresh)), [(element(1, 2), until(30))]);
    }

    #[test]
    fn only_what_is_held_shorter_than_asked_is_renewed() {
        let mirror = mirror();
        let mut planner = TransactionPlanner::new(&mirror, NOW);
        assert_eq!(planner.add(&[(element(1, 1), until(10))], Holder(1)), Ok(false));
        assert_eq!(planner.add(&[(element(1, 1), until(11))], Holder(1)), Ok(true));
        let plan = planner.finish(Renewal::Refresh);
        assert_eq!(written(&plan), [(element(1, 1), until(11))]);
        assert_eq!(
            plan.operations[0].action,
            ElementAction::Add(Duration::from_secs(11) + LINGER)
        );
    }

    #[test]
    fn what_others_add_counts_against_the_room_of_a_set_and_renewals_do_not() {
        let mirror = mirror();
        let mut planner = TransactionPlanner::new(&mirror, NOW);
        assert_eq!(
            planner.add(&[(element(1, 2), until(20)), (element(1, 1), until(20))], Holder(1)),
            Ok(true)
        );
        let full = AdmitError::Full {
            set: element(1, 0).set.to_string(),
            capacity: 3,
        };
        let two = [
            (element(2, 3), until(20)),
            (element(1, 3), until(20)),
            (element(1, 4), until(20)),
        ];
        assert_eq!(planner.add(&two, Holder(1)), Err(full));
        assert_eq!(planner.add(&two[..2], Holder(1)), Ok(true));
        assert_eq!(planner.finish(Renewal::Refresh).writes.len(), 4);
    }

    #[test]
    fn what_is_held_is_renewed_even_where_there_is_less_room_than_there_was() {
        let mut mirror = mirror();
        mirror.replace_sets([(element(1, 1).set, 0)]);
        let mut planner = TransactionPlanner::new(&mirror, NOW);
        assert_eq!(planner.add(&[(element(1, 1), until(20))], Holder(1)), Ok(true));
        assert!(planner.add(&[(element(1, 2), until(20))], Holder(1)).is_err());
    }

    #[test]
    fn replacing_goes_through_a_set_three_times() {
        let mirror = mirror();
        let mut planner = TransactionPlanner::new(&mirror, NOW);
        let elements = [
            (element(1, 1), until(20)),
            (element(1, 2), until(20)),
            (element(2, 1), until(20)),
        ];
        assert_eq!(planner.add(&elements, Holder(1)), Ok(true));
        let plan = planner.finish(Renewal::Replace);
        let deletions: Vec<bool> = plan
            .operations
            .iter()
            .map(|operation| operation.action == ElementAction::Delete)
            .collect();
        assert_eq!(deletions, [false, false, true, true, false, false, false, true, false]);
        assert_eq!(plan.owner(3).map(|write| write.element), Some(element(1, 2)));
        assert_eq!(plan.owner(8).map(|write| write.element), Some(element(2, 1)));
    }
}
