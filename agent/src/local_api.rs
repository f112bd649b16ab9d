//! The local API: what the running agent shows, over a Unix socket that only root can open, and
//! the group of `--socket-group`.
//!
//! `GET /v1/explain` answers an [`ExplainQuestion`] with an [`ExplainAnswer`](api::ExplainAnswer)
//! or with an error text, `GET /v1/status` gives an [`AgentStatus`](api::AgentStatus),
//! `GET /v1/names` a list of [`NameRow`](api::NameRow), `GET /v1/rules` a list of
//! [`RuleRow`](api::RuleRow), `GET /v1/records` the [`Records`](api::Records), as JSON.
//! `GET /v1/events` takes an [`EventQuery`] and gives [`EventRow`](api::EventRow)s, one a line, for
//! as long as the client listens where it follows.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use api::{EventQuery, ExplainQuestion, SOCKET, SuggestionQuestion};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use dns_proxy::SocketStore;
use serde::Serialize;
use settings::SocketGroup;
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;

use crate::event_rows::EventRequest;
use crate::event_stream::{self, StreamFormat};
use crate::explain::{ExplainRequest, ExplainSource, ExplainTarget, announced, traffic};
use crate::inspect::Inspect;
use crate::local_socket::{self, ServeError, SocketFile, SocketFileId};
use crate::suggestion::SuggestionRequest;

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct ApiServer {
    _socket: SocketFile,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Serves in `run_dir`, which is made if it is missing. A socket that stands there is replaced
    /// in one step, whether it is stale or another agent's that is about to leave. Besides root,
    /// `group` may open it. With a
    /// `socket_store` (`--supervise`) the socket of a process that crashed is taken over. Must be
    /// called inside a tokio runtime.
    pub fn start(
        run_dir: &Path,
        group: Option<&SocketGroup>,
        inspect: Arc<dyn Inspect>,
        socket_store: Option<&dyn SocketStore>,
    ) -> Result<Self, ServeError> {
        let (listener, socket) = take_or_bind(&run_dir.join(SOCKET), group, socket_store)?;
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
        Ok(Self { _socket: socket, task })
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes over the socket of an earlier process when the path still leads to it; otherwise binds a
/// new one.
fn take_or_bind(
    socket: &Path,
    group: Option<&SocketGroup>,
    socket_store: Option<&dyn SocketStore>,
) -> Result<(UnixListener, SocketFile), ServeError> {
    let Some(socket_store) = socket_store else {
        return local_socket::bind(socket, group);
    };
    let name = |file: &SocketFile| {
        let SocketFileId { device, inode } = file.identity();
        format!("api {device}:{inode}")
    };
    if let Ok(file) = SocketFile::at(socket)
        && let Some(left) = socket_store.take(&name(&file))
    {
        let listener = UnixListener::from_std(left.into()).map_err(|error| ServeError::Socket {
            socket: socket.to_owned(),
            error,
        })?;
        return Ok((listener, file));
    }
    let (listener, file) = local_socket::bind(socket, group)?;
    socket_store.keep(&name(&file), listener.as_fd());
    Ok((listener, file))
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
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use api::{ApiClient, ClientError};
    use tempfile::TempDir;

    use crate::inspect::fake::Fake;

    use super::*;

    #[tokio::test]
    async fn the_client_gets_what_the_agent_shows() {
        let dir = TempDir::new().unwrap();
        let run_dir = dir.path().join("made");
        let _server = ApiServer::start(&run_dir, None, Arc::new(Fake::ready()), None).unwrap();
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
        let _server = ApiServer::start(dir.path(), None, Arc::new(fake), None).unwrap();
        assert_eq!(ApiClient::new(dir.path()).names().await.unwrap().len(), 20_000);
    }

    #[tokio::test]
    async fn only_the_owner_may_open_the_socket() {
        let dir = TempDir::new().unwrap();
        let _server = ApiServer::start(dir.path(), None, Arc::new(Fake::ready()), None).unwrap();
        let mode = fs::metadata(dir.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_group_may_open_the_socket_where_it_is_named() {
        let dir = TempDir::new().unwrap();
        let start = |group: SocketGroup| ApiServer::start(dir.path(), Some(&group), Arc::new(Fake::ready()), None);
        // One that every process may give its own files to.
        let own = nix::unistd::getegid().as_raw();
        let _server = start(SocketGroup::Number(own)).unwrap();
        let metadata = fs::metadata(dir.path().join(SOCKET)).unwrap();
        assert_eq!((metadata.permissions().mode() & 0o777, metadata.gid()), (0o660, own));
        let error = start(SocketGroup::Name("nobody-has-it".into()))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("nobody-has-it") && error.contains("--socket-group"),
            "{error}"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[tokio::test]
    async fn a_successor_takes_over_and_its_socket_survives_the_predecessor() {
        let dir = TempDir::new().unwrap();
        let first = ApiServer::start(dir.path(), None, Arc::new(Fake::ready()), None).unwrap();
        let second = ApiServer::start(dir.path(), None, Arc::new(Fake::not_ready("new")), None).unwrap();
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
        let _server = ApiServer::start(dir.path(), None, Arc::new(Fake::ready()), None).unwrap();
        ApiClient::new(dir.path()).status().await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_told_from_a_missing_agent() {
        let dir = TempDir::new().unwrap();
        let _server = ApiServer::start(dir.path(), None, Arc::new(Fake::ready()), None).unwrap();
        let error = ApiClient::new(dir.path()).get::<u32>("/v1/status").await.unwrap_err();
        assert!(matches!(error, ClientError::Unexpected { .. }), "{error}");
        let error = ApiClient::new(dir.path()).get::<u32>("/v2/status").await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
    }
}
