//! What the proxy asks: may this be asked, and is the kernel ready for the answer?
//!
//! The ledger is written before elements are submitted, and a stale admission is computed again under the plan
//! that replaced it (`enforcer::writer` explains why no answer is lost).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use dns_proxy::gate::Rcode;
use dns_proxy::{Asked, Denial, Event, Gate, Lesson, NotAdmitted, Question, Screening};
use enforcer::writer::Generation;
use enforcer::{AdmitError, Committed, Element, Enforcer};
use fqdn_cache::{Answer, Ledger, Time};
use policy::Name;
use policy::question::{QuestionDenial, QuestionVerdict};
use tokio::sync::watch;
use tracing::{debug, error, warn};

use crate::clock;
use crate::metrics::Metrics;
use crate::plan::{Governed, Plan};
use crate::records::Sightings;
use crate::throttle::Throttle;

/// A plan and the generation of the ruleset that carries it out.
#[derive(Debug)]
pub struct InForce {
    /// The plan.
    pub plan: Arc<Plan>,
    /// The generation under which its sets may be written.
    pub generation: Generation,
}

/// The agent's side of the proxy's border.
#[derive(Debug)]
pub struct NodeGate {
    in_force: ArcSwap<InForce>,
    /// Ticks when `in_force` was replaced, for admissions that found themselves stale.
    replaced: watch::Sender<()>,
    ledger: Arc<Mutex<Ledger>>,
    enforcer: Enforcer,
    terms: Terms,
    metrics: Arc<Metrics>,
    /// Where packets are recorded.
    sightings: Option<Arc<Sightings>>,
    lessons: AtomicU64,
    evicted_names: AtomicU64,
    complaints: Throttle,
}

/// The settings that the gate needs at every lookup.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How a denied question is answered.
    pub denied: Rcode,
    /// The part of a lease that is beyond the TTL: an element that lives at least the rest need not be renewed.
    pub grace: Duration,
    /// How long an answer waits for the kernel.
    pub commit_deadline: Duration,
    /// Whom to ask when the agent itself was asked.
    pub upstreams: Arc<[SocketAddr]>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub enum Asker {
    /// An endpoint with a program.
    Endpoint(Arc<Governed>),
    /// A client of the plain listener that no policy speaks of.
    Other(IpAddr),
}

impl NodeGate {
    /// A gate in front of `enforcer`, with a first plan in force.
    pub fn new(
        first: InForce,
        ledger: Arc<Mutex<Ledger>>,
        enforcer: Enforcer,
        terms: Terms,
        metrics: Arc<Metrics>,
        sightings: Option<Arc<Sightings>>,
    ) -> Self {
        Self {
            in_force: ArcSwap::from_pointee(first),
            replaced: watch::Sender::new(()),
            ledger,
            enforcer,
            terms,
            metrics,
            sightings,
            lessons: AtomicU64::new(0),
            evicted_names: AtomicU64::new(0),
            complaints: Throttle::default(),
        }
    }

    /// Publishes a plan that the kernel holds.
    pub fn publish(&self, in_force: InForce) {
        self.in_force.store(Arc::new(in_force));
        self.replaced.send_replace(());
    }

    /// The plan in force.
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.load_full()
    }

    /// Answers written to the ledger, since the start: when it has not grown, neither has the ledger.
    pub fn lessons(&self) -> u64 {
        self.lessons.load(Ordering::Relaxed)
    }

    /// Names forgotten to make room, since the start.
    pub fn evicted_names(&self) -> u64 {
        self.evicted_names.load(Ordering::Relaxed)
    }

    /// Writes the lesson down and says what it opens or closes under `plan`.
    fn learn(&self, plan: &Plan, lesson: &Lesson, credited: &[&Name]) -> Vec<(Element, Time)> {
        let source = lesson.source.ip();
        let teachable = |address: &&(IpAddr, Duration)| match plan.teachable.judge(address.0) {
            Ok(()) => true,
            Err(why) => {
                debug!(name = %lesson.name, address = %address.0, ?why, "a name may not open this address");
                false
            }
        };
        let addresses: Vec<(IpAddr, Duration)> = lesson.addresses.iter().filter(teachable).copied().collect();
        self.lessons.fetch_add(1, Ordering::Relaxed);
        let now = clock::now();
        let mut elements = Vec::new();
        let mut ledger = lock(&self.ledger);
        for name in credited {
            let answer = Answer {
                name: (*name).clone(),
                addresses: addresses.clone(),
                source,
                terms: plan.lease_terms(name),
            };
            let outcome = ledger.learn(now, &answer);
            for (address, end) in outcome.leases {
                plan.elements(name, address, source, |element| elements.push((element, end)));
            }
            let evicted = u64::try_from(outcome.evicted.len()).unwrap_or(u64::MAX);
            self.evicted_names.fetch_add(evicted, Ordering::Relaxed);
        }
        elements
    }
}

impl Gate for NodeGate {
    type Identity = Asker;
    type Proof = Committed;

    fn screen(&self, source: IpAddr, asked: Asked, question: &Question) -> Screening<Asker> {
        let in_force = self.in_force.load();
        let plan = &in_force.plan;
        let Some(upstreams) = self.upstreams(plan, asked) else {
            return refuse(Rcode::Refused, "namegate: this resolver is not known here".into());
        };
        let Some(endpoint) = plan.governed.get(&source) else {
            return match asked {
                Asked::Us => Screening::Forward {
                    identity: Asker::Other(source),
                    upstreams,
                },
                // The kernel intercepts only endpoints: this one has just ceased to be one, or was faster than its object.
                Asked::Resolver(_) => refuse(
                    Rcode::Refused,
                    format!("namegate: {source} is not an endpoint of this node"),
                ),
            };
        };
        let to = match asked {
            Asked::Resolver(resolver) => resolver,
            Asked::Us => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 53),
        };
        let Some(questions) = &endpoint.questions else {
            return refuse(
                self.terms.denied,
                format!(
                    "namegate: {source} is claimed by several Pods whose policies differ, so nothing is let through"
                ),
            );
        };
        let denial = match questions.judge(to, &question.name) {
            QuestionVerdict::Allowed => None,
            QuestionVerdict::AllowedIfLearned(address) => {
                let learned = lock(&self.ledger).is_learned(clock::now(), address);
                (!learned).then_some(QuestionDenial::NoSelector)
            }
            QuestionVerdict::Denied(denial) => Some(denial),
        };
        match denial {
            None => Screening::Forward {
                identity: Asker::Endpoint(Arc::clone(endpoint)),
                upstreams,
            },
            Some(denial) => refuse(self.terms.denied, denial_reason(denial, &question.name, endpoint)),
        }
    }

    async fn admit(&self, asker: &Asker, lesson: Lesson) -> Result<Committed, NotAdmitted> {
        if let (Some(sightings), Asker::Endpoint(endpoint)) = (&self.sightings, asker) {
            sightings.saw(
                &endpoint.id,
                &lesson.name,
                lesson.addresses.iter().map(|(address, _)| *address),
            );
        }
        let began = Instant::now();
        let mut replaced = self.replaced.subscribe();
        loop {
            replaced.mark_unchanged();
            let in_force = self.in_force.load_full();
            let credited = in_force.plan.credited(&lesson.name, &lesson.chain);
            if lesson.addresses.is_empty() || credited.is_empty() {
                return Ok(self.enforcer.admit_nothing());
            }
            let elements = self.learn(&in_force.plan, &lesson, &credited);
            if elements.is_empty() {
                return Ok(self.enforcer.admit_nothing());
            }
            let generation = in_force.generation;
            if let Some(proof) = self.enforcer.already_admitted(generation, &elements, self.terms.grace) {
                return Ok(proof);
            }
            let left = self.terms.commit_deadline.saturating_sub(began.elapsed());
            match self.enforcer.admit(generation, elements, left).await {
                Ok(proof) => return Ok(proof),
                // The plan that made the generation is published as soon as its ruleset is in the kernel.
                Err(AdmitError::Stale) => {
                    let left = self.terms.commit_deadline.saturating_sub(began.elapsed());
                    if tokio::time::timeout(left, replaced.changed()).await.is_err() {
                        return Err(self.not_admitted(&lesson, &AdmitError::Stale));
                    }
                }
                Err(error) => return Err(self.not_admitted(&lesson, &error)),
            }
        }
    }

    fn observe(&self, event: Event<'_>) {
        self.metrics.observe(&event);
    }
}

impl NodeGate {
    /// Says that an answer was not released, to the log and for the client. Whoever may ask for many names can bring it
    /// about at will, so the log hears of it once a second.
    fn not_admitted(&self, lesson: &Lesson, why: &AdmitError) -> NotAdmitted {
        if let Some(others) = self.complaints.pass(clock::now()) {
            match why {
                AdmitError::Full { .. } | AdmitError::Rejected { .. } => {
                    error!(name = %lesson.name, %why, others, "an answer was not released");
                }
                AdmitError::Stale | AdmitError::Unknown(_) | AdmitError::Stopped => {
                    warn!(name = %lesson.name, %why, others, "an answer was not released");
                }
            }
        }
        withheld(why)
    }

    fn upstreams(&self, plan: &Plan, asked: Asked) -> Option<Arc<[SocketAddr]>> {
        match asked {
            Asked::Us => Some(Arc::clone(&self.terms.upstreams)),
            Asked::Resolver(resolver) => plan.upstreams(resolver),
        }
    }
}

fn refuse(rcode: Rcode, reason: String) -> Screening<Asker> {
    Screening::Refuse(Denial { rcode, reason })
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

/// What the client is told.
fn withheld(why: &AdmitError) -> NotAdmitted {
    NotAdmitted {
        reason: format!("namegate: {why}"),
    }
}

/// The ledger is consistent between its calls, so a panic elsewhere while it was held does not spoil it.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use policy::ProgramId;
    use policy::endpoint::EndpointId;

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

    #[test]
    fn what_the_kernel_refused_is_said_to_the_client() {
        for why in [AdmitError::Stale, AdmitError::Stopped] {
            assert_eq!(withheld(&why).reason, format!("namegate: {why}"));
        }
    }
}
