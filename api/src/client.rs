//! The client of the local API.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use crate::events::{EventQuery, EventRow};
use crate::explain::{ExplainAnswer, ExplainQuestion};
use crate::names::NameRow;
use crate::records::Records;
use crate::rules::RuleRow;
use crate::status::AgentStatus;
use crate::suggestion::{SuggestionAnswer, SuggestionQuestion};

/// The socket's name in the run directory.
pub const SOCKET: &str = "namegate.sock";
/// How long a client waits for the agent's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one request to its end, on a runtime of its own: for callers without a runtime, as the
/// verbs of the command line.
///
/// # Errors
/// When no runtime can be made, for want of file descriptors.
pub fn ask<T>(question: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(question))
}

/// A client of a running agent. It connects anew for each request.
#[derive(Debug, Clone)]
pub struct ApiClient {
    socket: PathBuf,
}

/// Why there is no answer.
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
    /// This user may not open the socket.
    #[error("only root may ask the agent (no permission for {}); run this as root, or start the agent with --socket-group", socket.display())]
    NoPermission {
        /// The agent's socket.
        socket: PathBuf,
    },
    /// The connection failed, or no answer came within ten seconds.
    #[error("the agent at {} does not answer: {reason}", socket.display())]
    Broken {
        /// The agent's socket.
        socket: PathBuf,
        /// The error of the connection, for people.
        reason: String,
    },
    /// The agent refused the question, for example because it does not know the Pod. The text is
    /// the agent's.
    #[error("{0}")]
    CannotTell(String),
    /// The answer has another status or form than this client expects.
    #[error(
        "the agent at {} answered {path} with {answer}; is it another version than this program ({})?",
        socket.display(), env!("CARGO_PKG_VERSION")
    )]
    Unexpected {
        /// The agent's socket.
        socket: PathBuf,
        /// The path of the request.
        path: &'static str,
        /// The HTTP status, or why the body could not be read.
        answer: String,
    },
}

impl ApiClient {
    /// A client of the agent with this run directory (`--run-dir`).
    pub fn new(run_dir: &Path) -> Self {
        Self {
            socket: run_dir.join(SOCKET),
        }
    }

    /// Asks for the state of the agent (`GET /v1/status`).
    pub async fn status(&self) -> Result<AgentStatus, ClientError> {
        self.get("/v1/status").await
    }

    /// Asks for all live leases (`GET /v1/names`).
    pub async fn names(&self) -> Result<Vec<NameRow>, ClientError> {
        self.get("/v1/names").await
    }

    /// Asks for the rules in force and what is known of their use (`GET /v1/rules`).
    pub async fn rules(&self) -> Result<Vec<RuleRow>, ClientError> {
        self.get("/v1/rules").await
    }

    /// Asks for recently refused packets and withheld answers (`GET /v1/records`).
    pub async fn records(&self) -> Result<Records, ClientError> {
        self.get("/v1/records").await
    }

    /// Asks for events (`GET /v1/events`), and gives each to `see` as it comes, until `see` breaks
    /// or there are no more: never where the query says to follow.
    pub async fn events(
        &self,
        query: &EventQuery,
        mut see: impl FnMut(EventRow) -> ControlFlow<()>,
    ) -> Result<(), ClientError> {
        const PATH: &str = "/v1/events";
        let query = serde_urlencoded::to_string(query).map_err(|error| self.broken(error.to_string()))?;
        let unexpected = |answer| ClientError::Unexpected {
            socket: self.socket.clone(),
            path: PATH,
            answer,
        };
        let uri = format!("{PATH}?{query}");
        self.exchange(&uri, async |response| {
            let (status, mut body) = (response.status(), response.into_body());
            let mut unread = Vec::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame.map_err(|error| self.broken(error.to_string()))?.into_data() else {
                    continue;
                };
                unread.extend_from_slice(&data);
                if status != StatusCode::OK {
                    continue;
                }
                let complete = unread
                    .iter()
                    .rposition(|octet| *octet == b'\n')
                    .map_or(0, |end| end + 1);
                let lines: Vec<u8> = unread.drain(..complete).collect();
                for line in lines.split(|octet| *octet == b'\n').filter(|line| !line.is_empty()) {
                    let row = serde_json::from_slice(line)
                        .map_err(|error| unexpected(format!("something it does not understand ({error})")))?;
                    if see(row).is_break() {
                        return Ok(());
                    }
                }
            }
            match status {
                StatusCode::OK => Ok(()),
                StatusCode::BAD_REQUEST => Err(ClientError::CannotTell(String::from_utf8_lossy(&unread).into_owned())),
                _ => Err(unexpected(status.to_string())),
            }
        })
        .await
    }

    /// Asks whether a Pod may reach a destination, and why (`GET /v1/explain`).
    pub async fn explain(&self, question: &ExplainQuestion) -> Result<ExplainAnswer, ClientError> {
        const PATH: &str = "/v1/explain";
        let query = serde_urlencoded::to_string(question).map_err(|error| self.broken(error.to_string()))?;
        let told: Result<ExplainAnswer, String> = self.get_from(PATH, &format!("{PATH}?{query}")).await?;
        told.map_err(ClientError::CannotTell)
    }

    /// Asks for the policy for what a Pod was seen to do (`GET /v1/suggestion`).
    pub async fn suggestion(&self, question: &SuggestionQuestion) -> Result<SuggestionAnswer, ClientError> {
        const PATH: &str = "/v1/suggestion";
        let query = serde_urlencoded::to_string(question).map_err(|error| self.broken(error.to_string()))?;
        let told: Result<SuggestionAnswer, String> = self.get_from(PATH, &format!("{PATH}?{query}")).await?;
        told.map_err(ClientError::CannotTell)
    }

    /// Asks for any path of the API, and reads the JSON answer as `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
        self.get_from(path, path).await
    }

    async fn get_from<T: DeserializeOwned>(&self, path: &'static str, uri: &str) -> Result<T, ClientError> {
        let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, self.fetch(uri))
            .await
            .unwrap_or_else(|_| Err(self.broken(format!("no answer within {ANSWER_TIMEOUT:?}"))))?;
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
        self.exchange(path, async |response| {
            let status = response.status();
            let body = response.into_body().collect().await;
            Ok((status, body.map_err(|error| self.broken(error.to_string()))?.to_bytes()))
        })
        .await
    }

    /// Sends a request, and lets `read` read the answer.
    async fn exchange<T>(
        &self,
        path: &str,
        read: impl AsyncFnOnce(hyper::Response<Incoming>) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
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
            read(sender.send_request(request).await.map_err(broken)?).await
        };
        // The connection must be polled too, because it moves the bytes. It may end before the
        // exchange has read its answer.
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
