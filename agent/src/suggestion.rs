//! The policy for what a Pod was seen to do, proved before it is shown.
//!
//! It is made of the events that the node remembers. Proved means: it is valid and nothing in it is
//! left unenforced, and with it in force `policy::explain` allows each event that it is made from.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{SuggestionAnswer, SuggestionQuestion};
use clock::WallTime;
use events::account::{FlowTraffic, NetworkAccount};
use events::learned_policy::{self, LearnOptions, PolicyHead};
use events::{Event, EventBatch, EventVerdict};
use names::Name;
use planner::Plan;
use policy::endpoint::keys;
use policy::explain::{Decision, ExplainContext, KnownName, KnownPeer, LeaseState, explain};
use policy::{Direction, Endpoint, EndpointId, Policy, Protocol, Severity, Verdict, document, validate};

/// The port that a name is opened on whose lookup was refused, so that nothing connected to it.
const ASSUMED_PORT: u16 = 443;

/// Labels that controllers give to each Pod anew, so that no policy should select by them.
const OF_CONTROLLERS: [&str; 8] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
];

/// What a suggestion is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuggestionRequest {
    /// Whose policy.
    pub pod: EndpointId,
    /// Of what is not older than this.
    pub since: Option<Duration>,
    /// Of what.
    pub from: SuggestionSource,
    /// As [`LearnOptions::generalize`].
    pub generalize: Option<usize>,
}

impl SuggestionRequest {
    /// Reads a question.
    ///
    /// # Errors
    /// Says for people what cannot be read.
    pub fn read(question: &SuggestionQuestion) -> Result<Self, String> {
        let pod = match question.pod.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => EndpointId {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            _ => {
                return Err(format!(
                    "{}: write the pod's namespace and name, as in shop/web",
                    question.pod
                ));
            }
        };
        Ok(Self {
            pod,
            since: question.since_ms.map(Duration::from_millis),
            from: SuggestionSource::named(&question.from)
                .ok_or_else(|| format!("{} is not one of audited, refused, all", question.from))?,
            generalize: question.generalize,
        })
    }
}

/// Which events a suggestion is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuggestionSource {
    /// What passed and would have been refused.
    Audited,
    /// What was refused.
    Refused,
    /// Both, and what was allowed as far as it was recorded.
    All,
}

impl SuggestionSource {
    /// The inverse of the word on the command line.
    pub fn named(word: &str) -> Option<Self> {
        Some(match word {
            "audited" => Self::Audited,
            "refused" => Self::Refused,
            "all" => Self::All,
            _ => return None,
        })
    }

    fn takes(self, verdict: EventVerdict) -> bool {
        match (self, verdict) {
            (Self::Audited | Self::All, EventVerdict::Audited) => true,
            (Self::Refused | Self::All, EventVerdict::Refused) => true,
            (Self::All, EventVerdict::Allowed) => true,
            (_, _) => false,
        }
    }
}

/// The policy for what `remembered` says of a Pod of this node.
///
/// # Errors
/// Says for people why there is none.
pub fn suggest(
    plan: &Plan,
    remembered: &EventBatch,
    request: &SuggestionRequest,
    now: WallTime,
) -> Result<SuggestionAnswer, String> {
    let endpoint = plan.local.iter().find(|local| local.id == request.pod);
    let endpoint = endpoint.ok_or_else(|| {
        format!(
            "there is no pod {} with an address of its own on this node",
            request.pod
        )
    })?;
    let since = request.since.map(|ago| now.before(ago)).unwrap_or_default();
    let is_meant = |event: &Event| {
        let of_pod = event.source.as_ref().and_then(|source| source.pod.as_ref()) == Some(&request.pod);
        of_pod && event.at >= since && event.direction == Some(Direction::Egress) && request.from.takes(event.verdict)
    };
    let mut account = NetworkAccount::default();
    let mut events = 0;
    for (_, event) in remembered.events.iter().filter(|(_, event)| is_meant(event)) {
        account.take(event);
        events += 1;
    }
    if events == 0 {
        return Err(format!(
            "nothing of the kind is remembered of {}; `namegate observe --pod {}` shows what is",
            request.pod, request.pod
        ));
    }
    let text = write(endpoint, &account, request, events);
    let policy = read(&text)?;
    let mut policies: Vec<&Policy> = plan.policies.iter().map(|policy| &**policy).collect();
    policies.push(&policy);
    let scene = ExplainContext {
        direction: Direction::Egress,
        endpoint,
        policies: &policies,
        inventory: &plan.inventory,
        announced: None,
    };
    Ok(SuggestionAnswer {
        policy: text,
        events,
        not_allowed: not_allowed(plan, scene, &account),
        lost: remembered.lost,
    })
}

fn write(endpoint: &Endpoint, account: &NetworkAccount, request: &SuggestionRequest, events: u64) -> String {
    let labels: BTreeMap<String, String> = endpoint
        .labels
        .iter()
        .filter(|(key, _)| !is_made_by_others(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut comments = vec![format!(
        "Suggested by namegate for {}, of {events} events.",
        endpoint.id
    )];
    if labels.is_empty() {
        comments.push("The pod has no label of its own: this selects EVERY pod of its namespace.".into());
    }
    let head = PolicyHead {
        comments: &comments,
        name: &format!("{}-suggested", endpoint.id.name),
        namespace: Some(&endpoint.id.namespace),
        labels: &labels,
    };
    let options = LearnOptions {
        generalize: request.generalize,
        assumed_port: Some(ASSUMED_PORT),
    };
    learned_policy::policy(account, &head, options)
}

/// Whether a label says where a Pod is or who made it, and not what it is.
fn is_made_by_others(key: &str) -> bool {
    [keys::NAMESPACE, keys::SERVICE_ACCOUNT, keys::CLUSTER].contains(&key)
        || key.starts_with(keys::NAMESPACE_LABELS)
        || OF_CONTROLLERS.contains(&key)
}

/// The first half of the proof: the policy is valid and enforced as it is written.
fn read(text: &str) -> Result<Policy, String> {
    let (documents, mut findings) = document::parse(text);
    let (verdict, diagnostics) = match documents.first() {
        Some(document) => validate::validate(document),
        None => return Err("the suggestion is empty; please report this".into()),
    };
    findings.extend(diagnostics);
    findings.retain(|finding| finding.severity != Severity::Warning);
    match (verdict.accepted(), findings.first()) {
        (Some(policy), None) => Ok(policy),
        (_, finding) => Err(format!(
            "the suggestion does not pass `namegate check`; please report this: {}",
            finding.map(|finding| finding.reason.clone()).unwrap_or_default()
        )),
    }
}

/// The second half: what is still refused of what the policy is made from.
fn not_allowed(plan: &Plan, scene: ExplainContext<'_>, account: &NetworkAccount) -> Vec<String> {
    let known = |name: &Name| KnownName {
        name: name.clone(),
        lease: LeaseState::Assumed,
    };
    let mut refused = Vec::new();
    for (name, of_name) in &account.names {
        for end in of_name.flows.keys() {
            let peer = KnownPeer {
                address: Some((end.address, plan.places.of(end.address))),
                names: vec![known(name)],
                traffic: traffic(end.traffic),
            };
            if !is_allowed(&explain(scene, &peer).decision) {
                refused.push(format!("{name} ({}) {}", end.address, end.traffic));
            }
        }
        if of_name.flows.is_empty() {
            let peer = KnownPeer {
                address: None,
                names: vec![known(name)],
                traffic: None,
            };
            if of_name.refused > 0 && !is_allowed(&explain(scene, &peer).decision) {
                refused.push(format!("the lookup of {name}"));
            }
        }
    }
    refused
}

fn is_allowed(decision: &Decision) -> bool {
    match decision {
        Decision::Rule { verdict, .. } => *verdict == Verdict::Allow,
        Decision::Open(_) | Decision::Unselected(_) => true,
        Decision::Closed { .. } => false,
    }
}

fn traffic(of_flow: FlowTraffic) -> Option<(Protocol, u16)> {
    let protocol = Protocol::ALL
        .into_iter()
        .find(|protocol| protocol.number() == of_flow.protocol)?;
    Some((protocol, of_flow.port?))
}
