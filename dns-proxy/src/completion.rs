//! How a gate delivers, later and from any thread, the result of an admission.

use std::fmt;
use std::sync::Arc;

use crate::lookup_key::LookupKey;

/// Why an answer may not be released. The client gets SERVFAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionError {
    /// The kind of error, for metrics.
    pub kind: AdmissionErrorKind,
    /// One line for the log and for the extended error of the reply.
    pub reason: String,
}

/// The kind of an [`AdmissionError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdmissionErrorKind {
    /// A set of the kernel has no room for its addresses.
    Full,
    /// The kernel refused its addresses.
    Refused,
    /// The kernel did not take its addresses in time.
    TimedOut,
    /// The writer to the kernel has stopped.
    Stopped,
}

/// Receives the results of admissions for the lookups of one worker.
pub(crate) trait CompletionReceiver<P>: Send + Sync {
    /// Hands over the result of this lookup's admission. Any thread may call it.
    fn admission_settled(&self, lookup: LookupKey, result: Result<P, AdmissionError>);
}

/// Delivers the result of one admission, exactly once. One that is dropped delivers an error.
pub struct Completion<P: Send + 'static>(Option<(Arc<dyn CompletionReceiver<P>>, LookupKey)>);

impl<P: Send + 'static> Completion<P> {
    pub(crate) fn for_lookup(receiver: Arc<dyn CompletionReceiver<P>>, lookup: LookupKey) -> Self {
        Self(Some((receiver, lookup)))
    }

    /// Delivers the result.
    pub fn settle(mut self, result: Result<P, AdmissionError>) {
        self.deliver(result);
    }

    fn deliver(&mut self, result: Result<P, AdmissionError>) {
        if let Some((receiver, lookup)) = self.0.take() {
            receiver.admission_settled(lookup, result);
        }
    }
}

impl<P: Send + 'static> Drop for Completion<P> {
    fn drop(&mut self) {
        self.deliver(Err(AdmissionError {
            kind: AdmissionErrorKind::Stopped,
            reason: "the addresses were not admitted".into(),
        }));
    }
}

impl<P: Send + 'static> fmt::Debug for Completion<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Completion")
    }
}
