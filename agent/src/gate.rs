//! What the proxy asks: may this be asked, and is the kernel ready for the answer?
//!
//! The ledger is written before elements are submitted, and a stale admission is computed again
//! under the plan that replaced it (`enforcer::writer` explains why no answer is lost).
//!
//! - `admission`: from a validated answer to the proof.
//! - `discovery`: keeps clients from leaving for encrypted DNS.
//! - `recall`: what a worker need not ask twice.
//! - `upstreams`: who does not answer.
//! - `withheld`: says which answers were not given.

mod admission;
mod discovery;
mod recall;
mod upstreams;
mod withheld;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::WithheldRow;
use arc_swap::ArcSwap;
use clock::Time;
use dns_proxy::{AdmissionStatus, CommitMode, Completion, Rcode};
use dns_proxy::{Denial, DnsQuestion, Gate, ProxyEvent, QueryTarget, Screening, Transport, ValidatedAnswer};
use enforcer::writer::{AdmissionRequest, Generation, Holder};
use enforcer::{Committed, Enforcer};
use fqdn_cache::{LeaseTerms, Ledger, Owner};
use names::Name;
use policy::question::{QuestionDenial, QuestionVerdict};
use settings::EncryptedDnsDiscovery;

use crate::metrics::Metrics;
use crate::plan::{Governed, Plan};
use crate::records::{AnswerLog, WithheldAnswers};
use crate::throttle::Throttle;

use admission::{Step, Waiting};
use recall::{Circumstances, Recall};
use upstreams::SilentUpstreams;

/// A plan and the generation of the ruleset that carries it out.
#[derive(Debug)]
pub struct InForce {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The generation under which its sets may be written.
    pub generation: Generation,
    /// The plan that is being put in its place, if any is: the kernel may carry it out already.
    pub coming: Option<Arc<Plan>>,
}

impl InForce {
    /// The plan by which a lookup is judged: the one in force, unless only the coming one knows who
    /// asks whom, or lets it be asked. True for the coming one.
    pub(crate) fn plan_for(&self, source: IpAddr, target: QueryTarget, name: &Name) -> (&Plan, bool) {
        let knows = |plan: &Plan| {
            let resolver = match target {
                QueryTarget::Resolver(resolver) => plan.upstreams(resolver).is_some(),
                QueryTarget::Proxy => true,
            };
            resolver && plan.governed.contains_key(&source)
        };
        let allows = |plan: &Plan| {
            let questions = plan.governed.get(&source).and_then(|it| it.questions.as_ref());
            questions.is_some_and(|it| !matches!(it.judge(target_address(target), name), QuestionVerdict::Denied(_)))
        };
        match &self.coming {
            Some(coming) if knows(coming) && (!knows(&self.plan) || !allows(&self.plan) && allows(coming)) => {
                (coming, true)
            }
            _ => (&self.plan, false),
        }
    }
}

/// The agent's side of the proxy's border.
#[derive(Debug)]
pub struct NodeGate(Arc<Core>);

/// What lookups share with the rest of the agent; admissions that wait hold on to it.
#[derive(Debug)]
struct Core {
    in_force: ArcSwap<InForce>,
    /// Counts how often `in_force` was replaced, after the fact.
    publications: AtomicU64,
    /// Admissions that found themselves stale, until the next plan is published.
    parked: Mutex<Vec<Waiting>>,
    ledger: Arc<Mutex<Ledger>>,
    enforcer: Enforcer,
    terms: Terms,
    metrics: Arc<Metrics>,
    /// Where packets are recorded.
    answer_log: Option<Arc<AnswerLog>>,
    answers_learned: AtomicU64,
    evicted_names: AtomicU64,
    left_out_addresses: AtomicU64,
    complaints: Throttle,
    remarks: Throttle,
    silent: SilentUpstreams,
    withheld: WithheldAnswers,
}

/// What a worker keeps to itself.
#[derive(Debug)]
pub struct WorkerState {
    recall: Recall,
    /// Collected, to be put on their way together.
    submissions: Vec<AdmissionRequest>,
    /// Something was written to the ledger since it last evicted.
    has_learned: bool,
}

/// The settings that the gate needs at every lookup.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How a denied question is answered.
    pub denied: Rcode,
    /// Whether clients may find encrypted DNS by themselves.
    pub encrypted_dns_discovery: EncryptedDnsDiscovery,
    /// How long a lease is. The grace is its part beyond the TTL: an element that lives at least
    /// the rest need not be renewed.
    pub lease: LeaseTerms,
    /// How long an answer waits for the kernel.
    pub commit_deadline: Duration,
    /// Whom to ask when the agent itself was asked.
    pub upstreams: Arc<[SocketAddr]>,
}

/// Who asks, and whom.
#[derive(Debug, Clone)]
pub enum Asker {
    /// An endpoint with a program.
    Endpoint(Arc<Governed>, SocketAddr),
    /// One that gets its program, or its resolver, with the plan after this generation.
    Coming(Arc<Governed>, SocketAddr, Generation),
    /// A client that no policy speaks of.
    Other(IpAddr),
}

impl Asker {
    /// Who owns what is learned: each endpoint by itself, all others together.
    fn owner(&self) -> Owner {
        match self {
            Asker::Endpoint(endpoint, _) | Asker::Coming(endpoint, ..) => endpoint.owner(),
            Asker::Other(_) => Owner::default(),
        }
    }
}

impl NodeGate {
    /// A gate in front of `enforcer`, with a first plan in force.
    pub fn new(
        first: InForce,
        ledger: Arc<Mutex<Ledger>>,
        enforcer: Enforcer,
        terms: Terms,
        metrics: Arc<Metrics>,
        answer_log: Option<Arc<AnswerLog>>,
    ) -> Self {
        Self(Arc::new(Core {
            in_force: ArcSwap::from_pointee(first),
            publications: AtomicU64::new(0),
            parked: Mutex::default(),
            ledger,
            enforcer,
            terms,
            metrics,
            answer_log,
            answers_learned: AtomicU64::new(0),
            evicted_names: AtomicU64::new(0),
            left_out_addresses: AtomicU64::new(0),
            complaints: Throttle::default(),
            remarks: Throttle::default(),
            silent: SilentUpstreams::default(),
            withheld: WithheldAnswers::default(),
        }))
    }

    /// Says which plan is going to be published. From here on lookups of endpoints that only it
    /// knows are forwarded, and their answers wait for it.
    pub fn announce(&self, coming: Arc<Plan>) {
        let in_force = self.0.in_force.load();
        self.0.in_force.store(Arc::new(InForce {
            plan: Arc::clone(&in_force.plan),
            generation: in_force.generation,
            coming: Some(coming),
        }));
    }

    /// Publishes a plan that the kernel holds.
    pub fn publish(&self, in_force: InForce) {
        self.0.in_force.store(Arc::new(in_force));
        self.0.publications.fetch_add(1, Ordering::Release);
        self.0.resume();
    }

    /// The plan in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.0.in_force.load_full()
    }

    /// Answers written to the ledger, since the start: when it has not grown, neither has the
    /// ledger.
    pub fn answers_learned(&self) -> u64 {
        self.0.answers_learned.load(Ordering::Relaxed)
    }

    /// Addresses of answers that were not opened, because their name may not hold so many; since
    /// the start.
    pub fn left_out_addresses(&self) -> u64 {
        self.0.left_out_addresses.load(Ordering::Relaxed)
    }

    /// Upstreams that do not answer over this transport, and since when.
    pub fn silent_upstreams(&self) -> Vec<((SocketAddr, Transport), Time)> {
        self.0.silent.all()
    }

    /// Answers of late that clients did not get, the most recent first.
    pub fn withheld(&self, now: Time) -> Vec<WithheldRow> {
        self.0.withheld.rows(now)
    }

    /// Names forgotten to make room, since the start.
    pub fn evicted_names(&self) -> u64 {
        self.0.evicted_names.load(Ordering::Relaxed)
    }
}

impl Gate for NodeGate {
    type Identity = Asker;
    type Proof = Committed;
    type WorkerState = WorkerState;

    fn worker_state(&self) -> WorkerState {
        WorkerState {
            recall: Recall::new(),
            submissions: Vec::new(),
            has_learned: false,
        }
    }

    fn screen(
        &self,
        _worker_state: &mut WorkerState,
        source: IpAddr,
        target: QueryTarget,
        question: &DnsQuestion,
    ) -> Screening<Asker> {
        let core = &*self.0;
        let in_force = core.in_force.load();
        let (plan, is_coming) = in_force.plan_for(source, target, &question.name);
        let refuse = |rcode, reason: &dyn Fn() -> String| {
            let reason = match question.takes_reasons {
                true => reason(),
                false => String::new(),
            };
            Screening::Refuse(Denial { rcode, reason })
        };
        let Some(upstreams) = core.upstreams(plan, target) else {
            return refuse(Rcode::Refused, &|| "namegate: this resolver is not known here".into());
        };
        let Some(endpoint) = plan.governed.get(&source) else {
            let may_ask_anything = match target {
                QueryTarget::Proxy => true,
                // The kernel intercepts governed endpoints alone. This one was one a moment ago, or
                // asks on a flow from then.
                QueryTarget::Resolver(_) => plan.is_local(source),
            };
            if !may_ask_anything && plan.may_become_local(source) {
                return refuse(Rcode::ServFail, &|| {
                    format!("namegate: no Pod with the address {source} is known yet")
                });
            }
            return match may_ask_anything {
                true => Screening::Forward {
                    identity: Asker::Other(source),
                    upstreams,
                },
                false => refuse(Rcode::Refused, &|| {
                    format!("namegate: {source} is not an endpoint of this node")
                }),
            };
        };
        let to = target_address(target);
        let Some(questions) = &endpoint.questions else {
            // That says nothing of the name, and most often ends with the old Pod's object.
            return refuse(Rcode::ServFail, &|| {
                format!(
                    "namegate: {source} is claimed by several Pods whose policies differ, so nothing is let through"
                )
            });
        };
        if core.terms.encrypted_dns_discovery == EncryptedDnsDiscovery::Deny
            && let Some(rcode) = discovery::answer_that_keeps(&question.name)
        {
            return refuse(rcode, &|| {
                "namegate: lookups here go to the resolver that the network names".into()
            });
        }
        let denial = match questions.judge(to, &question.name) {
            QuestionVerdict::Allowed => None,
            QuestionVerdict::AllowedIfLearned(address) => {
                let counts = |teacher| plan.teaches(teacher, endpoint);
                let learned = lock(&core.ledger).is_learned(clock::now(), address, counts);
                (!learned).then_some(QuestionDenial::NoSelector)
            }
            QuestionVerdict::Denied(denial) => Some(denial),
        };
        match denial {
            None => Screening::Forward {
                identity: match is_coming {
                    true => Asker::Coming(Arc::clone(endpoint), to, in_force.generation),
                    false => Asker::Endpoint(Arc::clone(endpoint), to),
                },
                upstreams,
            },
            Some(denial) => refuse(core.terms.denied, &|| denial_reason(denial, &question.name, endpoint)),
        }
    }

    fn admit(
        &self,
        worker_state: &mut WorkerState,
        asker: &Asker,
        validated: ValidatedAnswer,
        mode: CommitMode,
        completion: impl FnOnce() -> Completion<Committed>,
    ) -> AdmissionStatus<Committed> {
        let core = &self.0;
        if let (Some(answer_log), Asker::Endpoint(endpoint, _) | Asker::Coming(endpoint, ..)) =
            (&core.answer_log, asker)
        {
            let addresses = validated.addresses.iter().map(|(address, _)| *address);
            answer_log.saw(endpoint, &validated.name, addresses);
        }
        if validated.addresses.is_empty() {
            return AdmissionStatus::Settled(Ok(core.enforcer.admit_nothing()));
        }
        let expanded = asker.expanded(&validated);
        if let Asker::Coming(.., generation) = asker
            && core.in_force.load().generation == *generation
        {
            // Its selectors come with the plan.
            Waiting::new(core, (validated, asker.owner(), expanded), completion(), *generation).park();
            return AdmissionStatus::Pending(core.terms.commit_deadline);
        }
        // Read before the plan: what is noted under an old count is never found under a new one.
        let circumstances = Circumstances {
            publications: core.publications.load(Ordering::Acquire),
            evictions: core.evicted_names.load(Ordering::Relaxed),
        };
        let fingerprint = worker_state.recall.fingerprint(&validated, circumstances);
        // The cache is shared by all endpoints, and this answer grants more to this one than to
        // others.
        if !expanded && let Some(standing) = worker_state.recall.find(fingerprint) {
            let (now, longest) = (clock::now(), validated.addresses.iter().map(|(_, ttl)| *ttl).max());
            let until = now + core.terms.lease.lease(longest.unwrap_or_default());
            let stands = core
                .enforcer
                .still_committed(standing, now, until, core.terms.lease.grace);
            if let Some(proof) = stands {
                return AdmissionStatus::Settled(Ok(proof));
            }
        }
        worker_state.has_learned = true;
        let owner = asker.owner();
        match core.step(&validated, owner, expanded) {
            Step::Admitted(proof, standing) => {
                if let Some(standing) = standing.filter(|_| !expanded) {
                    worker_state.recall.note(fingerprint, standing);
                }
                AdmissionStatus::Settled(Ok(proof))
            }
            Step::Tell(generation, mut elements) => {
                if mode == CommitMode::Immediate
                    && let Some(proof) = core.enforcer.admit_now(generation, &mut elements, Holder(owner.0))
                {
                    return AdmissionStatus::Settled(Ok(proof));
                }
                let waiting = Waiting::new(core, (validated, owner, expanded), completion(), generation);
                worker_state.submissions.push(waiting.submit(elements));
                AdmissionStatus::Pending(core.terms.commit_deadline)
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
            ProxyEvent::Query {
                transport,
                question,
                forwarded: false,
            } if self.0.terms.encrypted_dns_discovery == EncryptedDnsDiscovery::Deny
                && discovery::answer_that_keeps(&question.name).is_some() =>
            {
                return self.0.metrics.kept(transport, question.qtype);
            }
            _ => {}
        }
        self.0.metrics.observe(&event);
    }
}

impl Asker {
    /// Whether the first name of the answer's chain counts for it as the question's does.
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

impl Core {
    /// Forgets names that are too many, as is to be done soon after each [`step`](Self::step).
    fn evict(&self) {
        let evicted = lock(&self.ledger).evict(clock::now());
        let evicted = u64::try_from(evicted.len()).unwrap_or(u64::MAX);
        self.evicted_names.fetch_add(evicted, Ordering::Relaxed);
    }

    fn upstreams(&self, plan: &Plan, target: QueryTarget) -> Option<Arc<[SocketAddr]>> {
        match target {
            QueryTarget::Proxy => Some(Arc::clone(&self.terms.upstreams)),
            QueryTarget::Resolver(resolver) => plan.upstreams(resolver),
        }
    }
}

/// What rules about resolvers are asked of. Our own listener is none of those that they list.
fn target_address(target: QueryTarget) -> SocketAddr {
    match target {
        QueryTarget::Resolver(resolver) => resolver,
        QueryTarget::Proxy => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53),
    }
}

/// One line for a person who sees it in `dig` or a log, naming who decided.
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

/// The ledger is consistent between its calls, so a panic elsewhere while it was held does not
/// spoil it.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
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
