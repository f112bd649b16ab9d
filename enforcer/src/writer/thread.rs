//! The thread: drains the queue.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::desired::{DesiredState, Interception};

use super::commit::PendingAdmission;
use super::guard::TableGuard;
use super::heartbeat::{Heartbeat, StopOnDrop};
use super::install::InstallRequest;
use super::kernel::{Kernel, NfTables};
use super::set_mirror::AdmissionPhase;
use super::sweep::Sweeps;
use super::writer_slot::WriterSlot;
use super::{Renewal, WriterShared};

/// A transaction takes in no more admissions once it has this many elements: a hundred elements
/// take 0.1 ms, and the first in line should not wait for the thousandth.
const GROUP: usize = 4096;

/// What is asked of the writer.
pub(super) enum WriterRequest {
    Admit(Vec<PendingAdmission>),
    Install(Box<InstallRequest>),
    /// Answered with whether it is done; if not, it is to be asked again.
    StopHeartbeat(oneshot::Sender<bool>),
    ShutDown(oneshot::Sender<()>),
}

/// The writer's state.
#[derive(Debug)]
pub(super) struct KernelWriter<K> {
    pub(super) kernel: K,
    pub(super) shared: Arc<WriterShared>,
    pub(super) renewal: Renewal,
    /// What is in force, unless the table was lost since, or an installation failed and left it
    /// unclear.
    pub(super) installed: Option<DesiredState>,
    /// The way of interception that routing was last set up for.
    pub(super) interception: Option<Interception>,
    pub(super) heartbeat: Arc<Heartbeat<K>>,
    pub(super) sweeps: Sweeps,
    /// Notices what others do to the table, and repairs it; `None` where nobody asked for that.
    pub(super) guard: Option<Box<TableGuard>>,
}

/// How often the thread tidies up when nothing is asked of it.
const TIDY: Duration = Duration::from_secs(1);

/// Serves the queue until it is told to stop, or no handle is left. Then the heart stops too.
pub(super) fn run(
    writer_slot: &WriterSlot<KernelWriter<NfTables>>,
    inbox: &Receiver<WriterRequest>,
    heartbeat: &Heartbeat<NfTables>,
) {
    let _ends = StopOnDrop(heartbeat);
    let mut pause = TIDY;
    loop {
        let request = match inbox.recv_timeout(pause) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut rest = writer_slot.rest(clock::now());
        while rest > Duration::ZERO {
            // What comes meanwhile goes in together.
            std::thread::sleep(rest);
            rest = writer_slot.go_on_resting(clock::now());
        }
        let commits = matches!(request, Some(WriterRequest::Admit(_)));
        let mut writer = writer_slot.take();
        if writer.turn(request, inbox).is_break() {
            writer.end();
            return writer.give_up();
        }
        if commits {
            writer_slot.committed(clock::now());
        }
        let rest = writer_slot.rest(clock::now());
        pause = match rest > Duration::ZERO {
            true => rest,
            false => writer.sweep().min(TIDY),
        };
        if let Some(guard) = &writer.guard {
            pause = pause.min(guard.next_look().since(clock::now()));
        }
    }
    writer_slot.take().end();
}

impl KernelWriter<NfTables> {
    /// Does all that waits.
    fn turn(&mut self, request: Option<WriterRequest>, inbox: &Receiver<WriterRequest>) -> ControlFlow<()> {
        let mut next = request;
        while let Some(request) = next.take() {
            match request {
                WriterRequest::Admit(first) => {
                    let group;
                    (group, next) = gather(first, inbox);
                    self.commit_group(group);
                }
                WriterRequest::Install(installation) => self.install(*installation),
                WriterRequest::StopHeartbeat(done) => {
                    // From here on the table is left to itself, or to another agent.
                    self.guard = None;
                    let _ = done.send(self.heartbeat.stop());
                }
                WriterRequest::ShutDown(done) => {
                    let _ = done.send(());
                    return ControlFlow::Break(());
                }
            }
        }
        self.look_if_due();
        ControlFlow::Continue(())
    }

    /// Nobody writes any more.
    fn end(&self) {
        self.shared.mirror().phase = AdmissionPhase::Stopped;
        self.shared.begin_epoch();
    }
}

/// Takes further admissions out of the queue, as far as they wait; also returns what was met that
/// is none.
fn gather(
    mut group: Vec<PendingAdmission>,
    inbox: &Receiver<WriterRequest>,
) -> (Vec<PendingAdmission>, Option<WriterRequest>) {
    let count = |admissions: &[PendingAdmission]| admissions.iter().map(|it| it.elements.len()).sum::<usize>();
    let mut elements = count(&group);
    while elements < GROUP {
        match inbox.try_recv() {
            Ok(WriterRequest::Admit(admissions)) => {
                elements += count(&admissions);
                group.extend(admissions);
            }
            Ok(other) => return (group, Some(other)),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
        }
    }
    (group, None)
}

impl<K: Kernel> KernelWriter<K> {
    /// Somebody removed the table, or sets from it: nothing that we believe of it holds.
    pub(super) fn table_is_lost(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.suspect();
            // Until it is repaired, which is at the end of this turn, nothing is released that we
            // only believe to stand.
            self.shared.mirror().phase = AdmissionPhase::Installing;
            return self.shared.begin_epoch();
        }
        self.installed = None;
        self.heartbeat.pause();
        self.shared.table_is_lost();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::writer::{Generation, Holder};

    use super::*;

    /// An admission of nothing, for which nobody waits.
    fn empty() -> PendingAdmission {
        let (answer, _) = oneshot::channel();
        PendingAdmission {
            generation: Generation::default(),
            elements: Vec::new(),
            holder: Holder::default(),
            deadline: Duration::from_secs(1),
            answer: Box::new(answer),
        }
    }

    #[test]
    fn admissions_that_wait_go_in_together_up_to_what_is_no_admission() {
        let (queue, inbox) = mpsc::channel();
        let wait = || queue.send(WriterRequest::Admit(vec![empty()])).unwrap();
        wait();
        wait();
        let (done, _) = oneshot::channel();
        queue.send(WriterRequest::ShutDown(done)).unwrap();
        wait();

        let (group, next) = gather(vec![empty()], &inbox);
        assert_eq!(group.len(), 3);
        assert!(matches!(next, Some(WriterRequest::ShutDown(_))));
        let (group, next) = gather(vec![empty()], &inbox);
        assert_eq!(group.len(), 2);
        assert!(next.is_none());
    }
}
