//! Deletes elements whose lease is over.
//!
//! The kernel would time them out by itself. But elements that have timed out count against the
//! size of their set until the kernel's garbage collection (`nft_rhash_gc`), which gives up as soon
//! as a transaction changes the generation of the rules. While many new names come, sets would fill
//! with dead elements. So the kernel keeps an element for
//! [`LINGER`](super::transaction_plan::LINGER) longer than its lease, and the writer deletes it
//! when the lease ends. If the agent is dead, the kernel's timeout counts.
//!
//! While another agent runs beside this one in an upgrade, nothing is deleted, because the other
//! may have renewed an element since. For the same reason, what was written before this agent was
//! alone is left to the kernel.

use std::sync::Arc;
use std::time::Duration;

use ahash::HashMap;
use clock::Time;

use crate::layout::{Element, SetId};
use crate::netlink::batch::ElementOp;
use crate::netlink::socket::CommitError;

use super::heartbeat;
use super::kernel::Kernel;
use super::kernel_writer::KernelWriter;
use super::set_mirror::SetMirror;
use super::transaction_plan::deletion;

/// How often elements are deleted at most, so that leases which end at about the same time share a
/// transaction.
pub(super) const EVERY: Duration = Duration::from_millis(250);

/// How often it is looked whether this agent is the only one although no lease is over: so often
/// that no other one comes and goes in between, whose mark stays for [`heartbeat::ALIVE`] after it
/// was last there.
const ALONE_LOOK: Duration = Duration::from_millis(1_500);

/// Elements of one transaction, which takes about a millisecond.
const AT_ONCE: usize = 1024;

/// The most transactions of one sweep, because the queue waits meanwhile.
const TRANSACTIONS: usize = 8;

/// An element that times out within this time is left to the kernel: one that is gone when it is to
/// be deleted fails the whole transaction.
const MARGIN: Duration = Duration::from_secs(1);

impl<K: Kernel> KernelWriter<K> {
    /// Deletes elements whose lease is over, if it is time to. Returns how long it takes until the
    /// next time.
    pub(super) fn sweep(&mut self) -> Duration {
        let now = clock::now();
        let due = |writer: &Self| match writer.shared.mirror().next_due(now) {
            Some(due) => due.min(writer.sweeps.looked + ALONE_LOOK),
            None => writer.sweeps.looked + ALONE_LOOK,
        };
        let next = due(self).max(self.sweeps.last + EVERY);
        if now < next {
            return next.since(now);
        }
        self.sweeps.last = now;
        self.delete_ended(now);
        due(self).since(now).max(EVERY)
    }

    /// Deletes elements whose lease is over, as many as a sweep may.
    fn delete_ended(&mut self, now: Time) {
        // Also when no lease is over: what is written from now on can be deleted one day.
        let alone = self.alone_since(now);
        self.shared.mirror().purge(now);
        for _ in 0..TRANSACTIONS {
            let (operations, elements) = {
                let mut mirror = self.shared.mirror();
                let mut ended = mirror.take_ended(AT_ONCE);
                ended.retain(|element| alone.is_some_and(|alone| is_deletable(&mirror, element, alone, now)));
                ended.sort_unstable();
                ended.dedup();
                (deletions(&mirror, &ended), ended)
            };
            if !operations.is_empty() {
                self.delete(&operations, &elements);
            }
        }
    }

    /// Deletes elements whose lease is over, because a set is full: they count against its capacity
    /// until then. Returns whether there were any.
    pub(super) fn make_room(&mut self) -> bool {
        let has_ended = self.shared.mirror().has_ended();
        if has_ended {
            self.delete_ended(clock::now());
        }
        has_ended
    }

    fn delete(&mut self, operations: &[ElementOp], elements: &[Element]) {
        match self.kernel.commit(operations) {
            Ok(()) => {
                let mut mirror = self.shared.mirror();
                elements.iter().for_each(|element| mirror.remove(element));
            }
            Err(CommitError::Refused(errors)) if errors.iter().any(|error| error.errno == libc::ENOENT) => {
                if let Some(guard) = &mut self.guard {
                    // It compares all elements with the mirror, which must not adopt damage.
                    // Elements whose lease is over time out by themselves.
                    return guard.suspect_elements();
                }
                // Somebody else deletes elements, or the table is gone, which the heartbeat will
                // notice.
                tracing::debug!("an element that was to be deleted is not there; reading the kernel back");
                self.read_back();
            }
            Err(error) => tracing::warn!(
                ?error,
                "elements whose lease is over were not deleted; the kernel will end them"
            ),
        }
    }

    /// Since when this agent has been the only one, as far as it was looked in time.
    fn alone_since(&mut self, now: Time) -> Option<Time> {
        let others = self
            .kernel
            .heartbeats()
            .map(|marks| heartbeat::others(&marks, self.heartbeat.mark()));
        let sweeps = &mut self.sweeps;
        let has_missed_none = now < std::mem::replace(&mut sweeps.looked, now) + heartbeat::ALIVE;
        sweeps.alone = match others {
            Ok(0) => sweeps.alone.filter(|_| has_missed_none).or(Some(now)),
            Ok(_) | Err(_) => None,
        };
        sweeps.alone
    }
}

/// Whether the kernel certainly holds an element, and only this agent can have renewed it.
fn is_deletable(mirror: &SetMirror, element: &Element, alone: Time, now: Time) -> bool {
    let is_over = |lifetime: super::set_mirror::Lifetime| lifetime.end <= now && lifetime.gone > now + MARGIN;
    // `written` is rounded down.
    let is_ours = mirror.origin(element).is_some_and(|(_, written)| written >= alone);
    is_ours && mirror.lifetime(element).is_some_and(is_over)
}

fn deletions(mirror: &SetMirror, elements: &[Element]) -> Vec<ElementOp> {
    let mut names: HashMap<SetId, Arc<str>> = HashMap::default();
    let deletions = elements.iter().filter_map(|element| {
        let name = match names.get(&element.set) {
            Some(name) => Arc::clone(name),
            None => {
                let name = Arc::clone(&mirror.set(&element.set)?.name);
                names.insert(element.set, Arc::clone(&name));
                name
            }
        };
        Some(deletion(&name, element))
    });
    deletions.collect()
}
