//! The client of the local API.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::explain::{ExplainAnswer, ExplainQuestion};
use crate::names::NameRow;
use crate::records::Records;
use crate::status::AgentStatus;

/// The socket's name in the run directory.
pub const SOCKET: &str = "namegate.sock";
/// How long a client waits for the agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the agent's answer where no runtime is: a verb asks one thing and ends.
///
/// # Errors
/// When no runtime can be made, which takes a few descriptors.
pub fn ask<T>(question: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question))
}

/// Asks a running agent.
#[derive(Debug, Clone)]
pub struct ApiClient {
    socket: PathBuf,
}

/// Why the running agent did not answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No agent runs with this run directory.
    #[error(
        "no agent is running here ({} at {}); start one with `namegate agent --objects DIR`, or name its directory with --run-dir",
        if *stale { "nobody listens" } else { "there is no socket" }, socket.display()
    )]
    NoAgent {
        /// The socket that was looked for.
        socket: PathBuf,
        /// Whether a socket of an earlier agent is left there.
        stale: bool,
    },
    /// The socket is closed to this user.
    #[error("only root may ask the agent (no permission for {}); run this as root", socket.display())]
    NoPermission {
        /// Which socket.
        socket: PathBuf,
    },
    /// The connection failed.
    #[error("the agent at {} does not answer: {reason}", socket.display())]
    Broken {
        /// Which socket.
        socket: PathBuf,
        /// Why.
        reason: String,
    },
    /// The agent answered that it cannot tell.
    #[error("{0}")]
    CannotTell(String),
    /// The answer is not what this client understands.
    #[error(
        "the agent at {} answered {path} with {answer}; is it another version than this program ({})?",
        socket.display(), env!("CARGO_PKG_VERSION")
    )]
    Unexpected {
        /// Which socket.
        socket: PathBuf,
        /// What was asked.
        path: &'static str,
        /// What came.
        answer: String,
    },
}

impl ApiClient {
    /// A client of the agent with this run directory. Connects for each request.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            socket: run_dir.join(SOCKET),
        }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<AgentStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// `GET /v1/names`.
    pub async fn names(&self) -> Result<Vec<NameRow>, ClientError> {
        self.get("/v1/names").await
    }

    /// `GET /v1/records`.
    pub async fn records(&self) -> Result<Records, ClientError> {
        self.get("/v1/records").await
    }

    /// `GET /v1/explain`.
    pub async fn explain(&self, question: &ExplainQuestion) -> Result<ExplainAnswer, ClientError> {
        const PATH: &str = "/v1/explain";
        let query = serde_urlencoded::to_string(question).map_err(|error| self.broken(error.to_string()))?;
        let told: Result<ExplainAnswer, String> = self.get_from(PATH, &format!("{PATH}?{query}")).await?;
        told.map_err(ClientError::CannotTell)
    }

    /// Any path that is answered with JSON.
    pub async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
        self.get_from(path, path).await
    }

    async fn get_from<T: DeserializeOwned>(&self, path: &'static str, uri: &str) -> Result<T, ClientError> {
        let (status, body) = tokio::time::timeout(PATIENCE, self.fetch(uri))
            .await
            .unwrap_or_else(|_| Err(self.broken(format!("no answer within {PATIENCE:?}"))))?;
        let unexpected = |answer| ClientError::Unexpected {
            socket: self.socket.clone(),
            path,
            answer,
        };
        if status != StatusCode::OK {
            return Err(unexpected(status.to_string()));
        }
        serde_json::from_slice(&body).map_err(|error| unexpected(format!("something it does not understand ({error})")))
    }

    async fn fetch(&self, path: &str) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unconnected(error))?;
        let broken = |error: hyper::Error| self.broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let request = hyper::Request::get(path)
                .header("host", "namegate")
                .body(Empty::<Bytes>::new())
                .map_err(|error| self.broken(error.to_string()))?;
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(broken)?;
            Ok((status, body.to_bytes()))
        };
        // The connection moves the bytes that the exchange waits for, and may end before it.
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            done = &mut exchange => done,
            ended = connection => {
                ended.map_err(broken)?;
                exchange.await
            }
        }
    }

    fn unconnected(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound => ClientError::NoAgent { socket, stale: false },
            io::ErrorKind::ConnectionRefused => ClientError::NoAgent { socket, stale: true },
            io::ErrorKind::PermissionDenied => ClientError::NoPermission { socket },
            _ => self.broken(error.to_string()),
        }
    }

    fn broken(&self, reason: String) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            reason,
        }
    }
}
