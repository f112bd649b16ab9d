//! The worker's side of supervision.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dns_proxy::SocketStore;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tokio::sync::oneshot;
use tracing::warn;

use super::message::{self, Message};
use super::{ENVIRONMENT, signals};

/// A supervisor that takes nothing for so long is stopped; the agent must not stop with it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The line to the supervisor, and the sockets of an earlier worker that nobody has asked for yet.
#[derive(Debug)]
pub struct Supervision {
    line: OwnedFd,
    handed: Mutex<HashMap<String, OwnedFd>>,
    deaths: u32,
    supervisor: Option<u32>,
}

impl Supervision {
    /// When this process is a worker: takes what it is handed. To be called once, while the process
    /// has one thread.
    pub fn attach() -> io::Result<Option<Self>> {
        let Some((descriptors, deaths)) = env::var(ENVIRONMENT).ok().as_deref().and_then(told) else {
            return Ok(None);
        };
        signals::unblock()?;
        // The file it was started from is called `exe`.
        let _ = rustix::thread::set_name(c"namegate");
        let line = io::stdin().as_fd().try_clone_to_owned()?;
        // No process that is started from here holds the line.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        set_socket_timeout(&line, Timeout::Send, Some(PATIENCE))?;
        let mut handed = HashMap::new();
        for _ in 0..descriptors {
            if let Some(Message::Keep(name, descriptor)) = message::receive(&line)? {
                handed.insert(name, descriptor);
            }
        }
        Ok(Some(Self {
            line,
            handed: Mutex::new(handed),
            deaths,
            supervisor: rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
        }))
    }

    /// How many workers of this supervisor have died.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// The supervisor's process.
    pub fn supervisor(&self) -> Option<u32> {
        self.supervisor
    }

    /// Tells the supervisor that this worker serves. What an earlier one listened on and this one
    /// does not is closed: it would take lookups that nobody reads.
    pub fn ready(&self) {
        for name in std::mem::take(&mut *self.handed()).into_keys() {
            self.forget(&name);
        }
        self.note(message::ready(self.line.as_fd()), "that this worker is ready");
    }

    /// Waits for the supervisor's end, in a thread of its own.
    pub fn watch(&self) -> io::Result<oneshot::Receiver<()>> {
        let (gone, is_gone) = oneshot::channel();
        let line = self.line.try_clone()?;
        std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || {
                // It says nothing after what it has handed over, so that this waits for the end.
                while matches!(message::receive(&line), Ok(Some(_))) {}
                let _ = gone.send(());
            })?;
        Ok(is_gone)
    }

    fn note(&self, sent: io::Result<()>, what: &str) {
        if let Err(error) = sent {
            warn!(%error, "the supervisor cannot be told {what}");
        }
    }

    fn handed(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SocketStore for Supervision {
    fn take(&self, name: &str) -> Option<OwnedFd> {
        self.handed().remove(name)
    }

    fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        let sent = message::keep(self.line.as_fd(), name, socket);
        self.note(sent, "to keep a socket, which will not outlive a crash");
    }

    fn forget(&self, name: &str) {
        let sent = message::forget(self.line.as_fd(), name);
        self.note(sent, "to close a socket");
    }
}

/// Descriptors and deaths, from the environment.
fn told(text: &str) -> Option<(usize, u32)> {
    let (descriptors, deaths) = text.split_once(':')?;
    Some((descriptors.parse().ok()?, deaths.parse().ok()?))
}
