//! Group commit: one transaction for all admissions that wait. When the kernel refuses it, only the
//! admissions that it refers to fail.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use clock::Time;

use crate::layout::Element;
use crate::netlink::batch::OperationError;
use crate::netlink::socket::CommitError;

use super::error::AdmitError;
use super::generation::Generation;
use super::kernel::Kernel;
use super::kernel_writer::KernelWriter;
use super::pending_admission::PendingAdmission;
use super::proof::Committed;
use super::set_mirror::{Holder, Lifetime, SetMirror};
use super::transaction_plan::{LINGER, TICKS, TransactionPlan, TransactionPlanner};

impl<K: Kernel> KernelWriter<K> {
    /// Commits the elements of all admissions, and answers each.
    pub(super) fn commit_group(&mut self, waiting: Vec<PendingAdmission>) {
        let mut crowded = Vec::new();
        self.commit_all(waiting, &mut |admission| crowded.push(admission));
        // A sweep may be overdue, and nothing live gives way to what is over.
        if !crowded.is_empty() && self.make_room() {
            let again = std::mem::take(&mut crowded);
            self.commit_all(again, &mut |admission| crowded.push(admission));
        }
        // Crowded admissions are committed one by one, so that none evicts what another relies on.
        for admission in crowded {
            self.commit_evicting(admission);
        }
    }

    /// Commits one admission, and evicts elements of full sets for it.
    fn commit_evicting(&mut self, admission: PendingAdmission) {
        let now = clock::now();
        let planned = {
            let mirror = self.shared.mirror();
            let mut planner = TransactionPlanner::new(&mirror, now);
            let added = planner.add_evicting(&admission.elements, admission.holder);
            added.map(|_| planner.finish(self.renewal))
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => return admission.settle(Err(error)),
        };
        match self.kernel.commit(&plan.operations) {
            Ok(()) => {
                self.note_commit(&plan, now);
                admission.settle(Ok(Committed::acknowledged()));
            }
            Err(error) => {
                self.shared.counters.failures.fetch_add(1, Relaxed);
                tracing::debug!(?error, "room could not be made; reading the kernel back");
                self.read_back();
                // `commit_all` finds out why. An admission that still finds no room is refused.
                self.commit_all(vec![admission], &mut |admission| {
                    let full = plan.evicted.first().map(|element| AdmitError::Full {
                        set: element.set.to_string(),
                        capacity: 0,
                    });
                    let deadline = admission.deadline;
                    admission.settle(Err(full.unwrap_or(AdmitError::Unknown(deadline))));
                });
            }
        }
    }

    /// Commits the elements of all admissions and answers each, except those for which a set has no
    /// room: `crowded` gets these.
    fn commit_all(&mut self, mut waiting: Vec<PendingAdmission>, crowded: &mut dyn FnMut(PendingAdmission)) {
        let mut unacknowledged = 0;
        loop {
            let now = clock::now();
            let plan;
            (waiting, plan) = self.plan(waiting, now, crowded);
            if waiting.is_empty() {
                return;
            }
            match self.kernel.commit(&plan.operations) {
                Ok(()) => {
                    self.note_commit(&plan, now);
                    for admission in waiting {
                        admission.settle(Ok(Committed::acknowledged()));
                    }
                    return;
                }
                Err(CommitError::Refused(errors)) => {
                    self.shared.counters.failures.fetch_add(1, Relaxed);
                    tracing::debug!(?errors, "the kernel aborted a transaction");
                    waiting = self.settle_refused(waiting, &plan, &errors, crowded);
                }
                Err(CommitError::Unacknowledged(error)) => {
                    self.shared.counters.failures.fetch_add(1, Relaxed);
                    tracing::warn!(%error, "a transaction was not acknowledged; reading the kernel back");
                    unacknowledged += 1;
                    // Elements that were committed after all are in the mirror now, so that another
                    // attempt renews them at most.
                    if !self.read_back() || unacknowledged > 1 {
                        for admission in waiting {
                            let deadline = admission.deadline;
                            admission.settle(Err(AdmitError::Unknown(deadline)));
                        }
                        return;
                    }
                }
            }
        }
    }

    /// Commits the sorted elements of one admission. `None` when a set is full, the rules have
    /// changed, an acknowledgement was lost or the kernel refused: then the admission is to go
    /// through [`commit_group`](Self::commit_group), which finds out again and deals with it.
    pub(super) fn commit_one(
        &mut self,
        generation: Generation,
        elements: &[(Element, Time)],
        holder: Holder,
        now: Time,
    ) -> Option<Committed> {
        let plan = {
            let mut mirror = self.shared.mirror();
            if generation != mirror.generation {
                return None;
            }
            mirror.purge(now);
            let mut planner = TransactionPlanner::new(&mirror, now);
            match planner.add(elements, holder) {
                Ok(true) => planner.finish(self.renewal),
                Ok(false) => return Some(Committed::acknowledged()),
                Err(_) => return None,
            }
        };
        match self.kernel.commit(&plan.operations) {
            Ok(()) => {
                self.note_commit(&plan, now);
                Some(Committed::acknowledged())
            }
            Err(error) => {
                self.shared.counters.failures.fetch_add(1, Relaxed);
                tracing::debug!(?error, "a transaction by a caller's hand failed");
                None
            }
        }
    }

    /// Plans one transaction for all, and answers the admissions that need none or cannot be part
    /// of it.
    fn plan(
        &self,
        admissions: Vec<PendingAdmission>,
        now: Time,
        crowded: &mut dyn FnMut(PendingAdmission),
    ) -> (Vec<PendingAdmission>, TransactionPlan) {
        let mut waiting = Vec::with_capacity(admissions.len());
        let mut settled = Vec::new();
        let mut mirror = self.shared.mirror();
        mirror.purge(now);
        let mut planner = TransactionPlanner::new(&mirror, now);
        for admission in admissions {
            if admission.answer.is_abandoned() {
                // Nobody waits any more. Under overload, useless work is not done; the next lookup
                // asks again.
                continue;
            }
            if admission.generation != mirror.generation {
                settled.push((admission, Err(AdmitError::Stale)));
                continue;
            }
            match planner.add(&admission.elements, admission.holder) {
                Err(AdmitError::Full { .. }) => crowded(admission),
                Ok(true) => waiting.push(admission),
                Ok(false) => settled.push((admission, Ok(Committed::acknowledged()))),
                Err(error) => settled.push((admission, Err(error))),
            }
        }
        let plan = planner.finish(self.renewal);
        drop(mirror);
        for (admission, result) in settled {
            admission.settle(result);
        }
        (waiting, plan)
    }

    /// Enters a transaction that is acknowledged into the mirror; it was planned at `planned`.
    fn note_commit(&self, plan: &TransactionPlan, planned: Time) {
        let counters = &self.shared.counters;
        counters.transactions.fetch_add(1, Relaxed);
        counters
            .elements_written
            .fetch_add(u64::try_from(plan.writes.len()).unwrap_or(u64::MAX), Relaxed);
        let mut mirror = self.shared.mirror();
        for element in &plan.evicted {
            mirror.remove(element);
        }
        for (write, lifetime) in plan.lifetimes(planned, clock::now()) {
            mirror.record(write.element, lifetime, write.holder, planned);
        }
        drop(mirror);
        if !plan.evicted.is_empty() {
            let evicted = u64::try_from(plan.evicted.len()).unwrap_or(u64::MAX);
            counters.evictions.fetch_add(evicted, Relaxed);
            self.shared.begin_epoch();
            tracing::warn!(
                evicted,
                "a set is full: who holds most of it has given way; raise --set-capacity"
            );
        }
    }

    /// Answers the admissions because of which the kernel aborted a transaction, and returns the
    /// others, which are always fewer than before.
    fn settle_refused(
        &mut self,
        waiting: Vec<PendingAdmission>,
        plan: &TransactionPlan,
        errors: &[OperationError],
        crowded: &mut dyn FnMut(PendingAdmission),
    ) -> Vec<PendingAdmission> {
        if errors.iter().any(|error| error.errno == libc::ENOENT) {
            // Elements are only added, or deleted right after they were added, so it is the set or
            // the table that is missing.
            self.table_is_lost();
            return self.settle_culprits(waiting, |_| errors.first().map(|error| rejected(plan, error)));
        }
        let waiting_before = waiting.len();
        let unclear = errors.iter().any(|error| !error.located && error.errno != libc::ENFILE);
        if unclear && waiting_before > 1 {
            // The kernel does not say which element it means: each admission is committed by
            // itself.
            for admission in waiting {
                self.commit_all(vec![admission], crowded);
            }
            return Vec::new();
        }
        let left = self.settle_culprits(waiting, |admission| {
            errors
                .iter()
                .find(|error| concerns(plan, error, admission))
                .map(|error| self.error_of(plan, error))
        });
        if left.len() < waiting_before {
            return left;
        }
        // The error belongs to no admission, so that trying again would never end.
        self.settle_culprits(left, |_| errors.first().map(|error| rejected(plan, error)))
    }

    fn settle_culprits(
        &self,
        waiting: Vec<PendingAdmission>,
        verdict: impl Fn(&PendingAdmission) -> Option<AdmitError>,
    ) -> Vec<PendingAdmission> {
        let mut left = Vec::with_capacity(waiting.len());
        for admission in waiting {
            match verdict(&admission) {
                Some(error) => admission.settle(Err(error)),
                None => left.push(admission),
            }
        }
        left
    }

    fn error_of(&self, plan: &TransactionPlan, error: &OperationError) -> AdmitError {
        let owner = plan.owner(error.operations.start);
        match owner.and_then(|write| self.shared.mirror().set(&write.element.set).cloned()) {
            Some(set) if error.errno == libc::ENFILE => AdmitError::Full {
                set: set.name.to_string(),
                capacity: set.capacity,
            },
            _ => rejected(plan, error),
        }
    }

    /// Reads the mirror anew from the kernel, after an exchange that may have gone wrong. Returns
    /// false when the kernel cannot be read: then the mirror is empty, and everything will be
    /// written again.
    pub(super) fn read_back(&mut self) -> bool {
        let reconnected = self.kernel.reconnect();
        self.note_read(reconnected)
    }

    /// As [`read_back`](Self::read_back), where no exchange has gone wrong. The socket stays:
    /// closing it takes the kernel tens of milliseconds after something was deleted.
    pub(super) fn read_again(&mut self) -> bool {
        self.note_read(Ok(()))
    }

    fn note_read(&mut self, reconnected: std::io::Result<()>) -> bool {
        match reconnected.and_then(|()| read(&mut self.kernel)) {
            Ok(found) => {
                let mut mirror = self.shared.mirror();
                let holders = mirror.forget();
                found.note(&mut mirror, &holders);
                self.shared.begin_epoch();
                true
            }
            Err(error) => {
                tracing::error!(%error, "the sets cannot be read back from the kernel");
                drop(self.shared.mirror().forget());
                self.shared.begin_epoch();
                false
            }
        }
    }
}

/// The elements that the kernel holds, as they were read.
pub(super) struct KernelContents {
    sets: Vec<(crate::layout::SetId, u32)>,
    elements: Vec<(Element, Lifetime)>,
    permanent: Vec<Element>,
    /// When it was read.
    read: Time,
}

impl KernelContents {
    /// Enters everything into the mirror. `before` knows who holds the elements.
    pub(super) fn note(self, mirror: &mut SetMirror, before: &SetMirror) {
        // A kernel before 6.5 limits no set after it was made.
        let capacity = |set, listed: u32| before.set(set).map_or(listed, |known| known.capacity.min(listed));
        mirror.replace_sets(self.sets.iter().map(|(set, listed)| (*set, capacity(set, *listed))));
        for (element, lifetime) in self.elements {
            let holder = before.origin(&element).map(|(holder, _)| holder).unwrap_or_default();
            mirror.record(element, lifetime, holder, self.read);
        }
        for element in self.permanent {
            mirror.insert_permanent(element);
        }
    }
}

/// Reads the elements of all learned sets.
pub(super) fn read<K: Kernel>(kernel: &mut K) -> std::io::Result<KernelContents> {
    let sets = kernel.learned_sets()?;
    let mut elements = Vec::new();
    let mut permanent = Vec::new();
    let read = clock::now();
    for (set, _) in &sets {
        let before = clock::now();
        let found = kernel.elements(set)?;
        let after = clock::now();
        for (key, remaining) in found {
            let element = Element { set: *set, key };
            let Some(remaining) = remaining else {
                permanent.push(element);
                continue;
            };
            // The remaining time is rounded down to a tick, was read at some moment between the
            // two, and is longer than the lease.
            let end = Time::from_millis((before + remaining).as_millis().saturating_sub(millis(LINGER)));
            let gone = after + remaining + 2 * TICKS;
            elements.push((element, Lifetime { end, gone }));
        }
    }
    Ok(KernelContents {
        sets,
        elements,
        permanent,
        read,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether an admission asked for what the kernel refused. A full set refuses all new elements from
/// the culprit on; with any other error only the culprit is known to be bad.
fn concerns(plan: &TransactionPlan, error: &OperationError, admission: &PendingAdmission) -> bool {
    let full = error.errno == libc::ENFILE;
    let asked = |element: &Element| {
        admission
            .elements
            .binary_search_by(|(asked, _)| asked.cmp(element))
            .is_ok()
    };
    let count = if error.located && !full { 1 } else { usize::MAX };
    error
        .operations
        .clone()
        .take(count)
        .filter_map(|operation| plan.owner(operation))
        .any(|write| (write.new || !full) && asked(&write.element))
}

fn rejected(plan: &TransactionPlan, error: &OperationError) -> AdmitError {
    let set = plan
        .owner(error.operations.start)
        .map(|write| write.element.set.to_string());
    AdmitError::Rejected {
        set: set.unwrap_or_default(),
        errno: error.errno,
        error: error.text.clone(),
    }
}

#[cfg(test)]
mod tests;
