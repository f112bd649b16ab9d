//! The agent itself: settings and a source of objects in, something that runs out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::RecordsSummary;
use cluster::Progress;
use cluster::index::Cluster;
use cluster::{ObjectSource, SourceHandles};
use dns_proxy::{DnsServer, ServerConfig, SocketStore};
use enforcer::Enforcer;
use events::{EventLog, RingLimits};
use fqdn_cache::Ledger;
use parking_lot::Mutex;
use settings::Settings;
use supervisor::Supervision;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::flow_watch;
use crate::gate::{GateSettings, NodeGate};
use crate::handles::AgentHandles;
use crate::http::{HttpAudience, HttpError, HttpServer};
use crate::hubble_server::{HubbleError, HubbleServer};
use crate::inspector::Inspector;
use crate::judge::NodeJudge;
use crate::ledger_file;
use crate::local_api::ApiServer;
use crate::local_authority::LocalAuthority;
use crate::local_socket::ServeError;
use crate::metrics::Metrics;
use crate::reconcile::Reconciler;
use crate::reconciler_part::{self, PartGiver, ReconcilerPart};
use crate::records::{self, Recorder};
use crate::revocation::Revoker;
use crate::run_dir::{RunDirClaim, RunDirError};
use crate::view::View;
use planner::ActivePlan;
use planner::Planner;

/// How long a clean end waits for lookups in flight, and for what is under way on connections that
/// are looked into; and for handshakes with it where another agent follows.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the agent could not start, or had to end.
#[derive(Debug, Error)]
pub enum StartError {
    /// The kernel side.
    #[error(transparent)]
    Install(#[from] enforcer::InstallError),
    /// The source of objects.
    #[error("{0}")]
    Source(String),
    /// The server of `/metrics` and `/readyz` could not start.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The run directory.
    #[error(transparent)]
    RunDir(#[from] RunDirError),
    /// The local API.
    #[error(transparent)]
    Api(#[from] ServeError),
    /// The observer API.
    #[error(transparent)]
    Hubble(#[from] HubbleError),
}

/// What an agent shares with who starts it.
#[derive(Debug)]
pub struct AgentEquipment {
    /// What happens is recorded here.
    pub events: Arc<EventLog>,
    /// With whose certificates TLS ends here, where rules want that.
    pub authority: Option<Arc<LocalAuthority>>,
}

impl Default for AgentEquipment {
    fn default() -> Self {
        Self {
            events: Arc::new(EventLog::new(RingLimits::default())),
            authority: None,
        }
    }
}

/// A running agent. Dropping it stops it as a crash would; [`stop`](Agent::stop) ends it cleanly.
pub struct Agent {
    handles: AgentHandles,
    progress: watch::Receiver<Progress>,
    source_failure: watch::Receiver<Option<String>>,
    tasks: JoinSet<()>,
    /// The source of objects and the loop that follows it.
    reconciling: JoinSet<()>,
    part: PartGiver,
    http: Vec<HttpServer>,
    api: Option<ApiServer>,
    hubble: Option<HubbleServer>,
    _claim: Option<RunDirClaim>,
}

impl Agent {
    /// Starts in the network namespace of the calling thread, which all threads of the runtime must
    /// share. Under supervision its sockets outlive it.
    pub async fn start(
        settings: Settings,
        source: impl ObjectSource,
        supervision: Option<Arc<Supervision>>,
    ) -> Result<Self, StartError> {
        Self::start_equipped(settings, source, supervision, AgentEquipment::default()).await
    }

    /// As [`start`](Self::start), with what is also the caller's.
    pub async fn start_equipped(
        settings: Settings,
        mut source: impl ObjectSource,
        supervision: Option<Arc<Supervision>>,
        equipment: AgentEquipment,
    ) -> Result<Self, StartError> {
        let kept = supervision.as_deref().map(|it| it as &dyn SocketStore);
        // Before anything is touched that another agent may be using.
        let claim = match &settings.process.run_dir {
            Some(directory) => {
                let process = supervision.as_deref().and_then(Supervision::supervisor);
                let process = process.unwrap_or_else(std::process::id);
                Some(RunDirClaim::make(directory, process, settings.process.take_over, kept)?)
            }
            None => None,
        };
        let metrics = Arc::new(Metrics::new());
        let handles = assemble(settings, Arc::clone(&metrics), supervision.clone(), equipment)?;
        let (mut tasks, mut reconciling) = (JoinSet::new(), JoinSet::new());

        let SourceHandles {
            health,
            others,
            cut_notices,
            status_reporter,
        } = source.handles();
        let revoker = Revoker::start(handles.clone(), Arc::clone(&metrics), cut_notices);
        let (part, taken) = reconciler_part::pair();
        let reconciler = Reconciler::new(handles.clone(), revoker, taken);
        let progress = reconciler.progress();
        if let Some(reporter) = status_reporter {
            tasks.spawn(reporter.run(progress.clone()));
        }
        let view = Arc::new(View::new(handles.clone(), progress.clone(), health, others));
        let mut http = Vec::new();
        for (address, audience) in http_servers(&handles.settings) {
            http.push(HttpServer::start(
                address,
                audience,
                view.clone(),
                Arc::clone(&metrics),
                kept,
            )?);
        }
        let group = handles.settings.process.socket_group.as_ref();
        let hubble = match &handles.settings.hubble {
            Some(place) => Some(HubbleServer::start(place, group, view.clone())?),
            None => None,
        };
        let api = match &handles.settings.process.run_dir {
            Some(directory) => Some(ApiServer::start(directory, group, view, kept)?),
            None => None,
        };

        // A short queue: while one update is put in force, the source waits and collects.
        let (updates, inbox) = mpsc::channel(16);
        let (failed, source_failure) = watch::channel(None);
        reconciling.spawn(async move {
            if let Err(failure) = source.run(updates).await {
                error!(%failure, "the source of objects ended");
                failed.send_replace(Some(failure.to_string()));
                // Keep the sender of the failure, so that readers see the failure and not a closed
                // channel.
                failed.closed().await;
            }
        });
        tasks.spawn(ledger_file::keep(handles.clone()));
        if let Some(group) = handles.settings.records_group {
            let (recorder, gate) = (Arc::clone(&handles.recorder), Arc::clone(&handles.gate));
            tasks.spawn(records::listen(group, recorder, gate, records::by_explanation));
        }
        tasks.spawn(flow_watch::watch_flows(handles.clone()));
        reconciling.spawn(reconciler.run(inbox));

        Ok(Self {
            handles,
            progress,
            source_failure,
            tasks,
            reconciling,
            part,
            http,
            api,
            hubble,
            _claim: claim,
        })
    }

    /// Resolves once the first ruleset is in the kernel and every listener is bound; an error when
    /// the source of objects, or the first installation, fails.
    pub async fn ready(&self) -> Result<(), StartError> {
        let (mut progress, mut failure) = (self.progress.clone(), self.source_failure.clone());
        tokio::select! {
            settled = progress.wait_for(|progress| progress.in_force || progress.failure.is_some()) => match settled {
                Ok(progress) => match &progress.failure {
                    Some(failure) if !progress.in_force => Err(StartError::Source(failure.clone())),
                    _ => Ok(()),
                },
                Err(_) => Err(StartError::Source("the reconcile loop ended".into())),
            },
            Ok(failure) = failure.wait_for(Option::is_some) => {
                Err(StartError::Source(failure.clone().unwrap_or_default()))
            }
        }
    }

    /// Resolves once packets are recorded; an error says why they are not.
    pub async fn recording(&self) -> Result<(), String> {
        if self.handles.settings.records_group.is_none() {
            return Err("records are switched off".into());
        }
        loop {
            let records = self.handles.recorder.summary();
            match records.failure {
                _ if records.on => return Ok(()),
                Some(why) => return Err(why),
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    /// Totals of recorded packets, beside what the kernel has counted.
    pub fn records(&self) -> RecordsSummary {
        self.handles.records_summary()
    }

    /// Resolves if the source of objects ends, which a running agent does not survive usefully.
    pub async fn source_ended(&self) -> StartError {
        let mut failure = self.source_failure.clone();
        match failure.wait_for(Option::is_some).await {
            Ok(failure) => StartError::Source(failure.clone().unwrap_or_default()),
            Err(_) => StartError::Source("the source of objects ended".into()),
        }
    }

    /// Ends it as a crash would, for an agent that is started again at once: lookups wait for that
    /// one, and none passes unobserved. The ledger is saved.
    pub fn leave(self) {
        self.save_ledger();
    }

    /// Ends it: lookups fall through at once in fail-mode open, those in flight are answered,
    /// enforcement stays in the kernel, and the ledger is saved. Where another agent follows,
    /// connections that are looked into go on for `--inspect-drain`.
    pub async fn stop(mut self) {
        // No more rules, and no heartbeat: from here on new lookups no longer come to us.
        self.tasks.shutdown().await;
        match self.handles.inspector.is_running() {
            true => self.part.give(ReconcilerPart::Waits).await,
            false => self.reconciling.shutdown().await,
        }
        self.handles.enforcer.stop_heartbeat().await;
        let is_followed = self.handles.enforcer.is_followed();
        let mut server = self.handles.server.lock().await;
        if let Err(error) = server.listen(&[]).await {
            error!(%error, "the DNS listeners could not be ended in order");
        }
        let drained = async {
            while !server.is_drained() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        // Whoever waits longer asks again, and then no longer us.
        let _ = tokio::time::timeout(DRAIN, drained).await;
        drop(server);
        if !is_followed {
            self.reconciling.shutdown().await;
            self.handles.inspector.drain(DRAIN).await;
        }
        self.handles.enforcer.shut_down().await;
        self.save_ledger();
        if is_followed {
            self.leave_connections().await;
        }
    }

    fn save_ledger(&self) {
        if let Some(directory) = &self.handles.settings.state_dir
            && let Err(error) = ledger_file::save(directory, &self.handles.ledger)
        {
            error!(%error, "the ledger's snapshot cannot be written");
        }
    }

    /// Lets connections that are looked into come to an end, beside an agent that takes new ones.
    async fn leave_connections(mut self) {
        // Whoever asks is to ask the other agent.
        (self.http, self.api, self.hubble) = (Vec::new(), None, None);
        if self.handles.inspector.is_running() {
            // The kernel hands new ones to the other agent. Of those before, some handshakes may be
            // under way.
            tokio::time::sleep(DRAIN).await;
            let open = self.handles.inspector.open_connections();
            let within = self.handles.settings.inspection.inspect_drain;
            info!(open, ?within, "connections that are looked into go on until they end");
            self.part.give(ReconcilerPart::Judges).await;
            let reset = self.handles.inspector.drain(within).await;
            if reset > 0 {
                warn!(
                    reset,
                    "connections that were looked into are reset; --inspect-drain is over"
                );
            }
        }
        self.reconciling.shutdown().await;
    }
}

/// Where is served what over HTTP. Pages have an address of their own where metrics are served to
/// more than this node.
fn http_servers(settings: &Settings) -> impl Iterator<Item = (SocketAddr, HttpAudience)> {
    let http = settings.process.http;
    let (machines, people) = (http.address(), settings.process.web.address(http));
    let machines = machines.filter(|machines| Some(*machines) != people);
    let machines = machines.map(|address| (address, HttpAudience::Machines));
    let people = people.map(|address| (address, HttpAudience::MachinesAndPeople));
    machines.into_iter().chain(people)
}

/// Makes the handles, with nothing in force yet.
fn assemble(
    settings: Settings,
    metrics: Arc<Metrics>,
    supervision: Option<Arc<Supervision>>,
    equipment: AgentEquipment,
) -> Result<AgentHandles, StartError> {
    let AgentEquipment { events, authority } = equipment;
    let mut ledger = Ledger::new(settings.limits, settings.lease);
    if let Some(directory) = &settings.state_dir {
        state_dir::sweep(directory, state_dir::ABANDONED);
        ledger_file::restore(directory, &mut ledger);
    }
    let ledger = Arc::new(Mutex::new(ledger));
    let enforcer = Enforcer::start_guarded(&settings.table)?;

    let nothing = Planner::default().plan(&Cluster::default(), &settings, &Arc::default());
    let first = ActivePlan {
        plan: Arc::new(nothing),
        generation: enforcer.generation(),
        coming: None,
    };
    let terms = GateSettings {
        denied: settings.lookups.dns_denied,
        encrypted_dns_discovery: settings.lookups.encrypted_dns_discovery,
        lease: settings.lease,
        commit_deadline: settings.lookups.commit_deadline,
        upstreams: settings.upstreams.clone().into(),
    };
    let recorder = Arc::new(Recorder::new(Arc::clone(&metrics), Arc::clone(&events)));
    let gate = Arc::new(NodeGate::new(
        first,
        Arc::clone(&ledger),
        enforcer.clone(),
        terms,
        metrics,
        settings.records_group.map(|_| recorder.answer_log()),
        Arc::clone(&events),
    ));
    let defaults = ServerConfig::default();
    let config = ServerConfig {
        workers: settings.lookups.workers.unwrap_or(defaults.workers),
        cache: settings.cache,
        encrypted: settings.encrypted.clone(),
        ..defaults
    };
    let mut server = DnsServer::new(Arc::clone(&gate), config);
    if let Some(supervision) = &supervision {
        server.keep_sockets(supervision.clone());
    }
    let server = Arc::new(tokio::sync::Mutex::new(server));
    let judge = NodeJudge::new(Arc::clone(&gate), Arc::clone(&ledger), authority.clone());
    let inspector = Inspector::new(settings.inspection.clone(), Arc::new(judge));
    Ok(AgentHandles {
        inspector: Arc::new(inspector),
        settings: Arc::new(settings),
        ledger,
        enforcer,
        gate,
        recorder,
        events,
        authority,
        server,
        supervision,
    })
}
