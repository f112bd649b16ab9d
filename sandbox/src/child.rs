//! Starts the command in the sandbox, forwards signals to it, and waits for it.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;

use netns::Namespace;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open};
use tempfile::NamedTempFile;
use thiserror::Error;

use crate::confinement::{Confinement, ConfinementStep, confine};
use crate::mounts::Mounts;
use crate::pid_namespace::{self, Init};
use crate::signals::Signals;
use crate::terminal;
use crate::{landlock_scope, seccomp};

/// The port on which the C library asks a resolver.
pub(crate) const DNS_PORT: u16 = 53;

/// The file in which the C library finds its resolver.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Sockets of the *host's* name services, which the C library asks first. Inside they are covered,
/// so that it asks the resolver of `/etc/resolv.conf`, from whose answers the addresses are
/// learned.
const NAME_SERVICE_SOCKETS: [&str; 3] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/nscd/socket",
    "/var/run/nscd/socket",
];

/// Why the command was not started.
#[derive(Debug, Error)]
pub(crate) enum SpawnError {
    /// In the words of a shell, with exit code 127.
    #[error("{}: command not found", .0.display())]
    NotFound(OsString),
    /// In the words of a shell, with exit code 126.
    #[error("{}: cannot be executed: {error}", command.display())]
    NotExecutable { command: OsString, error: io::Error },
    /// The resolver's address has no file that it could be put into.
    #[error("{RESOLV_CONF} cannot be covered inside the sandbox ({0}); it must exist, even if empty")]
    ResolvConf(io::Error),
    /// A step of the confinement failed.
    #[error("the command cannot be confined: it cannot {step}: {error}")]
    Confine { step: ConfinementStep, error: io::Error },
    /// Any other system call failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl SpawnError {
    /// The exit code that a shell would give.
    pub(crate) fn code(&self) -> u8 {
        match self {
            SpawnError::NotFound(_) => 127,
            SpawnError::NotExecutable { .. } => 126,
            _ => crate::TROUBLE,
        }
    }
}

/// The running command in its PID namespace. Dropping it ends every process of the namespace.
#[derive(Debug)]
pub(crate) struct Child {
    process: tokio::process::Child,
    _init: Init,
}

impl Child {
    /// The process id outside; `None` once it was waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Waits for the end of the command.
    pub(crate) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    fn pid(&self) -> Option<Pid> {
        // `id` is `None` once the process was waited for, so the number cannot belong to another.
        self.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }
}

/// Starts `command` (program and arguments) in the sandbox, with more environment variables, and
/// with the descriptors `kept` besides the standard ones. Must be called on a thread that lives
/// until the child is gone: the kernel kills the child when the *thread* that started it ends.
pub(crate) fn start(
    command: &[OsString],
    variables: &[(&str, PathBuf)],
    network: &Namespace,
    resolvers: &[IpAddr],
    kept: &[RawFd],
) -> Result<Child, SpawnError> {
    let [program, arguments @ ..] = command else {
        return Err(SpawnError::NotFound(OsString::new()));
    };
    let resolv_conf = resolv_conf(resolvers)?;
    fs::metadata(RESOLV_CONF).map_err(SpawnError::ResolvConf)?;
    let mut covers = vec![(c_path(resolv_conf.path())?, c_path(Path::new(RESOLV_CONF))?)];
    for socket in NAME_SERVICE_SOCKETS.map(Path::new) {
        if socket.exists() {
            covers.push((c_path(Path::new("/dev/null"))?, c_path(socket)?));
        }
    }
    let mut prepared = std::process::Command::new(program);
    prepared
        .args(arguments)
        .envs(variables.iter().map(|(name, value)| (name, value)));
    let confinement = Arc::new(Confinement {
        network: network.clone(),
        mounts: Mounts::read()?,
        covers,
        scope: landlock_scope::rules()?,
        filters: seccomp::filters()?,
        parent: pidfd_open(getpid(), PidfdFlags::empty()).map_err(io::Error::from)?,
    });
    confine(&mut prepared, Arc::clone(&confinement), kept.to_vec());
    pid_namespace::in_new(|| {
        let init = Init::start(confinement).map_err(|error| confinement_error(error).unwrap_or_else(SpawnError::Io))?;
        // When this returns, the child has mounted `resolv_conf`, and the file may be removed.
        let process = tokio::process::Command::from(prepared).spawn();
        process
            .map(|process| Child { process, _init: init })
            .map_err(|error| confinement_error(error).unwrap_or_else(|error| exec_error(program, error)))
    })
}

/// Waits for the command, and forwards signals that the terminal has not sent to it as well.
pub(crate) async fn wait(mut child: Child, signals: &mut Signals) -> io::Result<ExitStatus> {
    if let Some(pid) = child.pid() {
        terminal::follow_stops(pid)?;
    }
    loop {
        tokio::select! {
            status = child.wait() => return status,
            signal = signals.next() => {
                if !signals.reached_our_group(signal) {
                    send(&child, signal);
                }
            }
        }
    }
}

fn confinement_error(error: io::Error) -> Result<SpawnError, io::Error> {
    match ConfinementStep::of(&error) {
        Some((step, error)) => Ok(SpawnError::Confine { step, error }),
        None => Err(error),
    }
}

fn exec_error(program: &OsString, error: io::Error) -> SpawnError {
    let command = program.clone();
    match error.kind() {
        io::ErrorKind::NotFound => SpawnError::NotFound(command),
        _ => SpawnError::NotExecutable { command, error },
    }
}

/// The exit code that a shell would give: the command's own, or that of the signal that killed it.
pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    let killed = || Signal::from_named_raw(status.signal()?).map(killed_by);
    let own = status.code().and_then(|code| u8::try_from(code).ok());
    own.or_else(killed).unwrap_or(crate::TROUBLE)
}

/// The exit code that a shell gives for a process that `signal` killed.
pub(crate) fn killed_by(signal: Signal) -> u8 {
    // Signals are numbered from 1 to 64.
    u8::try_from(128 + signal.as_raw()).unwrap_or(crate::TROUBLE)
}

fn send(child: &Child, signal: Signal) {
    if let Some(pid) = child.pid() {
        // The command may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
}

fn resolv_conf(resolvers: &[IpAddr]) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::with_prefix("namegate-resolv-")?;
    // The command may change to another user, who must be able to read the file.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    for resolver in resolvers {
        writeln!(file, "nameserver {resolver}")?;
    }
    file.flush()?;
    Ok(file)
}

fn c_path(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
