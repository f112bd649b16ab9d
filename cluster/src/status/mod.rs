//! What became of policies, written into them: conditions `Valid` and `Programmed`, and Events for
//! those that fail.
//!
//! Thousands of agents see the same policies, and what one of them writes into a policy all others
//! are told. So the rule is: **what all would write, one writes; what a node alone knows, it writes
//! only when it is bad news; and nobody writes what stands there already.** ARCHITECTURE.md says
//! why there is no leader.
//!
//! - [`conditions`]: what is to stand in a policy's status. Pure.
//! - [`turns`]: who writes, and when. Pure.
//! - [`book`]: every policy, with what is due. Pure.
//! - `pace`: how fast one agent writes. Pure.
//! - `writer`: the API server.
//! - `events`: which Events are the same.

pub mod book;
pub mod conditions;
pub mod turns;

mod events;
mod pace;
mod writer;

use std::collections::BTreeSet;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::kubernetes::picture::PolicyNews;
use crate::progress::Progress;

use book::Book;
use pace::Pace;
use writer::Writer;

/// Writes of one agent that wait for the API server at the same time. One takes tens of
/// milliseconds, most of them the disk's.
const IN_FLIGHT: usize = 4;

/// What is new for whoever writes statuses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// Policies that were seen anew.
    pub policies: Vec<PolicyNews>,
    /// The nodes that exist, where they changed.
    pub nodes: Option<BTreeSet<String>>,
}

/// Writes statuses and Events until there is no more news. Trouble with the API server is waited
/// out: nothing else depends on this task.
pub async fn run(
    client: Client,
    node: String,
    mut progress: watch::Receiver<Progress>,
    mut news: mpsc::UnboundedReceiver<News>,
) {
    let writer = Writer::new(client, &node);
    let mut book = Book::new(node);
    let mut pace = Pace::new(Instant::now());
    let mut writing = FuturesUnordered::new();
    loop {
        let due = book
            .due()
            .filter(|_| writing.len() < IN_FLIGHT)
            .map(|due| due.max(pace.next()));
        tokio::select! {
            heard = news.recv() => match heard {
                Some(heard) => book.hear(heard, Instant::now()),
                None => return,
            },
            Ok(()) = progress.changed() => {
                let progress = progress.borrow_and_update();
                // Policies that somebody else has taken out of the kernel are not in force either.
                let failure = progress.failure.as_ref().or(progress.damage.as_ref());
                book.progress(progress.updates_in_force, failure.cloned(), Instant::now());
            }
            Some((policy, outcome)) = writing.next() => book.done(&policy, outcome, Instant::now()),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                if let Some(task) = book.next(Instant::now()) {
                    pace.write(Instant::now());
                    writing.push(async {
                        let outcome = writer.write(&task).await;
                        (task.policy, outcome)
                    });
                }
            }
        }
    }
}
