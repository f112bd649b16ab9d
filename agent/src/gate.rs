//! The agent's side of the proxy's gate: may this question be asked, and does the kernel hold what
//! the answer needs?
//!
//! An answer is written to the ledger before its elements are submitted, and a stale admission is
//! computed again under the plan that replaced its own. `enforcer::writer` explains why no answer
//! is lost that way.
//!
//! - `admission`: from a validated answer to the proof that it may be released.
//! - `admission_cache`: the answers that a worker need not have admitted again.
//! - `discovery`: keeps clients from switching to encrypted DNS.
//! - `lookup_events`: what became of lookups, as events.
//! - `lookup_log`: one lookup in the log.
//! - `silent_upstreams`: the upstreams that do not answer.
//! - `withheld`: logs and records the answers that were withheld.

mod admission;
mod admission_cache;
mod discovery;
mod lookup_events;
mod lookup_log;
mod silent_upstreams;
mod withheld;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::{RefusedLookupRow, WithheldRow};
use arc_swap::ArcSwap;
use clock::Time;
use dns_proxy::{AdmissionStatus, CommitMode, Completion, Rcode};
use dns_proxy::{
    Denial, DenialKind, DnsQuestion, Gate, ProxyEvent, QueryTarget, Screening, Transport, ValidatedAnswer,
};
use enforcer::writer::{AdmissionRequest, Generation, Holder};
use enforcer::{Committed, Enforcer};
use events::EventLog;
use fqdn_cache::{LeaseOwner, LeaseTiming, Ledger};
use names::Name;
use parking_lot::Mutex;
use planner::{ActivePlan, Governed, Plan, target_address};
use policy::question::{QuestionDenial, QuestionVerdict};
use settings::EncryptedDnsDiscovery;

use crate::log_throttle::Throttle;
use crate::metrics::Metrics;
use crate::records::{AnswerLog, RefusedLookups, WithheldAnswers};

use admission::{AdmissionStep, ParkedAdmission};
use admission_cache::{AdmissionCache, CacheVersion};
use lookup_events::{DeniedLookups, RefusedLookup};
use silent_upstreams::SilentUpstreams;

/// How long an answer waits for the rules that are being installed, with which the agent begins or
/// a pod becomes governed: as long as stub resolvers wait. Until these are in force nothing can be
/// committed, so that the deadline of commits would fail lookups for nothing.
const INSTALLATION_PATIENCE: Duration = Duration::from_secs(5);

/// The gate of this node's proxy.
#[derive(Debug)]
pub struct NodeGate(Arc<GateCore>);

/// What lookups share with the rest of the agent. Pending admissions hold on to it.
#[derive(Debug)]
struct GateCore {
    in_force: ArcSwap<ActivePlan>,
    /// How often `in_force` was replaced; counted after the replacement.
    publications: AtomicU64,
    /// Stale admissions, which wait for the next plan to be published.
    parked: Mutex<Vec<ParkedAdmission>>,
    ledger: Arc<Mutex<Ledger>>,
    enforcer: Enforcer,
    settings: GateSettings,
    metrics: Arc<Metrics>,
    /// `Some` where packets are recorded, so that names can be shown beside addresses.
    answer_log: Option<Arc<AnswerLog>>,
    events: Arc<EventLog>,
    refused: RefusedLookups,
    answers_learned: AtomicU64,
    evicted_names: AtomicU64,
    left_out_addresses: AtomicU64,
    complaints: Throttle,
    remarks: Throttle,
    silent: SilentUpstreams,
    withheld: WithheldAnswers,
}

/// What a worker keeps between its calls of the gate.
#[derive(Debug)]
pub struct WorkerState {
    admissions: AdmissionCache,
    /// Collected until the next `flush`.
    submissions: Vec<AdmissionRequest>,
    /// The worker has written to the ledger since the last eviction.
    has_learned: bool,
    /// Refused since the last replies were sent, to be recorded once they are.
    refused: Vec<RefusedLookup>,
    denied: DeniedLookups,
}

/// The settings that the gate needs for every lookup.
#[derive(Debug, Clone)]
pub struct GateSettings {
    /// The response code of a denied question.
    pub denied: Rcode,
    /// Whether clients may discover encrypted DNS servers by themselves.
    pub encrypted_dns_discovery: EncryptedDnsDiscovery,
    /// How long a lease is. Its grace is the part beyond the TTL: an element that lives at least
    /// the rest of it need not be renewed.
    pub lease: LeaseTiming,
    /// How long an answer waits for the kernel before it is withheld.
    pub commit_deadline: Duration,
    /// The upstreams for queries to the proxy's own listener.
    pub upstreams: Arc<[SocketAddr]>,
}

/// The client of a lookup, and the resolver that it asked.
#[derive(Debug, Clone)]
pub enum ClientIdentity {
    /// An endpoint with a program.
    Endpoint(Arc<Governed>, SocketAddr),
    /// An endpoint that gets its program, or its resolver, with the plan after this generation.
    Coming(Arc<Governed>, SocketAddr, Generation),
    /// A client that no policy selects.
    Other(IpAddr),
}

impl ClientIdentity {
    /// The owner of what is learned: each endpoint is one, and all other clients are one together.
    fn owner(&self) -> LeaseOwner {
        match self {
            ClientIdentity::Endpoint(endpoint, _) | ClientIdentity::Coming(endpoint, ..) => endpoint.owner(),
            ClientIdentity::Other(_) => LeaseOwner::default(),
        }
    }
}

impl NodeGate {
    /// A gate in front of `enforcer`, with a first plan in force.
    pub fn new(
        first: ActivePlan,
        ledger: Arc<Mutex<Ledger>>,
        enforcer: Enforcer,
        settings: GateSettings,
        metrics: Arc<Metrics>,
        answer_log: Option<Arc<AnswerLog>>,
        events: Arc<EventLog>,
    ) -> Self {
        Self(Arc::new(GateCore {
            in_force: ArcSwap::from_pointee(first),
            publications: AtomicU64::new(0),
            parked: Mutex::default(),
            ledger,
            enforcer,
            settings,
            metrics,
            answer_log,
            events,
            refused: RefusedLookups::default(),
            answers_learned: AtomicU64::new(0),
            evicted_names: AtomicU64::new(0),
            left_out_addresses: AtomicU64::new(0),
            complaints: Throttle::default(),
            remarks: Throttle::default(),
            silent: SilentUpstreams::default(),
            withheld: WithheldAnswers::default(),
        }))
    }

    /// Announces the plan that is about to be published. From now on lookups of endpoints that only
    /// this plan knows are forwarded, and their answers wait until it is in force.
    pub fn announce(&self, coming: Arc<Plan>) {
        let in_force = self.0.in_force.load();
        self.0.in_force.store(Arc::new(ActivePlan {
            plan: Arc::clone(&in_force.plan),
            generation: in_force.generation,
            coming: Some(coming),
        }));
    }

    /// Publishes a plan that the kernel enforces.
    pub fn publish(&self, in_force: ActivePlan) {
        self.0.in_force.store(Arc::new(in_force));
        self.0.publications.fetch_add(1, Ordering::Release);
        self.0.resume();
    }

    /// Takes over a plan that [decides as](Plan::decides_as) the one in force. What workers have
    /// seen admitted under that one stays so.
    pub fn follow(&self, plan: Arc<Plan>) {
        let in_force = self.0.in_force.load();
        self.0.in_force.store(Arc::new(ActivePlan {
            plan,
            generation: in_force.generation,
            coming: in_force.coming.clone(),
        }));
    }

    /// The plan in force.
    pub fn in_force(&self) -> Arc<ActivePlan> {
        self.0.in_force.load_full()
    }

    /// How many answers were written to the ledger since the start. While this stays the same, the
    /// ledger has learned nothing.
    pub fn answers_learned(&self) -> u64 {
        self.0.answers_learned.load(Ordering::Relaxed)
    }

    /// How many addresses of answers were not opened since the start, because their name may not
    /// hold so many.
    pub fn left_out_addresses(&self) -> u64 {
        self.0.left_out_addresses.load(Ordering::Relaxed)
    }

    /// Where what happens is recorded.
    pub(crate) fn events(&self) -> &EventLog {
        &self.0.events
    }

    /// Where what is decided is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// How often a plan was published since the start.
    pub fn publications(&self) -> u64 {
        self.0.publications.load(Ordering::Acquire)
    }

    /// The upstreams that do not answer, over which transport, and since when.
    pub fn silent_upstreams(&self) -> Vec<((SocketAddr, Transport), Time)> {
        self.0.silent.all()
    }

    /// The answers that were withheld lately, the most recent first.
    pub fn withheld(&self, now: Time) -> Vec<WithheldRow> {
        self.0.withheld.rows(now, clock::wall_now())
    }

    /// The lookups that were refused lately, the most recent first.
    pub fn refused_lookups(&self, now: Time) -> Vec<RefusedLookupRow> {
        self.0.refused.rows(now, clock::wall_now())
    }

    /// How many names the ledger has evicted since the start.
    pub fn evicted_names(&self) -> u64 {
        self.0.evicted_names.load(Ordering::Relaxed)
    }
}

impl Gate for NodeGate {
    type Identity = ClientIdentity;
    type Proof = Committed;
    type WorkerState = WorkerState;

    fn worker_state(&self) -> WorkerState {
        WorkerState {
            admissions: AdmissionCache::new(),
            submissions: Vec::new(),
            has_learned: false,
            refused: Vec::new(),
            denied: DeniedLookups::default(),
        }
    }

    fn screen(
        &self,
        worker_state: &mut WorkerState,
        source: IpAddr,
        target: QueryTarget,
        question: &DnsQuestion,
    ) -> Screening<ClientIdentity> {
        let core = &*self.0;
        let in_force = core.in_force.load();
        let (plan, is_coming) = in_force.plan_for(source, target, &question.name);
        let deny = |kind, rcode, reason: &dyn Fn() -> String| {
            if lookup_log::is_on() {
                lookup_log::refused(plan, source, target_address(target), &question.name, (rcode, &reason()));
            }
            let reason = match question.takes_reasons {
                true => reason(),
                false => String::new(),
            };
            Screening::Refuse(Denial { rcode, reason, kind })
        };
        let mut refuse = |kind, rcode, reason: &dyn Fn() -> String| {
            core.refused(worker_state, plan, source, &question.name, reason);
            deny(kind, rcode, reason)
        };
        let Some(upstreams) = core.upstreams(plan, target) else {
            return refuse(DenialKind::Refused, Rcode::Refused, &|| {
                "namegate: this resolver is not known here".into()
            });
        };
        let Some(endpoint) = plan.governed.get(&source) else {
            let may_ask_anything = match target {
                QueryTarget::Proxy => true,
                // The kernel intercepts governed endpoints alone. This client was one a moment ago,
                // or uses a flow from that time.
                QueryTarget::Resolver(_) => plan.is_local(source),
            };
            if !may_ask_anything && plan.may_become_local(source) {
                return refuse(DenialKind::Refused, Rcode::ServFail, &|| {
                    format!("namegate: no Pod with the address {source} is known yet")
                });
            }
            return match may_ask_anything {
                true => {
                    lookup_log::allowed(plan, source, target_address(target), &question.name);
                    Screening::Forward {
                        identity: ClientIdentity::Other(source),
                        upstreams,
                    }
                }
                false => refuse(DenialKind::Refused, Rcode::Refused, &|| {
                    format!("namegate: {source} is not an endpoint of this node")
                }),
            };
        };
        let to = target_address(target);
        let Some(questions) = &endpoint.questions else {
            // That says nothing of the name, and most often ends with the old Pod's object.
            return refuse(DenialKind::Refused, Rcode::ServFail, &|| {
                format!(
                    "namegate: {source} is claimed by several Pods whose policies differ, so nothing is let through"
                )
            });
        };
        if core.settings.encrypted_dns_discovery == EncryptedDnsDiscovery::Deny
            && let Some(rcode) = discovery::discovery_rcode(&question.name)
        {
            return refuse(DenialKind::Discovery, rcode, &|| {
                "namegate: lookups here go to the resolver that the network names".into()
            });
        }
        let denial = match questions.judge(to, &question.name) {
            QuestionVerdict::Allowed => None,
            QuestionVerdict::AllowedIfLearned(address) => {
                let counts = |teacher| plan.teaches(teacher, endpoint);
                let learned = core.ledger.lock().is_learned(clock::now(), address, counts);
                (!learned).then_some(QuestionDenial::NoSelector)
            }
            QuestionVerdict::Denied(denial) => Some(denial),
        };
        match denial {
            None => {
                lookup_log::allowed(plan, source, to, &question.name);
                Screening::Forward {
                    identity: match is_coming {
                        true => ClientIdentity::Coming(Arc::clone(endpoint), to, in_force.generation),
                        false => ClientIdentity::Endpoint(Arc::clone(endpoint), to),
                    },
                    upstreams,
                }
            }
            // No event: the program asked for another name, of which its C library made this one.
            Some(denial @ QuestionDenial::SearchExpansion) => deny(DenialKind::Refused, core.settings.denied, &|| {
                denial_reason(denial, &question.name, endpoint)
            }),
            Some(denial) => refuse(DenialKind::Refused, core.settings.denied, &|| {
                denial_reason(denial, &question.name, endpoint)
            }),
        }
    }

    fn admit(
        &self,
        worker_state: &mut WorkerState,
        identity: &ClientIdentity,
        validated: ValidatedAnswer,
        mode: CommitMode,
        completion: impl FnOnce() -> Completion<Committed>,
    ) -> AdmissionStatus<Committed> {
        let core = &self.0;
        if let (Some(answer_log), ClientIdentity::Endpoint(endpoint, _) | ClientIdentity::Coming(endpoint, ..)) =
            (&core.answer_log, identity)
        {
            let addresses = validated.addresses.iter().map(|(address, _)| *address);
            answer_log.saw(endpoint, &validated.name, addresses);
        }
        if validated.addresses.is_empty() {
            core.released(identity, &validated, "it has no address");
            return AdmissionStatus::Settled(Ok(core.enforcer.admit_nothing()));
        }
        let expanded = identity.expanded(&validated);
        if let ClientIdentity::Coming(.., generation) = identity
            && core.in_force.load().generation == *generation
        {
            // The coming plan holds the selectors that match the answer.
            ParkedAdmission::new(core, identity, (validated, expanded), completion(), *generation)
                .with_patience(INSTALLATION_PATIENCE)
                .park();
            return AdmissionStatus::Pending(INSTALLATION_PATIENCE);
        }
        // Read before the plan, so that an entry of an old version is never found under a new one.
        let version = CacheVersion {
            publications: core.publications.load(Ordering::Acquire),
            evictions: core.evicted_names.load(Ordering::Relaxed),
        };
        let fingerprint = worker_state.admissions.fingerprint(&validated, version);
        // The cache is shared by all endpoints, and this answer grants more to this one than to
        // others.
        if !expanded && let Some(token) = worker_state.admissions.find(fingerprint) {
            let (now, longest) = (clock::now(), validated.addresses.iter().map(|(_, ttl)| *ttl).max());
            let until = now + core.settings.lease.lease(longest.unwrap_or_default());
            let stands = core
                .enforcer
                .still_committed(token, now, until, core.settings.lease.grace);
            if let Some(proof) = stands {
                core.released(identity, &validated, "the kernel holds its addresses");
                return AdmissionStatus::Settled(Ok(proof));
            }
        }
        worker_state.has_learned = true;
        let owner = identity.owner();
        match core.step(&validated, owner, expanded) {
            AdmissionStep::Admitted(proof, token) => {
                if let Some(token) = token.filter(|_| !expanded) {
                    worker_state.admissions.note(fingerprint, token);
                }
                core.released(identity, &validated, "the kernel holds what policies open of it");
                AdmissionStatus::Settled(Ok(proof))
            }
            AdmissionStep::Commit(generation, mut elements) => {
                if mode == CommitMode::Immediate
                    && let Some(proof) = core.enforcer.admit_now(generation, &mut elements, Holder(owner.0))
                {
                    core.released(identity, &validated, "the kernel has taken its addresses");
                    return AdmissionStatus::Settled(Ok(proof));
                }
                lookup_log::waits(identity, &validated, "the kernel");
                let waiting = ParkedAdmission::new(core, identity, (validated, expanded), completion(), generation);
                worker_state.submissions.push(waiting.submit(elements));
                AdmissionStatus::Pending(core.settings.commit_deadline)
            }
        }
    }

    fn flush(&self, worker_state: &mut WorkerState) {
        if !worker_state.submissions.is_empty() {
            self.0.enforcer.submit(worker_state.submissions.drain(..));
        }
    }

    fn replied(&self, worker_state: &mut WorkerState) {
        if let Some(answer_log) = &self.0.answer_log {
            answer_log.file();
        }
        if std::mem::take(&mut worker_state.has_learned) {
            self.0.evict();
        }
        if !worker_state.refused.is_empty() {
            self.0.record_refused(&mut worker_state.refused);
        }
        if !worker_state.denied.is_empty() {
            self.0.count_denied(&mut worker_state.denied);
        }
    }

    fn observe(&self, _worker_state: &mut WorkerState, event: ProxyEvent<'_>) {
        match event {
            ProxyEvent::UpstreamState {
                server,
                transport,
                answers,
            } => self.0.silent.note(clock::now(), (server, transport), answers),
            ProxyEvent::Withheld {
                client,
                name,
                server,
                why,
                reason,
            } => self.0.withheld(client, (name, server), (why, reason)),
            ProxyEvent::Unanswered { client, name, reason } => {
                let in_force = self.0.in_force.load();
                lookup_log::unanswered(&in_force.plan, client, name, reason);
                self.0.failed(&in_force.plan, client, (name, None), &reason.to_string());
            }
            _ => {}
        }
        self.0.metrics.observe(&event);
    }
}

impl ClientIdentity {
    /// Whether the answer is one to a search-list expansion, so that the first name of its chain
    /// matches selectors as the question's name does.
    fn expanded(&self, validated: &ValidatedAnswer) -> bool {
        let (Self::Endpoint(endpoint, resolver) | Self::Coming(endpoint, resolver, _)) = self else {
            return false;
        };
        match (&endpoint.questions, validated.chain.first()) {
            (Some(questions), Some(target)) => questions.counts_as(*resolver, &validated.name, target),
            _ => false,
        }
    }
}

impl GateCore {
    /// Evicts names over the ledger's limit. To be called soon after each [`step`](Self::step).
    fn evict(&self) {
        let evicted = self.ledger.lock().evict(clock::now());
        let evicted = u64::try_from(evicted.len()).unwrap_or(u64::MAX);
        self.evicted_names.fetch_add(evicted, Ordering::Relaxed);
    }

    fn upstreams(&self, plan: &Plan, target: QueryTarget) -> Option<Arc<[SocketAddr]>> {
        match target {
            QueryTarget::Proxy => Some(Arc::clone(&self.settings.upstreams)),
            QueryTarget::Resolver(resolver) => plan.upstreams(resolver),
        }
    }
}

/// One line for `dig` and for logs: who may not ask what, and which rule says so.
pub(crate) fn denial_reason(denial: QuestionDenial, name: &Name, endpoint: &Governed) -> String {
    let who = &endpoint.id;
    match denial {
        QuestionDenial::DeniedName => format!("namegate: egressDeny refuses {name} to {who}"),
        QuestionDenial::NoDnsRule => format!("namegate: no DNS rule lets {who} ask for {name}"),
        QuestionDenial::NoSelector => format!("namegate: no toFQDNs selector of {who} matches {name}"),
        QuestionDenial::SearchExpansion => {
            format!("namegate: {name} is a search-list expansion that {who} may not ask")
        }
    }
}

#[cfg(test)]
mod tests {
    use policy::{EndpointId, ProgramId};

    use super::*;

    fn governed() -> Governed {
        Governed {
            id: EndpointId {
                namespace: "shop".into(),
                name: "web".into(),
            },
            program: ProgramId(1),
            questions: None,
        }
    }

    #[test]
    fn each_denial_names_who_may_not_ask_what() {
        let name = Name::parse("mail.example").unwrap();
        for (denial, part) in [
            (QuestionDenial::DeniedName, "egressDeny"),
            (QuestionDenial::NoDnsRule, "no DNS rule"),
            (QuestionDenial::NoSelector, "no toFQDNs selector"),
            (QuestionDenial::SearchExpansion, "search-list expansion"),
        ] {
            let reason = denial_reason(denial, &name, &governed());
            assert!(reason.starts_with("namegate: "), "{reason}");
            for part in [part, "shop/web", "mail.example"] {
                assert!(reason.contains(part), "{reason}");
            }
        }
    }
}
