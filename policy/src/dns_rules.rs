//! Which questions may be asked of which DNS servers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use names::Pattern;

/// What may be asked where no policy has a DNS rule (`--dns-questions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuestionMode {
    /// Any name may be asked.
    Any,
    /// Names that some `toFQDNs` of the endpoint matches, the cluster domain, and reverse lookups
    /// of learned addresses.
    AllowedOnly,
}

/// One `toPorts` entry with `rules.dns`. It speaks of UDP and TCP alike, whichever protocol the
/// entry names: a resolver answers over either, and a client turns to TCP when an answer is
/// truncated.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsRule {
    /// The resolver's port.
    pub port: u16,
    /// Names that may be asked. Empty: none.
    pub patterns: Vec<Pattern>,
}

/// A DNS rule of an endpoint, bound to the servers it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DnsGrant {
    /// The servers that may be asked.
    pub servers: DnsServers,
    /// The port of these servers, and the names that may be asked there.
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

impl DnsServers {
    /// The addresses that are listed.
    pub fn listed(&self) -> &[IpAddr] {
        match self {
            DnsServers::Trusted => &[],
            DnsServers::Listed(servers) => servers,
        }
    }
}

/// What an endpoint may ask resolvers. Egress rules alone speak of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuestionRules {
    /// The DNS rules.
    pub grants: Vec<DnsGrant>,
    /// What may be asked where no DNS rule speaks; `None` where no policy says.
    pub mode: Option<QuestionMode>,
}

impl QuestionRules {
    /// The servers that DNS rules list.
    pub(crate) fn listed_servers(&self) -> BTreeSet<IpAddr> {
        let listed = self.grants.iter().flat_map(|grant| grant.servers.listed());
        listed.copied().collect()
    }
}
