//! An admission that waits for its transaction.

use std::time::Duration;

use clock::Time;

use crate::layout::Element;

use super::admission_callback::AdmissionCallback;
use super::error::AdmitError;
use super::generation::Generation;
use super::proof::Committed;
use super::set_mirror::Holder;

/// An admission that waits.
pub(super) struct PendingAdmission {
    pub(super) generation: Generation,
    /// Each element once, in order.
    pub(super) elements: Vec<(Element, Time)>,
    /// The holder of the elements.
    pub(super) holder: Holder,
    /// How long the caller waits; only for the text of an error.
    pub(super) deadline: Duration,
    pub(super) answer: Box<dyn AdmissionCallback>,
}

impl PendingAdmission {
    pub(super) fn settle(self, result: Result<Committed, AdmitError>) {
        self.answer.settle(result);
    }
}
