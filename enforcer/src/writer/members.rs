//! The elements of objects' addresses, which stay as long as they are desired.
//!
//! A member and a lease may need the same element: a name resolves to a pod's address. Then the
//! element has no end, and whoever admits it is told that it is there. When the member goes while
//! the lease lives (the ledger says so), the element gets the lease's end in the same transaction:
//! no packet meets the moment between.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clock::Time;
use policy::ProgramId;

use crate::desired::DesiredState;
use crate::layout::{Element, SetId};
use crate::netlink::batch::{Operation, Verb};
use crate::netlink::socket::CommitError;

use super::book::{Book, Holder, Life};
use super::install::Failure;
use super::kernel::{Kernel, NfTables};
use super::plan::{LINGER, SHORTEST_LIFE, TICKS, encode_key};
use super::thread::Writer;

/// A transaction takes in no more addresses once it has so many elements.
const AT_ONCE: usize = 2048;

/// The desired elements, by the tiers whose sets they belong to.
type Members = BTreeMap<ProgramId, Arc<BTreeSet<Element>>>;

/// What becomes of an element in a set that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// It has no end any more.
    Kept,
    /// It goes.
    Gone,
    /// It stays until then, as a lease.
    Leased(Time),
}

/// How the members of a desired state differ from what the kernel holds.
#[derive(Debug, Default)]
pub(super) struct MemberChange {
    /// Those of new sets.
    pub(super) fills: BTreeSet<Element>,
    /// Those of sets that stay: the doors of one address stand together.
    turns: Vec<(Element, Turn)>,
}

impl MemberChange {
    /// Compares. `before` is what was in force; without it the book knows what the kernel holds.
    pub(super) fn new(
        before: Option<&DesiredState>,
        after: &DesiredState,
        sets: (&BTreeSet<SetId>, &BTreeSet<SetId>),
        book: &Book,
    ) -> Result<Self, Failure> {
        let (sets, new_sets) = sets;
        let mut change = Self::default();
        for (tiers, members) in &after.members {
            let is_new = new_sets.iter().any(|set| set.program == *tiers);
            if before.is_some_and(|before| is_same(&before.members, *tiers, members)) && !is_new {
                continue;
            }
            for element in members.iter() {
                if !sets.contains(&element.set) {
                    // Left out, it might be a denial that is missing.
                    return Err(Failure::Refused(format!(
                        "no program has the set {} of a member",
                        element.set
                    )));
                }
                if new_sets.contains(&element.set) {
                    change.fills.insert(*element);
                } else if !book.keeps(element) {
                    change.turns.push((*element, Turn::Kept));
                }
            }
        }
        let is_desired = |element: &Element| {
            let members = after.members.get(&element.set.program);
            members.is_some_and(|members| members.contains(element))
        };
        let mut release = |element: &Element| {
            if sets.contains(&element.set) && !new_sets.contains(&element.set) && !is_desired(element) {
                change.turns.push((*element, Turn::Gone));
            }
        };
        match before {
            None => book.kept().for_each(release),
            Some(before) => {
                let changed = before
                    .members
                    .iter()
                    .filter(|(tiers, members)| !is_same(&after.members, **tiers, members));
                changed.flat_map(|(_, members)| members.iter()).for_each(&mut release);
            }
        }
        // The doors of an address are one decision: they go into one transaction, as far as it may
        // grow.
        change
            .turns
            .sort_unstable_by_key(|(element, _)| (element.key.address, *element));
        Ok(change)
    }

    /// Whether an element goes that a lease might need.
    pub(super) fn releases(&self) -> bool {
        self.turns.iter().any(|(_, turn)| *turn == Turn::Gone)
    }

    /// Turns what goes into leases, where there are any.
    pub(super) fn fall_back_on(&mut self, leases: &BTreeMap<Element, Time>, now: Time) {
        for (element, turn) in &mut self.turns {
            if let (Turn::Gone, Some(end)) = (*turn, leases.get(element).filter(|end| **end > now)) {
                *turn = Turn::Leased(*end);
            }
        }
    }

    /// Transactions of about [`AT_ONCE`] elements.
    fn parts(&self) -> impl Iterator<Item = &[(Element, Turn)]> {
        let mut rest = self.turns.as_slice();
        std::iter::from_fn(move || {
            let last = rest.get(AT_ONCE.min(rest.len()).checked_sub(1)?)?.0.key.address;
            let (part, later) = rest.split_at(rest.partition_point(|(element, _)| element.key.address <= last));
            rest = later;
            Some(part)
        })
    }
}

fn is_same(members: &Members, tiers: ProgramId, other: &Arc<BTreeSet<Element>>) -> bool {
    members.get(&tiers).is_some_and(|members| Arc::ptr_eq(members, other))
}

impl Writer<NfTables> {
    /// Makes the sets that stay hold their members.
    pub(super) fn turn_members(&mut self, change: &MemberChange) -> Result<(), Failure> {
        for part in change.parts() {
            let now = clock::now();
            let operations: Vec<Operation> = part
                .iter()
                .flat_map(|(element, turn)| operations(element, *turn, now))
                .collect();
            match self.kernel.commit(&operations) {
                Ok(()) => note(&mut self.shared.book(), part, now),
                Err(CommitError::Refused(refusals)) => return Err(Failure::of_refusals(&refusals)),
                Err(CommitError::Unacknowledged(error)) => return Err(Failure::Unknown(error)),
            }
        }
        Ok(())
    }
}

fn operations(element: &Element, turn: Turn, now: Time) -> impl Iterator<Item = Operation> {
    let verbs: &[Verb] = match turn {
        // An element with an end may be there: then it must be deleted, and to be deleted it must
        // be there.
        Turn::Kept => &[Verb::Add(SHORTEST_LIFE), Verb::Delete, Verb::Keep],
        Turn::Gone => &[Verb::Delete],
        Turn::Leased(end) => &[Verb::Delete, Verb::Add(left(end, now))],
    };
    let verbs: Vec<Verb> = verbs.to_vec();
    let set: Arc<str> = element.set.to_string().into();
    let key = encode_key(&element.key);
    verbs.into_iter().map(move |verb| Operation {
        set: Arc::clone(&set),
        key: key.clone(),
        verb,
    })
}

fn left(end: Time, now: Time) -> Duration {
    end.since(now).max(SHORTEST_LIFE) + LINGER
}

fn note(book: &mut Book, part: &[(Element, Turn)], planned: Time) {
    let acknowledged = clock::now();
    for (element, turn) in part {
        match turn {
            Turn::Kept => book.keep(*element),
            Turn::Gone => book.release(element),
            Turn::Leased(end) => {
                book.release(element);
                let gone = acknowledged + left(*end, planned) + TICKS;
                book.record(*element, Life { end: *end, gone }, Holder::default(), planned);
            }
        }
    }
}
