//! What every source of objects does.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::sync::watch::Receiver;

use crate::kubernetes::health::SourceHealth;
use crate::object::Update;
use crate::progress::Progress;

/// A source of objects.
pub trait ObjectSource: Send + 'static {
    /// Why it cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Called once before [`run`](Self::run): a source may tell its objects' authors what became of
    /// them, and how current they are.
    fn attend(&mut self, _progress: Receiver<Progress>) -> Option<SourceHealth> {
        None
    }

    /// Sends updates until the receiver is dropped. Transient trouble is reported and retried, not
    /// returned.
    fn run(self, updates: mpsc::Sender<Update>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
