//! The one thread that writes to the kernel.
//!
//! Everything goes through its queue, so that the order in which things are asked is the order in which they
//! happen. It drains the queue, puts all waiting admissions into one netlink batch, sends it, and answers each.
//!
//! # Why no answer is lost when rules change
//! An answer is put into the ledger before its elements are submitted, and an installation bumps the
//! generation *before* it reads the ledger for the elements of new sets. So an admission either commits under the old generation
//! and its addresses are in the ledger when the installation reads it, or finds the generation changed
//! ([`AdmitError::Stale`]) and is asked again under the new one.

use std::time::Duration;

use fqdn_cache::Time;
use thiserror::Error;

use crate::desired::Desired;
use crate::layout::Element;

/// Counts installations; an admission names the one whose sets it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Generation(pub u64);

/// Proof that the kernel holds the elements of an admission: only this module can make one, out of an
/// acknowledged transaction.
#[derive(Debug)]
#[must_use = "an answer is released against this proof"]
pub struct Committed(());

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
    NoNft(std::io::Error),
    /// Not root.
    #[error("the kernel refuses this process nftables (EPERM); run as root or with CAP_NET_ADMIN")]
    NoPermission,
    /// The kernel or nft refused the document.
    #[error("the ruleset was refused: {0}")]
    Refused(String),
    /// Outside nftables: addresses on lo, policy routes.
    #[error("{0}")]
    Routing(String),
    /// The writer has ended.
    #[error("the enforcer has stopped")]
    Stopped,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Netlink transactions committed.
    pub transactions: u64,
    /// Netlink transactions that failed.
    pub failures: u64,
    /// Elements added or renewed.
    pub elements_written: u64,
    /// Elements believed live in the kernel.
    pub elements: u64,
    /// Elements that the learned sets may hold in all.
    pub capacity: u64,
    /// Rulesets installed.
    pub installs: u64,
}

/// A handle to the writer; cheap to clone, usable from any thread.
#[derive(Debug, Clone)]
pub struct Enforcer {}

impl Enforcer {
    /// Starts the writer thread in the network namespace of the calling thread, and adopts what a table
    /// of this name already holds: elements that it finds count as committed.
    pub fn start(table: &str) -> Result<Self, InstallError> {
        todo!("{table}")
    }

    /// Makes the kernel what `desired` says, in one transaction, and returns the new generation.
    ///
    /// `learned` is called after the generation is bumped and returns every element that should be in force, with the end of its lease.
    pub async fn install(
        &self,
        desired: Desired,
        learned: impl FnOnce() -> Vec<(Element, Time)> + Send + 'static,
    ) -> Result<Generation, InstallError> {
        let _ = (desired, learned);
        todo!()
    }

    /// The fast path of an admission: proof at once when every element is in the kernel until its time, less
    /// `slack`. `None` when something must be written (or the generation has changed): use [`admit`](Self::admit).
    pub fn already_admitted(
        &self,
        generation: Generation,
        elements: &[(Element, Time)],
        slack: Duration,
    ) -> Option<Committed> {
        let _ = (generation, elements, slack);
        todo!()
    }

    /// Puts elements into the kernel, each until its time (an element that already lives longer is left alone), and
    /// waits for the acknowledgement.
    pub async fn admit(
        &self,
        generation: Generation,
        elements: Vec<(Element, Time)>,
        deadline: Duration,
    ) -> Result<Committed, AdmitError> {
        let _ = (generation, elements, deadline);
        todo!()
    }

    /// Figures.
    pub fn stats(&self) -> WriterStats {
        todo!()
    }

    /// Elements believed in the kernel, with their ends.
    pub fn elements(&self) -> Vec<(Element, Time)> {
        todo!()
    }

    /// Ends interception at once in fail-mode open (the heartbeat is removed) and stops the writer; enforcement stays.
    pub async fn shut_down(&self) {
        todo!()
    }
}

/// Removes a table and everything that [`routing`](crate::routing) made for it.
pub fn clean_up(table: &str) -> Result<(), InstallError> {
    todo!("{table}")
}
