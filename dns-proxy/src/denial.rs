//! The refusal of a query, by the gate.

use crate::rcode::Rcode;

/// A refusal, as the client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// NXDOMAIN or REFUSED; SERVFAIL where the gate cannot decide yet, since nobody caches that;
    /// NOERROR where the name has no such record.
    pub rcode: Rcode,
    /// The extra text of EDE 15 (RFC 8914), one line. May be empty when
    /// [`takes_reasons`](crate::question::DnsQuestion::takes_reasons) is false.
    pub reason: String,
    /// What it is, for those who count.
    pub kind: DenialKind,
}

/// What a refusal of a query is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialKind {
    /// The client may not ask this, here or now.
    Refused,
    /// The answer that keeps a client from leaving for an encrypted resolver.
    Discovery,
}
