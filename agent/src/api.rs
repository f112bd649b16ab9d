//! The local API: what the running agent shows, over a Unix socket that only root can open.
//!
//! `GET /v1/status` gives a [`Status`], `GET /v1/names` a list of [`NameRow`], `GET /v1/records`
//! the [`Records`], as JSON.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use dns_proxy::KeptSockets;
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use policy::endpoint::EndpointId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;

use crate::commands;
use crate::explain::{Answer, Asked, Target, traffic};
use crate::inspect::{Inspect, NameRow, Records, Status};

/// The socket's name in the run directory.
pub const SOCKET: &str = "namegate.sock";
/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long a client waits for the agent.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    socket: PathBuf,
    /// Device and inode, so that a successor's socket is not removed.
    identity: (u64, u64),
    task: JoinHandle<()>,
}

/// Why the agent cannot serve its API.
#[derive(Debug, Error)]
#[error("cannot serve the local API at {}: {error}; choose another directory with --run-dir", socket.display())]
pub struct ServeError {
    /// Where.
    pub socket: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl ApiServer {
    /// Serves in `run_dir`, which is made if it is missing. A socket that stands there is replaced
    /// in one step, whether it is stale or another agent's that is about to leave. Must be called
    /// inside a tokio runtime.
    pub fn start(
        run_dir: &Path,
        inspect: Arc<dyn Inspect>,
        kept: Option<&dyn KeptSockets>,
    ) -> Result<Self, ServeError> {
        let socket = run_dir.join(SOCKET);
        let (listener, identity) = open(run_dir, &socket, kept).map_err(|error| ServeError {
            socket: socket.clone(),
            error,
        })?;
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/names", get(names))
            .route("/v1/explain", get(explain))
            .route("/v1/records", get(records))
            .with_state(inspect);
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                error!("the local API has ended: {error}");
            }
        });
        Ok(Self { socket, identity, task })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
        if identity(&self.socket).is_ok_and(|now| now == self.identity) {
            // Nothing is lost when it stays: the next agent replaces it.
            let _ = fs::remove_file(&self.socket);
        }
    }
}

/// What an earlier process has left, if it is still what clients find there; or a new one.
fn open(run_dir: &Path, socket: &Path, kept: Option<&dyn KeptSockets>) -> io::Result<(UnixListener, (u64, u64))> {
    let Some(kept) = kept else { return bind(run_dir, socket) };
    let name = |(device, inode): (u64, u64)| format!("api {device}:{inode}");
    if let Ok(identity) = identity(socket)
        && let Some(left) = kept.take(&name(identity))
    {
        return Ok((UnixListener::from_std(left.into())?, identity));
    }
    let (listener, identity) = bind(run_dir, socket)?;
    kept.keep(&name(identity), listener.as_fd());
    Ok((listener, identity))
}

/// Made under a name of our own, closed to others before it listens, then moved into place: at no
/// time is there no socket, or one that others may open.
fn bind(run_dir: &Path, socket: &Path) -> io::Result<(UnixListener, (u64, u64))> {
    fs::create_dir_all(run_dir)?;
    let own = run_dir.join(format!(".{}.sock", std::process::id()));
    match fs::remove_file(&own) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    listener.bind(&SockAddr::unix(&own)?)?;
    let finish = || {
        fs::set_permissions(&own, Permissions::from_mode(0o600))?;
        listener.listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        let identity = identity(&own)?;
        fs::rename(&own, socket)?;
        Ok(identity)
    };
    let identity = finish().inspect_err(|_: &io::Error| drop(fs::remove_file(&own)))?;
    Ok((UnixListener::from_std(listener.into())?, identity))
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

async fn status(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.status()).await
}

async fn names(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.names()).await
}

async fn records(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.records()).await
}

/// What `namegate explain` asks.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    from: String,
    to: String,
    port: Option<u16>,
    protocol: Option<String>,
}

impl Question {
    fn read(&self) -> Result<(EndpointId, Asked), String> {
        let asked = Asked {
            to: Target::parse(&self.to)?,
            traffic: traffic(self.port, self.protocol.as_deref())?,
        };
        Ok((commands::explain::pod(&self.from), asked))
    }
}

async fn explain(State(inspect): State<Arc<dyn Inspect>>, Query(question): Query<Question>) -> impl IntoResponse {
    answer(move || question.read().and_then(|(pod, asked)| inspect.explain(&pod, &asked))).await
}

/// Collects off the runtime's workers, which carry lookups: a full ledger takes milliseconds.
async fn answer<T: Serialize + Send + 'static>(collect: impl FnOnce() -> T + Send + 'static) -> impl IntoResponse {
    match spawn_blocking(move || Json(collect()).into_response()).await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Asks a running agent.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// Why the running agent did not answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is none.
    #[error(
        "no agent is running here ({} at {}); start one with `namegate agent --objects DIR`, or name its directory with --run-dir",
        if *stale { "nobody listens" } else { "there is no socket" }, socket.display()
    )]
    NoAgent {
        /// Where it was looked for.
        socket: PathBuf,
        /// There is a socket, left behind.
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
    /// It cannot tell.
    #[error("{0}")]
    CannotTell(String),
    /// It answered something else.
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

impl Client {
    /// A client of the agent with this run directory. Connects for each request.
    pub fn new(run_dir: &Path) -> Self {
        Self {
            socket: run_dir.join(SOCKET),
        }
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status, ClientError> {
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
    pub async fn explain(
        &self,
        from: &str,
        to: &str,
        port: Option<u16>,
        protocol: Option<&str>,
    ) -> Result<Answer, ClientError> {
        const PATH: &str = "/v1/explain";
        let question = Question {
            from: from.to_owned(),
            to: to.to_owned(),
            port,
            protocol: protocol.map(str::to_owned),
        };
        let query = serde_urlencoded::to_string(&question).map_err(|error| self.broken(error.to_string()))?;
        let told: Result<Answer, String> = self.get_from(PATH, &format!("{PATH}?{query}")).await?;
        told.map_err(ClientError::CannotTell)
    }

    async fn get<T: DeserializeOwned>(&self, path: &'static str) -> Result<T, ClientError> {
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::inspect::fake::Fake;

    #[tokio::test]
    async fn the_client_gets_what_the_agent_shows() {
        let dir = TempDir::new().unwrap();
        let run_dir = dir.path().join("made");
        let _server = ApiServer::start(&run_dir, Arc::new(Fake::ready()), None).unwrap();
        let client = Client::new(&run_dir);
        assert_eq!(client.names().await.unwrap(), Fake::ready().names);
        assert_eq!(client.records().await.unwrap(), Fake::ready().records);
        let status = client.status().await.unwrap();
        assert_eq!((status.node.as_str(), status.ready), ("node-1", true));
    }

    #[tokio::test]
    async fn a_large_answer_comes_whole() {
        let dir = TempDir::new().unwrap();
        let mut fake = Fake::ready();
        fake.names = vec![fake.names[0].clone(); 20_000];
        let _server = ApiServer::start(dir.path(), Arc::new(fake), None).unwrap();
        assert_eq!(Client::new(dir.path()).names().await.unwrap().len(), 20_000);
    }

    #[tokio::test]
    async fn only_the_owner_may_open_the_socket() {
        let dir = TempDir::new().unwrap();
        let _server = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_successor_takes_over_and_its_socket_survives_the_predecessor() {
        let dir = TempDir::new().unwrap();
        let first = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        let second = ApiServer::start(dir.path(), Arc::new(Fake::not_ready("new")), None).unwrap();
        drop(first);
        let client = Client::new(dir.path());
        assert_eq!(client.status().await.unwrap().not_ready_because.as_deref(), Some("new"));
        drop(second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_an_agent_the_error_says_how_to_start_one() {
        let dir = TempDir::new().unwrap();
        let error = Client::new(dir.path()).status().await.unwrap_err().to_string();
        assert!(
            error.contains("there is no socket") && error.contains("namegate agent"),
            "{error}"
        );
        // Left behind by a crash.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let error = Client::new(dir.path()).status().await.unwrap_err().to_string();
        assert!(error.contains("nobody listens"), "{error}");
        let _server = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        Client::new(dir.path()).status().await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_told_from_a_missing_agent() {
        let dir = TempDir::new().unwrap();
        let _server = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        let error = Client::new(dir.path()).get::<u32>("/v1/status").await.unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
        let error = Client::new(dir.path()).get::<u32>("/v2/status").await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
