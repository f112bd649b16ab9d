//! How the API server is reached: as a Pod of the cluster, or with a kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use thiserror::Error;
use tower::util::MapResponseLayer;

/// An API server that has gone is found out soon.
const CONNECT: Duration = Duration::from_secs(5);
/// Longer than the minute between two bookmarks of a watch: a connection on which not even these
/// come is dead.
const SILENCE: Duration = Duration::from_secs(150);

/// Where the API server is, and who we are to it.
#[derive(Debug, Clone)]
pub struct Access(kube::Config);

/// Why the API server cannot be asked.
#[derive(Debug, Error)]
pub enum AccessError {
    /// `--kubeconfig`.
    #[error("cannot use the kubeconfig {}: {error}; check the path given to --kubeconfig", path.display())]
    Kubeconfig {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: KubeconfigError,
    },
    /// Nothing says where objects come from.
    #[error(
        "it is not said where objects come from, and this is no Pod of a cluster ({0}); name a directory of YAML files with \
         --objects DIR, or a cluster with --kubeconfig FILE"
    )]
    NotInCluster(String),
    /// Certificates, tokens, addresses.
    #[error("the API server cannot be asked: {0}; check its address and the credentials")]
    Client(#[from] kube::Error),
}

impl Access {
    /// With this kubeconfig; without one, as a Pod of the cluster.
    pub async fn find(kubeconfig: Option<&Path>) -> Result<Self, AccessError> {
        let mut config = match kubeconfig {
            Some(path) => from_file(path).await.map_err(|error| AccessError::Kubeconfig {
                path: path.to_owned(),
                error,
            })?,
            None => kube::Config::incluster().map_err(|error| AccessError::NotInCluster(error.to_string()))?,
        };
        config.connect_timeout = Some(CONNECT);
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        // Every caller has its own back-off.
        config.default_retry = false;
        Ok(Self(config))
    }

    /// The address of the API server.
    pub fn server(&self) -> String {
        self.0.cluster_url.to_string()
    }

    /// A client with connections of its own.
    pub fn client(&self) -> Result<Client, AccessError> {
        Ok(Client::try_from(self.0.clone())?)
    }

    /// The same, which calls `heard` whenever something comes from the API server: a part of an
    /// object, or a bookmark.
    pub fn client_that(&self, heard: impl Fn() + Clone + Send + Sync + 'static) -> Result<Client, AccessError> {
        use http_body_util::BodyExt;
        let layer = MapResponseLayer::new(move |response: http::Response<_>| {
            let heard = heard.clone();
            response.map(|body: Box<kube::client::DynBody>| {
                body.map_frame(move |frame| {
                    heard();
                    frame
                })
            })
        });
        Ok(ClientBuilder::try_from(self.0.clone())?.with_layer(&layer).build())
    }
}

async fn from_file(path: &Path) -> Result<kube::Config, KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn outside_of_a_cluster_the_error_says_what_to_name() {
        let error = Access::find(None).await.unwrap_err().to_string();
        assert!(
            error.contains("--objects DIR") && error.contains("--kubeconfig FILE"),
            "{error}"
        );
        let error = Access::find(Some(Path::new("/nonexistent/config")))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("/nonexistent/config"), "{error}");
    }
}
