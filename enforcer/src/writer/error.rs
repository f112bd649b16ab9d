//! Why elements were not admitted, or rules not installed.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Why elements were not admitted. Except with `Unknown`, nothing was opened that was not open
/// before.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmitError {
    /// The rules were replaced meanwhile; compute the elements again.
    #[error("the ruleset was replaced meanwhile")]
    Stale,
    /// The set is at its capacity.
    #[error("the set {set} is full ({capacity} elements); raise --set-capacity")]
    Full {
        /// The set's name in the kernel.
        set: String,
        /// Its capacity in live elements.
        capacity: u32,
    },
    /// The kernel refused an element.
    #[error("the kernel refused the element of {set}: {error} (errno {errno})")]
    Rejected {
        /// The set's name in the kernel.
        set: String,
        /// The errno of the kernel's reply.
        errno: i32,
        /// The kernel's explanation, or the text of the errno.
        error: String,
    },
    /// No acknowledgement within the deadline; the elements may or may not be in the kernel.
    #[error("the kernel did not acknowledge within {0:?}")]
    Unknown(Duration),
    /// The writer has ended.
    #[error("the enforcer has stopped")]
    Stopped,
}

/// Why a ruleset could not be installed. The one before it stays in force.
#[derive(Debug, Error)]
pub enum InstallError {
    /// The program `nft` cannot be run.
    #[error("the program `nft` cannot be run ({0}); install the package nftables")]
    NoNft(io::Error),
    /// The process may not change nftables.
    #[error("the kernel refuses this process nftables (EPERM); run as root or with CAP_NET_ADMIN")]
    NoPermission,
    /// The kernel or nft refused the document.
    #[error("the ruleset was refused: {0}")]
    Refused(String),
    /// The netlink socket of nftables does not work.
    #[error("the kernel's nftables interface cannot be used ({0}); is the module nf_tables there?")]
    Netlink(io::Error),
    /// Addresses on `lo` or policy routes could not be made.
    #[error("{0}")]
    Routing(String),
    /// The writer has ended.
    #[error("the enforcer has stopped")]
    Stopped,
}

impl From<io::Error> for InstallError {
    /// An error of the netlink socket.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied {
            InstallError::NoPermission
        } else {
            InstallError::Netlink(error)
        }
    }
}
