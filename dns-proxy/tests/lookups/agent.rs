//! A gate under a test's control, and a proxy behind it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns_proxy::{
    Admission, Asked, Company, Denial, Event, Gate, Lesson, Listener, ListenerKind, NotAdmitted, Question, Rcode,
    Screening, Server, ServerConfig, Ticket,
};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

/// What an admission waits for: the kernel's word on one lesson.
pub(crate) struct Pending {
    pub(crate) lesson: Lesson,
    pub(crate) commit: oneshot::Sender<Result<(), NotAdmitted>>,
}

/// Forwards everything but names under `denied.`, to the upstreams it is given.
pub(crate) struct Agent {
    upstreams: Arc<[SocketAddr]>,
    /// Whether lessons wait for the test.
    holds: bool,
    pending: Mutex<Vec<Pending>>,
    events: Mutex<Vec<String>>,
    questions: Mutex<Vec<(IpAddr, Asked, String)>>,
    changed: Notify,
    tasks: Handle,
}

/// Only [`Agent::admit`] makes one.
pub(crate) struct Committed(());

impl Gate for Agent {
    type Identity = IpAddr;
    type Proof = Committed;
    type Desk = ();

    fn desk(&self) {}

    fn screen(&self, _: &mut (), source: IpAddr, asked: Asked, question: &Question) -> Screening<IpAddr> {
        let name = question.name.as_str().to_owned();
        let denied = name.ends_with("denied.");
        self.questions.lock().unwrap().push((source, asked, name));
        if denied {
            return Screening::Refuse(Denial {
                rcode: Rcode::NxDomain,
                reason: "no policy allows this name".into(),
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
        lesson: Lesson,
        _: Company,
        ticket: impl FnOnce() -> Ticket<Committed>,
    ) -> Admission<Committed> {
        if !self.holds || lesson.addresses.is_empty() {
            return Admission::Settled(Ok(Committed(())));
        }
        let (commit, committed) = oneshot::channel::<Result<(), NotAdmitted>>();
        let ticket = ticket();
        self.tasks.spawn(async move {
            if let Ok(outcome) = committed.await {
                ticket.settle(outcome.map(Committed));
            }
        });
        self.pending.lock().unwrap().push(Pending { lesson, commit });
        self.changed.notify_waiters();
        Admission::Waiting(Duration::from_secs(60))
    }

    fn flush(&self, _: &mut ()) {}

    fn observe(&self, _: &mut (), event: Event<'_>) {
        let event = match event {
            Event::Query { forwarded, .. } => format!("query forwarded={forwarded}"),
            Event::Reply { rcode, .. } => format!("reply {rcode}"),
            Event::Upstream { transport, outcome, .. } => format!("upstream {transport:?} {outcome:?}"),
            Event::UpstreamState { server, answers, .. } => format!("upstream {server} answers={answers}"),
            Event::Withheld { client, name, why, .. } => format!("withheld {name} {why:?} {}", client.is_some()),
            Event::CommitWait { committed, .. } => format!("commit {committed}"),
            Event::Cache(outcome) => format!("cache {outcome:?}"),
            Event::Discarded(why) => format!("discarded {why:?}"),
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

    /// The next lesson that waits for its commit.
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

    pub(crate) fn questions(&self) -> Vec<(IpAddr, Asked, String)> {
        self.questions.lock().unwrap().clone()
    }

    pub(crate) fn forget_questions(&self) {
        self.questions.lock().unwrap().clear();
    }

    async fn wait_for<T>(&self, condition: impl Fn() -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(found) = condition() {
                return found;
            }
            changed.await;
        }
    }
}

/// A proxy that listens on a port of its own.
pub(crate) struct Proxy {
    pub(crate) agent: Arc<Agent>,
    pub(crate) server: Server<Agent>,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    pub(crate) async fn start(agent: Agent) -> Self {
        Self::start_with(agent, impatient()).await
    }

    pub(crate) async fn start_with(agent: Agent, config: ServerConfig) -> Self {
        let address = free_address();
        let mut proxy = Self {
            agent: Arc::new(agent),
            server: Server::new(Arc::new(Agent::new(&[])), config.clone()),
            address,
        };
        proxy.server = Server::new(proxy.agent.clone(), config);
        proxy.server.listen(&[plain(address)]).await.unwrap();
        proxy
    }
}

/// Short enough to wait for.
pub(crate) fn impatient() -> ServerConfig {
    ServerConfig {
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
