//! The supervisor's loop.

use std::env;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use thiserror::Error;
use tracing::{debug, error, info, warn};

use crate::working_set;

use super::backoff::Backoff;
use super::message::{self, Message};
use super::store::Store;
use super::{ENVIRONMENT, signals};

/// Why the supervisor ends with an error.
#[derive(Debug, Error)]
pub enum SuperviseError {
    /// A system call that supervision is made of.
    #[error("cannot supervise the agent: {0}; start it without --supervise")]
    System(#[from] io::Error),
    /// The first worker could not start, and has said why.
    #[error("the agent did not start ({0})")]
    Start(String),
    /// The worker was told to end, and did not in order.
    #[error("the agent did not end in order ({0})")]
    End(String),
}

/// Runs workers with the arguments of this process until it is told to end, and a worker has ended
/// in order. To be called while the process has one thread.
pub fn supervise() -> Result<(), SuperviseError> {
    let mut supervisor = Supervisor {
        signals: signals::take()?,
        store: Store::default(),
        told_to_end: false,
    };
    if let Err(error) = working_set::trim() {
        debug!(%error, "what the start needed stays in memory");
    }
    let mut backoff = Backoff::default();
    let mut deaths = 0_u32;
    let mut was_ever_ready = false;
    loop {
        let mut worker = Worker::start(supervisor.store.len(), deaths)?;
        let status = supervisor.attend(&mut worker)?;
        let ready_for = worker.ready_since.map(|since| since.elapsed());
        was_ever_ready |= ready_for.is_some();
        match (status.exit_status(), supervisor.told_to_end) {
            (Some(0), _) => return Ok(()),
            (_, true) => return Err(SuperviseError::End(words(status))),
            (Some(_), false) if !was_ever_ready => return Err(SuperviseError::Start(words(status))),
            _ => {}
        }
        deaths = deaths.saturating_add(1);
        let pause = backoff.after(ready_for);
        let pause_shown = humantime::format_duration(pause);
        match pause.is_zero() {
            true => error!(
                deaths,
                "the worker died ({}); it is started again at once",
                words(status)
            ),
            false => error!(
                deaths,
                "the worker died ({}) again; it is started again in {pause_shown}",
                words(status)
            ),
        }
        if supervisor.rest(pause)? {
            return Ok(());
        }
    }
}

fn words(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "for no known reason".into(),
    }
}

struct Supervisor {
    signals: OwnedFd,
    store: Store,
    told_to_end: bool,
}

/// A running worker, and the line to it.
struct Worker {
    pid: Pid,
    line: OwnedFd,
    /// The worker's end may be closed before the worker has ended.
    line_is_open: bool,
    /// How many descriptors were handed to it.
    handed: usize,
    ready_since: Option<Instant>,
}

impl Worker {
    fn start(descriptors: usize, deaths: u32) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // Nothing that a worker does, or does not do, may stop the supervisor.
        ioctl_fionbio(&ours, true)?;
        // The very file that runs here, also when another version lies in its place by now.
        let child = Command::new("/proc/self/exe")
            .arg0(env::args_os().next().unwrap_or_else(|| "namegate".into()))
            .args(env::args_os().skip(1))
            .env(ENVIRONMENT, format!("{descriptors}:{deaths}"))
            // What the terminal sends to its foreground group is passed on, and comes once.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self {
            pid: Pid::from_child(&child),
            line: ours,
            line_is_open: true,
            handed: 0,
            ready_since: None,
        })
    }

    /// Hands over what is kept, as far as there is room on the line.
    fn hand_over(&mut self, store: &Store) {
        while let Some((name, descriptor)) = store.nth(self.handed) {
            match message::keep(self.line.as_fd(), name, descriptor.as_fd()) {
                Ok(()) => self.handed += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It is dead, which is told by a signal.
                Err(_) => self.handed = store.len(),
            }
        }
    }

    /// Does what the worker says, as far as it has said something.
    fn listen(&mut self, store: &mut Store) {
        while self.line_is_open {
            match message::receive(&self.line) {
                Ok(Some(Message::Ready)) => self.ready_since = Some(Instant::now()),
                Ok(Some(message)) => {
                    if !store.take(message) {
                        warn!("no more sockets can be kept; some will not outlive a crash");
                    }
                }
                Ok(None) => self.line_is_open = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => debug!("a message was not understood"),
                Err(_) => self.line_is_open = false,
            }
        }
    }
}

impl Supervisor {
    /// Until the worker has ended.
    fn attend(&mut self, worker: &mut Worker) -> io::Result<WaitStatus> {
        loop {
            let mut interest = PollFlags::IN;
            if worker.handed < self.store.len() {
                interest |= PollFlags::OUT;
            }
            let mut wanted = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if worker.line_is_open {
                wanted.push(PollFd::new(&worker.line, interest));
            }
            match poll(&mut wanted, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            drop(wanted);
            worker.hand_over(&self.store);
            worker.listen(&mut self.store);
            while let Some(signal) = signals::next(&self.signals) {
                if signal == Signal::CHILD {
                    if let Some(status) = reap(worker.pid)? {
                        // What it said last counts, although it has died.
                        worker.listen(&mut self.store);
                        return Ok(status);
                    }
                } else {
                    self.told_to_end |= matches!(signal, Signal::TERM | Signal::INT);
                    // It may have ended just now; then the next signal says so.
                    let _ = kill_process(worker.pid, signal);
                }
            }
        }
    }

    /// Waits before the next worker is started. `true`: it is not to be.
    fn rest(&mut self, pause: Duration) -> io::Result<bool> {
        let until = Instant::now() + pause;
        loop {
            while let Some(signal) = signals::next(&self.signals) {
                if matches!(signal, Signal::TERM | Signal::INT) {
                    info!("told to end while no worker runs; the ruleset stays in force");
                    return Ok(true);
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Takes leave of every child that has ended: in a container, those of dead workers are ours too.
/// How the worker ended, if it did.
fn reap(worker: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == worker => ended = Some(status),
            Ok(Some(_)) => {}
            Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
            Err(error) => return Err(error.into()),
        }
    }
}
