//! The worker's side of the socket pair.

use std::collections::HashMap;
use std::env;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use dns_proxy::SocketStore;
use parking_lot::Mutex;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tokio::sync::oneshot;
use tracing::warn;

use crate::message::{self, SupervisorMessage};
use crate::{ENVIRONMENT, signals};

/// How long the worker waits to send a message. A supervisor that does not receive for this long is
/// stopped, and must not stop the agent too.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The worker's socket to the supervisor, and the sockets of earlier workers that this worker has
/// not taken yet.
#[derive(Debug)]
pub struct Supervision {
    socket: OwnedFd,
    inherited: Mutex<HashMap<String, OwnedFd>>,
    deaths: u32,
    supervisor: Option<u32>,
}

impl Supervision {
    /// Receives the sockets of earlier workers; `None` when this process is no worker. Must be
    /// called once, while the process has one thread.
    pub fn attach() -> io::Result<Option<Self>> {
        let Some((descriptors, deaths)) = env::var(ENVIRONMENT).ok().as_deref().and_then(parse_environment) else {
            return Ok(None);
        };
        signals::unblock()?;
        // Otherwise the process would be called `exe`, after /proc/self/exe.
        let _ = rustix::thread::set_name(c"namegate");
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        // Processes that the agent starts must not inherit the socket.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        set_socket_timeout(&socket, Timeout::Send, Some(SEND_TIMEOUT))?;
        let mut inherited = HashMap::new();
        for _ in 0..descriptors {
            if let Some(SupervisorMessage::Keep(name, descriptor)) = message::receive(&socket)? {
                inherited.insert(name, descriptor);
            }
        }
        Ok(Some(Self {
            socket,
            inherited: Mutex::new(inherited),
            deaths,
            supervisor: rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get().cast_unsigned()),
        }))
    }

    /// How many workers of this supervisor have died.
    pub fn deaths(&self) -> u32 {
        self.deaths
    }

    /// The process id of the supervisor.
    pub fn supervisor(&self) -> Option<u32> {
        self.supervisor
    }

    /// Tells the supervisor that this worker answers lookups. Sockets that this worker has not
    /// taken are closed, because lookups would be lost in their queues.
    pub fn ready(&self) {
        for name in std::mem::take(&mut *self.inherited.lock()).into_keys() {
            self.forget(&name);
        }
        self.warn_unless_sent(message::ready(self.socket.as_fd()), "that this worker is ready");
    }

    /// Tells the supervisor that this worker is about to end, with exit code 0, and that another
    /// one shall take its place at once.
    pub fn reloading(&self) {
        self.warn_unless_sent(message::reloading(self.socket.as_fd()), "to start the agent again");
    }

    /// The receiver resolves when the supervisor ends. A thread of its own waits for that.
    pub fn watch(&self) -> io::Result<oneshot::Receiver<()>> {
        let (gone, is_gone) = oneshot::channel();
        let socket = self.socket.try_clone()?;
        std::thread::Builder::new()
            .name("supervisor".to_owned())
            .spawn(move || {
                // The supervisor sends nothing after the descriptors, so the next event is its end.
                while matches!(message::receive(&socket), Ok(Some(_))) {}
                let _ = gone.send(());
            })?;
        Ok(is_gone)
    }

    fn warn_unless_sent(&self, sent: io::Result<()>, what: &str) {
        if let Err(error) = sent {
            warn!(%error, "the supervisor cannot be told {what}");
        }
    }
}

impl SocketStore for Supervision {
    fn take(&self, name: &str) -> Option<OwnedFd> {
        self.inherited.lock().remove(name)
    }

    fn keep(&self, name: &str, socket: BorrowedFd<'_>) {
        let sent = message::keep(self.socket.as_fd(), name, socket);
        self.warn_unless_sent(sent, "to keep a socket, which will not outlive a crash");
    }

    fn forget(&self, name: &str) {
        let sent = message::forget(self.socket.as_fd(), name);
        self.warn_unless_sent(sent, "to close a socket");
    }
}

/// Parses the value of [`ENVIRONMENT`] into descriptors and deaths.
fn parse_environment(text: &str) -> Option<(usize, u32)> {
    let (descriptors, deaths) = text.split_once(':')?;
    Some((descriptors.parse().ok()?, deaths.parse().ok()?))
}
