//! `namegate agent`: runs the agent until it is told to stop.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use agent::app::{Agent, StartError};
use cluster::ObjectSource;
use cluster::directory::DirectorySource;
use cluster::kubernetes::KubernetesSource;
use cluster::kubernetes::client::{Access, AccessError};
use cluster::mesh::{Mesh, OtherClusterPlace, OtherClusterSource};
use cluster::taint::StartupTaint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use settings::{ClusterLead, HostFacts, OtherClusterAddress, Settings};
use supervisor::{self, Supervision, service_manager, trim_memory};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};

use crate::VerbOutcome;

use super::prepared_agent::{Args, ObjectsFrom, PrepareError, PreparedAgent, prepare};
use super::reload::Reload;

/// Why the agent does not run.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// The options.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// No API server can be found.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The agent cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The sockets that the supervisor keeps for this worker cannot be received.
    #[error("cannot take over from the supervisor: {0}")]
    Supervision(io::Error),
    /// The runtime or a signal handler.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
    /// The configuration has changed, and the agent cannot start itself again.
    #[error("cannot start again with what the configuration says now: {0}")]
    Again(io::Error),
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> crate::Result {
    let supervision = Supervision::attach().map_err(AgentError::Supervision)?;
    let said = args.clone();
    let prepared = prepare(args, &HostFacts::read()).map_err(AgentError::from)?;
    raise_open_files();
    if prepared.supervise && supervision.is_none() {
        // The settings were only prepared to find mistakes. Each worker prepares its own.
        drop(prepared);
        supervisor::supervise()?;
        return Ok(VerbOutcome::Positive);
    }
    // This process is the agent: a worker of the supervisor, or unsupervised.
    let PreparedAgent { settings, from, .. } = prepared;
    let supervision = supervision.map(Arc::new);
    let mut reload = Reload::new(said).map_err(AgentError::from)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("namegate")
        .build()
        .map_err(AgentError::Runtime)?;
    let others = other_clusters(&settings, &mut reload);
    let end = runtime.block_on(async {
        match from {
            ObjectsFrom::Directory(directory) => {
                let own = DirectorySource {
                    directory,
                    node: settings.node.clone(),
                    state_dir: settings.state_dir.clone(),
                    reread: reread(&mut reload),
                };
                serve(settings, Mesh { own, others }, reload, supervision.clone(), None).await
            }
            ObjectsFrom::Cluster(kubeconfig) => {
                let access = Access::find(kubeconfig.as_deref()).await?;
                let client = access.client()?;
                let taint = settings.cluster.startup_taint.clone().map(|key| StartupTaint {
                    client,
                    node: settings.node.clone(),
                    key,
                });
                let own = KubernetesSource::new(
                    access,
                    settings.node.clone(),
                    settings.state_dir.clone(),
                    !settings.cluster_cidrs.is_empty(),
                );
                serve(settings, Mesh { own, others }, reload, supervision.clone(), taint).await
            }
        }
    })?;
    drop(runtime);
    match (end, supervision) {
        (ServeEnd::Stopped, _) => Ok(VerbOutcome::Positive),
        (ServeEnd::Reload, Some(supervision)) => {
            supervision.reloading();
            Ok(VerbOutcome::Positive)
        }
        (ServeEnd::Reload, None) => Err(AgentError::Again(start_again()).into()),
    }
}

/// Why the agent does not serve any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ServeEnd {
    /// It was told to end.
    Stopped,
    /// Its configuration has changed, and can be used.
    Reload,
}

/// Becomes this program anew, as the same process. Returns only when that fails.
fn start_again() -> io::Error {
    let mut arguments = env::args_os();
    let name = arguments.next().unwrap_or_else(|| "namegate".into());
    // The file that runs here, even if another version has taken its path by now.
    Command::new("/proc/self/exe").arg0(name).args(arguments).exec()
}

/// The sources of other clusters' objects.
fn other_clusters(settings: &Settings, reload: &mut Reload) -> Vec<OtherClusterSource> {
    let source = |OtherClusterAddress { name, lead }: &OtherClusterAddress| {
        let name: Arc<str> = name.as_str().into();
        let place = match lead {
            ClusterLead::Directory(directory) => OtherClusterPlace::Directory(DirectorySource {
                directory: directory.clone(),
                node: String::new(),
                // A file in it that breaks keeps its last good version in this process alone.
                state_dir: None,
                reread: reread(reload),
            }),
            ClusterLead::Kubeconfig(kubeconfig) => {
                let (name, kubeconfig) = (Arc::clone(&name), kubeconfig.clone());
                let state_dir = settings.state_dir.as_ref();
                OtherClusterPlace::ApiServer(KubernetesSource::of_other_cluster(name, kubeconfig, state_dir))
            }
        };
        OtherClusterSource { name, place }
    };
    settings.other_clusters.iter().map(source).collect()
}

/// What has a directory read again.
fn reread(reload: &mut Reload) -> Arc<Notify> {
    let objects = Arc::default();
    reload.objects.push(Arc::clone(&objects));
    objects
}

/// Raises the soft limit of open files to the hard limit. Each TCP connection of a client and each
/// lookup over TCP is a descriptor, and `ServerConfig` allows more than the usual 1,024. That limit
/// is for programs that use select(2), and this one does not.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files stays as it is; many lookups at once may fail");
    }
}

/// Runs the agent until a signal, the supervisor or its source of objects ends it.
async fn serve(
    settings: Settings,
    source: impl ObjectSource,
    reload: Reload,
    supervision: Option<Arc<Supervision>>,
    taint: Option<StartupTaint>,
) -> Result<ServeEnd, AgentError> {
    // Handlers come first, so that no signal ends the process while state is half made.
    let mut stop = StopSignals::new(supervision.as_deref()).map_err(AgentError::Runtime)?;
    let mut reload = reload.listen().map_err(AgentError::Runtime)?;
    info!(version = crate::VERSION, node = %settings.node, "starting");
    let agent = Agent::start(settings, source, supervision.clone()).await?;
    let cause = tokio::select! {
        ready = agent.ready() => {
            ready?;
            info!("ready");
            match &supervision {
                Some(supervision) => supervision.ready(),
                None => service_manager::ready(),
            }
            if let Some(taint) = taint {
                tokio::spawn(taint.remove());
            }
            if let Err(error) = trim_memory::trim() {
                debug!(%error, "what the start needed stays in memory");
            }
            tokio::select! {
                cause = stop.next() => cause,
                error = agent.source_ended() => return Err(error.into()),
                Some(()) = reload.recv() => {
                    agent.leave();
                    return Ok(ServeEnd::Reload);
                }
            }
        }
        cause = stop.next() => cause,
    };
    info!("{cause}: stopping; the ruleset stays in force");
    if supervision.is_none() {
        service_manager::stopping();
    }
    tokio::select! {
        () = agent.stop() => info!("stopped"),
        again = stop.next() => warn!("{again} again: leaving at once"),
    }
    Ok(ServeEnd::Stopped)
}

/// The events that stop the agent.
struct StopSignals {
    supervisor: Option<oneshot::Receiver<()>>,
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl StopSignals {
    fn new(supervision: Option<&Supervision>) -> io::Result<Self> {
        Ok(Self {
            supervisor: supervision.map(Supervision::watch).transpose()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    /// The next event, as text for the log.
    async fn next(&mut self) -> &'static str {
        let gone = async {
            match &mut self.supervisor {
                // An error means that the thread that waits for the supervisor has ended.
                Some(end) => drop(end.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = gone => {
                self.supervisor = None;
                "the supervisor is gone"
            }
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.quit.recv() => "SIGQUIT",
        }
    }
}
