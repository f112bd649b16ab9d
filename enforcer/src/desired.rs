//! What the kernel should hold, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use ipnet::IpNet;
use policy::classifier::Classifier;
use policy::{DenyResponse, Program, ProgramId, Tiers};

use crate::layout::Element;
use crate::pod_links::PodLinks;

/// Everything that decides the ruleset. Two equal values give the same ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// The table's name in family `inet`, `namegate` unless several instances share a network
    /// namespace.
    pub table: String,
    /// The programs in use.
    pub programs: BTreeMap<ProgramId, Arc<KernelProgram>>,
    /// The elements of objects' addresses, by the tiers whose sets they belong to. They stay as
    /// long as they stand here.
    ///
    /// Where a value is the same allocation as at the last installation it is not looked into.
    pub members: BTreeMap<ProgramId, Arc<BTreeSet<Element>>>,
    /// Which program governs each source address.
    pub dispatch: BTreeMap<IpAddr, ProgramId>,
    /// Source addresses whose lookups are intercepted (those of endpoints with a program).
    pub intercepted: BTreeSet<IpAddr>,
    /// Resolvers whose lookups are intercepted, and where to.
    pub resolvers: Vec<ResolverBinding>,
    /// The proxy's own addresses that workloads may ask directly (`--listen`); an unspecified
    /// address stands for all of this node's.
    pub listening: Vec<SocketAddr>,
    /// How lookups are intercepted.
    pub interception: Interception,
    /// What happens to lookups when the agent is gone.
    pub fail_mode: FailMode,
    /// Addresses and ranges inside the cluster: pods, services, nodes.
    pub cluster: Vec<IpNet>,
    /// This node's own addresses.
    pub host: BTreeSet<IpAddr>,
    /// The links that lead to local pods, and what may come from them. It follows from the node's
    /// routes ([`routing::network`](crate::routing::network)).
    pub pod_links: PodLinks,
    /// The servers whose answers are believed, by address and port: what claims to come from them
    /// must not come from a pod's link.
    pub servers: BTreeSet<SocketAddr>,
    /// Sources that are refused although no program governs them: where pods of this node may come
    /// to be that no object names yet.
    pub unknown: Vec<IpNet>,
    /// What a refused packet gets.
    pub refusal: Refusal,
    /// The NFLOG group (see [`records`](crate::records)) that samples of refused and audited
    /// packets go to; without one they are only counted.
    pub records: Option<u16>,
    /// The capacity of each learned set, in live elements; the kernel set is declared twice as
    /// large because elements that expire by themselves count until its garbage collection.
    pub capacity: NonZeroU32,
}

/// A program, in the form in which the kernel looks it up. Equal where the identities of what is
/// evaluated are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelProgram {
    /// What is enforced.
    pub enforced: KernelTiers,
    /// What would be enforced were no policy in mode audit.
    pub audited: Option<KernelTiers>,
    /// What a refused packet gets, in place of [`DesiredState::refusal`].
    pub response: Option<DenyResponse>,
}

/// Folded tiers.
#[derive(Debug, Clone)]
pub struct KernelTiers {
    /// The identity of the tiers; their sets are named after it.
    pub id: ProgramId,
    /// Their verdicts.
    pub fold: Arc<Classifier>,
}

impl KernelProgram {
    /// Folds a program.
    pub fn new(program: &Program) -> Self {
        Self {
            enforced: KernelTiers::new(&program.enforced),
            audited: program.audited.as_ref().map(KernelTiers::new),
            response: program.response,
        }
    }

    /// All that is evaluated.
    pub fn evaluations(&self) -> impl Iterator<Item = &KernelTiers> {
        std::iter::once(&self.enforced).chain(&self.audited)
    }
}

impl KernelTiers {
    /// Folds tiers.
    pub fn new(tiers: &Tiers) -> Self {
        Self {
            id: tiers.id(),
            fold: Arc::new(Classifier::new(tiers)),
        }
    }
}

impl PartialEq for KernelTiers {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for KernelTiers {}

/// A known resolver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResolverBinding {
    /// The address and port that pods ask.
    pub asked: SocketAddr,
    /// Where the proxy listens for it: in mode dnat an address and port of its own for each
    /// resolver.
    pub listener: SocketAddr,
}

/// How lookups reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interception {
    /// Destination NAT to a local address and port per resolver.
    Dnat,
    /// Transparent proxying with a mark and a routing table.
    Tproxy {
        /// The mark's bit or bits, also its mask.
        mark: NonZeroU32,
        /// The routing table that delivers marked packets locally.
        routing_table: u32,
        /// The port of the transparent sockets.
        port: u16,
    },
    /// None: the workloads are told to ask the agent's own listener.
    Off,
}

/// What happens to lookups when the agent is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// They fall through to the resolver, unobserved. DNS only; egress stays as it was.
    Open,
    /// They are refused.
    Closed,
}

/// What a refused packet gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// TCP reset or ICMP admin-prohibited, at a limited rate, so that applications fail at once.
    Reject,
    /// Nothing.
    Drop,
}
