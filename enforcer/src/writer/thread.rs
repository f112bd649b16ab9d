//! The thread: drains the queue, keeps the heartbeat.

use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use fqdn_cache::Time;
use tokio::sync::oneshot;

use super::baton::Baton;
use super::book::Phase;
use super::commit::Admission;
use super::install::Installation;
use super::kernel::{Kernel, NfTables};
use super::plan::Pass;
use super::{Renewal, Shared, clock};
use crate::desired::{Desired, Interception};
use crate::layout::{ALIVE_PROTOCOLS, ALIVE_SET};
use crate::netlink::batch::{Key, Operation, Verb};
use crate::netlink::socket::CommitError;

/// How often the heartbeat is renewed.
const BEAT: Duration = Duration::from_secs(1);

/// How long the kernel believes us alive without a beat. In fail-mode open this is how long lookups go unanswered after the
/// agent died; shorter, and a busy moment would open the way past us.
const ALIVE: Duration = Duration::from_secs(4);

/// A transaction takes in no more admissions once it has this many elements: a hundred elements take 0.1 ms, and the first
/// in line should not wait for the thousandth.
const GROUP: usize = 4096;

/// What is asked of the writer.
pub(super) enum Request {
    Admit(Vec<Admission>),
    Install(Box<Installation>),
    StopHeartbeat(oneshot::Sender<()>),
    ShutDown(oneshot::Sender<()>),
}

/// The writer's state.
#[derive(Debug)]
pub(super) struct Writer<K> {
    pub(super) kernel: K,
    pub(super) shared: Arc<Shared>,
    pub(super) renewal: Renewal,
    /// What is in force, unless the table was lost since, or an installation failed and left it unclear.
    pub(super) installed: Option<Desired>,
    /// The way of interception that routing was last set up for.
    pub(super) interception: Option<Interception>,
    /// When the heart beats next; not before the first installation, and not while the table is lost.
    pub(super) next_beat: Option<Time>,
    /// Which of the agents that overlap in an upgrade this is: a key of its own in the set of the heartbeat.
    pub(super) mark: u8,
}

/// Keys of the heartbeat's set that stand for agents: numbers of protocols that nobody has, so that they let nothing be intercepted.
const MARKS: std::ops::RangeInclusive<u8> = 150..=252;

/// One of [`MARKS`] by chance, but none that another agent has.
pub(super) fn mark(taken: &[u8]) -> u8 {
    let chance = std::collections::hash_map::RandomState::new().hash_one(());
    let span = u64::from(MARKS.end() - MARKS.start()) + 1;
    // Below the span, which came from a u8.
    let nth = |step: u64| MARKS.start() + u8::try_from((chance % span + step) % span).unwrap_or(0);
    (0..span)
        .map(nth)
        .find(|mark| !taken.contains(mark))
        .unwrap_or(*MARKS.start())
}

/// Serves the queue until it is told to stop, or no handle is left.
pub(super) fn run(baton: &Baton<Writer<NfTables>>, inbox: &Receiver<Request>) {
    let mut pause = BEAT;
    loop {
        let request = match inbox.recv_timeout(pause) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut writer = baton.take();
        if writer.turn(request, inbox).is_break() {
            writer.end();
            return writer.give_up();
        }
        pause = writer.next_beat.map_or(BEAT, |beat| beat.since(clock::now()));
    }
    baton.take().end();
}

impl Writer<NfTables> {
    /// Does all that waits.
    fn turn(&mut self, request: Option<Request>, inbox: &Receiver<Request>) -> ControlFlow<()> {
        let mut next = request;
        while let Some(request) = next.take() {
            match request {
                Request::Admit(first) => {
                    let group;
                    (group, next) = gather(first, inbox);
                    self.commit_group(group);
                }
                Request::Install(installation) => self.install(*installation),
                Request::StopHeartbeat(done) => {
                    self.stop_beating();
                    let _ = done.send(());
                }
                Request::ShutDown(done) => {
                    self.stop_beating();
                    let _ = done.send(());
                    return ControlFlow::Break(());
                }
            }
        }
        self.shared.book().purge(clock::now());
        self.beat_if_due();
        ControlFlow::Continue(())
    }

    /// Nobody writes any more.
    fn end(&self) {
        self.shared.book().phase = Phase::Stopped;
        self.shared.begin_epoch();
    }
}

/// Takes further admissions out of the queue, as far as they wait; also returns what was met that is none.
fn gather(mut group: Vec<Admission>, inbox: &Receiver<Request>) -> (Vec<Admission>, Option<Request>) {
    let count = |admissions: &[Admission]| admissions.iter().map(|it| it.elements.len()).sum::<usize>();
    let mut elements = count(&group);
    while elements < GROUP {
        match inbox.try_recv() {
            Ok(Request::Admit(admissions)) => {
                elements += count(&admissions);
                group.extend(admissions);
            }
            Ok(other) => return (group, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (group, None)
}

impl<K: Kernel> Writer<K> {
    /// Renews the heartbeat when it is time.
    fn beat_if_due(&mut self) {
        if self.next_beat.is_some_and(|due| due <= clock::now()) {
            self.beat();
        }
    }

    /// Renews the heartbeat, if it has begun.
    pub(super) fn beat(&mut self) {
        if self.next_beat.is_none() {
            return;
        }
        self.next_beat = Some(clock::now() + BEAT);
        let [tcp, udp] = ALIVE_PROTOCOLS;
        let keys = [tcp, udp, self.mark];
        match self.kernel.commit(&heartbeat(&keys, self.renewal.passes())) {
            Ok(()) => {}
            Err(CommitError::Refused(refusals)) if refusals.iter().any(|refusal| refusal.errno == libc::ENOENT) => {
                self.table_is_lost();
            }
            Err(error) => tracing::warn!(?error, "the heartbeat was not renewed"),
        }
    }

    /// Ends interception at once in fail-mode open, unless another agent has taken over and goes on beating.
    fn stop_beating(&mut self) {
        if self.next_beat.take().is_none() {
            return;
        }
        if let Err(error) = self.kernel.commit(&heartbeat(&[self.mark], &[Pass::Add, Pass::Delete])) {
            tracing::warn!(?error, "this agent's own mark was not removed");
        }
        match self.kernel.heartbeats() {
            Ok(keys) if keys.iter().any(|key| MARKS.contains(key) && *key != self.mark) => {
                tracing::info!("another agent serves on; lookups stay intercepted");
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "it cannot be told whether another agent serves on"),
        }
        // Added first, because deleting what is not there would be an error.
        if let Err(error) = self
            .kernel
            .commit(&heartbeat(&ALIVE_PROTOCOLS, &[Pass::Add, Pass::Delete]))
        {
            tracing::warn!(?error, "the heartbeat was not removed; it ends within {ALIVE:?}");
        }
    }

    /// Somebody removed the table, or sets from it: nothing that we believe of it holds.
    pub(super) fn table_is_lost(&mut self) {
        tracing::error!("the table was removed from outside; egress is open until it is installed again");
        self.shared.book().forget();
        self.shared.begin_epoch();
        self.installed = None;
        self.next_beat = None;
        self.shared.table_lost.notify_one();
    }
}

/// These steps for elements of the heartbeat.
fn heartbeat(keys: &[u8], passes: &[Pass]) -> Vec<Operation> {
    let set: Arc<str> = ALIVE_SET.into();
    let mut operations = Vec::new();
    for pass in passes {
        operations.extend(keys.iter().map(|key| Operation {
            set: Arc::clone(&set),
            key: Key::from_slice(&[*key]),
            verb: match pass {
                Pass::Add => Verb::Add(ALIVE),
                Pass::Delete => Verb::Delete,
            },
        }));
    }
    operations
}
