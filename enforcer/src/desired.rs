//! What the kernel should hold, as plain data.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use imbl::OrdSet;
use ipnet::IpNet;
use policy::classifier::Classifier;
use policy::{DenyResponse, Direction, PerDirection, Program, ProgramId, Tiers};

use crate::layout::{Element, IpFamily};
use crate::pod_links::PodLinks;

/// Everything that decides the ruleset. Equal values give equal rulesets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredState {
    /// The table's name in family `inet`: `namegate`, unless several instances share a network
    /// namespace.
    pub table: String,
    /// The programs that govern at least one address in some direction, by id. The chains of a
    /// direction are written where its `dispatch` points to the program.
    pub programs: BTreeMap<ProgramId, Arc<KernelProgram>>,
    /// The elements of objects' addresses, by the tiers whose sets they belong to. They have no
    /// timeout. What differs from the last installation is found without a look at what is shared.
    pub members: BTreeMap<ProgramId, ElementSet>,
    /// Which program governs each address of a pod. A packet is judged by the egress program of its
    /// source and by the ingress program of its destination, and passes where both allow it.
    pub dispatch: PerDirection<BTreeMap<IpAddr, ProgramId>>,
    /// Whether ingress programs decide about what this node itself sends.
    pub local_host: LocalHost,
    /// Source addresses whose lookups are intercepted (those of endpoints with a program).
    pub intercepted: BTreeSet<IpAddr>,
    /// Resolvers whose lookups are intercepted, and where to.
    pub resolvers: Vec<ResolverBinding>,
    /// The proxy's own addresses that workloads may ask directly (`--listen`); an unspecified
    /// address stands for all of this node's.
    pub listening: Vec<SocketAddr>,
    /// How lookups reach the proxy.
    pub interception: Interception,
    /// What happens to lookups while no agent is alive.
    pub fail_mode: FailMode,
    /// Addresses and ranges inside the cluster: pods, services, nodes.
    pub cluster: Vec<IpNet>,
    /// This node's own addresses.
    pub host: BTreeSet<IpAddr>,
    /// The links that lead to local pods, and which source addresses may come from them. It follows
    /// from the node's routes ([`routing::network`](crate::routing::network)).
    pub pod_links: PodLinks,
    /// The servers whose answers are believed, by address and port. A packet with one of these
    /// sources must not come from a pod's link.
    pub servers: BTreeSet<SocketAddr>,
    /// Sources and destinations that are refused although no program governs them: networks in
    /// which a pod of this node may get an address before its object is known.
    pub unknown: Vec<IpNet>,
    /// How a refused packet is answered.
    pub refusal: DenyResponse,
    /// Where connections are handed to that are looked into. Without it they are refused.
    pub handover: Option<Handover>,
    /// The addresses and ports of Services behind which some backend is looked into: at egress by
    /// a sender's program, at ingress by that of the backend. Connections to them are handed over
    /// before the backend is known; at egress those of senders whose program looks into some.
    pub inspected_services: PerDirection<BTreeSet<SocketAddr>>,
    /// The NFLOG group for samples of refused and audited packets (see
    /// [`records`](crate::records)); without one they are only counted.
    pub records: Option<u16>,
    /// The capacity of each learned set, in live elements. The kernel set is declared twice as
    /// large, because elements that have timed out count until its garbage collection.
    pub capacity: NonZeroU32,
}

impl DesiredState {
    /// The programs that govern an address in this direction, by id.
    pub fn programs_of(&self, direction: Direction) -> BTreeMap<ProgramId, &Arc<KernelProgram>> {
        let used = self.dispatch[direction].values();
        used.filter_map(|id| Some((*id, self.programs.get(id)?))).collect()
    }
}

/// Elements of the sets of some tiers. A clone shares its parts with the original.
pub type ElementSet = OrdSet<Element>;

/// A program in the form in which the kernel evaluates it. Equal where the tiers have equal ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelProgram {
    /// The tiers that are enforced.
    pub enforced: KernelTiers,
    /// The tiers that would be enforced if no policy were in mode audit; `None` where no policy is.
    pub audited: Option<KernelTiers>,
    /// How a refused packet is answered, in place of [`DesiredState::refusal`].
    pub response: Option<DenyResponse>,
}

/// Tiers, folded into what the kernel looks up.
#[derive(Debug, Clone)]
pub struct KernelTiers {
    /// The id of the tiers; their sets are named after it.
    pub id: ProgramId,
    /// Gives the verdicts of the tiers.
    pub classifier: Arc<Classifier>,
}

impl KernelProgram {
    /// Folds both evaluations of a program.
    pub fn new(program: &Program) -> Self {
        Self {
            enforced: KernelTiers::new(&program.enforced),
            audited: program.audited.as_ref().map(KernelTiers::new),
            response: program.response,
        }
    }

    /// Whether some connections are looked into.
    pub fn inspects(&self) -> bool {
        self.enforced.classifier.inspects()
    }

    /// The enforced tiers, and the audited ones if there are any.
    pub fn evaluations(&self) -> impl Iterator<Item = &KernelTiers> {
        std::iter::once(&self.enforced).chain(&self.audited)
    }
}

impl KernelTiers {
    /// Folds the tiers.
    pub fn new(tiers: &Tiers) -> Self {
        Self {
            id: tiers.id(),
            classifier: Arc::new(Classifier::new(tiers)),
        }
    }

    /// The tiers whose sets they look up: themselves, and those that stand for rules and names that
    /// they share.
    pub fn looked_up(&self) -> impl Iterator<Item = ProgramId> {
        let shared = self.classifier.shared().iter().map(|shared| shared.id);
        let names = self.classifier.shared_names().iter().map(|names| names.id);
        std::iter::once(self.id).chain(shared).chain(names)
    }
}

impl PartialEq for KernelTiers {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for KernelTiers {}

/// A resolver whose lookups are intercepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResolverBinding {
    /// The address and port that pods ask.
    pub asked: SocketAddr,
    /// Where the proxy listens for this resolver. In mode dnat each resolver has an address and
    /// port of its own, which tells the proxy whom the pod asked.
    pub listener: SocketAddr,
}

/// How lookups reach the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interception {
    /// Destination NAT to a local address and port for each resolver.
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
    /// No interception: workloads are configured to ask the agent's own listener.
    Off,
}

/// Whether policies decide about packets that this node itself sends to its pods: the kubelet's
/// probes, Pods in the host's network, its own processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalHost {
    /// They always pass, as NetworkPolicy says.
    Always,
    /// Ingress programs decide about them as about others.
    Policy,
}

/// Where connections are handed to that are looked into, and how the connections are known that
/// are made in their place. All numbers are the node's: nobody else must use them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// The listeners, on addresses of this node; of each family the first counts. Connections of a
    /// family without one are refused.
    pub listeners: Vec<SocketAddr>,
    /// The mark, one bit or more, of the packets that are sent in a client's place.
    pub mark: NonZeroU32,
    /// The mark that the answers to these get, so that they are delivered here and not to the
    /// client, whose address they bear.
    pub reply_mark: NonZeroU32,
    /// The routing table that delivers them.
    pub routing_table: u32,
    /// The conntrack zone of these connections. Without one they would be taken for the client's
    /// own, from which they differ in nothing.
    pub zone: u16,
}

impl Handover {
    /// The listener of a family.
    pub fn listener(&self, family: IpFamily) -> Option<SocketAddr> {
        let mut listeners = self.listeners.iter().copied();
        listeners.find(|listener| IpFamily::of(listener.ip()) == family)
    }
}

/// What happens to lookups while no agent is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailMode {
    /// They reach the resolver unobserved. This concerns DNS only; egress stays enforced.
    Open,
    /// They are refused.
    Closed,
}
