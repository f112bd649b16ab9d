//! The thread: drains the queue, keeps the heartbeat.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use fqdn_cache::Time;
use tokio::sync::oneshot;

use super::book::Phase;
use super::commit::Admission;
use super::install::Installation;
use super::kernel::{Kernel, NfTables};
use super::plan::Pass;
use super::{Renewal, Shared, clock};
use crate::desired::Desired;
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
    /// What was last installed, unless the table was lost since.
    pub(super) installed: Option<Desired>,
    /// When the heart beats next; not before the first installation, and not while the table is lost.
    pub(super) next_beat: Option<Time>,
}

impl Writer<NfTables> {
    /// Serves the queue until it is told to stop, or no handle is left.
    pub(super) fn run(mut self, inbox: &Receiver<Request>) {
        while let ControlFlow::Continue(()) = self.turn(inbox) {}
        self.shared.book().phase = Phase::Stopped;
        self.shared.begin_epoch();
    }

    /// Waits for something to do, and does all that waits.
    fn turn(&mut self, inbox: &Receiver<Request>) -> ControlFlow<()> {
        let pause = self.next_beat.map_or(BEAT, |beat| beat.since(clock::now()));
        let mut next = match inbox.recv_timeout(pause) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return ControlFlow::Break(()),
        };
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
        match self.kernel.commit(&heartbeat(self.renewal.passes())) {
            Ok(()) => {}
            Err(CommitError::Refused(refusals)) if refusals.iter().any(|refusal| refusal.errno == libc::ENOENT) => {
                self.table_is_lost();
            }
            Err(error) => tracing::warn!(?error, "the heartbeat was not renewed"),
        }
    }

    /// Ends interception at once in fail-mode open.
    fn stop_beating(&mut self) {
        if self.next_beat.take().is_none() {
            return;
        }
        // Added first, because deleting what is not there would be an error.
        if let Err(error) = self.kernel.commit(&heartbeat(&[Pass::Add, Pass::Delete])) {
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

/// These steps for all elements of the heartbeat.
fn heartbeat(passes: &[Pass]) -> Vec<Operation> {
    let set: Arc<str> = ALIVE_SET.into();
    let mut operations = Vec::new();
    for pass in passes {
        operations.extend(ALIVE_PROTOCOLS.map(|protocol| Operation {
            set: Arc::clone(&set),
            key: Key::from_slice(&[protocol]),
            verb: match pass {
                Pass::Add => Verb::Add(ALIVE),
                Pass::Delete => Verb::Delete,
            },
        }));
    }
    operations
}
