//! From a validated answer to the proof that it may be released.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clock::Time;
use dns_proxy::{AdmissionError, AdmissionErrorKind, Completion, ValidatedAnswer};
use enforcer::writer::{AdmissionCallback, AdmissionRequest, CommitToken, Generation, Holder};
use enforcer::{AdmitError, Committed, Element};
use fqdn_cache::{LearnedAnswer, LeaseOwner};
use policy::address::Unteachable;
use tracing::{debug, warn};

use planner::{MatchedName, Plan};

use super::{ClientIdentity, GateCore, lookup_log};

/// What an answer needs under the plan in force, before it may be released.
pub(super) enum AdmissionStep {
    /// Nothing: the kernel holds all its elements. With the token, an equal answer is admitted
    /// without asking again for as long as the token is valid.
    Admitted(Committed, Option<CommitToken>),
    /// These elements must be committed first.
    Commit(Generation, Vec<(Element, Time)>),
}

impl GateCore {
    /// Writes the answer to the ledger and finds the elements that the kernel lacks. If it answers
    /// a search-list expansion (`expanded`), it is learned for the bare name too. The caller must
    /// call [`evict`](Self::evict) afterwards.
    pub(super) fn step(&self, validated: &ValidatedAnswer, owner: LeaseOwner, expanded: bool) -> AdmissionStep {
        let in_force = self.in_force.load();
        let (plan, generation) = (&in_force.plan, in_force.generation);
        let matched = plan.matched_names(&validated.name, &validated.chain, expanded);
        if validated.addresses.is_empty() || matched.is_empty() {
            return AdmissionStep::Admitted(self.enforcer.admit_nothing(), None);
        }
        let (elements, ends) = self.learn(plan, validated, owner, &matched);
        if elements.is_empty() {
            return AdmissionStep::Admitted(self.enforcer.admit_nothing(), None);
        }
        match self
            .enforcer
            .already_admitted(generation, &elements, self.settings.lease.grace)
        {
            Some(proof) => {
                let token = self.enforcer.commit_token(generation, &elements);
                // The ledger's leases and the kernel's elements end at about the same time. The
                // token must not outlive either.
                AdmissionStep::Admitted(proof, token.zip(ends).map(|(token, ends)| token.at_most(ends)))
            }
            None => AdmissionStep::Commit(generation, elements),
        }
    }

    /// Writes the answer to the ledger. Returns the elements that it needs under `plan`, and when
    /// the first of its leases ends.
    fn learn(
        &self,
        plan: &Plan,
        validated: &ValidatedAnswer,
        owner: LeaseOwner,
        matched: &[MatchedName<'_>],
    ) -> (Vec<(Element, Time)>, Option<Time>) {
        let teacher = plan.teacher(validated.source.ip());
        let teachable = |address: &&(IpAddr, Duration)| match plan.teachable.judge(address.0) {
            Ok(()) => true,
            // An operator who means that address can allow it, so the log names it.
            Err(why @ Unteachable::Private) => {
                warn!(name = %validated.name, address = %address.0, "a name may not open this address: {why}");
                false
            }
            Err(why) => {
                debug!(name = %validated.name, address = %address.0, ?why, "a name may not open this address");
                false
            }
        };
        let mut answer = LearnedAnswer {
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
        let mut ledger = self.ledger.lock();
        for name in matched {
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

    /// Retracts from the ledger what the kernel did not take: the ledger lists what is open, not
    /// what was asked for.
    fn unlearn(&self, validated: &ValidatedAnswer, expanded: bool) {
        let in_force = self.in_force.load();
        let (plan, generation) = (&in_force.plan, in_force.generation);
        let teacher = plan.teacher(validated.source.ip());
        let now = clock::now();
        for name in plan.matched_names(&validated.name, &validated.chain, expanded) {
            for (address, _) in &validated.addresses {
                let mut is_open = false;
                plan.elements(&name, *address, teacher, |element| {
                    let held = self
                        .enforcer
                        .already_admitted(generation, &[(element, now)], Duration::ZERO);
                    is_open |= held.is_some();
                });
                if !is_open {
                    self.ledger.lock().retract(name.name, teacher, *address);
                }
            }
        }
    }

    /// Logs that an answer has more addresses than a name may hold, so that some are not opened.
    fn left_out(&self, validated: &ValidatedAnswer, count: usize, now: Time) {
        let counted = u64::try_from(count).unwrap_or(u64::MAX);
        self.left_out_addresses.fetch_add(counted, Ordering::Relaxed);
        if let Some(others) = self.remarks.pass(now) {
            let answered = validated.addresses.len();
            warn!(name = %validated.name, answered, not_opened = count, others, "an answer has more addresses than --max-addresses-per-name");
        }
    }

    /// Computes the stale admissions again, under the plan that has just been published.
    pub(super) fn resume(self: &Arc<Self>) {
        let parked = std::mem::take(&mut *self.parked.lock());
        parked.into_iter().for_each(|waiting| waiting.again());
    }
}

/// The error of the enforcer as the proxy reports it.
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

/// An answer that waits for the kernel, or for the next plan.
pub(super) struct ParkedAdmission {
    core: Arc<GateCore>,
    identity: ClientIdentity,
    validated: ValidatedAnswer,
    owner: LeaseOwner,
    expanded: bool,
    generation: Generation,
    /// `None` once the result was delivered.
    completion: Option<Completion<Committed>>,
    /// After this the proxy no longer waits.
    until: Instant,
}

impl ParkedAdmission {
    pub(super) fn new(
        core: &Arc<GateCore>,
        identity: &ClientIdentity,
        (validated, expanded): (ValidatedAnswer, bool),
        completion: Completion<Committed>,
        generation: Generation,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            identity: identity.clone(),
            validated,
            owner: identity.owner(),
            expanded,
            generation,
            completion: Some(completion),
            until: Instant::now() + core.settings.commit_deadline,
        }
    }

    /// Waits for so long, in place of the deadline of commits.
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        self.until = Instant::now() + patience;
        self
    }

    /// The request to commit these elements; the result comes back to this admission.
    pub(super) fn submit(self, elements: Vec<(Element, Time)>) -> AdmissionRequest {
        AdmissionRequest {
            generation: self.generation,
            elements,
            holder: Holder(self.owner.0),
            deadline: self.core.settings.commit_deadline,
            answer: Box::new(self),
        }
    }

    /// Computes the admission again under the plan in force.
    fn again(mut self) {
        if self.is_abandoned() {
            return;
        }
        let step = self.core.step(&self.validated, self.owner, self.expanded);
        self.core.evict();
        match step {
            AdmissionStep::Admitted(proof, _) => {
                self.core
                    .released(&self.identity, &self.validated, "the kernel holds its addresses");
                self.tell(Ok(proof));
            }
            AdmissionStep::Commit(generation, elements) => {
                self.generation = generation;
                let core = Arc::clone(&self.core);
                core.enforcer.submit([self.submit(elements)]);
            }
        }
    }

    /// Waits until the plan that made its generation stale is published, unless it already is.
    pub(super) fn park(self) {
        let core = Arc::clone(&self.core);
        let mut parked = core.parked.lock();
        // Checked with `parked` locked, so that a plan published after this finds the admission
        // there.
        if core.in_force.load().generation != self.generation {
            drop(parked);
            return self.again();
        }
        lookup_log::waits(&self.identity, &self.validated, "the next plan");
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

impl AdmissionCallback for ParkedAdmission {
    fn settle(mut self: Box<Self>, outcome: Result<Committed, AdmitError>) {
        match outcome {
            Ok(proof) => {
                self.core
                    .released(&self.identity, &self.validated, "the kernel has taken its addresses");
                self.tell(Ok(proof));
            }
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

impl fmt::Debug for ParkedAdmission {
    /// Leaves out the core, which holds the parked admissions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedAdmission")
            .field("validated", &self.validated)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl Drop for ParkedAdmission {
    /// Whoever drops a pending admission has found that the proxy no longer waits.
    fn drop(&mut self) {
        if self.completion.is_some() {
            let late = AdmitError::Unknown(self.core.settings.commit_deadline);
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
