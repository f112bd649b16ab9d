//! What a worker tells all its connections. Everything here stays on one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::Waker;

use tokio::sync::watch;

/// The connections of a worker.
pub(super) struct WorkerSignals {
    members: RefCell<HashMap<u64, Rc<Member>>>,
    next: Cell<u64>,
    drains: watch::Sender<bool>,
}

#[derive(Default)]
struct Member {
    judges_again: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// One connection's part in it, until it is dropped.
pub(super) struct SignalListener {
    signals: Rc<WorkerSignals>,
    number: u64,
    member: Rc<Member>,
}

impl Default for WorkerSignals {
    fn default() -> Self {
        Self {
            members: RefCell::default(),
            next: Cell::default(),
            drains: watch::Sender::new(false),
        }
    }
}

impl WorkerSignals {
    pub(super) fn join(self: &Rc<Self>) -> SignalListener {
        let number = self.next.get();
        self.next.set(number + 1);
        let member = Rc::new(Member::default());
        self.members.borrow_mut().insert(number, Rc::clone(&member));
        SignalListener {
            signals: Rc::clone(self),
            number,
            member,
        }
    }

    /// Every connection is judged again.
    pub(super) fn judge_again(&self) {
        for member in self.members.borrow().values() {
            member.judges_again.set(true);
        }
        self.wake_all();
    }

    /// Every connection ends as soon as that loses nothing, and no other is taken.
    pub(super) fn drain(&self) {
        self.drains.send_replace(true);
        self.wake_all();
    }

    /// Returns when the worker drains.
    pub(super) async fn draining(&self) {
        // The sender lives as long as `self`.
        let _ = self.drains.subscribe().wait_for(|drains| *drains).await;
    }

    fn wake_all(&self) {
        for member in self.members.borrow().values() {
            if let Some(waker) = &*member.waker.borrow() {
                waker.wake_by_ref();
            }
        }
    }
}

impl SignalListener {
    /// Whether the connection is to be judged again; says so once.
    pub(super) fn judges_again(&self) -> bool {
        self.member.judges_again.take()
    }

    pub(super) fn drains(&self) -> bool {
        *self.signals.drains.borrow()
    }

    /// Whom to wake when there is something to be told.
    pub(super) fn wakes(&self, waker: &Waker) {
        let mut known = self.member.waker.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        self.signals.members.borrow_mut().remove(&self.number);
    }
}
