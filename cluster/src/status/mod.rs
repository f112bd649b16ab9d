//! What became of policies, written into them: conditions `Valid` and `Programmed`, and Events for
//! those that fail. And Events of this node, when something in its kernel was repaired, and of its
//! pods, when flows of theirs were cut.
//!
//! Thousands of agents see the same policies, and what one of them writes into a policy all others
//! are told. So the rule is: **what all would write, one writes; what a node alone knows, it writes
//! only when it is bad news; and nobody writes what stands there already.** DESIGN.md says
//! why there is no leader.
//!
//! - [`conditions`]: what is to stand in a policy's status. Pure.
//! - [`rendezvous`]: which node writes, and when. Pure.
//! - [`queue`]: every policy, with what is due. Pure.
//! - `rate_limit`: how fast one agent writes. Pure.
//! - [`cut_flows`]: what is told of flows that were cut. Pure.
//! - `writer`: the API server.
//! - `events`: which Events are the same.

pub mod conditions;
pub mod cut_flows;
pub mod queue;
pub mod rendezvous;

mod events;
mod rate_limit;
mod writer;

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::kubernetes::client::Access;
use crate::kubernetes::watch_cache::PolicyEvent;
use crate::progress::Progress;

use cut_flows::{CutEvents, CutNotice};
use queue::StatusQueue;
use rate_limit::WriteRateLimit;
use writer::StatusWriter;

/// Writes of one agent that wait for the API server at the same time. One takes tens of
/// milliseconds, most of them the disk's.
const IN_FLIGHT: usize = 4;

/// What the writer of statuses is told by a source.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StatusInput {
    /// Policies that were observed, changed or not.
    pub policies: Vec<PolicyEvent>,
    /// The nodes that exist, where they changed.
    pub nodes: Option<BTreeSet<String>>,
}

/// Writes statuses and Events of one source's policies, once it is [run](Self::run).
#[derive(Debug)]
pub struct StatusReporter {
    access: Access,
    node: String,
    input: mpsc::UnboundedReceiver<StatusInput>,
    cuts: mpsc::UnboundedReceiver<CutNotice>,
}

impl StatusReporter {
    pub(crate) fn new(
        access: Access,
        node: String,
        input: mpsc::UnboundedReceiver<StatusInput>,
        cuts: mpsc::UnboundedReceiver<CutNotice>,
    ) -> Self {
        Self {
            access,
            node,
            input,
            cuts,
        }
    }

    /// Runs until the source ends. Failures of the API server are waited out: nothing else depends
    /// on this task.
    pub async fn run(self, progress: watch::Receiver<Progress>) {
        match self.access.client() {
            Ok(client) => run(client, self.node, progress, self.input, self.cuts).await,
            // The source needs a client too, and ends with the same error.
            Err(error) => debug!(%error, "no statuses are written"),
        }
    }
}

async fn run(
    client: Client,
    node: String,
    progress: watch::Receiver<Progress>,
    news: mpsc::UnboundedReceiver<StatusInput>,
    cuts: mpsc::UnboundedReceiver<CutNotice>,
) {
    let writer = StatusWriter::new(client, &node);
    tokio::select! {
        () = write_statuses(&writer, node.clone(), progress.clone(), news) => {}
        () = tell_repairs(&writer, &node, progress) => {}
        () = tell_cuts(&writer, cuts) => {}
    }
}

/// Never ends.
async fn tell_cuts(writer: &StatusWriter, mut cuts: mpsc::UnboundedReceiver<CutNotice>) {
    let mut events = CutEvents::default();
    loop {
        let due = events.due();
        tokio::select! {
            Some(notice) = cuts.recv() => events.take(notice),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(notice) = events.next(Instant::now()) {
                    writer.tell_cut(&notice).await;
                }
            }
            else => return std::future::pending().await,
        }
    }
}

/// Never ends.
async fn tell_repairs(writer: &StatusWriter, node: &str, mut progress: watch::Receiver<Progress>) {
    let mut told = 0;
    loop {
        let repair = progress.borrow_and_update().repair.clone();
        if let Some((what, count)) = repair.filter(|(_, count)| *count > told) {
            told = count;
            writer.tell_repair(node, &what).await;
        }
        if progress.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn write_statuses(
    writer: &StatusWriter,
    node: String,
    mut progress: watch::Receiver<Progress>,
    mut inputs: mpsc::UnboundedReceiver<StatusInput>,
) {
    let mut queue = StatusQueue::new(node);
    let mut rate_limit = WriteRateLimit::new(Instant::now());
    let mut writing = FuturesUnordered::new();
    loop {
        let due = queue
            .due()
            .filter(|_| writing.len() < IN_FLIGHT)
            .map(|due| due.max(rate_limit.next()));
        tokio::select! {
            input = inputs.recv() => match input {
                Some(input) => queue.observe(input, Instant::now()),
                None => return,
            },
            Ok(()) = progress.changed() => {
                let progress = progress.borrow_and_update();
                // Policies that somebody else has taken out of the kernel are not in force either.
                let failure = progress.failure.as_ref().or(progress.damage.as_ref());
                queue.progress(progress.updates_in_force, failure.cloned(), Instant::now());
            }
            Some((policy, outcome)) = writing.next() => queue.done(&policy, outcome, Instant::now()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(write) = queue.next(Instant::now()) {
                    rate_limit.write(Instant::now());
                    writing.push(async {
                        let outcome = writer.write(&write).await;
                        (write.policy, outcome)
                    });
                }
            }
        }
    }
}
