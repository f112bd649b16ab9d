//! Admissions as callers hand them in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clock::Time;
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};

use crate::layout::Element;

use super::admission_callback::AdmissionCallback;
use super::error::AdmitError;
use super::generation::Generation;
use super::pending_admission::PendingAdmission;
use super::proof::Committed;
use super::set_mirror::Holder;

/// An admission with more elements is committed in parts of this size.
const PART: usize = 4096;

/// Elements to be put into the kernel, and who waits for that.
pub struct AdmissionRequest {
    /// The rules under which the elements were computed.
    pub generation: Generation,
    /// The elements, each with the end of its lease.
    pub elements: Vec<(Element, Time)>,
    /// The holder, whose elements are evicted first where it holds most of a full set.
    pub holder: Holder,
    /// How long the caller waits; only for the text of an error.
    pub deadline: Duration,
    /// Receives the outcome.
    pub answer: Box<dyn AdmissionCallback>,
}

impl AdmissionRequest {
    pub(super) fn into_admissions(mut self) -> SmallVec<[PendingAdmission; 1]> {
        put_in_order(&mut self.elements);
        let admission = |elements, answer| PendingAdmission {
            generation: self.generation,
            elements,
            holder: self.holder,
            deadline: self.deadline,
            answer,
        };
        if self.elements.len() <= PART {
            return smallvec![admission(self.elements, self.answer)];
        }
        let parts: Vec<_> = self.elements.chunks(PART).map(<[_]>::to_vec).collect();
        let whole = Arc::new(Mutex::new(SplitAdmission {
            left: parts.len(),
            error: None,
            answer: Some(self.answer),
        }));
        let part = |elements| {
            admission(
                elements,
                Box::new(SplitPart(Arc::clone(&whole))) as Box<dyn AdmissionCallback>,
            )
        };
        parts.into_iter().map(part).collect()
    }
}

/// Sorts the elements and keeps each once, with its latest end.
pub(super) fn put_in_order(elements: &mut Vec<(Element, Time)>) {
    elements.sort_unstable_by(|(a, a_end), (b, b_end)| a.cmp(b).then(b_end.cmp(a_end)));
    elements.dedup_by_key(|(element, _)| *element);
}

impl fmt::Debug for AdmissionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("generation", &self.generation)
            .field("elements", &self.elements)
            .finish_non_exhaustive()
    }
}

/// An admission that was split into parts.
struct SplitAdmission {
    left: usize,
    /// The error of the first part that failed.
    error: Option<AdmitError>,
    answer: Option<Box<dyn AdmissionCallback>>,
}

struct SplitPart(Arc<Mutex<SplitAdmission>>);

impl AdmissionCallback for SplitPart {
    fn settle(self: Box<Self>, outcome: Result<Committed, AdmitError>) {
        let mut whole = self.0.lock();
        whole.left -= 1;
        let outcome = match outcome {
            Ok(proof) => whole.error.take().map_or(Ok(proof), Err),
            Err(error) => Err(whole.error.take().unwrap_or(error)),
        };
        if whole.left > 0 {
            whole.error = outcome.err();
        } else if let Some(answer) = whole.answer.take() {
            answer.settle(outcome);
        }
    }

    fn is_abandoned(&self) -> bool {
        let whole = self.0.lock();
        whole.answer.as_ref().is_none_or(|answer| answer.is_abandoned())
    }
}
