//! What is served over HTTP: to machines `/metrics`, `/healthz`, `/readyz` (`--http`), and to
//! people the pages of `web_pages` (`--web`).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use dns_proxy::SocketStore;
use thiserror::Error;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::error;

use crate::inspect::Inspect;
use crate::metrics::Metrics;
use crate::web_pages;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 128;

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// To whom something is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpAudience {
    /// Metrics and health.
    Machines,
    /// The pages, too.
    MachinesAndPeople,
}

/// Why it cannot serve.
#[derive(Debug, Error)]
#[error("cannot serve metrics or pages on {address}: {error}; choose another address with --http or --web, or `off`")]
pub struct HttpError {
    /// The address that could not be bound.
    pub address: SocketAddr,
    /// The error of the bind.
    pub error: io::Error,
}

impl HttpServer {
    /// Binds, or takes up what an earlier process has left, and serves. Must be called inside a
    /// tokio runtime.
    pub fn start(
        address: SocketAddr,
        audience: HttpAudience,
        inspect: Arc<dyn Inspect>,
        metrics: Arc<Metrics>,
        kept: Option<&dyn SocketStore>,
    ) -> Result<Self, HttpError> {
        let failed = |error| HttpError { address, error };
        let listener = open(address, kept).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let router = match audience {
            HttpAudience::Machines => Router::new().route("/", get(index)),
            HttpAudience::MachinesAndPeople => web_pages::router(Arc::clone(&inspect)),
        };
        let router = router.merge(for_machines(Served { inspect, metrics }));
        let task = tokio::spawn(async move {
            // Errors of single connections are retried inside.
            if let Err(error) = axum::serve(listener, router).await {
                error!("the server of --http has ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens; the port is the one bound, where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn open(address: SocketAddr, kept: Option<&dyn SocketStore>) -> io::Result<TcpListener> {
    let Some(kept) = kept else { return bind(address) };
    let name = format!("http {address}");
    match kept.take(&name) {
        Some(left) => TcpListener::from_std(left.into()),
        None => bind(address).inspect(|listener| kept.keep(&name, listener.as_fd())),
    }
}

/// Binds a port that two agents may share.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Two agents overlap during an upgrade.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[derive(Clone)]
struct Served {
    inspect: Arc<dyn Inspect>,
    metrics: Arc<Metrics>,
}

fn for_machines(served: Served) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(served)
}

async fn index() -> String {
    format!(
        "namegate {}\n\n\
         /metrics  figures for Prometheus\n\
         /healthz  200 as long as the process answers\n\
         /readyz   200 when the ruleset is in the kernel and all DNS listeners are bound; else 503 and the reason\n\n\
         Names, endpoints and policies: `namegate status` and `namegate names` on this node, or a page here with `--web`.\n",
        env!("CARGO_PKG_VERSION")
    )
}

async fn metrics(State(Served { inspect, metrics }): State<Served>) -> impl IntoResponse {
    // Reading figures may ask the kernel; the workers of the runtime carry lookups.
    match spawn_blocking(move || metrics.render(&inspect.figures())).await {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn ready(State(Served { inspect, .. }): State<Served>) -> (StatusCode, String) {
    match inspect.readiness() {
        Ok(()) => match inspect.remark() {
            Some(remark) => (StatusCode::OK, format!("ready, but {remark}\n")),
            None => (StatusCode::OK, "ready\n".into()),
        },
        Err(missing) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {missing}\n")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::inspect::fake::Fake;

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        response
    }

    fn start(fake: Fake) -> HttpServer {
        HttpServer::start(
            "127.0.0.1:0".parse().unwrap(),
            HttpAudience::Machines,
            Arc::new(fake),
            Arc::new(Metrics::new()),
            None,
        )
        .unwrap()
    }

    #[tokio::test]
    async fn the_pages_answer() {
        let server = start(Fake::ready());
        assert!(fetch(server.address(), "/").await.contains("/metrics"));
        assert!(fetch(server.address(), "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(fetch(server.address(), "/readyz").await.starts_with("HTTP/1.1 200"));
        let metrics = fetch(server.address(), "/metrics").await;
        assert!(metrics.contains("content-type: text/plain; version=0.0.4"), "{metrics}");
        assert!(metrics.contains("\nnamegate_ledger_names 2\n"), "{metrics}");
        assert!(fetch(server.address(), "/nothing").await.starts_with("HTTP/1.1 404"));
    }

    #[tokio::test]
    async fn not_ready_is_503_with_the_reason_while_health_stays() {
        let server = start(Fake::not_ready("the ruleset is not in the kernel"));
        let page = fetch(server.address(), "/readyz").await;
        assert!(page.starts_with("HTTP/1.1 503"), "{page}");
        assert!(page.contains("the ruleset is not in the kernel"));
        assert!(fetch(server.address(), "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn two_agents_can_serve_the_same_address() {
        let first = start(Fake::ready());
        let second = HttpServer::start(
            first.address(),
            HttpAudience::Machines,
            Arc::new(Fake::ready()),
            Arc::new(Metrics::new()),
            None,
        )
        .unwrap();
        // Whichever of them the kernel picks.
        for _ in 0..16 {
            assert!(fetch(second.address(), "/healthz").await.starts_with("HTTP/1.1 200"));
        }
    }

    #[tokio::test]
    async fn an_address_that_is_not_ours_is_an_error_that_says_what_to_do() {
        let address = "192.0.2.1:9464".parse().unwrap();
        let error = HttpServer::start(
            address,
            HttpAudience::Machines,
            Arc::new(Fake::ready()),
            Arc::new(Metrics::new()),
            None,
        )
        .unwrap_err();
        assert!(error.to_string().contains("--http"));
    }
}
