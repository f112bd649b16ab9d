//! The thread: drains the queue.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::desired::{DesiredState, Interception};

use super::baton::Baton;
use super::book::Phase;
use super::commit::Admission;
use super::guard::Guard;
use super::heartbeat::{Ends, Heart};
use super::install::Installation;
use super::kernel::{Kernel, NfTables};
use super::sweep::Sweeps;
use super::{Renewal, Shared};

/// A transaction takes in no more admissions once it has this many elements: a hundred elements
/// take 0.1 ms, and the first in line should not wait for the thousandth.
const GROUP: usize = 4096;

/// What is asked of the writer.
pub(super) enum Request {
    Admit(Vec<Admission>),
    Install(Box<Installation>),
    /// Answered with whether it is done; if not, it is to be asked again.
    StopHeartbeat(oneshot::Sender<bool>),
    ShutDown(oneshot::Sender<()>),
}

/// The writer's state.
#[derive(Debug)]
pub(super) struct Writer<K> {
    pub(super) kernel: K,
    pub(super) shared: Arc<Shared>,
    pub(super) renewal: Renewal,
    /// What is in force, unless the table was lost since, or an installation failed and left it
    /// unclear.
    pub(super) installed: Option<DesiredState>,
    /// The way of interception that routing was last set up for.
    pub(super) interception: Option<Interception>,
    pub(super) heart: Arc<Heart<K>>,
    pub(super) sweeps: Sweeps,
    /// Notices what others do to the table, and repairs it; `None` where nobody asked for that.
    pub(super) guard: Option<Box<Guard>>,
}

/// How often the thread tidies up when nothing is asked of it.
const TIDY: Duration = Duration::from_secs(1);

/// Serves the queue until it is told to stop, or no handle is left. Then the heart stops too.
pub(super) fn run(baton: &Baton<Writer<NfTables>>, inbox: &Receiver<Request>, heart: &Heart<NfTables>) {
    let _ends = Ends(heart);
    let mut pause = TIDY;
    loop {
        let request = match inbox.recv_timeout(pause) {
            Ok(request) => Some(request),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut rest = baton.rest(clock::now());
        while rest > Duration::ZERO {
            // What comes meanwhile goes in together.
            std::thread::sleep(rest);
            rest = baton.go_on_resting(clock::now());
        }
        let commits = matches!(request, Some(Request::Admit(_)));
        let mut writer = baton.take();
        if writer.turn(request, inbox).is_break() {
            writer.end();
            return writer.give_up();
        }
        if commits {
            baton.committed(clock::now());
        }
        let rest = baton.rest(clock::now());
        pause = match rest > Duration::ZERO {
            true => rest,
            false => writer.sweep().min(TIDY),
        };
        if let Some(guard) = &writer.guard {
            pause = pause.min(guard.next_look().since(clock::now()));
        }
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
                    // From here on the table is left to itself, or to another agent.
                    self.guard = None;
                    let _ = done.send(self.heart.stop());
                }
                Request::ShutDown(done) => {
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
        self.shared.book().phase = Phase::Stopped;
        self.shared.begin_epoch();
    }
}

/// Takes further admissions out of the queue, as far as they wait; also returns what was met that
/// is none.
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
    /// Somebody removed the table, or sets from it: nothing that we believe of it holds.
    pub(super) fn table_is_lost(&mut self) {
        if let Some(guard) = &mut self.guard {
            guard.suspect();
            // Until it is repaired, which is at the end of this turn, nothing is released that we
            // only believe to stand.
            self.shared.book().phase = Phase::Installing;
            return self.shared.begin_epoch();
        }
        self.installed = None;
        self.heart.pause();
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
    fn empty() -> Admission {
        let (answer, _) = oneshot::channel();
        Admission {
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
        let wait = || queue.send(Request::Admit(vec![empty()])).unwrap();
        wait();
        wait();
        let (done, _) = oneshot::channel();
        queue.send(Request::ShutDown(done)).unwrap();
        wait();

        let (group, next) = gather(vec![empty()], &inbox);
        assert_eq!(group.len(), 3);
        assert!(matches!(next, Some(Request::ShutDown(_))));
        let (group, next) = gather(vec![empty()], &inbox);
        assert_eq!(group.len(), 2);
        assert!(next.is_none());
    }
}
