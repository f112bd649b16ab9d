//! A sandbox's number, held by one process at a time.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The right to use a number in this network namespace, until it is dropped or the process ends.
///
/// It is an abstract Unix socket: the kernel keeps these per network namespace, as it keeps the
/// tables and links that are named by the number, so the claim holds between processes of different
/// pid namespaces too.
#[derive(Debug)]
pub(super) struct Claim {
    id: u32,
    _socket: UnixDatagram,
}

impl Claim {
    /// The first free number from this process's id on.
    pub(super) fn fresh() -> io::Result<Self> {
        const TRIES: u32 = 64;
        let first = std::process::id();
        for id in first..first.saturating_add(TRIES) {
            if let Some(claim) = Self::take(id)? {
                return Ok(claim);
            }
        }
        Err(io::Error::other("no number for the sandbox is free"))
    }

    /// This number, unless somebody holds it.
    pub(super) fn take(id: u32) -> io::Result<Option<Self>> {
        let name = SocketAddr::from_abstract_name(format!("namegate-exec-{id}"))?;
        match UnixDatagram::bind_addr(&name) {
            Ok(socket) => Ok(Some(Self { id, _socket: socket })),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }
}
