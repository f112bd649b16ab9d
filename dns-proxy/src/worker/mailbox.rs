//! The mailbox of a worker, through which other threads reach it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::connection_replies::ConnectionQuery;
use super::udp_listener::UdpListener;
use crate::completion::{AdmissionError, CompletionReceiver};
use crate::listener::Listener;
use crate::lookup_key::LookupKey;
use crate::single_flight::{FlightReceiver, FlightResult};
use crate::upstream::exchange::UpstreamExchange;

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum WorkerMessage<P> {
    /// The result of an admission.
    AdmissionSettled(LookupKey, Result<P, AdmissionError>),
    /// The result of an exchange over a connection.
    ExchangeEnded(LookupKey, UpstreamExchange),
    /// The result of the flight that this lookup waits for.
    FlightEnded(LookupKey, FlightResult),
    /// Look this up for a client's connection.
    Query(Box<ConnectionQuery>),
    /// Listen on this socket too.
    AddListener(Box<UdpListener>),
    /// Answer what waits in this socket, which receives no new lookups from now on.
    DrainListener(Box<UdpListener>),
    /// Receive no new lookups there, but answer those that were received. The worker signals when
    /// it has received all that was queued in the socket, so that all of it counts as in flight.
    RemoveListener(Listener, oneshot::Sender<()>),
    /// End the thread at once.
    Stop,
}

/// Messages, and an eventfd that wakes the owner from epoll. It is written to only while the owner
/// sleeps: each wake-up costs both sides a system call.
#[derive(Debug)]
pub(crate) struct Mailbox<P> {
    state: Mutex<MailboxState<P>>,
    wakeup: OwnedFd,
}

#[derive(Debug)]
struct MailboxState<P> {
    messages: Vec<WorkerMessage<P>>,
    is_owner_asleep: bool,
    has_owner: bool,
}

/// Held by the worker for as long as it reads its messages. When it is dropped, unread messages and
/// all later ones are dropped too, so that whoever waits for a signal from one of them learns that
/// it will not come.
#[derive(Debug)]
pub(crate) struct MailboxOwner<P>(pub(crate) Arc<Mailbox<P>>);

impl<P> Mailbox<P> {
    /// A mailbox whose owner is awake.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::new(MailboxState {
                messages: Vec::new(),
                is_owner_asleep: false,
                has_owner: true,
            }),
            wakeup: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Readable once it was written to, until it is [cleared](Self::clear_wakeup).
    pub(crate) fn wakeup(&self) -> BorrowedFd<'_> {
        self.wakeup.as_fd()
    }

    pub(crate) fn clear_wakeup(&self) {
        // There is nothing to read when it was not written to.
        let _ = rustix::io::read(&self.wakeup, &mut [0; 8]);
    }

    pub(crate) fn post(&self, message: WorkerMessage<P>) {
        let wakes = {
            let mut state = self.state.lock();
            if !state.has_owner {
                return;
            }
            state.messages.push(message);
            mem::take(&mut state.is_owner_asleep)
        };
        if wakes {
            // Fails only when the counter would overflow, and then it is readable.
            let _ = rustix::io::write(&self.wakeup, &1u64.to_ne_bytes());
        }
    }

    /// Takes all messages; `into` is empty. The owner is awake.
    pub(crate) fn take_all(&self, into: &mut Vec<WorkerMessage<P>>) {
        let mut state = self.state.lock();
        state.is_owner_asleep = false;
        mem::swap(&mut state.messages, into);
    }

    /// Whether the owner may sleep, and will be woken: there are no messages.
    pub(crate) fn prepare_to_sleep(&self) -> bool {
        let mut state = self.state.lock();
        state.is_owner_asleep = state.messages.is_empty();
        state.is_owner_asleep
    }
}

impl<P: Send> CompletionReceiver<P> for Mailbox<P> {
    fn admission_settled(&self, lookup: LookupKey, result: Result<P, AdmissionError>) {
        self.post(WorkerMessage::AdmissionSettled(lookup, result));
    }
}

impl<P: Send> FlightReceiver for Mailbox<P> {
    fn flight_ended(&self, lookup: LookupKey, result: FlightResult) {
        self.post(WorkerMessage::FlightEnded(lookup, result));
    }
}

impl<P> Drop for MailboxOwner<P> {
    fn drop(&mut self) {
        let unread = {
            let mut state = self.0.state.lock();
            state.has_owner = false;
            mem::take(&mut state.messages)
        };
        // Not while it is locked: a message may have somebody write another when it is dropped.
        drop(unread);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_woken(mailbox: &Mailbox<()>) -> bool {
        rustix::io::read(mailbox.wakeup(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn only_who_sleeps_is_woken_and_once() {
        let mailbox = Mailbox::<()>::new().unwrap();
        mailbox.post(WorkerMessage::Stop);
        assert!(!is_woken(&mailbox), "awake");
        assert!(!mailbox.prepare_to_sleep(), "a message is there");
        let mut messages = Vec::new();
        mailbox.take_all(&mut messages);
        assert_eq!(messages.len(), 1);
        assert!(mailbox.prepare_to_sleep());
        mailbox.post(WorkerMessage::Stop);
        assert!(is_woken(&mailbox));
        mailbox.post(WorkerMessage::Stop);
        assert!(!is_woken(&mailbox), "woken already");
        messages.clear();
        mailbox.take_all(&mut messages);
        assert_eq!(messages.len(), 2);
    }

    #[test]
    fn nobody_waits_for_an_owner_that_has_ended() {
        let mailbox = Arc::new(Mailbox::<()>::new().unwrap());
        let owner = MailboxOwner(Arc::clone(&mailbox));
        let listener = Listener {
            address: "127.0.0.1:53".parse().unwrap(),
            kind: crate::ListenerKind::Plain,
        };
        let mut unread = {
            let (done, ending) = oneshot::channel();
            mailbox.post(WorkerMessage::RemoveListener(listener, done));
            ending
        };
        assert_eq!(unread.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        drop(owner);
        assert_eq!(unread.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        let (done, mut late) = oneshot::channel();
        mailbox.post(WorkerMessage::RemoveListener(listener, done));
        assert_eq!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed));
    }
}
