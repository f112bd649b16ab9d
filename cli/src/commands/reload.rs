//! Handles SIGHUP, SIGUSR1 and SIGUSR2, each of which would end a process without a handler.
//!
//! SIGHUP reads the objects and the config file again. Where the file says something else, and it
//! can be used, the agent is started again with it, as after a crash: the ruleset stays in force,
//! and lookups wait. So an option has one meaning, whenever it was set.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use settings::{ConfigError, HostFacts, OptionLayer, file};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tracing::{error, info, warn};

use super::prepared_agent::{Args, PrepareError, prepare};

/// What SIGHUP reads again.
#[derive(Debug)]
pub(super) struct Reload {
    /// What the agent was told, with the content of its config file at the start.
    said: Args,
    config: Option<(PathBuf, OptionLayer)>,
    /// Whether the agent runs under a supervisor of its own, which stays what it is.
    supervise: bool,
    /// Notified to read the objects again, one for each directory.
    pub(super) objects: Vec<Arc<Notify>>,
}

/// How the config file differs from that of the start.
#[derive(Debug)]
enum ConfigChange {
    None,
    /// It can be used.
    Changed(PathBuf),
    /// It can be used by another process alone.
    NeedsRestart(PathBuf),
    Broken(PrepareError),
}

impl Reload {
    /// What to compare with later.
    pub(super) fn new(said: Args) -> Result<Self, PrepareError> {
        let config = said.config.clone();
        let config = config.map(|path| file::read(&path).map(|options| (path, options)));
        let prepared = prepare(said.clone(), &HostFacts::read())?;
        Ok(Self {
            config: config.transpose().map_err(ConfigError::from)?,
            said,
            supervise: prepared.supervise,
            objects: Vec::new(),
        })
    }

    /// Handles the signals from now on, in a task. Must be called in a runtime. The receiver is
    /// told when the agent is to be started again.
    pub(super) fn listen(self) -> io::Result<mpsc::Receiver<()>> {
        let mut hangup = signal(SignalKind::hangup())?;
        // Tools that rotate logs or ask for a dump send these by mistake.
        let (mut one, mut two) = (
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::user_defined2())?,
        );
        let (again, start_again) = mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => if self.reload() {
                        // One that is told already is enough.
                        let _ = again.try_send(());
                    },
                    _ = one.recv() => info!("SIGUSR1 means nothing to the agent"),
                    _ = two.recv() => info!("SIGUSR2 means nothing to the agent"),
                }
            }
        });
        Ok(start_again)
    }

    /// Reads everything again. Returns whether the agent is to be started again.
    fn reload(&self) -> bool {
        self.objects.iter().for_each(|objects| objects.notify_one());
        match self.compare() {
            ConfigChange::None => info!("SIGHUP: the objects are read again; the configuration is what it was"),
            ConfigChange::Changed(path) => {
                info!("SIGHUP: {} has changed; the agent starts again with it", path.display());
                return true;
            }
            ConfigChange::NeedsRestart(path) => warn!(
                "SIGHUP: the objects are read again; {} has another `supervise`: restart the agent to put it in force",
                path.display()
            ),
            ConfigChange::Broken(error) => {
                error!("SIGHUP: the objects are read again; the agent goes on as it was started: {error}");
            }
        }
        false
    }

    fn compare(&self) -> ConfigChange {
        let Some((path, before)) = &self.config else {
            return ConfigChange::None;
        };
        match file::read(path) {
            // Compared as values: 60s and 1m are the same.
            Ok(now) if now.options() == before.options() => ConfigChange::None,
            Ok(_) => match prepare(self.said.clone(), &HostFacts::read()) {
                Ok(prepared) if prepared.supervise != self.supervise => ConfigChange::NeedsRestart(path.clone()),
                Ok(_) => ConfigChange::Changed(path.clone()),
                Err(error) => ConfigChange::Broken(error),
            },
            Err(error) => ConfigChange::Broken(ConfigError::from(error).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser;
    use tempfile::TempDir;

    use super::*;

    #[derive(Parser)]
    struct AgentCommand {
        #[command(flatten)]
        args: Args,
    }

    fn reload(line: &[&str]) -> Reload {
        Reload::new(AgentCommand::try_parse_from([&["agent"], line].concat()).unwrap().args).unwrap()
    }

    #[test]
    fn a_config_file_that_changed_is_taken_and_one_that_broke_is_not() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("agent.yaml");
        let write = |options: &str| {
            fs::write(&path, format!("upstream: 192.0.2.53\nnode: n\n{options}\n")).unwrap();
        };
        write("grace: 5s");
        let reload = reload(&["--config", path.to_str().unwrap()]);
        write("# a comment\ngrace: 5000ms");
        assert!(matches!(reload.compare(), ConfigChange::None));
        write("grace: 6s");
        assert!(matches!(reload.compare(), ConfigChange::Changed(_)));
        write("supervise: true");
        assert!(matches!(reload.compare(), ConfigChange::NeedsRestart(_)));
        write("grase: 6s");
        assert!(matches!(reload.compare(), ConfigChange::Broken(_)));
        write("objects: /nonexistent");
        assert!(
            matches!(reload.compare(), ConfigChange::Broken(_)),
            "what a start refuses"
        );
    }

    #[test]
    fn without_a_config_file_nothing_changes() {
        let reload = reload(&["--upstream", "192.0.2.53", "--node", "n"]);
        assert!(matches!(reload.compare(), ConfigChange::None));
    }
}
