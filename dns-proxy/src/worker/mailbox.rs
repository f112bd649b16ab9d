//! What other threads have to say to a worker.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::listening::Listening;
use crate::gate::NotAdmitted;
use crate::lookups::Key;
use crate::server::Listener;
use crate::upstream::tcp::Exchanged;

/// One thing to be told.
#[derive(Debug)]
pub(crate) enum Letter<P> {
    /// What came of an admission.
    Settled(Key, Result<P, NotAdmitted>),
    /// What came of asking over TCP.
    Exchanged(Key, Exchanged),
    /// Listen there too.
    Listen(Box<Listening>),
    /// Take no more there, and answer what was taken.
    End(Listener),
    /// Stop at once.
    Stop,
}

/// Letters, and a bell that wakes who waits for them in epoll.
#[derive(Debug)]
pub(crate) struct Mailbox<P> {
    letters: Mutex<Vec<Letter<P>>>,
    bell: OwnedFd,
}

impl<P> Mailbox<P> {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            letters: Mutex::default(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Readable when there is something to read.
    pub(crate) fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Rings only for the first letter since the last [`collect`](Self::collect): a transaction settles a hundred lookups at once.
    pub(crate) fn post(&self, letter: Letter<P>) {
        let first = {
            let mut letters = self.lock();
            letters.push(letter);
            letters.len() == 1
        };
        if first {
            // Fails only when the counter would overflow, and then it is readable.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// Takes all letters; `into` is empty.
    pub(crate) fn collect(&self, into: &mut Vec<Letter<P>>) {
        // Before the letters are taken: a ring after this belongs to a letter that comes after them.
        let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        mem::swap(&mut *self.lock(), into);
    }

    /// A push cannot leave it half-written.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Letter<P>>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
