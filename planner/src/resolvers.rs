//! Which resolvers are known, whom their answers teach, and where lookups to them arrive.

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ahash::HashMap;
use dns_proxy::{Listener, ListenerKind};
use enforcer::routing::{LISTEN_V4, LISTEN_V6};
use enforcer::{Interception, ResolverBinding};
use policy::{DnsServers, Program, ProgramId, Tiers};
use settings::Settings;

use super::compiling::{Compiled, CompiledProgram};

/// The ports that listeners of mode dnat are spread over: below every usual ephemeral range, and
/// far more than there are known resolvers.
const DNAT_PORTS: std::ops::Range<u16> = 15_354..16_378;

/// A known resolver.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// Whom to ask, first to last: itself, and for a configured upstream the others after it.
    pub upstreams: Arc<[SocketAddr]>,
    /// Whom its answers teach.
    pub teaches: Teaches,
}

/// Whom the answers of a resolver teach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Teaches {
    /// Every program: a configured upstream or the cluster's DNS.
    Everyone,
    /// Only the evaluations of programs whose own DNS rules name it: whoever writes a policy
    /// decides for the endpoints that it selects, and for nobody else's.
    Programs(BTreeSet<ProgramId>),
}

/// The servers of listed DNS rules, the cluster's DNS Services, and the configured upstreams.
pub(super) fn known(
    dns_services: &[SocketAddr],
    settings: &Settings,
    compiled: &[Option<Compiled>],
) -> HashMap<SocketAddr, Resolver> {
    let mut known = HashMap::default();
    for compiled in compiled.iter().flatten() {
        // Names stand in egress rules alone, and so does who teaches them.
        let Some(CompiledProgram { program, .. }) = &compiled.programs.egress else {
            continue;
        };
        for grant in &compiled.question_rules.grants {
            let DnsServers::Listed(servers) = &grant.servers else {
                continue;
            };
            for server in servers {
                let asked = SocketAddr::new(*server, grant.rule.port);
                let resolver = known.entry(asked).or_insert_with(|| Resolver {
                    upstreams: Arc::new([asked]),
                    teaches: Teaches::Programs(BTreeSet::new()),
                });
                if let Teaches::Programs(programs) = &mut resolver.teaches {
                    let Program { enforced, audited, .. } = &**program;
                    programs.insert(enforced.id());
                    programs.extend(audited.as_ref().map(Tiers::id));
                }
            }
        }
    }
    for asked in dns_services {
        known.insert(
            *asked,
            Resolver {
                upstreams: Arc::new([*asked]),
                teaches: Teaches::Everyone,
            },
        );
    }
    // Pods ask an encrypted upstream at its address on port 53. Where a plain upstream has the same
    // address and port, the plain one must win, so it is inserted last.
    let is_encrypted = |upstream: &SocketAddr| settings.asked_by_pods(*upstream) != *upstream;
    let (encrypted, plain): (Vec<_>, Vec<_>) = settings.upstreams.iter().copied().partition(is_encrypted);
    for first in encrypted.into_iter().chain(plain) {
        let others = settings.upstreams.iter().copied().filter(|upstream| *upstream != first);
        let upstreams = std::iter::once(first).chain(others).collect();
        known.insert(
            settings.asked_by_pods(first),
            Resolver {
                upstreams,
                teaches: Teaches::Everyone,
            },
        );
    }
    known
}

/// Whom each server's answers teach, by its address alone: the widest of its ports. `shared` tells
/// which tiers stand for names that some tiers share: who teaches these teaches them too, and
/// nobody else, since who may teach is part of their id.
pub(super) fn teachers<S: Iterator<Item = ProgramId>>(
    resolvers: &HashMap<SocketAddr, Resolver>,
    shared: impl Fn(ProgramId) -> S,
) -> HashMap<IpAddr, Teaches> {
    let mut teachers: HashMap<IpAddr, Teaches> = HashMap::default();
    for resolver in resolvers.values() {
        // A configured upstream is asked in place of another, also one that is no known resolver
        // itself (on loopback).
        for server in resolver.upstreams.iter() {
            teachers
                .entry(server.ip())
                .and_modify(|known| known.widen(&resolver.teaches))
                .or_insert_with(|| resolver.teaches.clone());
        }
    }
    for teaches in teachers.values_mut() {
        if let Teaches::Programs(programs) = teaches {
            let more: Vec<ProgramId> = programs.iter().flat_map(|id| shared(*id)).collect();
            programs.extend(more);
        }
    }
    teachers
}

impl Teaches {
    fn widen(&mut self, other: &Teaches) {
        match (&mut *self, other) {
            (Teaches::Everyone, _) => {}
            (Teaches::Programs(programs), Teaches::Programs(more)) => programs.extend(more),
            (Teaches::Programs(_), Teaches::Everyone) => *self = Teaches::Everyone,
        }
    }
}

/// Gives each known resolver its listener. The port follows from the resolver alone (but for
/// collisions), so that two agents that overlap during an upgrade, and one that restarts, agree
/// without talking.
pub(super) fn bind(asked: impl Iterator<Item = SocketAddr>, interception: Interception) -> Vec<ResolverBinding> {
    // Only the agent can ask an upstream on loopback: a pod's loopback is not this node's.
    let asked: BTreeSet<SocketAddr> = asked.filter(|asked| !asked.ip().is_loopback()).collect();
    let mut taken = BTreeSet::new();
    asked
        .into_iter()
        .filter_map(|asked| {
            let listener = match interception {
                Interception::Off => return None,
                Interception::Tproxy { port, .. } => SocketAddr::new(unspecified(asked.ip()), port),
                Interception::Dnat => {
                    let own = if asked.is_ipv4() {
                        IpAddr::V4(LISTEN_V4)
                    } else {
                        IpAddr::V6(LISTEN_V6)
                    };
                    SocketAddr::new(own, free_port(asked, &mut taken)?)
                }
            };
            Some(ResolverBinding { asked, listener })
        })
        .collect()
}

/// `None` when all ports are taken: such a resolver stays ordinary egress, and teaches nothing.
fn free_port(asked: SocketAddr, taken: &mut BTreeSet<u16>) -> Option<u16> {
    // Keys are zero: every version and every process must hash alike.
    let mut hasher = siphasher::sip::SipHasher13::new();
    asked.to_string().hash(&mut hasher);
    let span = u64::from(DNAT_PORTS.end - DNAT_PORTS.start);
    let first = hasher.finish() % span;
    // Below the span, which came from a u16.
    let nth = |step: u64| DNAT_PORTS.start + u16::try_from((first + step) % span).unwrap_or(0);
    let port = (0..span).map(nth).find(|port| !taken.contains(port))?;
    taken.insert(port);
    Some(port)
}

fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// Where the proxy listens: as a plain resolver, and for what is intercepted.
pub(super) fn listeners(settings: &Settings, bindings: &[ResolverBinding]) -> Vec<Listener> {
    let plain = settings.listen.iter().map(|&address| Listener {
        address,
        kind: ListenerKind::Plain,
    });
    let intercepting: BTreeSet<Listener> = match settings.interception {
        Interception::Off => BTreeSet::new(),
        Interception::Dnat => bindings
            .iter()
            .map(|binding| Listener {
                address: binding.listener,
                kind: ListenerKind::Dnat(binding.asked),
            })
            .collect(),
        // One socket takes the lookups to all resolvers of a family.
        Interception::Tproxy { .. } => bindings
            .iter()
            .map(|binding| Listener {
                address: binding.listener,
                kind: ListenerKind::Tproxy,
            })
            .collect(),
    };
    plain.chain(intercepting).collect()
}
