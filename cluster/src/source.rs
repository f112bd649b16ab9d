//! What every source of objects does.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::kubernetes::health::SourceHealth;
use crate::object::Update;
use crate::status::StatusReporter;
use crate::status::cut_flows::CutNotice;

/// A source of objects.
pub trait ObjectSource: Send + 'static {
    /// Why the source cannot go on.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What the agent shows and runs beside the source. Called once before [`run`](Self::run).
    fn handles(&mut self) -> SourceHandles {
        SourceHandles::default()
    }

    /// Sends updates until the receiver is dropped. Transient failures are reported and retried,
    /// not returned.
    fn run(self, updates: mpsc::Sender<Update>) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// What a source offers besides its updates.
#[derive(Debug, Default)]
pub struct SourceHandles {
    /// How current the objects are, where they come from an API server.
    pub health: Option<SourceHealth>,
    /// Other clusters by name; of a directory nothing is to be said.
    pub others: Vec<(Arc<str>, Option<SourceHealth>)>,
    /// Where the agent says of whose flows it has cut, for an Event.
    pub cut_notices: Option<mpsc::UnboundedSender<CutNotice>>,
    /// The task that writes statuses into the source's objects, for the agent to spawn.
    pub status_reporter: Option<StatusReporter>,
}
