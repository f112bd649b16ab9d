//! A kubeconfig that may change, as a mounted Secret does, or may not be there yet.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::Kubeconfig;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::client::{Access, AccessError};

/// How often it is read. What the kubelet mounts follows the Secret within a minute or so.
const EVERY: Duration = Duration::from_secs(5);

/// A kubeconfig, and what was read of it last.
#[derive(Debug)]
pub(super) struct WatchedKubeconfig {
    path: PathBuf,
    /// The content of the file and of those that it names; `None` before it is read.
    content: Option<Vec<Option<Vec<u8>>>>,
    ticks: Interval,
}

impl WatchedKubeconfig {
    /// Must be called in a runtime.
    pub(super) fn new(path: PathBuf) -> Self {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            path,
            content: None,
            ticks,
        }
    }

    /// Resolves when it is time to look, at first at once. Can be dropped at any time.
    pub(super) async fn tick(&mut self) {
        self.ticks.tick().await;
    }

    /// The access that it gives, where it is not as it was at the last look.
    pub(super) async fn look(&mut self) -> Option<Result<Access, AccessError>> {
        let content = content(&self.path);
        if self.content.as_ref() == Some(&content) {
            return None;
        }
        self.content = Some(content);
        Some(Access::find(Some(&self.path)).await)
    }
}

/// What is in the file and in those that it names; nothing of one that cannot be read.
fn content(path: &Path) -> Vec<Option<Vec<u8>>> {
    let own = fs::read(path).ok();
    let named = Kubeconfig::read_from(path)
        .map(|it| named_files(&it))
        .unwrap_or_default();
    let named = named.into_iter().map(|file| fs::read(file).ok());
    std::iter::once(own).chain(named).collect()
}

/// Tokens in files are left out: the client reads them again by itself.
fn named_files(kubeconfig: &Kubeconfig) -> Vec<String> {
    let clusters = kubeconfig.clusters.iter().filter_map(|it| it.cluster.as_ref());
    let authorities = clusters.filter_map(|cluster| cluster.certificate_authority.clone());
    let users = kubeconfig.auth_infos.iter().filter_map(|it| it.auth_info.as_ref());
    let keys = users.flat_map(|user| [user.client_certificate.clone(), user.client_key.clone()]);
    authorities.chain(keys.flatten()).collect()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn kubeconfig(server: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n"
        )
    }

    #[tokio::test]
    async fn what_comes_late_and_what_changes_is_read_and_what_stays_is_not() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("west");
        let mut watched = WatchedKubeconfig::new(path.clone());
        assert!(watched.look().await.unwrap().is_err(), "it is not there");
        assert!(watched.look().await.is_none(), "said once");
        for server in ["https://192.0.2.1:6443/", "https://192.0.2.2:6443/"] {
            fs::write(&path, kubeconfig(server)).unwrap();
            assert_eq!(watched.look().await.unwrap().unwrap().server(), server);
            assert!(watched.look().await.is_none());
        }
        fs::write(&path, "{").unwrap();
        assert!(watched.look().await.unwrap().is_err());
    }

    #[tokio::test]
    async fn a_certificate_that_it_names_is_part_of_it() {
        let dir = TempDir::new().unwrap();
        let (path, authority) = (dir.path().join("west"), dir.path().join("ca.pem"));
        let text = kubeconfig("https://192.0.2.1:6443/");
        let named = format!("certificate-authority: '{}', server:", authority.display());
        fs::write(&path, text.replace("server:", &named)).unwrap();
        let mut watched = WatchedKubeconfig::new(path);
        // Whether such a certificate can be used is not asked here.
        assert!(watched.look().await.is_some());
        assert!(watched.look().await.is_none());
        fs::write(&authority, "another").unwrap();
        assert!(watched.look().await.is_some());
    }
}
