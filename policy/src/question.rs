//! May this endpoint ask this name?

use std::net::SocketAddr;

use crate::name::Name;
use crate::program::Program;

/// What may be asked where no policy has a DNS rule (`dns.questions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionMode {
    /// Any name.
    Any,
    /// Names that some `toFQDNs` of the endpoint matches, the cluster domain, and reverse lookups of
    /// learned addresses.
    AllowedOnly,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionVerdict {
    /// It may be asked.
    Allowed,
    /// It may be asked if it is the reverse name of this learned address; the caller knows the ledger.
    AllowedIfLearned(std::net::IpAddr),
    /// It may not.
    Denied(QuestionDenial),
}

/// Why a question may not be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuestionDenial {
    /// `egressDeny.toFQDNs` matches the name.
    DeniedName,
    /// The endpoint has DNS rules for this resolver and none lets the name be asked.
    NoDnsRule,
    /// `dns.questions: allowed-only`, and no selector of the endpoint matches the name.
    NoSelector,
    /// The name is a search-list expansion of one that may be asked; refused, but not counted as a denial.
    SearchExpansion,
}

/// The questions an endpoint may ask, prepared for the hot path.
#[derive(Debug)]
pub struct Questions {
    // indices over the program's patterns
}

impl Questions {
    /// Prepares a program. `cluster_domain` is `cluster.local.` unless configured; `search` are the suffixes of
    /// the endpoint's search list, longest first.
    pub fn new(program: &Program, mode: QuestionMode, cluster_domain: &Name, search: &[Name]) -> Self {
        let _ = (program, mode, cluster_domain, search);
        todo!()
    }

    /// Judges one question, asked of the resolver at `asked`. Does not allocate when it allows.
    pub fn judge(&self, asked: SocketAddr, name: &Name) -> QuestionVerdict {
        let _ = (asked, name);
        todo!()
    }
}
