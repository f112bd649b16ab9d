//! Who is told what came of an admission.

use tokio::sync::oneshot;

use super::error::AdmitError;
use super::proof::Committed;

/// Who is told what came of an admission. It is told once, by whoever committed: the writer's
/// thread, or the caller of [`submit`](super::Enforcer::submit) before it returns. What it does
/// must be short.
pub trait AdmissionCallback: Send {
    /// What came of it.
    fn settle(self: Box<Self>, outcome: Result<Committed, AdmitError>);

    /// Whether nobody waits for it any more: then the work is not done.
    fn is_abandoned(&self) -> bool;
}

impl AdmissionCallback for oneshot::Sender<Result<Committed, AdmitError>> {
    fn settle(self: Box<Self>, outcome: Result<Committed, AdmitError>) {
        // A caller whose deadline has passed does not listen any more; the book knows the outcome.
        let _ = self.send(outcome);
    }

    fn is_abandoned(&self) -> bool {
        self.is_closed()
    }
}
