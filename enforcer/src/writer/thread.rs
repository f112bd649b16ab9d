//! The writer's thread: serves the queue.

use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::cuts::CutRequest;
use super::heartbeat::{Heartbeat, StopOnDrop};
use super::install::InstallRequest;
use super::kernel::NfTables;
use super::kernel_writer::KernelWriter;
use super::pending_admission::PendingAdmission;
use super::set_mirror::AdmissionPhase;
use super::writer_slot::WriterSlot;

/// A transaction that has so many elements takes no more admissions, because the first in line
/// should not wait for the thousandth. A hundred elements take 0.1 ms.
const GROUP: usize = 4096;

/// What callers ask of the writer.
pub(super) enum WriterRequest {
    Admit(Vec<PendingAdmission>),
    Install(Box<InstallRequest>),
    Cut(CutRequest),
    /// Answered with whether it is done. If not, it is to be asked again.
    StopHeartbeat(oneshot::Sender<bool>),
    ShutDown(oneshot::Sender<()>),
}

/// How often the thread sweeps when nothing is asked of it.
const TIDY: Duration = Duration::from_secs(1);

/// Serves the queue until it is told to stop or no handle is left. Then the heartbeat stops too.
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
        let mut left = writer_slot.pause_left(clock::now());
        while left > Duration::ZERO {
            // What comes meanwhile shares one transaction.
            std::thread::sleep(left);
            left = writer_slot.extend_pause(clock::now());
        }
        let commits = matches!(request, Some(WriterRequest::Admit(_)));
        let mut writer = writer_slot.take();
        if writer.serve(request, inbox).is_break() {
            writer.end();
            return writer.give_up();
        }
        if commits {
            writer_slot.committed(clock::now());
        }
        let left = writer_slot.pause_left(clock::now());
        pause = match left > Duration::ZERO {
            true => left,
            false => writer.sweep().min(TIDY),
        };
        writer.end_cuts();
        pause = pause.min(writer.cuts.pause(clock::now()));
        if let Some(guard) = &writer.guard {
            pause = pause.min(guard.next_check.since(clock::now()));
        }
    }
    writer_slot.take().end();
}

impl KernelWriter<NfTables> {
    /// Carries out `request` and everything that waits in the queue.
    fn serve(&mut self, request: Option<WriterRequest>, inbox: &Receiver<WriterRequest>) -> ControlFlow<()> {
        let mut next = request;
        while let Some(request) = next.take() {
            match request {
                WriterRequest::Admit(first) => {
                    let group;
                    (group, next) = gather(first, inbox);
                    self.commit_group(group);
                }
                WriterRequest::Install(installation) => self.install(*installation),
                WriterRequest::Cut(request) => self.cut(request),
                WriterRequest::StopHeartbeat(done) => {
                    // From here on nobody repairs the table, or another agent does.
                    self.guard = None;
                    let _ = done.send(self.heartbeat.stop());
                }
                WriterRequest::ShutDown(done) => {
                    let _ = done.send(());
                    return ControlFlow::Break(());
                }
            }
        }
        self.check_if_due();
        ControlFlow::Continue(())
    }

    /// Makes all admissions fail from now on.
    fn end(&self) {
        self.shared.mirror().phase = AdmissionPhase::Stopped;
        self.shared.begin_epoch();
    }
}

/// Takes further admissions out of the queue, as far as they wait. Also returns the first request
/// that is none.
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::writer::{Generation, Holder};

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
