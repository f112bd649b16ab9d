//! Deletes elements whose lease is over.
//!
//! They would end by themselves. But what has ended counts against the size of its set until the
//! kernel's garbage collection has been there, and that (`nft_rhash_gc`) gives up as soon as the
//! generation of the rules changes, which each transaction does. While many new names come, sets
//! would fill with what has ended. So the kernel is told to let an element live
//! [`LINGER`](super::transaction_plan::LINGER) longer than its lease, and the writer deletes it
//! when the lease ends. An agent that is dead deletes nothing; then the kernel's own end counts.
//!
//! Beside another agent, in an upgrade, nothing is deleted: the other may have renewed an element
//! since. What was written before this agent was alone is left to the kernel for the same reason.

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

/// A lease may be over for so long before its element is deleted: leases that end at about the same
/// time share a transaction.
pub(super) const EVERY: Duration = Duration::from_millis(250);

/// Elements of one transaction: about a millisecond.
const AT_ONCE: usize = 1024;

/// Transactions of one sweep at most: the queue waits meanwhile.
const TRANSACTIONS: usize = 8;

/// What has no more than this left in the kernel is left to it: what is gone when it is to be
/// deleted makes the whole transaction fail.
const MARGIN: Duration = Duration::from_secs(1);

impl<K: Kernel> KernelWriter<K> {
    /// Deletes what is over, if it is time to. Returns when it will be again at the soonest.
    pub(super) fn sweep(&mut self) -> Duration {
        let now = clock::now();
        let next = self.sweeps.last + EVERY;
        if now < next {
            return next.since(now);
        }
        self.sweeps.last = now;
        // Looked at even where nothing is over: what is written from now on can be deleted one day.
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
        match self.shared.mirror().next_due(now) {
            Some(due) => due.since(now).max(EVERY),
            None => Duration::MAX,
        }
    }

    fn delete(&mut self, operations: &[ElementOp], elements: &[Element]) {
        match self.kernel.commit(operations) {
            Ok(()) => {
                let mut mirror = self.shared.mirror();
                elements.iter().for_each(|element| mirror.remove(element));
            }
            Err(CommitError::Refused(refusals)) if refusals.iter().any(|refusal| refusal.errno == libc::ENOENT) => {
                if let Some(guard) = &mut self.guard {
                    // It compares all with the book, which must not take over what is damaged. What
                    // is over ends by itself.
                    return guard.suspect_elements();
                }
                // Somebody deletes elements, or was it the table? The heart will tell.
                tracing::debug!("an element that was to be deleted is not there; reading the kernel back");
                self.read_back();
            }
            Err(error) => tracing::warn!(
                ?error,
                "elements whose lease is over were not deleted; the kernel will end them"
            ),
        }
    }

    /// Since when no other agent beats, as of now.
    fn alone_since(&mut self, now: Time) -> Option<Time> {
        let others = self
            .kernel
            .heartbeats()
            .map(|marks| heartbeat::others(&marks, self.heartbeat.mark()));
        match others {
            Ok(0) => Some(*self.sweeps.alone.get_or_insert(now)),
            Ok(_) | Err(_) => {
                self.sweeps.alone = None;
                None
            }
        }
    }
}

/// Whether the kernel holds an element for certain that nobody but us can have renewed.
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
