//! What other threads have to say to a worker.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::listening::Listening;
use crate::flights::Landed;
use crate::gate::AdmissionError;
use crate::lookups::Key;
use crate::server::Listener;
use crate::upstream::tcp::Exchanged;

/// One thing to be told.
#[derive(Debug)]
pub(crate) enum Letter<P> {
    /// What came of an admission.
    Settled(Key, Result<P, AdmissionError>),
    /// What came of asking over TCP.
    Exchanged(Key, Exchanged),
    /// What came of a flight that the lookup waited for.
    Landed(Key, Landed),
    /// Listen there too.
    Listen(Box<Listening>),
    /// Take no more there, and answer what was taken; say when all that was queued there is taken,
    /// and counts as in flight.
    End(Listener, oneshot::Sender<()>),
    /// Stop at once.
    Stop,
}

/// Letters, and a bell that wakes who waits for them in epoll. It is rung for one who sleeps, and
/// for nobody else: a ring costs both sides a system call.
#[derive(Debug)]
pub(crate) struct Mailbox<P> {
    inside: Mutex<Inside<P>>,
    bell: OwnedFd,
}

#[derive(Debug)]
struct Inside<P> {
    letters: Vec<Letter<P>>,
    is_owner_asleep: bool,
    has_owner: bool,
}

/// Held by the owner for as long as it reads its letters. When it is dropped, those unread and all
/// that come later are dropped too: whoever waits for a sign that one was read learns so that there
/// will be none.
#[derive(Debug)]
pub(crate) struct Owner<P>(pub(crate) Arc<Mailbox<P>>);

impl<P> Mailbox<P> {
    /// Its owner is awake.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            inside: Mutex::new(Inside {
                letters: Vec::new(),
                is_owner_asleep: false,
                has_owner: true,
            }),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Readable once it was rung, until it is [silenced](Self::silence).
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    pub(crate) fn silence(&self) {
        // It has nothing to say when it was not rung.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
    }

    pub(crate) fn post(&self, letter: Letter<P>) {
        let wakes = {
            let mut inside = self.lock();
            if !inside.has_owner {
                return;
            }
            inside.letters.push(letter);
            mem::take(&mut inside.is_owner_asleep)
        };
        if wakes {
            // Fails only when the counter would overflow, and then it is readable.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Takes all letters; `into` is empty. The owner is awake.
    pub(crate) fn collect(&self, into: &mut Vec<Letter<P>>) {
        let mut inside = self.lock();
        inside.is_owner_asleep = false;
        mem::swap(&mut inside.letters, into);
    }

    /// Whether the owner may sleep, and will be woken: there are no letters.
    pub(crate) fn may_sleep(&self) -> bool {
        let mut inside = self.lock();
        inside.is_owner_asleep = inside.letters.is_empty();
        inside.is_owner_asleep
    }

    /// A push cannot leave it half-written.
    fn lock(&self) -> MutexGuard<'_, Inside<P>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Drop for Owner<P> {
    fn drop(&mut self) {
        let unread = {
            let mut inside = self.0.lock();
            inside.has_owner = false;
            mem::take(&mut inside.letters)
        };
        // Not while it is locked: a letter may have somebody write another when it is dropped.
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_rung(mailbox: &Mailbox<()>) -> bool {
        rustix::io::read(mailbox.bell(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn only_who_sleeps_is_woken_and_once() {
        let mailbox = Mailbox::<()>::new().unwrap();
        mailbox.post(Letter::Stop);
        assert!(!is_rung(&mailbox), "awake");
        assert!(!mailbox.may_sleep(), "a letter is there");
        let mut letters = Vec::new();
        mailbox.collect(&mut letters);
        assert_eq!(letters.len(), 1);
        assert!(mailbox.may_sleep());
        mailbox.post(Letter::Stop);
        assert!(is_rung(&mailbox));
        mailbox.post(Letter::Stop);
        assert!(!is_rung(&mailbox), "woken already");
        letters.clear();
        mailbox.collect(&mut letters);
        assert_eq!(letters.len(), 2);
    }

    #[test]
    fn nobody_waits_for_an_owner_that_has_ended() {
        let mailbox = Arc::new(Mailbox::<()>::new().unwrap());
        let owner = Owner(Arc::clone(&mailbox));
        let listener = Listener {
            address: "127.0.0.1:53".parse().unwrap(),
            kind: crate::ListenerKind::Plain,
        };
        let mut unread = {
            let (done, ending) = oneshot::channel();
            mailbox.post(Letter::End(listener, done));
            ending
        };
        assert_eq!(unread.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(owner);
        assert_eq!(unread.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (done, mut late) = oneshot::channel();
        mailbox.post(Letter::End(listener, done));
        assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
