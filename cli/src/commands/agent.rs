//! `namegate agent`: runs the agent until it is told to stop.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use agent::app::{Agent, StartError};
use cluster::ObjectSource;
use cluster::directory::DirectorySource;
use cluster::kubernetes::KubernetesSource;
use cluster::kubernetes::client::{Access, AccessError};
use cluster::mesh::{Mesh, OtherClusterPlace, OtherClusterSource};
use cluster::taint::StartupTaint;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use settings::{ClusterLead, ConfigError, HostFacts, OptionLayer, OtherClusterAddress, Settings};
use supervisor::trim_memory;
use supervisor::{self, Supervision};
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, oneshot};
use tracing::{debug, info, warn};

use crate::VerbOutcome;

use super::reload::Reload;

/// Runs the agent: intercepts lookups, and lets workloads reach what their policies name
///
/// Policies and workloads come from the API server of the cluster that it runs in, or of
/// --kubeconfig, or from a directory. Needs root (CAP_NET_ADMIN and the ports it listens on) and
/// the program `nft`. On SIGTERM or SIGINT it ends; the ruleset stays in force (see
/// `namegate cleanup`); on SIGHUP it reads the objects again. Every option may stand in the file of
/// --config under the same name without the dashes, as in `fail-mode: closed`; lists as YAML lists.
/// What the command line says wins.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Durations are written as in 30s, 5m, 1h30m.

Examples:
  namegate agent
  namegate agent --kubeconfig /etc/kubernetes/namegate.conf --node node-1
  namegate agent --objects /etc/namegate/objects --supervise
  namegate agent --objects ./objects --upstream 192.0.2.53 --listen 127.0.0.1:5300 --intercept off
  namegate agent --config /etc/namegate/agent.yaml --fail-mode closed
  namegate agent --cluster-name east --cluster-kubeconfig west=/etc/namegate/clusters/west")]
pub(crate) struct Args {
    /// Config file in YAML, with the options below as keys
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: OptionLayer,
}

/// Why the agent does not run.
#[derive(Debug, Error)]
pub(crate) enum AgentError {
    /// The command line or the config file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No API server can be found.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A directory of objects cannot be read. It is checked before the kernel is changed.
    #[error("cannot read the directory {}: {error}; check the path given to --{option}", directory.display())]
    Objects {
        /// `objects` or `cluster`.
        option: &'static str,
        /// The path that was given.
        directory: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The agent cannot start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The sockets that the supervisor keeps for this worker cannot be received.
    #[error("cannot take over from the supervisor: {0}")]
    Supervision(io::Error),
    /// The runtime or a signal handler.
    #[error("cannot start the runtime: {0}")]
    Runtime(io::Error),
}

/// Runs the verb.
pub(crate) fn run(args: Args) -> crate::Result {
    let supervision = Supervision::attach().map_err(AgentError::Supervision)?;
    let config = args.config.clone();
    let prepared = prepare(args, &HostFacts::read())?;
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
    // A reload compares the file with what it held at the start.
    let at_start = config.map(|path| settings::file::read(&path).map(|options| (path, options)));
    let mut reload = Reload {
        config: at_start
            .transpose()
            .map_err(ConfigError::from)
            .map_err(AgentError::from)?,
        objects: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("namegate")
        .build()
        .map_err(AgentError::Runtime)?;
    let others = other_clusters(&settings, &mut reload);
    runtime.block_on(async {
        match from {
            ObjectsFrom::Directory(directory) => {
                let own = DirectorySource {
                    directory,
                    node: settings.node.clone(),
                    state_dir: settings.state_dir.clone(),
                    reread: reread(&mut reload),
                };
                serve(settings, Mesh { own, others }, reload, supervision, None).await
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
                serve(settings, Mesh { own, others }, reload, supervision, taint).await
            }
        }
    })?;
    Ok(VerbOutcome::Positive)
}

/// The source of objects.
#[derive(Debug, PartialEq, Eq)]
enum ObjectsFrom {
    /// The directory of `--objects`.
    Directory(PathBuf),
    /// The cluster of this kubeconfig; `None` for the one that this process is a Pod of.
    Cluster(Option<PathBuf>),
}

/// The settings of command line and config file, checked.
#[derive(Debug)]
struct PreparedAgent {
    settings: Settings,
    from: ObjectsFrom,
    supervise: bool,
}

fn prepare(args: Args, host: &HostFacts) -> Result<PreparedAgent, AgentError> {
    let Args { config, options } = args;
    let options = settings::merge(options, config.as_deref())?;
    let from = match options.objects.objects.clone() {
        Some(directory) => ObjectsFrom::Directory(directory),
        None => ObjectsFrom::Cluster(options.objects.kubeconfig.clone()),
    };
    let supervise = options.process.supervise;
    let settings = settings::resolve::resolve(options, host).map_err(ConfigError::from)?;
    let own = match &from {
        ObjectsFrom::Directory(directory) => Some(("objects", directory)),
        ObjectsFrom::Cluster(_) => None,
    };
    let others = settings.other_clusters.iter().filter_map(|other| match &other.lead {
        ClusterLead::Directory(directory) => Some(("cluster", directory)),
        // It may come later, as may the cluster.
        ClusterLead::Kubeconfig(_) => None,
    });
    for (option, directory) in own.into_iter().chain(others) {
        std::fs::read_dir(directory).map_err(|error| AgentError::Objects {
            option,
            directory: directory.clone(),
            error,
        })?;
    }
    Ok(PreparedAgent {
        settings,
        from,
        supervise,
    })
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
) -> Result<(), AgentError> {
    // Handlers come first, so that no signal ends the process while state is half made.
    let mut stop = StopSignals::new(supervision.as_deref()).map_err(AgentError::Runtime)?;
    reload.listen().map_err(AgentError::Runtime)?;
    info!(version = env!("CARGO_PKG_VERSION"), node = %settings.node, "starting");
    let agent = Agent::start(settings, source, supervision.clone()).await?;
    let cause = tokio::select! {
        ready = agent.ready() => {
            ready?;
            info!("ready");
            if let Some(supervision) = &supervision {
                supervision.ready();
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
            }
        }
        cause = stop.next() => cause,
    };
    info!("{cause}: stopping; the ruleset stays in force");
    tokio::select! {
        () = agent.stop() => info!("stopped"),
        again = stop.next() => warn!("{again} again: leaving at once"),
    }
    Ok(())
}

/// The events that stop the agent.
struct StopSignals {
    supervisor: Option<oneshot::Receiver<()>>,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new(supervision: Option<&Supervision>) -> io::Result<Self> {
        Ok(Self {
            supervisor: supervision.map(Supervision::watch).transpose()?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
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
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use policy::QuestionMode;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct AgentCommand {
        #[command(flatten)]
        args: Args,
    }

    fn prepared(line: &[&str]) -> Result<(Settings, ObjectsFrom), String> {
        let host = HostFacts {
            name: "node-1".into(),
            resolv_conf: Ok("nameserver 192.0.2.53".into()),
        };
        let args = AgentCommand::try_parse_from([&["agent"], line].concat())
            .map_err(|error| error.to_string())?
            .args;
        let prepared = prepare(args, &host).map_err(|error| error.to_string())?;
        Ok((prepared.settings, prepared.from))
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let dir = TempDir::new().unwrap();
        let objects = dir.path().to_str().unwrap();
        let file = dir.path().join("agent.yaml");
        fs::write(
            &file,
            format!("objects: {objects}\ntable: from_file\nnode: from-file\ngrace: 5s\n"),
        )
        .unwrap();
        let line = [
            "--config",
            file.to_str().unwrap(),
            "--table",
            "from_line",
            "--grace",
            "1m",
        ];
        let (settings, from) = prepared(&line).unwrap();
        assert_eq!(from, ObjectsFrom::Directory(dir.path().to_owned()));
        assert_eq!(settings.table, "from_line");
        assert_eq!(settings.node, "from-file");
        assert_eq!(settings.lease.grace.as_secs(), 60);
        assert_eq!(settings.lease.max_ttl.as_secs(), 86_400);
    }

    #[test]
    fn without_objects_a_cluster_is_watched() {
        let (settings, from) = prepared(&[]).unwrap();
        assert_eq!(
            (from, settings.questions),
            (ObjectsFrom::Cluster(None), QuestionMode::Any)
        );
        let (_, from) = prepared(&["--kubeconfig", "k"]).unwrap();
        assert_eq!(from, ObjectsFrom::Cluster(Some("k".into())));
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("agent.yaml");
        fs::write(&file, "objects: /nonexistent\n").unwrap();
        let (_, from) = prepared(&["--config", file.to_str().unwrap(), "--kubeconfig", "k"]).unwrap();
        assert_eq!(from, ObjectsFrom::Cluster(Some("k".into())), "the command line wins");
    }

    #[test]
    fn objects_that_cannot_be_read_are_an_error_before_anything_is_touched() {
        assert!(
            prepared(&["--objects", "/nonexistent/objects"])
                .unwrap_err()
                .contains("/nonexistent/objects")
        );
        let message = prepared(&["--cluster", "west=/nonexistent/west"]).unwrap_err();
        assert!(
            message.contains("/nonexistent/west") && message.contains("--cluster"),
            "{message}"
        );
        assert!(
            prepared(&["--config", "/nonexistent/agent.yaml"])
                .unwrap_err()
                .contains("--config")
        );
    }
}
