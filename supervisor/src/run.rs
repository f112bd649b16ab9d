//! The supervisor's loop: start a worker, serve it until it ends, wait, start the next.

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

use crate::descriptor_store::DescriptorStore;
use crate::message::{self, SupervisorMessage};
use crate::restart_backoff::RestartBackoff;
use crate::{ENVIRONMENT, service_manager, signals, trim_memory};

/// Why the supervisor ends with an error.
#[derive(Debug, Error)]
pub enum SuperviseError {
    /// A system call failed that supervision depends on.
    #[error("cannot supervise the agent: {0}; start it without --supervise")]
    System(#[from] io::Error),
    /// The first worker could not start. It has logged why.
    #[error("the agent did not start ({0})")]
    Start(String),
    /// The worker was told to end, and failed.
    #[error("the agent did not end in order ({0})")]
    End(String),
}

/// Runs workers with the arguments of this process, until a worker ends with exit code 0. Must be
/// called while the process has one thread.
pub fn supervise() -> Result<(), SuperviseError> {
    let mut supervisor = Supervisor {
        signals: signals::block()?,
        store: DescriptorStore::default(),
        is_stopping: false,
    };
    if let Err(error) = trim_memory::trim() {
        debug!(%error, "what the start needed stays in memory");
    }
    let mut backoff = RestartBackoff::default();
    let mut deaths = 0_u32;
    let mut was_ever_ready = false;
    loop {
        let mut worker = WorkerProcess::start(supervisor.store.len(), deaths)?;
        let status = supervisor.serve(&mut worker)?;
        let ready_for = worker.ready_since.map(|since| since.elapsed());
        was_ever_ready |= ready_for.is_some();
        match (status.exit_status(), supervisor.is_stopping) {
            (Some(0), false) if worker.is_reloading => {
                info!("the worker is started again with what its configuration says now");
                continue;
            }
            (Some(0), _) => return Ok(()),
            (_, true) => return Err(SuperviseError::End(describe(status))),
            (Some(_), false) if !was_ever_ready => return Err(SuperviseError::Start(describe(status))),
            _ => {}
        }
        deaths = deaths.saturating_add(1);
        let pause = backoff.after(ready_for);
        let pause_shown = humantime::format_duration(pause);
        match pause.is_zero() {
            true => error!(
                deaths,
                "the worker died ({}); it is started again at once",
                describe(status)
            ),
            false => error!(
                deaths,
                "the worker died ({}) again; it is started again in {pause_shown}",
                describe(status)
            ),
        }
        if supervisor.pause(pause)? {
            return Ok(());
        }
    }
}

fn describe(status: WaitStatus) -> String {
    match (status.terminating_signal(), status.exit_status()) {
        (Some(signal), _) => format!("signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "for no known reason".into(),
    }
}

struct Supervisor {
    signals: OwnedFd,
    store: DescriptorStore,
    is_stopping: bool,
}

/// A running worker, seen from the supervisor.
struct WorkerProcess {
    pid: Pid,
    socket: OwnedFd,
    /// The worker may close its end before it ends.
    socket_is_open: bool,
    /// How many descriptors of the store were handed over, in the store's order.
    handed_over: usize,
    ready_since: Option<Instant>,
    /// It has said that it ends to be started again.
    is_reloading: bool,
}

impl WorkerProcess {
    fn start(descriptors: usize, deaths: u32) -> io::Result<Self> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        // A worker that does not receive must not block the supervisor.
        ioctl_fionbio(&ours, true)?;
        // The file that runs here, even if another version has taken its path by now.
        let child = Command::new("/proc/self/exe")
            .arg0(env::args_os().next().unwrap_or_else(|| "namegate".into()))
            .args(env::args_os().skip(1))
            .env(ENVIRONMENT, format!("{descriptors}:{deaths}"))
            // The service manager listens to its main process alone.
            .env_remove(service_manager::ENVIRONMENT)
            // The supervisor forwards signals. In one process group the worker would also get those
            // of the terminal, twice.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .spawn()?;
        Ok(Self {
            pid: Pid::from_child(&child),
            socket: ours,
            socket_is_open: true,
            handed_over: 0,
            ready_since: None,
            is_reloading: false,
        })
    }

    /// Hands over the kept descriptors, until the socket is full.
    fn hand_over(&mut self, store: &DescriptorStore) {
        while let Some((name, descriptor)) = store.nth(self.handed_over) {
            match message::keep(self.socket.as_fd(), name, descriptor.as_fd()) {
                Ok(()) => self.handed_over += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // The worker is dead. SIGCHLD tells so.
                Err(_) => self.handed_over = store.len(),
            }
        }
    }

    /// Receives all messages that have arrived.
    fn receive(&mut self, store: &mut DescriptorStore) {
        while self.socket_is_open {
            match message::receive(&self.socket) {
                Ok(Some(SupervisorMessage::Ready)) => {
                    self.ready_since = Some(Instant::now());
                    service_manager::ready();
                }
                Ok(Some(SupervisorMessage::Reloading)) => self.is_reloading = true,
                Ok(Some(message)) => {
                    if !store.apply(message) {
                        warn!("no more sockets can be kept; some will not outlive a crash");
                    }
                }
                Ok(None) => self.socket_is_open = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => debug!("a message was not understood"),
                Err(_) => self.socket_is_open = false,
            }
        }
    }
}

impl Supervisor {
    /// Serves `worker` until it ends.
    fn serve(&mut self, worker: &mut WorkerProcess) -> io::Result<WaitStatus> {
        loop {
            let mut interest = PollFlags::IN;
            if worker.handed_over < self.store.len() {
                interest |= PollFlags::OUT;
            }
            let mut wanted = vec![PollFd::new(&self.signals, PollFlags::IN)];
            if worker.socket_is_open {
                wanted.push(PollFd::new(&worker.socket, interest));
            }
            match poll(&mut wanted, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            drop(wanted);
            worker.hand_over(&self.store);
            worker.receive(&mut self.store);
            while let Some(signal) = signals::next(&self.signals) {
                if signal == Signal::CHILD {
                    if let Some(status) = reap(worker.pid)? {
                        // The messages that it sent before it died still count.
                        worker.receive(&mut self.store);
                        return Ok(status);
                    }
                } else {
                    if ends_the_agent(signal) {
                        self.is_stopping = true;
                        service_manager::stopping();
                    }
                    // The worker may have ended just now. Then SIGCHLD follows.
                    let _ = kill_process(worker.pid, signal);
                }
            }
        }
    }

    /// Waits before the next worker is started. Returns whether the supervisor was told to end
    /// meanwhile.
    fn pause(&mut self, pause: Duration) -> io::Result<bool> {
        let until = Instant::now() + pause;
        loop {
            while let Some(signal) = signals::next(&self.signals) {
                if ends_the_agent(signal) {
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

/// Whether the agent is told to end.
fn ends_the_agent(signal: Signal) -> bool {
    matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT)
}

/// Reaps every child that has ended: in a container these include the children of dead workers.
/// Returns the worker's status if it has ended.
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
