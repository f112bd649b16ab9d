//! What can go wrong, and what to do about it.

use std::io;
use std::time::Duration;

use thiserror::Error;

/// Why elements were not admitted. Nothing was opened that was not open before, unless `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AdmitError {
    /// The rules were replaced meanwhile: compute the elements again.
    #[error("the ruleset was replaced meanwhile")]
    Stale,
    /// A set is at its capacity.
    #[error("the set {set} is full ({capacity} elements); raise --set-capacity")]
    Full {
        /// The set's name in the kernel.
        set: String,
        /// Its capacity in live elements.
        capacity: u32,
    },
    /// The kernel refused.
    #[error("the kernel refused the element of {set}: {error} (errno {errno})")]
    Rejected {
        /// The set's name.
        set: String,
        /// The errno of the kernel's reply.
        errno: i32,
        /// Its text.
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
    /// `nft` is not there.
    #[error("the program `nft` cannot be run ({0}); install the package nftables")]
    NoNft(io::Error),
    /// Not root.
    #[error("the kernel refuses this process nftables (EPERM); run as root or with CAP_NET_ADMIN")]
    NoPermission,
    /// The kernel or nft refused the document.
    #[error("the ruleset was refused: {0}")]
    Refused(String),
    /// The kernel's own interface to nftables does not answer.
    #[error("the kernel's nftables interface cannot be used ({0}); is the module nf_tables there?")]
    Netlink(io::Error),
    /// Outside nftables: addresses on lo, policy routes.
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
