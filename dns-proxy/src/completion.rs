//! How a gate says, later and from any thread, what came of an admission.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::gate::{AdmissionError, AdmissionErrorKind};
use crate::lookups::LookupKey;
use crate::worker::mailbox::{Mailbox, WorkerMessage};

/// The right, and the duty, to say once what came of an admission. One that is dropped says that
/// nothing came of it.
pub struct Completion<P: Send + 'static>(Option<Destination<P>>);

enum Destination<P> {
    /// A lookup of a worker.
    ActiveLookup(Arc<Mailbox<P>>, LookupKey),
    /// A task that waits.
    Task(oneshot::Sender<Result<P, AdmissionError>>),
}

impl<P: Send + 'static> Completion<P> {
    /// A completion, and where to wait for what comes of it.
    pub fn channel() -> (Self, oneshot::Receiver<Result<P, AdmissionError>>) {
        let (send, receive) = oneshot::channel();
        (Self(Some(Destination::Task(send))), receive)
    }

    pub(crate) fn for_lookup(mailbox: Arc<Mailbox<P>>, lookup: LookupKey) -> Self {
        Self(Some(Destination::ActiveLookup(mailbox, lookup)))
    }

    /// Says what came of it.
    pub fn settle(mut self, outcome: Result<P, AdmissionError>) {
        self.deliver(outcome);
    }

    fn deliver(&mut self, outcome: Result<P, AdmissionError>) {
        match self.0.take() {
            Some(Destination::ActiveLookup(mailbox, lookup)) => {
                mailbox.post(WorkerMessage::AdmissionSettled(lookup, outcome))
            }
            // Who does not wait any more needs no answer.
            Some(Destination::Task(send)) => drop(send.send(outcome)),
            None => {}
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
