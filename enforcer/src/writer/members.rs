//! Members: the elements of objects' addresses. They stay as long as they are desired.
//!
//! A member and a lease may need the same element, when a name resolves to a pod's address. Then
//! the element has no timeout, and an admission of it finds it there. When the member goes while
//! the ledger still holds the lease, the same transaction gives the element the lease's end, so
//! that packets never find the address closed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use clock::Time;
use imbl::ordset::DiffItem;
use policy::ProgramId;

use crate::desired::{DesiredState, ElementSet};
use crate::layout::{Element, SetId};
use crate::netlink::batch::{ElementAction, ElementOp};
use crate::netlink::socket::CommitError;

use super::element_key::encode_key;
use super::install_failure::InstallFailure;
use super::kernel::{Kernel, NfTables};
use super::kernel_writer::KernelWriter;
use super::set_mirror::{Holder, Lifetime, SetMirror};
use super::transaction_plan::{LINGER, SHORTEST_LIFE, TICKS};

/// A transaction that has so many elements takes no more addresses.
const AT_ONCE: usize = 2048;

/// What happens to an element of a set that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MemberAction {
    /// It is written without a timeout.
    Permanent,
    /// It is deleted.
    Delete,
    /// It is written with a timeout, as a lease that ends then.
    Leased(Time),
}

/// The difference between the members of a desired state and what the kernel holds.
#[derive(Debug, Default)]
pub(super) struct MemberDiff {
    /// The members of new sets, which are filled with them; sorted.
    pub(super) fills: Vec<Element>,
    /// Changes to sets that stay. The elements of one address stand together.
    actions: Vec<(Element, MemberAction)>,
}

impl MemberDiff {
    /// Compares `after` with `before`, the state in force; without that, with the mirror.
    pub(super) fn new(
        before: Option<&DesiredState>,
        after: &DesiredState,
        sets: (&BTreeSet<SetId>, &BTreeSet<SetId>),
        mirror: &SetMirror,
    ) -> Result<Self, InstallFailure> {
        let (sets, new_sets) = sets;
        let mut change = Self::default();
        let has_new_sets: BTreeSet<ProgramId> = new_sets.iter().map(|set| set.program).collect();
        // Elements of new sets are written even if they were members before.
        let known_before = |tiers: &ProgramId| {
            let known = before.and_then(|before| before.members.get(tiers));
            known.filter(|_| !has_new_sets.contains(tiers))
        };
        let mut add = |element: &Element| {
            if !sets.contains(&element.set) {
                // If it were left out, a denial might be missing.
                return Err(InstallFailure::Refused(format!(
                    "no program has the set {} of a member",
                    element.set
                )));
            }
            if new_sets.contains(&element.set) {
                change.fills.push(*element);
            } else if !mirror.is_permanent(element) {
                change.actions.push((*element, MemberAction::Permanent));
            }
            Ok(())
        };
        for (tiers, members) in &after.members {
            match known_before(tiers) {
                Some(known) if known.ptr_eq(members) => {}
                Some(known) => added(known, members).try_for_each(&mut add)?,
                None => members.iter().try_for_each(&mut add)?,
            }
        }
        let is_desired = |element: &Element| {
            let members = after.members.get(&element.set.program);
            members.is_some_and(|members| members.contains(element))
        };
        let mut release = |element: &Element| {
            if sets.contains(&element.set) && !new_sets.contains(&element.set) && !is_desired(element) {
                change.actions.push((*element, MemberAction::Delete));
            }
        };
        match before {
            None => mirror.permanent().for_each(release),
            Some(before) => {
                for (tiers, members) in &before.members {
                    match after.members.get(tiers) {
                        Some(now) if now.ptr_eq(members) => {}
                        Some(now) => added(now, members).for_each(&mut release),
                        None => members.iter().for_each(&mut release),
                    }
                }
            }
        }
        // Most often they are: those of tiers are sorted, and tiers come in order.
        change.fills.sort_unstable();
        // The elements of an address are one decision. They go into one transaction, as far as that
        // may grow.
        change
            .actions
            .sort_unstable_by_key(|(element, _)| (element.key.address, *element));
        Ok(change)
    }

    /// Whether an element is deleted that a lease might need.
    pub(super) fn deletes_any(&self) -> bool {
        self.actions.iter().any(|(_, action)| *action == MemberAction::Delete)
    }

    /// The addresses whose elements change in sets that stay.
    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        self.actions.iter().map(|(element, _)| element.key.address).collect()
    }

    /// Turns deletions into leases where there are any.
    pub(super) fn keep_leased(&mut self, leases: &BTreeMap<Element, Time>, now: Time) {
        for (element, action) in &mut self.actions {
            if let (MemberAction::Delete, Some(end)) = (*action, leases.get(element).filter(|end| **end > now)) {
                *action = MemberAction::Leased(*end);
            }
        }
    }

    /// Splits the changes into transactions of about [`AT_ONCE`] elements.
    fn parts(&self) -> impl Iterator<Item = &[(Element, MemberAction)]> {
        let mut rest = self.actions.as_slice();
        std::iter::from_fn(move || {
            let last = rest.get(AT_ONCE.min(rest.len()).checked_sub(1)?)?.0.key.address;
            let (part, later) = rest.split_at(rest.partition_point(|(element, _)| element.key.address <= last));
            rest = later;
            Some(part)
        })
    }
}

/// What `now` has and `before` has not. It takes a look at what the two do not share.
fn added<'a>(before: &'a ElementSet, now: &'a ElementSet) -> impl Iterator<Item = &'a Element> {
    before.diff(now).filter_map(|item| match item {
        DiffItem::Add(element) => Some(element),
        DiffItem::Remove(_) => None,
    })
}

impl KernelWriter<NfTables> {
    /// Writes the changes of members to the sets that stay.
    pub(super) fn write_members(&mut self, change: &MemberDiff) -> Result<(), InstallFailure> {
        for part in change.parts() {
            let now = clock::now();
            let operations: Vec<ElementOp> = part
                .iter()
                .flat_map(|(element, action)| operations(element, *action, now))
                .collect();
            match self.kernel.commit(&operations) {
                Ok(()) => note(&mut self.shared.mirror(), part, now),
                Err(CommitError::Refused(errors)) => return Err(InstallFailure::of_operation_errors(&errors)),
                Err(CommitError::Unacknowledged(error)) => return Err(InstallFailure::Unknown(error)),
            }
        }
        Ok(())
    }
}

fn operations(element: &Element, action: MemberAction, now: Time) -> impl Iterator<Item = ElementOp> {
    let actions: &[ElementAction] = match action {
        // An element with a timeout may be there and must be deleted; it is added first, because
        // deleting what is not there is an error.
        MemberAction::Permanent => &[
            ElementAction::Add(SHORTEST_LIFE),
            ElementAction::Delete,
            ElementAction::AddPermanent,
        ],
        MemberAction::Delete => &[ElementAction::Delete],
        MemberAction::Leased(end) => &[ElementAction::Delete, ElementAction::Add(left(end, now))],
    };
    let actions: Vec<ElementAction> = actions.to_vec();
    let set: Arc<str> = element.set.to_string().into();
    let key = encode_key(&element.key);
    actions.into_iter().map(move |action| ElementOp {
        set: Arc::clone(&set),
        key: key.clone(),
        action,
    })
}

fn left(end: Time, now: Time) -> Duration {
    end.since(now).max(SHORTEST_LIFE) + LINGER
}

fn note(mirror: &mut SetMirror, part: &[(Element, MemberAction)], planned: Time) {
    let acknowledged = clock::now();
    for (element, action) in part {
        match action {
            MemberAction::Permanent => mirror.insert_permanent(*element),
            MemberAction::Delete => mirror.remove_permanent(element),
            MemberAction::Leased(end) => {
                mirror.remove_permanent(element);
                let gone = acknowledged + left(*end, planned) + TICKS;
                mirror.record(*element, Lifetime { end: *end, gone }, Holder::default(), planned);
            }
        }
    }
}
