//! The number of a sandbox, which one process holds at a time.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The exclusive use of a number in this network namespace, until it is dropped or the process
/// ends.
///
/// The lock is an abstract Unix socket. The kernel keeps these per network namespace, as it keeps
/// the tables and links that are named by the number. So the lock also holds between processes of
/// different PID namespaces.
#[derive(Debug)]
pub(crate) struct SandboxIdClaim {
    id: u32,
    _socket: UnixDatagram,
}

impl SandboxIdClaim {
    /// Claims the first free number from this process's id on.
    pub(crate) fn fresh() -> io::Result<Self> {
        const TRIES: u32 = 64;
        let first = std::process::id();
        for id in first..first.saturating_add(TRIES) {
            if let Some(claim) = Self::take(id)? {
                return Ok(claim);
            }
        }
        Err(io::Error::other("no number for the sandbox is free"))
    }

    /// Claims `id`; `None` when another process holds it.
    pub(crate) fn take(id: u32) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("namegate-exec-{id}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self { id, _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}
