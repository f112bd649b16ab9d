//! Unix sockets that the agent serves on: who may open them, and how one takes another's place.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use settings::SocketGroup;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UnixListener;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Tells a socket's file from one that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SocketFileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// The file of a socket, which is removed with this, unless a successor's has taken its place.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: SocketFileId,
}

/// Why the agent cannot serve on a socket.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket cannot be made.
    #[error("cannot serve at {}: {error}; choose another directory, with --run-dir or --hubble", socket.display())]
    Socket {
        /// The socket that could not be made.
        socket: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The group of `--socket-group` is not on this host.
    #[error("there is no group {0} on this host; make it, or write a number to --socket-group")]
    NoGroup(String),
    /// The group cannot be looked up.
    #[error("cannot look up the group {name}: {error}; write a number to --socket-group")]
    Group {
        /// The group.
        name: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The socket cannot be given to the group.
    #[error(
        "cannot let the group {group} open {}: {error}; start the agent with CAP_CHOWN, or as a member of that group",
        socket.display()
    )]
    NotGiven {
        /// The socket.
        socket: PathBuf,
        /// The number of the group.
        group: u32,
        /// The error of the system.
        error: io::Error,
    },
}

fn group_number(group: &SocketGroup) -> Result<u32, ServeError> {
    match group {
        SocketGroup::Number(number) => Ok(*number),
        SocketGroup::Name(name) => match Group::from_name(name) {
            Ok(Some(group)) => Ok(group.gid.as_raw()),
            Ok(None) => Err(ServeError::NoGroup(name.clone())),
            Err(error) => Err(ServeError::Group {
                name: name.clone(),
                error: error.into(),
            }),
        },
    }
}

impl SocketFile {
    /// The file at this path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// Which file it is.
    pub(crate) fn identity(&self) -> SocketFileId {
        self.identity
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // Nothing is lost when it stays: the next agent replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds under a temporary name, closes it to others before it listens, then renames it into place:
/// the path always leads to a socket, and never to one that others than root and `group` may open.
/// The directory is made if it is missing. Must be called inside a tokio runtime.
pub(crate) fn bind(socket: &Path, group: Option<&SocketGroup>) -> Result<(UnixListener, SocketFile), ServeError> {
    let group = group.map(group_number).transpose()?;
    let failed = |error| ServeError::Socket {
        socket: socket.to_owned(),
        error,
    };
    let directory = socket.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let own = directory.join(format!(".{}.sock", std::process::id()));
    match fs::remove_file(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    SockAddr::unix(&own)
        .and_then(|address| listener.bind(&address))
        .map_err(failed)?;
    let give = |group| {
        chown(&own, None, Some(group)).map_err(|error| ServeError::NotGiven {
            socket: socket.to_owned(),
            group,
            error,
        })
    };
    let finish = || {
        fs::set_permissions(
            &own,
            Permissions::from_mode(if group.is_some() { 0o660 } else { 0o600 }),
        )?;
        listener.listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let identity = identity(&own)?;
        fs::rename(&own, socket)?;
        Ok(identity)
    };
    let identity = match group.map_or(Ok(()), give) {
        Ok(()) => finish().map_err(failed),
        Err(error) => Err(error),
    };
    let identity = identity.inspect_err(|_| drop(fs::remove_file(&own)))?;
    let file = SocketFile {
        path: socket.to_owned(),
        identity,
    };
    Ok((UnixListener::from_std(listener.into()).map_err(failed)?, file))
}

fn identity(path: &Path) -> io::Result<SocketFileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(SocketFileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}
