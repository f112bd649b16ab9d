//! What the reconcile loop has to do, which changes when the agent is about to end.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

/// What the loop does with what it hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReconcilerPart {
    /// It puts it in force.
    Enforces,
    /// The agent is about to end: nothing.
    Waits,
    /// Another agent keeps the rules: by what is heard, connections are judged again that are still
    /// looked into here.
    Judges,
}

/// The side of who gives the part.
#[derive(Debug)]
pub struct PartGiver {
    part: watch::Sender<ReconcilerPart>,
    turn: Arc<Mutex<()>>,
}

/// The loop's side.
#[derive(Debug)]
pub struct PartTaker {
    part: watch::Receiver<ReconcilerPart>,
    /// Held while something is put in force.
    pub(crate) turn: Arc<Mutex<()>>,
}

/// Both sides, with [`ReconcilerPart::Enforces`].
pub fn pair() -> (PartGiver, PartTaker) {
    let (part, taken) = watch::channel(ReconcilerPart::Enforces);
    let turn = Arc::default();
    let taker = PartTaker {
        part: taken,
        turn: Arc::clone(&turn),
    };
    (PartGiver { part, turn }, taker)
}

impl PartGiver {
    /// Gives another part. Once this resolves, nothing is put in force by a former one.
    pub async fn give(&self, part: ReconcilerPart) {
        self.part.send_replace(part);
        drop(self.turn.lock().await);
    }
}

impl PartTaker {
    /// The part of now.
    pub(crate) fn now(&self) -> ReconcilerPart {
        *self.part.borrow()
    }

    /// Resolves when there is another one. Never once nobody can give it.
    pub(crate) async fn changed(&mut self) {
        if self.part.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
