//! Handles SIGHUP, SIGUSR1 and SIGUSR2, each of which would end a process without a handler.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use settings::{FileError, OptionLayer, file};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tracing::{info, warn};

/// What SIGHUP reads again.
#[derive(Debug, Default)]
pub(super) struct Reload {
    /// The path of `--config`, and its content at the start.
    pub(super) config: Option<(PathBuf, OptionLayer)>,
    /// Notified to read the objects again, one for each directory.
    pub(super) objects: Vec<Arc<Notify>>,
}

/// How the config file differs from that of the start.
#[derive(Debug)]
enum ConfigChange {
    None,
    Changed(PathBuf),
    Broken(FileError),
}

impl Reload {
    /// Handles the signals from now on, in a task. Must be called in a runtime.
    pub(super) fn listen(self) -> io::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        // Tools that rotate logs or ask for a dump send these by mistake.
        let (mut one, mut two) = (
            signal(SignalKind::user_defined1())?,
            signal(SignalKind::user_defined2())?,
        );
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = hangup.recv() => self.reload(),
                    _ = one.recv() => info!("SIGUSR1 means nothing to the agent"),
                    _ = two.recv() => info!("SIGUSR2 means nothing to the agent"),
                }
            }
        });
        Ok(())
    }

    fn reload(&self) {
        info!("SIGHUP: the objects are read again; the agent goes on as it was started");
        self.objects.iter().for_each(|objects| objects.notify_one());
        match self.compare() {
            ConfigChange::None => {}
            ConfigChange::Changed(path) => {
                warn!("{} has changed; restart the agent to put it in force", path.display());
            }
            ConfigChange::Broken(error) => warn!("{error}; a restart would fail"),
        }
    }

    fn compare(&self) -> ConfigChange {
        let Some((path, before)) = &self.config else {
            return ConfigChange::None;
        };
        match file::read(path) {
            // Compared as values: 60s and 1m are the same.
            Ok(now) if now.options() == before.options() => ConfigChange::None,
            Ok(_) => ConfigChange::Changed(path.clone()),
            Err(error) => ConfigChange::Broken(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_config_file_that_changed_or_broke_is_told() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("agent.yaml");
        fs::write(&path, "grace: 5s\n").unwrap();
        let reload = Reload {
            config: Some((path.clone(), file::read(&path).unwrap())),
            ..Reload::default()
        };
        fs::write(&path, "# a comment\ngrace: 5000ms\n").unwrap();
        assert!(matches!(reload.compare(), ConfigChange::None));
        fs::write(&path, "grace: 6s\n").unwrap();
        assert!(matches!(reload.compare(), ConfigChange::Changed(_)));
        fs::write(&path, "grase: 6s\n").unwrap();
        assert!(matches!(reload.compare(), ConfigChange::Broken(_)));
        assert!(matches!(Reload::default().compare(), ConfigChange::None));
    }
}
