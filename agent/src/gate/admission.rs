//! From a validated answer to the proof that its answer may be released.

use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use clock::Time;
use dns_proxy::{AdmissionError, AdmissionErrorKind, Completion, ValidatedAnswer};
use enforcer::writer::{AdmissionCallback, AdmissionRequest, CommitToken, Generation, Holder};
use enforcer::{AdmitError, Committed, Element};
use fqdn_cache::{Answer, Owner};
use policy::address::Unteachable;
use tracing::{debug, warn};

use crate::plan::{Credited, Plan};

use super::{Core, lock};

/// What an answer needs under the plan in force.
pub(super) enum Step {
    /// The kernel holds everything, and may be relied on to for this long.
    Admitted(Committed, Option<CommitToken>),
    /// It has to be told of these first.
    Tell(Generation, Vec<(Element, Time)>),
}

impl Core {
    /// Learns the answer, for the bare name too if it answers a search expansion (`expanded`), and
    /// finds out what the kernel has to be told. [`evict`](Self::evict) is to follow.
    pub(super) fn step(&self, validated: &ValidatedAnswer, owner: Owner, expanded: bool) -> Step {
        let in_force = self.in_force.load();
        let (plan, generation) = (&in_force.plan, in_force.generation);
        let credited = plan.credited(&validated.name, &validated.chain, expanded);
        if validated.addresses.is_empty() || credited.is_empty() {
            return Step::Admitted(self.enforcer.admit_nothing(), None);
        }
        let (elements, ends) = self.learn(plan, validated, owner, &credited);
        if elements.is_empty() {
            return Step::Admitted(self.enforcer.admit_nothing(), None);
        }
        match self
            .enforcer
            .already_admitted(generation, &elements, self.terms.lease.grace)
        {
            Some(proof) => {
                let standing = self.enforcer.commit_token(generation, &elements);
                // The ledger's leases and the kernel's elements end at about the same time; neither
                // may be relied on for longer than the other.
                Step::Admitted(proof, standing.zip(ends).map(|(standing, ends)| standing.at_most(ends)))
            }
            None => Step::Tell(generation, elements),
        }
    }

    /// Writes the answer to the ledger, and says what it opens or closes under `plan`, and when the first of
    /// its leases ends.
    fn learn(
        &self,
        plan: &Plan,
        validated: &ValidatedAnswer,
        owner: Owner,
        credited: &[Credited<'_>],
    ) -> (Vec<(Element, Time)>, Option<Time>) {
        let teacher = plan.teacher(validated.source.ip());
        let teachable = |address: &&(IpAddr, Duration)| match plan.teachable.judge(address.0) {
            Ok(()) => true,
            // A user meets it who meant that address, and can say so.
            Err(why @ Unteachable::Private) => {
                warn!(name = %validated.name, address = %address.0, "a name may not open this address: {why}");
                false
            }
            Err(why) => {
                debug!(name = %validated.name, address = %address.0, ?why, "a name may not open this address");
                false
            }
        };
        let mut answer = Answer {
            name: validated.name.clone(),
            addresses: validated.addresses.iter().filter(teachable).copied().collect(),
            teacher,
            owner,
            terms: None,
        };
        self.answers_learned.fetch_add(1, Ordering::Relaxed);
        let now = clock::now();
        let mut elements = Vec::new();
        let mut first_end: Option<Time> = None;
        let mut left_out = 0;
        let mut ledger = lock(&self.ledger);
        for name in credited {
            answer.name = name.name.clone();
            answer.terms = plan.lease_terms(name);
            let outcome = ledger.learn(now, &answer);
            left_out = left_out.max(outcome.left_out);
            for (address, end) in outcome.leases {
                first_end = Some(first_end.map_or(end, |first| first.min(end)));
                plan.elements(name, address, teacher, |element| elements.push((element, end)));
            }
        }
        drop(ledger);
        if left_out > 0 {
            self.left_out(validated, left_out, now);
        }
        (elements, first_end)
    }

    /// Forgets what the kernel did not take: the ledger says what is open, and not what was asked
    /// for.
    fn unlearn(&self, validated: &ValidatedAnswer, expanded: bool) {
        let in_force = self.in_force.load();
        let (plan, generation) = (&in_force.plan, in_force.generation);
        let teacher = plan.teacher(validated.source.ip());
        let now = clock::now();
        for name in plan.credited(&validated.name, &validated.chain, expanded) {
            for (address, _) in &validated.addresses {
                let mut is_open = false;
                plan.elements(&name, *address, teacher, |element| {
                    let held = self
                        .enforcer
                        .already_admitted(generation, &[(element, now)], Duration::ZERO);
                    is_open |= held.is_some();
                });
                if !is_open {
                    lock(&self.ledger).retract(name.name, teacher, *address);
                }
            }
        }
    }

    /// Says that an answer has more addresses than a name may hold, so that not all of them are
    /// opened.
    fn left_out(&self, validated: &ValidatedAnswer, count: usize, now: Time) {
        let counted = u64::try_from(count).unwrap_or(u64::MAX);
        self.left_out_addresses.fetch_add(counted, Ordering::Relaxed);
        if let Some(others) = self.remarks.pass(now) {
            let answered = validated.addresses.len();
            warn!(name = %validated.name, answered, not_opened = count, others, "an answer has more addresses than --max-addresses-per-name");
        }
    }

    /// Puts admissions that found themselves stale on their way again, under the plan that has been
    /// published.
    pub(super) fn resume(self: &Arc<Self>) {
        let parked = std::mem::take(&mut *self.parked.lock().unwrap_or_else(PoisonError::into_inner));
        parked.into_iter().for_each(|waiting| waiting.again());
    }
}

/// What stood in the way, and what the client is told.
fn withheld(why: &AdmitError) -> AdmissionError {
    AdmissionError {
        kind: match why {
            AdmitError::Full { .. } => AdmissionErrorKind::Full,
            AdmitError::Rejected { .. } => AdmissionErrorKind::Refused,
            AdmitError::Stale | AdmitError::Unknown(_) => AdmissionErrorKind::TimedOut,
            AdmitError::Stopped => AdmissionErrorKind::Stopped,
        },
        reason: format!("namegate: {why}"),
    }
}

/// An answer that waits for the kernel.
pub(super) struct Waiting {
    core: Arc<Core>,
    validated: ValidatedAnswer,
    owner: Owner,
    expanded: bool,
    generation: Generation,
    /// `None` once it was used.
    completion: Option<Completion<Committed>>,
    /// Nobody waits after this.
    until: Instant,
}

impl Waiting {
    pub(super) fn new(
        core: &Arc<Core>,
        (validated, owner, expanded): (ValidatedAnswer, Owner, bool),
        completion: Completion<Committed>,
        generation: Generation,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            validated,
            owner,
            expanded,
            generation,
            completion: Some(completion),
            until: Instant::now() + core.terms.commit_deadline,
        }
    }

    /// What the enforcer is to be told.
    pub(super) fn submit(self, elements: Vec<(Element, Time)>) -> AdmissionRequest {
        AdmissionRequest {
            generation: self.generation,
            elements,
            holder: Holder(self.owner.0),
            deadline: self.core.terms.commit_deadline,
            answer: Box::new(self),
        }
    }

    /// Computes it again under the plan in force.
    fn again(mut self) {
        if self.is_abandoned() {
            return;
        }
        let step = self.core.step(&self.validated, self.owner, self.expanded);
        self.core.evict();
        match step {
            Step::Admitted(proof, _) => self.tell(Ok(proof)),
            Step::Tell(generation, elements) => {
                self.generation = generation;
                let core = Arc::clone(&self.core);
                core.enforcer.submit([self.submit(elements)]);
            }
        }
    }

    /// Waits for the plan that made its generation stale, unless that is in force already.
    pub(super) fn park(self) {
        let core = Arc::clone(&self.core);
        let mut parked = core.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // Looked at with `parked` locked: a plan that is published after this finds it there.
        if core.in_force.load().generation != self.generation {
            drop(parked);
            return self.again();
        }
        let now = Instant::now();
        parked.retain(|waiting| waiting.until > now);
        parked.push(self);
    }

    fn tell(&mut self, outcome: Result<Committed, AdmissionError>) {
        if let Some(completion) = self.completion.take() {
            completion.settle(outcome);
        }
    }
}

impl AdmissionCallback for Waiting {
    fn settle(mut self: Box<Self>, outcome: Result<Committed, AdmitError>) {
        match outcome {
            Ok(proof) => self.tell(Ok(proof)),
            Err(AdmitError::Stale) => self.park(),
            Err(error) => {
                if matches!(error, AdmitError::Full { .. } | AdmitError::Rejected { .. }) {
                    self.core.unlearn(&self.validated, self.expanded);
                }
                self.tell(Err(withheld(&error)));
            }
        }
    }

    fn is_abandoned(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl fmt::Debug for Waiting {
    /// Without the core, which holds those that are parked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("validated", &self.validated)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Drop for Waiting {
    /// Whoever drops it has found that nobody waits any more.
    fn drop(&mut self) {
        if self.completion.is_some() {
            let late = AdmitError::Unknown(self.core.terms.commit_deadline);
            self.tell(Err(withheld(&late)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_refused_is_said_to_the_client() {
        for why in [AdmitError::Stale, AdmitError::Stopped] {
            assert_eq!(withheld(&why).reason, format!("namegate: {why}"));
        }
    }
}
