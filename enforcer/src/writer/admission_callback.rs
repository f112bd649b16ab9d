//! Who is told what came of an admission.

use tokio::sync::oneshot;

use super::error::AdmitError;
use super::proof::Committed;

/// Receives the outcome of an admission, once. It is called by whoever commits: the writer's
/// thread, or the caller of [`submit`](super::Enforcer::submit) before that returns. It must be
/// quick, because other admissions wait behind it.
pub trait AdmissionCallback: Send {
    /// Takes the outcome.
    fn settle(self: Box<Self>, outcome: Result<Committed, AdmitError>);

    /// Whether nobody waits for the outcome any more; then the admission is dropped.
    fn is_abandoned(&self) -> bool;
}

impl AdmissionCallback for oneshot::Sender<Result<Committed, AdmitError>> {
    fn settle(self: Box<Self>, outcome: Result<Committed, AdmitError>) {
        // A caller whose deadline has passed does not listen any more; the mirror has the outcome.
        let _ = self.send(outcome);
    }

    fn is_abandoned(&self) -> bool {
        self.is_closed()
    }
}
