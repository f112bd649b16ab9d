//! The learned sets of the kernel and their elements, mirrored in memory so that most admissions
//! need no system call.
//!
//! Each element has two moments ([`Lifetime`]). Until `end` the kernel certainly holds it: the
//! timeout that was written is a little longer than what was asked, and runs from a later moment.
//! After `gone` the kernel certainly does not hold it. Between the two nobody knows.

mod expiring;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use ahash::{HashMap, HashSet};
use clock::Time;

use crate::layout::{Element, SetId};

use self::expiring::{ExpiringElements, ExpiryEvent};
use super::generation::Generation;

/// The sets and elements that the kernel holds, as far as the writer knows.
#[derive(Debug, Default)]
pub(super) struct SetMirror {
    /// The generation of the rules in force.
    pub(super) generation: Generation,
    /// Whether the fast path may answer admissions.
    pub(super) phase: AdmissionPhase,
    /// The learned sets that exist in the kernel.
    sets: HashMap<SetId, MirroredSet>,
    elements: ExpiringElements,
    /// Elements without a timeout: those of objects' addresses. They are never among `elements`,
    /// since the kernel holds one or the other.
    permanent: HashSet<Element>,
    /// Elements whose lease is over and which the kernel may still hold: to be
    /// [deleted](super::sweep).
    ended: Vec<Element>,
}

/// The pod for which elements are admitted. Where a set is full, elements of whoever holds most of
/// it are evicted. An element that several hold counts for the one that holds least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Holder(pub u32);

/// An eviction frees at least this part of a set's capacity (one in 64), because finding elements
/// to evict takes a look at each.
const SHARE: u32 = 64;

/// Whether the fast path may answer admissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum AdmissionPhase {
    /// It may: the mirror is right.
    #[default]
    Serving,
    /// It may not, because rules are being replaced. The ledger may have been read for the new
    /// rules already, so that an answer must wait and its elements are computed again.
    Installing,
    /// It may not, because the writer has ended and no longer notices when the kernel loses an
    /// element.
    Stopped,
}

/// A learned set in the kernel.
#[derive(Debug, Clone)]
pub(super) struct MirroredSet {
    /// The set's name in the kernel.
    pub(super) name: Arc<str>,
    /// How many elements it may hold.
    pub(super) capacity: u32,
    /// How many elements the kernel may hold at this moment.
    pub(super) held: u32,
    /// How many elements with a timeout each holder has.
    holders: HashMap<Holder, u32>,
}

impl MirroredSet {
    fn count_out(&mut self, holder: Holder) {
        self.held = self.held.saturating_sub(1);
        self.take_from(holder);
    }

    fn give_to(&mut self, holder: Holder) {
        *self.holders.entry(holder).or_default() += 1;
    }

    fn take_from(&mut self, holder: Holder) {
        if let Some(count) = self.holders.get_mut(&holder) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&holder);
            }
        }
    }

    fn count_of(&self, holder: Holder) -> u32 {
        self.holders.get(&holder).copied().unwrap_or(0)
    }
}

/// How long the kernel holds an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifetime {
    /// The kernel holds the element at least until then.
    pub(super) end: Time,
    /// The kernel holds the element at most until then.
    pub(super) gone: Time,
}

impl Lifetime {
    /// Whether the kernel certainly holds the element now, and until `until` or at most `slack`
    /// less.
    pub(super) fn lasts(&self, now: Time, until: Time, slack: Duration) -> bool {
        self.end > now && self.end + slack >= until
    }
}

impl SetMirror {
    /// A learned set, if it exists in the kernel.
    pub(super) fn set(&self, set: &SetId) -> Option<&MirroredSet> {
        self.sets.get(set)
    }

    /// How long the kernel holds an element; `None` when it certainly does not.
    pub(super) fn lifetime(&self, element: &Element) -> Option<Lifetime> {
        self.elements.get(element)
    }

    /// Whether the kernel holds an element now, and will until `until` or at most `slack` less.
    pub(super) fn holds(&self, element: &Element, now: Time, until: Time, slack: Duration) -> bool {
        match self.lifetime(element) {
            Some(lifetime) => lifetime.lasts(now, until, slack),
            None => self.is_permanent(element),
        }
    }

    /// Whether the kernel may hold an element.
    pub(super) fn knows(&self, element: &Element) -> bool {
        self.lifetime(element).is_some() || self.is_permanent(element)
    }

    /// Whether the kernel holds an element without a timeout.
    pub(super) fn is_permanent(&self, element: &Element) -> bool {
        self.permanent.contains(element)
    }

    /// The elements without a timeout.
    pub(super) fn permanent(&self) -> impl Iterator<Item = &Element> {
        self.permanent.iter()
    }

    /// Notes that an element has no timeout (any more). Does nothing for a set that does not exist.
    pub(super) fn insert_permanent(&mut self, element: Element) {
        let Some(set) = self.sets.get_mut(&element.set) else {
            return;
        };
        match self.elements.remove(&element) {
            Some(holder) => {
                set.take_from(holder);
                self.permanent.insert(element);
            }
            None if self.permanent.insert(element) => set.held = set.held.saturating_add(1),
            None => {}
        }
    }

    /// Notes that an element without a timeout was deleted.
    pub(super) fn remove_permanent(&mut self, element: &Element) {
        if self.permanent.remove(element)
            && let Some(set) = self.sets.get_mut(&element.set)
        {
            set.held = set.held.saturating_sub(1);
        }
    }

    /// The elements of one set that the kernel may hold, with their lifetimes; `None` without a
    /// timeout. Iterates over all sets.
    pub(super) fn of_set(&self, set: SetId) -> impl Iterator<Item = (&Element, Option<Lifetime>)> {
        let expiring = self
            .elements
            .iter()
            .map(|(element, lifetime, _)| (element, Some(lifetime)));
        let permanent = self.permanent.iter().map(|element| (element, None));
        expiring.chain(permanent).filter(move |(element, _)| element.set == set)
    }

    /// Notes that the kernel holds an element. Does nothing for a set that does not exist, and for
    /// an element without a timeout.
    pub(super) fn record(&mut self, element: Element, lifetime: Lifetime, holder: Holder, written: Time) {
        if self.is_permanent(&element) {
            return;
        }
        let Some(set) = self.sets.get_mut(&element.set) else {
            return;
        };
        let mut holder = holder;
        match self.elements.origin(&element) {
            None => {
                set.held = set.held.saturating_add(1);
                set.give_to(holder);
            }
            Some((before, _)) if before != holder && set.count_of(holder) < set.count_of(before) => {
                set.take_from(before);
                set.give_to(holder);
            }
            Some((before, _)) => holder = before,
        }
        self.elements.insert(element, lifetime, holder, written);
    }

    /// Forgets the elements that are gone, and notes those whose lease is over.
    pub(super) fn purge(&mut self, now: Time) {
        while let Some(due) = self.elements.pop_due(now) {
            match due {
                ExpiryEvent::Ended(element) => self.ended.push(element),
                ExpiryEvent::Gone(element, holder) => {
                    if let Some(set) = self.sets.get_mut(&element.set) {
                        set.count_out(holder);
                    }
                }
            }
        }
    }

    /// Notes that an element with a timeout was deleted.
    pub(super) fn remove(&mut self, element: &Element) {
        if let Some(holder) = self.elements.remove(element)
            && let Some(set) = self.sets.get_mut(&element.set)
        {
            set.count_out(holder);
        }
    }

    /// The holder of an element, and when it was last written.
    pub(super) fn origin(&self, element: &Element) -> Option<(Holder, Time)> {
        self.elements.origin(element)
    }

    /// Takes at most `most` of the elements whose lease is over.
    pub(super) fn take_ended(&mut self, most: usize) -> Vec<Element> {
        let rest = self.ended.len().saturating_sub(most);
        self.ended.split_off(rest)
    }

    /// Whether there are elements whose lease is over and which were not [taken](Self::take_ended)
    /// yet.
    pub(super) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// When the next lease ends or the next element is gone; `now` if there are elements to be
    /// deleted.
    pub(super) fn next_due(&self, now: Time) -> Option<Time> {
        match self.ended.is_empty() {
            true => self.elements.next_due(),
            false => Some(now),
        }
    }

    /// At least `lacking` elements of a full set that are evicted for `asks`, if there are so many.
    /// Whoever holds most gives up the elements that were written longest ago; among equals `asks`
    /// comes first. Somewhat more than `lacking` are returned, because finding them takes a look at
    /// each element. None of them is `spared`.
    pub(super) fn victims(
        &self,
        set: &SetId,
        lacking: u32,
        asks: Holder,
        now: Time,
        spared: impl Fn(&Element) -> bool,
    ) -> Vec<Element> {
        let Some(entry) = self.sets.get(set) else {
            return Vec::new();
        };
        let mut holders: Vec<(Holder, u32)> = entry.holders.iter().map(|(holder, count)| (*holder, *count)).collect();
        holders.sort_unstable_by_key(|(holder, count)| (Reverse(*count), *holder != asks, *holder));
        let wanted = lacking.max(entry.capacity / SHARE) as usize;
        let mut victims = Vec::new();
        for (holder, _) in holders {
            let mut held: Vec<_> = self
                .elements
                .held_by(*set, holder)
                // Elements past their end may be gone from the kernel: then they cannot be deleted.
                .filter(|(_, lifetime, element)| lifetime.end > now && !spared(element))
                .map(|(written, lifetime, element)| (written, lifetime.end, element))
                .collect();
            held.sort_unstable();
            // Where several holders give way, no more than what is lacking is evicted.
            let enough = if victims.is_empty() { wanted } else { lacking as usize };
            // The one who holds most gives up at most half before others come.
            let most = (held.len() / 2).max(1).max(lacking as usize);
            let count = enough.saturating_sub(victims.len()).min(most);
            victims.extend(held.into_iter().take(count).map(|(_, _, element)| element));
            if victims.len() >= lacking as usize {
                break;
            }
        }
        victims
    }

    /// Replaces the learned sets, by id and capacity. Elements of sets that stay are kept.
    pub(super) fn replace_sets(&mut self, sets: impl IntoIterator<Item = (SetId, u32)>) {
        let mut before = std::mem::take(&mut self.sets);
        for (set, capacity) in sets {
            let entry = match before.remove(&set) {
                Some(entry) => MirroredSet { capacity, ..entry },
                None => MirroredSet {
                    name: set.to_string().into(),
                    capacity,
                    held: 0,
                    holders: HashMap::default(),
                },
            };
            self.sets.insert(set, entry);
        }
        // The sets that are left in `before` are gone.
        if !before.is_empty() {
            self.elements.retain(|element| self.sets.contains_key(&element.set));
            self.permanent.retain(|element| self.sets.contains_key(&element.set));
        }
    }

    /// Forgets all sets and elements, because the table is gone or will be read anew. Returns what
    /// was forgotten.
    pub(super) fn forget(&mut self) -> Self {
        let fresh = Self {
            generation: self.generation,
            phase: self.phase,
            ..Self::default()
        };
        std::mem::replace(self, fresh)
    }

    /// The elements with a lease that is not over, with its end; sorted.
    pub(super) fn live(&self, now: Time) -> Vec<(Element, Time)> {
        let leases = self.leases(now).into_iter();
        leases.map(|(element, end, _)| (element, end)).collect()
    }

    /// As [`live`](Self::live), with the holders.
    pub(super) fn leases(&self, now: Time) -> Vec<(Element, Time, Holder)> {
        let live = self.elements.iter().filter(|(_, lifetime, _)| lifetime.end > now);
        let mut leases: Vec<_> = live
            .map(|(element, lifetime, holder)| (*element, lifetime.end, holder))
            .collect();
        leases.sort_unstable();
        leases
    }

    /// How many elements the kernel may hold at this moment, and how many it may hold in all.
    pub(super) fn size(&self) -> (u64, u64) {
        let elements = u64::try_from(self.elements.len() + self.permanent.len()).unwrap_or(u64::MAX);
        (elements, self.sets.values().map(|set| u64::from(set.capacity)).sum())
    }
}

#[cfg(test)]
mod tests {
    use policy::ProgramId;
    use policy::classifier::SetClass;
    use proptest::prelude::*;

    use super::*;
    use crate::layout::{ElementKey, IpFamily, SetKind};

    fn set(program: u64) -> SetId {
        SetId {
            program: ProgramId(program),
            class: SetClass::Allow,
            kind: SetKind::All,
            family: IpFamily::V4,
        }
    }

    fn element(program: u64, last: u8) -> Element {
        Element {
            set: set(program),
            key: ElementKey {
                address: [192, 0, 2, last].into(),
                port: None,
            },
        }
    }

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn lifetime(end: u64, gone: u64) -> Lifetime {
        Lifetime {
            end: at(end),
            gone: at(gone),
        }
    }

    #[test]
    fn between_end_and_gone_an_element_is_counted_but_not_relied_on() {
        let mut mirror = SetMirror::default();
        mirror.replace_sets([(set(1), 10)]);
        mirror.record(element(1, 1), lifetime(100, 150), Holder(1), at(0));
        assert!(mirror.holds(&element(1, 1), at(99), at(100), Duration::ZERO));
        assert!(!mirror.holds(&element(1, 1), at(99), at(101), Duration::ZERO));
        assert!(mirror.holds(&element(1, 1), at(99), at(110), Duration::from_millis(10)));
        assert!(!mirror.holds(&element(1, 1), at(100), at(0), Duration::ZERO));
        mirror.purge(at(149));
        assert_eq!(mirror.set(&set(1)).map(|set| set.held), Some(1));
        mirror.purge(at(150));
        assert_eq!(mirror.set(&set(1)).map(|set| set.held), Some(0));
        assert_eq!(mirror.lifetime(&element(1, 1)), None);
    }

    #[test]
    fn elements_leave_with_their_set_and_stay_with_it() {
        let mut mirror = SetMirror::default();
        mirror.replace_sets([(set(1), 10), (set(2), 10)]);
        mirror.record(element(1, 1), lifetime(100, 150), Holder(1), at(0));
        mirror.record(element(2, 1), lifetime(100, 150), Holder(1), at(0));
        mirror.replace_sets([(set(2), 20), (set(3), 20)]);
        assert_eq!(mirror.live(at(0)), [(element(2, 1), at(100))]);
        assert_eq!(mirror.size(), (1, 40));
    }

    #[test]
    fn who_holds_most_of_a_full_set_gives_up_what_it_learned_longest_ago() {
        let mut mirror = SetMirror::default();
        mirror.replace_sets([(set(1), 10)]);
        let (flood, quiet, other) = (Holder(1), Holder(2), Holder(3));
        for last in 0..8 {
            mirror.record(
                element(1, last),
                lifetime(100_000, 105_000),
                flood,
                at(1_000 * (10 - u64::from(last))),
            );
        }
        for last in 8..10 {
            mirror.record(element(1, last), lifetime(100_000, 105_000), quiet, at(0));
        }
        let victims = |asks, lacking| mirror.victims(&set(1), lacking, asks, at(20_000), |it| *it == element(1, 7));
        assert_eq!(
            victims(other, 2),
            [element(1, 6), element(1, 5)],
            "the oldest, but for what is spared"
        );
        assert_eq!(victims(quiet, 1), [element(1, 6)]);
        assert_eq!(victims(flood, 20).len(), 9, "there are no more");
        // What is held for several counts for the one that holds least.
        mirror.record(element(1, 0), lifetime(100_000, 105_000), quiet, at(30_000));
        mirror.record(element(1, 9), lifetime(100_000, 105_000), flood, at(30_000));
        assert_eq!(mirror.origin(&element(1, 0)), Some((quiet, at(30_000))));
        assert_eq!(mirror.origin(&element(1, 9)), Some((quiet, at(30_000))));
    }

    proptest! {
        /// Against a plain map that is scanned.
        #[test]
        fn the_mirror_agrees_with_a_plain_map(
            steps in proptest::collection::vec((0u64..3, 0u8..8, 1u64..50, 0u64..20, 0u64..10, 0u8..3), 0..200),
        ) {
            let mut mirror = SetMirror::default();
            mirror.replace_sets((0..3).map(|program| (set(program), 100)));
            let mut plain = std::collections::BTreeMap::new();
            let mut now = 0;
            let mut ended: Vec<Element> = Vec::new();
            for (program, last, lease, linger, passes, holder) in steps {
                let lifetime = lifetime(now + lease, now + lease + linger);
                mirror.record(element(program, last), lifetime, Holder(u32::from(holder)), at(now));
                plain.insert(element(program, last), lifetime);
                now += passes;
                mirror.purge(at(now));
                plain.retain(|_, lifetime: &mut Lifetime| lifetime.gone > at(now));
                for program in 0..3 {
                    let held = plain.keys().filter(|element| element.set == set(program)).count();
                    prop_assert_eq!(mirror.set(&set(program)).map(|set| set.held as usize), Some(held));
                    let of_holders = mirror.set(&set(program)).map(|set| set.holders.values().sum::<u32>() as usize);
                    prop_assert_eq!(of_holders, Some(held));
                }
                let live: Vec<_> = plain.iter().filter(|(_, l)| l.end > at(now)).map(|(e, l)| (*e, l.end)).collect();
                prop_assert_eq!(mirror.live(at(now)), live);
                prop_assert_eq!(mirror.elements.len(), plain.len());
                // Each lease that is over was put down, once for each time that it ended.
                ended.extend(mirror.take_ended(usize::MAX));
                for (element, lifetime) in &plain {
                    let is_over = lifetime.end <= at(now);
                    prop_assert!(!is_over || ended.contains(element));
                }
                ended.retain(|element| plain.get(element).is_some_and(|lifetime| lifetime.end <= at(now)));
            }
        }
    }
}
