//! Network namespaces, from which `namegate exec`, the demo and the lab build their networks.
//!
//! Namespaces are anonymous: a file descriptor holds them, and they are never mounted under a name.
//! So the kernel removes them, with every veth, address, route and nftables table in them, however
//! the process ends.
//!
//! - `enter`: making and entering a namespace, the only place with `unsafe`.
//! - [`links`]: veth pairs, bridges, addresses and routes, over netlink.
//! - [`namespace_thread`]: a thread inside a namespace that drives futures.

mod enter;
pub mod links;
pub mod namespace_thread;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::Arc;
use std::thread;

pub use links::{LinkAddress, LinkRoute};
pub use namespace_thread::NamespaceThread;

/// A network namespace, alive as long as this value, a clone of it, or a process or socket in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a namespace with `lo` up and nothing else. Needs CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        // A new thread unshares, because it cannot leave the new namespace again.
        let made = on_new_thread("netns-new", || {
            enter::unshare_network()
                .map_err(|error| context(error, "cannot make a network namespace (needs root, or CAP_SYS_ADMIN)"))?;
            Self::current()
        })??;
        made.set_up("lo")?;
        Ok(made)
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let file = fs::File::open(path).map_err(|error| context(error, &format!("cannot open {path}")))?;
        Ok(Self {
            fd: Arc::new(file.into()),
        })
    }

    /// Runs `work` on a new thread inside the namespace, and waits for it. Sockets that it makes
    /// belong to the namespace.
    ///
    /// A panic of `work` resumes in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        on_new_thread("netns-run", || {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into the namespace. Threads and processes that it starts afterwards
    /// begin there.
    pub fn enter(&self) -> io::Result<()> {
        enter::join_network(self.fd.as_fd())
            .map_err(|error| context(error, "cannot enter a network namespace (needs root, or CAP_SYS_ADMIN)"))
    }

    /// A command whose process will run in the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        enter::join_network_before_exec(&mut command, Arc::clone(&self.fd));
        command
    }

    /// Starts a thread inside the namespace that drives futures until the returned value is
    /// dropped.
    pub fn start_thread(&self, name: &str) -> io::Result<NamespaceThread> {
        NamespaceThread::start(self, name)
    }

    /// Sets a sysctl under `/proc/sys/net/` inside the namespace, for example `ipv4/ip_forward`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        let path = sysctl_path(key)?;
        // `/proc/sys/net` shows the namespace of the thread that opens it.
        self.run(|| fs::write(&path, value))?
            .map_err(|error| explain_sysctl(error, &path))
    }

    /// Reads a sysctl under `/proc/sys/net/` inside the namespace, without the trailing newline.
    pub fn sysctl(&self, key: &str) -> io::Result<String> {
        let path = sysctl_path(key)?;
        let text = self
            .run(|| fs::read_to_string(&path))?
            .map_err(|error| explain_sysctl(error, &path))?;
        Ok(text.trim_end().to_owned())
    }

    /// Whether both values hold the same namespace, as its device and inode tell.
    pub fn is_same_as(&self, other: &Namespace) -> io::Result<bool> {
        let (a, b) = (rustix::fs::fstat(&self.fd)?, rustix::fs::fstat(&other.fd)?);
        Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn on_new_thread<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        worker.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn sysctl_path(key: &str) -> io::Result<String> {
    // A key with `..` would lead out of `/proc/sys/net`.
    if key.is_empty()
        || key
            .split('/')
            .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{key:?} is not a sysctl below net/"),
        ));
    }
    Ok(format!("/proc/sys/net/{key}"))
}

fn explain_sysctl(error: io::Error, path: &str) -> io::Error {
    let ipv6 = path.starts_with("/proc/sys/net/ipv6/") && error.kind() == io::ErrorKind::NotFound;
    let hint = if ipv6 && !fs::exists("/proc/sys/net/ipv6").unwrap_or(true) {
        " (this kernel runs without IPv6)"
    } else {
        ""
    };
    context(error, &format!("sysctl {path}{hint}"))
}

/// Puts what was being done before the text of an error. The kind stays, because callers match on
/// it.
fn context(error: io::Error, doing: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{doing}: {error}"))
}
