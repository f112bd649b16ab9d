//! A gate under a test's control, and a proxy behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_proxy::{
    AdmissionError, AdmissionStatus, CommitMode, Completion, Denial, DenialKind, DnsQuestion, DnsServer, Gate,
    Listener, ListenerKind, ProxyEvent, QueryTarget, Rcode, Screening, ServerConfig, ValidatedAnswer,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::client::PATIENCE;

/// What an admission waits for: the kernel's word on one answer.
pub(crate) struct Pending {
    pub(crate) validated: ValidatedAnswer,
    pub(crate) commit: oneshot::Sender<Result<(), AdmissionError>>,
}

/// Forwards everything but names under `denied.`, to the upstreams it is given.
pub(crate) struct Agent {
    upstreams: Arc<[SocketAddr]>,
    /// Whether answers wait for the test.
    holds: bool,
    pending: Mutex<Vec<Pending>>,
    events: Mutex<Vec<String>>,
    questions: Mutex<Vec<(IpAddr, QueryTarget, String)>>,
    changed: Notify,
    tasks: Handle,
}

/// Only [`Agent::admit`] makes one.
pub(crate) struct Committed(());

impl Gate for Agent {
    type Identity = IpAddr;
    type Proof = Committed;
    type WorkerState = ();

    fn worker_state(&self) {}

    fn screen(&self, _: &mut (), source: IpAddr, target: QueryTarget, question: &DnsQuestion) -> Screening<IpAddr> {
        let name = question.name.as_str().to_owned();
        let denied = name.ends_with("denied.");
        self.questions.lock().unwrap().push((source, target, name));
        if denied {
            return Screening::Refuse(Denial {
                rcode: Rcode::NxDomain,
                reason: "no policy allows this name".into(),
                kind: DenialKind::Refused,
            });
        }
        Screening::Forward {
            identity: source,
            upstreams: self.upstreams.clone(),
        }
    }

    fn admit(
        &self,
        _: &mut (),
        _: &IpAddr,
        validated: ValidatedAnswer,
        _: CommitMode,
        completion: impl FnOnce() -> Completion<Committed>,
    ) -> AdmissionStatus<Committed> {
        if !self.holds || validated.addresses.is_empty() {
            return AdmissionStatus::Settled(Ok(Committed(())));
        }
        let (commit, committed) = oneshot::channel::<Result<(), AdmissionError>>();
        let completion = completion();
        self.tasks.spawn(async move {
            if let Ok(outcome) = committed.await {
                completion.settle(outcome.map(Committed));
            }
        });
        self.pending.lock().unwrap().push(Pending { validated, commit });
        self.changed.notify_waiters();
        AdmissionStatus::Pending(Duration::from_secs(60))
    }

    fn flush(&self, _: &mut ()) {}

    fn observe(&self, _: &mut (), event: ProxyEvent<'_>) {
        let event = match event {
            ProxyEvent::Query { denied, .. } => format!("query forwarded={}", denied.is_none()),
            ProxyEvent::Reply { rcode, .. } => format!("reply {rcode}"),
            ProxyEvent::Upstream { transport, outcome, .. } => format!("upstream {transport:?} {outcome:?}"),
            ProxyEvent::UpstreamState { server, answers, .. } => format!("upstream {server} answers={answers}"),
            ProxyEvent::Withheld { client, name, why, .. } => format!("withheld {name} {why:?} {}", client.is_some()),
            ProxyEvent::CommitWait { committed, .. } => format!("commit {committed}"),
            ProxyEvent::Unanswered { name, reason, .. } => format!("unanswered {name} {reason}"),
            ProxyEvent::Cache(outcome) => format!("cache {outcome:?}"),
            ProxyEvent::Discarded(why) => format!("discarded {why:?}"),
        };
        self.events.lock().unwrap().push(event);
        self.changed.notify_waiters();
    }
}

impl Agent {
    /// Commits at once.
    pub(crate) fn new(upstreams: &[SocketAddr]) -> Self {
        Self {
            upstreams: upstreams.into(),
            holds: false,
            pending: Mutex::default(),
            events: Mutex::default(),
            questions: Mutex::default(),
            changed: Notify::new(),
            tasks: Handle::current(),
        }
    }

    /// Commits when the test says so.
    pub(crate) fn that_holds(upstreams: &[SocketAddr]) -> Self {
        Self {
            holds: true,
            ..Self::new(upstreams)
        }
    }

    /// The next answer that waits for its commit.
    pub(crate) async fn pending(&self) -> Pending {
        self.wait_for(|| {
            let mut pending = self.pending.lock().unwrap();
            (!pending.is_empty()).then(|| pending.remove(0))
        })
        .await
    }

    /// Waits until an event was observed as often as said.
    pub(crate) async fn observed(&self, event: &str, times: usize) {
        self.wait_for(|| (self.count(event) >= times).then_some(())).await;
    }

    pub(crate) fn count(&self, event: &str) -> usize {
        self.events.lock().unwrap().iter().filter(|seen| *seen == event).count()
    }

    pub(crate) fn questions(&self) -> Vec<(IpAddr, QueryTarget, String)> {
        self.questions.lock().unwrap().clone()
    }

    pub(crate) fn forget_questions(&self) {
        self.questions.lock().unwrap().clear();
    }

    async fn wait_for<T>(&self, condition: impl Fn() -> Option<T>) -> T {
        let found = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if let Some(found) = condition() {
                    return found;
                }
                changed.await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(found) => found,
            Err(_) => panic!("it has not come; what was observed: {:?}", self.events.lock().unwrap()),
        }
    }
}

/// A proxy that listens on a port of its own.
pub(crate) struct Proxy {
    pub(crate) agent: Arc<Agent>,
    pub(crate) server: DnsServer<Agent>,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    pub(crate) async fn start(agent: Agent) -> Self {
        Self::start_with(agent, patient()).await
    }

    /// For tests in which somebody does not answer.
    pub(crate) async fn start_impatient(agent: Agent) -> Self {
        Self::start_with(agent, impatient()).await
    }

    pub(crate) async fn start_with(agent: Agent, config: ServerConfig) -> Self {
        let address = free_address();
        let mut proxy = Self {
            agent: Arc::new(agent),
            server: DnsServer::new(Arc::new(Agent::new(&[])), config.clone()),
            address,
        };
        proxy.server = DnsServer::new(proxy.agent.clone(), config);
        proxy.server.listen(&[plain(address)]).await.unwrap();
        proxy
    }
}

/// Gives up later than the test does, so that a busy machine takes no lookup for a silent one.
pub(crate) fn patient() -> ServerConfig {
    ServerConfig {
        upstream_timeout: PATIENCE,
        lookup_timeout: 3 * PATIENCE,
        ..ServerConfig::default()
    }
}

/// Short enough to wait for, where somebody does not answer. Two workers, so that what they must
/// share is shared; the state machine of one is tested by itself.
pub(crate) fn impatient() -> ServerConfig {
    ServerConfig {
        workers: 2,
        upstream_timeout: Duration::from_millis(300),
        lookup_timeout: Duration::from_secs(4),
        ..ServerConfig::default()
    }
}

pub(crate) fn plain(address: SocketAddr) -> Listener {
    Listener {
        address,
        kind: ListenerKind::Plain,
    }
}

/// An address on the loopback that nothing else uses: no other test, and no other run of these
/// tests.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let run = std::process::id();
    let ip = [
        127,
        1 + (run / 250 % 250) as u8,
        (run % 250) as u8,
        NEXT.fetch_add(1, Ordering::Relaxed),
    ];
    (ip, 5_300).into()
}
