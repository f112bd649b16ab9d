//! What `namegate agent` was told: its command line, joined with its config file, and checked.

use std::io;
use std::path::PathBuf;

use settings::{ClusterLead, ConfigError, HostFacts, LogFormat, OptionLayer, Settings};
use thiserror::Error;

/// Runs the agent: intercepts lookups, and lets workloads reach what their policies name
///
/// Policies and workloads come from the API server of the cluster that it runs in, or of
/// --kubeconfig, or from a directory. Needs root (CAP_NET_ADMIN and the ports it listens on) and
/// the program `nft`. On SIGTERM, SIGQUIT or SIGINT it ends; the ruleset stays in force (see
/// `namegate cleanup`); on SIGHUP it reads the objects and its configuration again. Every option
/// may stand in the file of --config under the same name without the dashes, as in
/// `fail-mode: closed`; lists as YAML lists. What the command line says wins.
#[derive(Debug, Clone, clap::Args)]
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
    #[arg(long, value_name = "FILE", env = "NAMEGATE_CONFIG", hide_env_values = true)]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    options: OptionLayer,
}

impl Args {
    /// How the log is to be written. What is wrong with the options is told later, and as text.
    pub(crate) fn log_format(&self) -> LogFormat {
        settings::merge(self.options.clone(), self.config.as_deref())
            .map_or(LogFormat::Text, |options| options.process.log_format)
    }
}

/// Why what the agent was told cannot be used.
#[derive(Debug, Error)]
pub(crate) enum PrepareError {
    /// The command line or the config file.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
}

/// The source of objects.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ObjectsFrom {
    /// The directory of `--objects`.
    Directory(PathBuf),
    /// The cluster of this kubeconfig; `None` for the one that this process is a Pod of.
    Cluster(Option<PathBuf>),
}

/// The settings of command line and config file, checked.
#[derive(Debug)]
pub(super) struct PreparedAgent {
    pub(super) settings: Settings,
    pub(super) from: ObjectsFrom,
    pub(super) supervise: bool,
}

pub(super) fn prepare(args: Args, host: &HostFacts) -> Result<PreparedAgent, PrepareError> {
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
        std::fs::read_dir(directory).map_err(|error| PrepareError::Objects {
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
