//! Replacing the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fqdn_cache::Time;
use tokio::sync::oneshot;

use super::book::{Life, Phase};
use super::commit::Admission;
use super::kernel::NfTables;
use super::plan::{SHORTEST_LIFE, TICKS};
use super::thread::Writer;
use super::{Generation, InstallError, clock, nft};
use crate::desired::Desired;
use crate::layout::{Element, Family, LearnedSets, SetId, Side};
use crate::{routing, ruleset};

/// Elements put back at once, where a set that stays lacks them.
const PUT_BACK: usize = 1024;

/// An installation that waits.
pub(super) struct Installation {
    pub(super) desired: Desired,
    pub(super) learned: Box<dyn FnOnce() -> Vec<(Element, Time)> + Send>,
    pub(super) answer: oneshot::Sender<Result<Generation, InstallError>>,
}

impl fmt::Debug for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Installation")
            .field("desired", &self.desired)
            .finish_non_exhaustive()
    }
}

impl Writer<NfTables> {
    /// Installs, and answers.
    pub(super) fn install(&mut self, installation: Installation) {
        let Installation {
            desired,
            learned,
            answer,
        } = installation;
        let result = if self.installed.as_ref() == Some(&desired) {
            Ok(self.shared.book().generation)
        } else {
            // A heartbeat now, because the transaction may take longer than the pause until the next.
            self.beat();
            // From here on no answer is released by the fast path, and admissions wait in the queue; so what `learned` does not
            // see is computed again for the new rules.
            self.shared.book().phase = Phase::Installing;
            self.shared.begin_epoch();
            let result = self.replace(desired, learned);
            self.shared.book().phase = Phase::Serving;
            self.beat();
            result
        };
        // The caller may have gone; the rules stand all the same.
        let _ = answer.send(result);
    }

    fn replace(
        &mut self,
        desired: Desired,
        learned: impl FnOnce() -> Vec<(Element, Time)>,
    ) -> Result<Generation, InstallError> {
        let learned = learned();
        let standing = self.kernel.standing()?;
        // The rules send packets where these addresses and routes lead.
        set_up_routing(&desired)?;

        let sets = learned_sets(&desired);
        let new: BTreeSet<SetId> = sets
            .iter()
            .filter(|set| !standing.sets.contains(&set.to_string()))
            .copied()
            .collect();
        let now = clock::now();
        let learned = within_capacity(learned, &sets, &desired, now);
        let (filled, kept): (Vec<_>, Vec<_>) = learned.into_iter().partition(|(element, _)| new.contains(&element.set));
        let filled: Vec<Fill> = filled
            .into_iter()
            .map(|(element, end)| Fill::new(element, end, now))
            .collect();
        let elements: Vec<(Element, Duration)> = filled.iter().map(|fill| (fill.element, fill.timeout)).collect();
        nft::apply(&ruleset::transaction(&desired, &standing, &elements))?;

        let generation = self.note_installation(&desired, &sets, &filled);
        self.leave_former_interception(&desired);
        self.installed = Some(desired);
        self.next_beat = Some(clock::now());
        self.put_back(generation, kept);
        Ok(generation)
    }

    /// Makes the book what the transaction made the kernel.
    fn note_installation(&self, desired: &Desired, sets: &BTreeSet<SetId>, filled: &[Fill]) -> Generation {
        let counters = &self.shared.counters;
        counters.installs.fetch_add(1, Relaxed);
        counters
            .elements_written
            .fetch_add(u64::try_from(filled.len()).unwrap_or(u64::MAX), Relaxed);
        let now = clock::now();
        let mut book = self.shared.book();
        book.replace_sets(sets.iter().map(|set| (*set, desired.capacity.get())));
        for fill in filled {
            let gone = now + fill.timeout + 2 * TICKS;
            book.record(fill.element, Life { end: fill.end, gone });
        }
        book.generation = Generation(book.generation.0 + 1);
        book.generation
    }

    /// Removes what only the former way of interception needed.
    fn leave_former_interception(&self, desired: &Desired) {
        let Some(former) = &self.installed else { return };
        if former.interception == desired.interception {
            return;
        }
        routing::take_down(&former.interception);
        // The two may have had something in common.
        if let Err(error) = set_up_routing(desired) {
            tracing::error!(%error, "what interception needs is not complete");
        }
    }

    /// Sets that stay keep their elements; they lack those whose admission failed, and those that ended in the kernel while
    /// the ledger was restored with more.
    fn put_back(&mut self, generation: Generation, kept: Vec<(Element, Time)>) {
        let now = clock::now();
        let missing: Vec<(Element, Time)> = {
            let book = self.shared.book();
            kept.into_iter()
                .filter(|(element, end)| *end > now && !book.holds(element, now, *end, Duration::ZERO))
                .collect()
        };
        for some in missing.chunks(PUT_BACK) {
            let (answer, mut outcome) = oneshot::channel();
            self.commit_group(vec![Admission {
                generation,
                elements: some.to_vec(),
                deadline: Duration::ZERO,
                answer: Box::new(answer),
            }]);
            if let Ok(Err(error)) = outcome.try_recv() {
                tracing::warn!(%error, elements = some.len(), "learned addresses could not be put back");
            }
        }
    }
}

/// An element of a new set.
#[derive(Debug)]
struct Fill {
    element: Element,
    end: Time,
    /// What nft is told: whole seconds, rounded up.
    timeout: Duration,
}

impl Fill {
    fn new(element: Element, end: Time, now: Time) -> Self {
        let left = end.since(now).max(SHORTEST_LIFE) + TICKS;
        Self {
            element,
            end,
            timeout: Duration::from_secs(left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)),
        }
    }
}

/// The learned sets that `desired` has.
fn learned_sets(desired: &Desired) -> BTreeSet<SetId> {
    let mut sets = BTreeSet::new();
    for (id, program) in &desired.programs {
        for (side, rules) in [(Side::Deny, &program.deny), (Side::Allow, &program.allow)] {
            for kind in LearnedSets::of(rules).kinds() {
                sets.extend(Family::BOTH.map(|family| SetId {
                    program: *id,
                    side,
                    kind,
                    family,
                }));
            }
        }
    }
    sets
}

/// Each live element of these sets once, with its latest end, ordered; where there are more than a set may hold, those that end last. One element
/// too many would make the kernel refuse the whole ruleset.
fn within_capacity(
    learned: Vec<(Element, Time)>,
    sets: &BTreeSet<SetId>,
    desired: &Desired,
    now: Time,
) -> Vec<(Element, Time)> {
    let mut by_set: BTreeMap<SetId, BTreeMap<Element, Time>> = BTreeMap::new();
    for (element, end) in learned {
        if end > now && sets.contains(&element.set) {
            let latest = by_set.entry(element.set).or_default().entry(element).or_default();
            *latest = end.max(*latest);
        }
    }
    let capacity = usize::try_from(desired.capacity.get()).unwrap_or(usize::MAX);
    let mut within = Vec::new();
    for (set, elements) in by_set {
        let mut elements: Vec<(Element, Time)> = elements.into_iter().collect();
        if elements.len() > capacity {
            tracing::warn!(%set, capacity, learned = elements.len(), "a set is full; raise --set-capacity");
            elements.sort_by_key(|(element, end)| (std::cmp::Reverse(*end), *element));
            elements.truncate(capacity);
            elements.sort_unstable();
        }
        within.append(&mut elements);
    }
    within
}

fn set_up_routing(desired: &Desired) -> Result<(), InstallError> {
    routing::set_up(&desired.interception).map_err(|error| InstallError::Routing(error.to_string()))
}
