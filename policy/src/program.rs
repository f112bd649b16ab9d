//! The compiled egress policy of an endpoint.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::pattern::Pattern;
use crate::policy::{DnsRule, PolicyId, Zone};
use crate::ports::PortSet;

/// The compiled egress policy of one endpoint, or of many that are governed alike.
///
/// Order is fixed, so that equal policies give equal programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// Whether what no rule allows is refused. An endpoint whose policies all say
    /// `enableDefaultDeny.egress: false` stays open.
    pub closed: bool,
    /// Looked up first; a match refuses.
    pub deny: Rules,
    /// Looked up second; a match allows.
    pub allow: Rules,
    /// What may be asked of resolvers.
    pub dns: Vec<DnsGrant>,
}

/// The allowing or the denying half of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Disjoint: no packet is matched by two entries of one zone.
    pub prefixes: Vec<PrefixRule>,
    /// One entry per pattern, sorted by pattern.
    pub names: Vec<NameRule>,
}

/// Ports of a prefix.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PrefixRule {
    /// Which part of the address space it speaks of.
    pub zone: Zone,
    /// The destinations.
    pub prefix: IpNet,
    /// The ports.
    pub ports: PortSet,
}

/// Ports of the addresses that names matching a pattern resolve to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NameRule {
    /// The selector.
    pub pattern: Pattern,
    /// The union of the ports that any rule gives it.
    pub ports: PortSet,
    /// Which rules it came from, for people; not part of the program's identity.
    pub origins: Vec<Origin>,
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The policy.
    pub policy: PolicyId,
    /// The rule within it, for example `spec.egress[0]`.
    pub rule: String,
}

/// A DNS rule of an endpoint, bound to the servers it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsGrant {
    /// The servers.
    pub servers: DnsServers,
    /// Port and patterns.
    pub rule: DnsRule,
}

/// Which servers a DNS rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DnsServers {
    /// Every trusted resolver.
    Trusted,
    /// These addresses, which the rule thereby makes known resolvers.
    Listed(Vec<IpAddr>),
}

/// The identity of what a program makes the kernel do: equal for programs that differ only in origins.
///
/// Stable between processes and versions of the same [`ProgramId::SCHEME`], because kernel chains and
/// sets are named after it and outlive the agent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u64);

impl ProgramId {
    /// Raise when the meaning of a program in the kernel changes.
    pub const SCHEME: u8 = 1;
}

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Program {
    /// The identity of the datapath part (`closed`, `deny`, `allow`; not `dns`, not origins).
    pub fn id(&self) -> ProgramId {
        todo!()
    }
}
