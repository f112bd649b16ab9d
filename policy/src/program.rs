//! The compiled egress policy of an endpoint.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use siphasher::sip::SipHasher24;

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
    /// Sorted by zone and prefix. No packet is matched by two entries of one zone that both list ports, nor by two that both
    /// have every port: these two kinds live in sets of their own, and an interval set refuses what overlaps.
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
        let mut bytes = vec![ProgramId::SCHEME, u8::from(self.closed)];
        encode_rules(&self.deny, &mut bytes);
        encode_rules(&self.allow, &mut bytes);
        ProgramId(SipHasher24::new_with_keys(ID_KEYS.0, ID_KEYS.1).hash(&bytes))
    }
}

/// Fixed for ever: kernel objects are named with them. (The ASCII of `namegate program`.)
const ID_KEYS: (u64, u64) = (0x6e61_6d65_6761_7465, 0x2070_726f_6772_616d);

// The encoding is prefix-free: every list is preceded by its length, and every variant by its own byte.

fn encode_rules(rules: &Rules, bytes: &mut Vec<u8>) {
    encode_length(rules.prefixes.len(), bytes);
    for rule in &rules.prefixes {
        bytes.push(match rule.zone {
            Zone::Anywhere => 0,
            Zone::World => 1,
            Zone::Cluster => 2,
            Zone::Host => 3,
        });
        match rule.prefix {
            IpNet::V4(prefix) => {
                bytes.push(4);
                bytes.extend(prefix.addr().octets());
            }
            IpNet::V6(prefix) => {
                bytes.push(6);
                bytes.extend(prefix.addr().octets());
            }
        }
        bytes.push(rule.prefix.prefix_len());
        encode_ports(&rule.ports, bytes);
    }
    encode_length(rules.names.len(), bytes);
    for rule in &rules.names {
        let pattern = rule.pattern.as_str().as_bytes();
        encode_length(pattern.len(), bytes);
        bytes.extend(pattern);
        encode_ports(&rule.ports, bytes);
    }
}

fn encode_ports(ports: &PortSet, bytes: &mut Vec<u8>) {
    match ports {
        PortSet::All => bytes.push(0),
        PortSet::Ranges(ranges) => {
            bytes.push(1);
            encode_length(ranges.len(), bytes);
            for range in ranges {
                bytes.push(range.protocol.number());
                bytes.extend(range.first.to_be_bytes());
                bytes.extend(range.last.to_be_bytes());
            }
        }
    }
}

fn encode_length(length: usize, bytes: &mut Vec<u8>) {
    bytes.extend((length as u64).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyKind;
    use crate::ports::{PortRange, Protocol};

    fn program() -> Program {
        let https = PortSet::from_ranges([PortRange::single(Protocol::Tcp, 443)]);
        let policy = PolicyId {
            kind: PolicyKind::CiliumNetworkPolicy,
            namespace: "n".into(),
            name: "p".into(),
        };
        Program {
            closed: true,
            deny: Rules::default(),
            allow: Rules {
                prefixes: vec![PrefixRule {
                    zone: Zone::World,
                    prefix: "192.0.2.0/24".parse().unwrap(),
                    ports: PortSet::All,
                }],
                names: vec![NameRule {
                    pattern: Pattern::pattern("*.example.com").unwrap(),
                    ports: https,
                    origins: vec![Origin {
                        policy,
                        rule: "spec.egress[0]".into(),
                    }],
                }],
            },
            dns: Vec::new(),
        }
    }

    #[test]
    fn the_id_is_the_same_in_every_process_and_version() {
        assert_eq!(
            program().id().to_string(),
            "f22851d78fb226cf",
            "raise ProgramId::SCHEME if the meaning changed"
        );
    }

    #[test]
    fn origins_and_dns_rules_are_no_part_of_the_id() {
        let mut other = program();
        other.allow.names[0].origins.clear();
        other.dns.push(DnsGrant {
            servers: DnsServers::Trusted,
            rule: DnsRule {
                port: 53,
                patterns: Vec::new(),
            },
        });
        assert_eq!(other.id(), program().id());
    }

    #[test]
    fn whatever_the_kernel_does_is_part_of_the_id() {
        let mut others = vec![program(); 6];
        others[0].closed = false;
        others[1].deny = std::mem::take(&mut others[1].allow);
        others[2].allow.prefixes[0].zone = Zone::Anywhere;
        others[3].allow.prefixes[0].prefix = "192.0.2.0/25".parse().unwrap();
        others[4].allow.names[0].ports = PortSet::All;
        others[5].allow.names[0].pattern = Pattern::name("a.example.com").unwrap();
        others.push(program());
        let ids: std::collections::BTreeSet<_> = others.iter().map(Program::id).collect();
        assert_eq!(ids.len(), others.len());
    }
}
