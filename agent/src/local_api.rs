//! The local API: what the running agent shows, over a Unix socket that only root can open.
//!
//! `GET /v1/explain` answers an [`ExplainQuestion`] with an [`ExplainAnswer`](api::ExplainAnswer)
//! or with an error text, `GET /v1/status` gives an [`AgentStatus`](api::AgentStatus),
//! `GET /v1/names` a list of [`NameRow`](api::NameRow), `GET /v1/rules` a list of
//! [`RuleRow`](api::RuleRow), `GET /v1/records` the [`Records`](api::Records), as JSON.
//! `GET /v1/events` takes an [`EventQuery`] and gives [`EventRow`](api::EventRow)s, one a line, for
//! as long as the client listens where it follows.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use api::{EventQuery, ExplainQuestion, SOCKET, SuggestionQuestion};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dns_proxy::SocketStore;
use serde::Serialize;
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;

use crate::event_rows::EventRequest;
use crate::event_stream::{self, StreamFormat};
use crate::explain::{ExplainRequest, ExplainSource, ExplainTarget, announced, traffic};
use crate::inspect::Inspect;
use crate::suggestion::SuggestionRequest;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Tells a socket's file from one that has taken its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SocketFileId {
    device: u64,
    inode: u64,
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    socket: PathBuf,
    /// Device and inode, so that a successor's socket is not removed.
    identity: SocketFileId,
    task: JoinHandle<()>,
}

/// Why the agent cannot serve its API.
#[derive(Debug, Error)]
#[error("cannot serve the local API at {}: {error}; choose another directory with --run-dir", socket.display())]
pub struct ServeError {
    /// The socket that could not be made.
    pub socket: PathBuf,
    /// The error of the system.
    pub error: io::Error,
}

impl ApiServer {
    /// Serves in `run_dir`, which is made if it is missing. A socket that stands there is replaced
    /// in one step, whether it is stale or another agent's that is about to leave. With a
    /// `socket_store` (`--supervise`) the socket of a process that crashed is taken over. Must be
    /// called inside a tokio runtime.
    pub fn start(
        run_dir: &Path,
        inspect: Arc<dyn Inspect>,
        socket_store: Option<&dyn SocketStore>,
    ) -> Result<Self, ServeError> {
        let socket = run_dir.join(SOCKET);
        let (listener, identity) = take_or_bind(run_dir, &socket, socket_store).map_err(|error| ServeError {
            socket: socket.clone(),
            error,
        })?;
        let router = Router::new()
            .route("/v1/status", get(status))
            .route("/v1/names", get(names))
            .route("/v1/rules", get(rules))
            .route("/v1/explain", get(explain))
            .route("/v1/records", get(records))
            .route("/v1/events", get(events))
            .route("/v1/suggestion", get(suggestion))
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

/// Takes over the socket of an earlier process when the path still leads to it; otherwise binds a
/// new one.
fn take_or_bind(
    run_dir: &Path,
    socket: &Path,
    socket_store: Option<&dyn SocketStore>,
) -> io::Result<(UnixListener, SocketFileId)> {
    let Some(socket_store) = socket_store else {
        return bind(run_dir, socket);
    };
    let name = |SocketFileId { device, inode }: SocketFileId| format!("api {device}:{inode}");
    if let Ok(identity) = identity(socket)
        && let Some(left) = socket_store.take(&name(identity))
    {
        return Ok((UnixListener::from_std(left.into())?, identity));
    }
    let (listener, identity) = bind(run_dir, socket)?;
    socket_store.keep(&name(identity), listener.as_fd());
    Ok((listener, identity))
}

/// Binds under a temporary name, closes it to others before it listens, then renames it into place:
/// the path always leads to a socket, and never to one that others may open.
fn bind(run_dir: &Path, socket: &Path) -> io::Result<(UnixListener, SocketFileId)> {
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

fn identity(path: &Path) -> io::Result<SocketFileId> {
    let metadata = fs::symlink_metadata(path)?;
    Ok(SocketFileId {
        device: metadata.dev(),
        inode: metadata.ino(),
    })
}

async fn status(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.status()).await
}

async fn names(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.names()).await
}

async fn rules(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.rules()).await
}

async fn records(State(inspect): State<Arc<dyn Inspect>>) -> impl IntoResponse {
    answer(move || inspect.records()).await
}

async fn events(State(inspect): State<Arc<dyn Inspect>>, Query(query): Query<EventQuery>) -> Response {
    match EventRequest::read(&query, clock::wall_now()) {
        Ok(request) => event_stream::body(inspect, request, StreamFormat::Lines, None).into_response(),
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

async fn suggestion(
    State(inspect): State<Arc<dyn Inspect>>,
    Query(question): Query<SuggestionQuestion>,
) -> impl IntoResponse {
    answer(move || SuggestionRequest::read(&question).and_then(|asked| inspect.suggestion(&asked))).await
}

fn parse_question(question: &ExplainQuestion) -> Result<ExplainRequest, String> {
    Ok(ExplainRequest {
        from: ExplainSource::parse(&question.from),
        to: ExplainTarget::parse(&question.to)?,
        traffic: traffic(question.port, question.protocol.as_deref())?,
        announced: announced(
            question.sni.as_deref(),
            [&question.method, &question.path, &question.host].map(Option::as_deref),
        )?,
    })
}

async fn explain(
    State(inspect): State<Arc<dyn Inspect>>,
    Query(question): Query<ExplainQuestion>,
) -> impl IntoResponse {
    answer(move || parse_question(&question).and_then(|asked| inspect.explain(&asked))).await
}

/// Runs `collect` on a blocking thread: with a full ledger it takes milliseconds, and tokio's
/// threads also serve lookups over TCP.
async fn answer<T: Serialize + Send + 'static>(collect: impl FnOnce() -> T + Send + 'static) -> impl IntoResponse {
    match spawn_blocking(move || Json(collect()).into_response()).await {
        Ok(response) => response,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use api::{ApiClient, ClientError};
    use tempfile::TempDir;

    use crate::inspect::fake::Fake;

    use super::*;

    #[tokio::test]
    async fn the_client_gets_what_the_agent_shows() {
        let dir = TempDir::new().unwrap();
        let run_dir = dir.path().join("made");
        let _server = ApiServer::start(&run_dir, Arc::new(Fake::ready()), None).unwrap();
        let client = ApiClient::new(&run_dir);
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
        assert_eq!(ApiClient::new(dir.path()).names().await.unwrap().len(), 20_000);
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
        let client = ApiClient::new(dir.path());
        assert_eq!(client.status().await.unwrap().not_ready_because.as_deref(), Some("new"));
        drop(second);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn without_an_agent_the_error_says_how_to_start_one() {
        let dir = TempDir::new().unwrap();
        let error = ApiClient::new(dir.path()).status().await.unwrap_err().to_string();
        assert!(
            error.contains("there is no socket") && error.contains("namegate agent"),
            "{error}"
        );
        // Left behind by a crash.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(SOCKET)).unwrap());
        let error = ApiClient::new(dir.path()).status().await.unwrap_err().to_string();
        assert!(error.contains("nobody listens"), "{error}");
        let _server = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        ApiClient::new(dir.path()).status().await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_told_from_a_missing_agent() {
        let dir = TempDir::new().unwrap();
        let _server = ApiServer::start(dir.path(), Arc::new(Fake::ready()), None).unwrap();
        let error = ApiClient::new(dir.path()).get::<u32>("/v1/status").await.unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
        let error = ApiClient::new(dir.path()).get::<u32>("/v2/status").await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
