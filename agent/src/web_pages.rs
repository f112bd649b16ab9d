//! The pages for people (`--web`): what they show is read here, and rendered by [`web`].
//!
//! They only read. Whoever may connect may read: by default, processes of this node's network
//! namespace alone. A page of somebody else in their browser must not: its requests carry the name
//! of its site as `Host`, also where that name resolves to a loopback address (DNS rebinding), and
//! are refused; and what other sites embed of here no script of theirs can read.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::{EventQuery, SuggestionQuestion};
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use web::PageFrame;
use web::names::NamesFilter;

use crate::event_rows::EventRequest;
use crate::event_stream::{self, StreamFormat};
use crate::inspect::Inspect;
use crate::suggestion::SuggestionRequest;

/// So many pages may follow events at a time.
const FOLLOWERS: usize = 16;

#[derive(Clone)]
struct Pages {
    inspect: Arc<dyn Inspect>,
    followers: Arc<Semaphore>,
}

/// The pages of this agent.
pub(crate) fn router(inspect: Arc<dyn Inspect>) -> Router {
    Router::new()
        .route("/", get(events))
        .route("/web/names", get(names))
        .route("/web/policies", get(policies))
        .route("/web/suggestion", get(suggestion))
        .route("/web/agent", get(health))
        .route(web::STREAM_PATH, get(stream))
        .route(
            web::STYLE_PATH,
            get(|| async { asset("text/css; charset=utf-8", web::STYLE) }),
        )
        .route(
            web::SCRIPT_PATH,
            get(|| async { asset("text/javascript; charset=utf-8", web::SCRIPT) }),
        )
        .with_state(Pages {
            inspect,
            followers: Arc::new(Semaphore::new(FOLLOWERS)),
        })
        .layer(map_response(secured))
        .layer(from_fn(refuse_other_names))
}

/// Only addresses and `localhost` are names of this server that no other site can have.
async fn refuse_other_names(request: Request, next: Next) -> Response {
    if !is_own_name(request.headers()) {
        let why = "this server is reached by its address or as localhost, and by no other name\n";
        return (StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    next.run(request).await
}

fn is_own_name(headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next()) else {
        return false;
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    // An address of IPv6 stands in brackets.
    if let Some((address, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.parse::<Ipv6Addr>().is_ok() && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = host
        .split_once(':')
        .map_or((host, None), |(name, port)| (name, Some(port)));
    let is_own = name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok();
    is_own && port.is_none_or(is_port)
}

async fn secured(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, web::CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Renders a page. Reading may ask the kernel, and the workers of the runtime carry lookups.
async fn page(render: impl FnOnce() -> Result<String, String> + Send + 'static) -> Response {
    match spawn_blocking(render).await {
        Ok(Ok(page)) => Html(page).into_response(),
        Ok(Err(why)) => (StatusCode::BAD_REQUEST, Html(web::problem(&why))).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn events(State(Pages { inspect, .. }): State<Pages>, Query(query): Query<EventQuery>) -> Response {
    page(move || {
        let request = EventRequest::read(&query, clock::wall_now())?;
        let (rows, latest) = event_stream::remembered(&*inspect, &request, web::events::SHOWN);
        let status = inspect.status();
        Ok(web::events::page(PageFrame { status: &status }, &query, &rows, latest))
    })
    .await
}

/// What a page has seen already, besides its filter.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SeenQuery {
    after: Option<u64>,
}

async fn stream(
    State(Pages { inspect, followers }): State<Pages>,
    Query(query): Query<EventQuery>,
    Query(seen): Query<SeenQuery>,
    headers: HeaderMap,
) -> Response {
    let follow = EventQuery { follow: true, ..query };
    let mut request = match EventRequest::read(&follow, clock::wall_now()) {
        Ok(request) => request,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    // What a browser says that comes again is of later than what its page has said.
    let last = headers
        .get("last-event-id")
        .and_then(|last| last.to_str().ok()?.parse().ok());
    request.after = last.or(seen.after);
    let Ok(place) = followers.try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages follow events\n").into_response();
    };
    let body = event_stream::body(inspect, request, StreamFormat::TableRows, Some(place));
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// The query of the page of names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NamesQuery {
    q: String,
    by: String,
}

async fn names(State(Pages { inspect, .. }): State<Pages>, Query(query): Query<NamesQuery>) -> Response {
    page(move || {
        let filter = NamesFilter {
            text: query.q.trim().to_owned(),
            by_pod: query.by == "pods",
        };
        let status = inspect.status();
        let frame = PageFrame { status: &status };
        Ok(web::names::page(frame, &filter, &inspect.answered(), &inspect.names()))
    })
    .await
}

async fn policies(State(Pages { inspect, .. }): State<Pages>) -> Response {
    page(move || {
        Ok(web::policies::page(
            PageFrame {
                status: &inspect.status(),
            },
            &inspect.rules(),
        ))
    })
    .await
}

async fn suggestion(
    State(Pages { inspect, .. }): State<Pages>,
    Query(question): Query<SuggestionQuestion>,
) -> Response {
    page(move || {
        let answer = (!question.pod.is_empty())
            .then(|| SuggestionRequest::read(&question).and_then(|asked| inspect.suggestion(&asked)));
        let status = inspect.status();
        Ok(web::suggestion::page(
            PageFrame { status: &status },
            &question,
            answer.as_ref(),
        ))
    })
    .await
}

async fn health(State(Pages { inspect, .. }): State<Pages>) -> Response {
    page(move || {
        Ok(web::health::page(PageFrame {
            status: &inspect.status(),
        }))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_names_of_this_server() {
        let is_own = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
            is_own_name(&headers)
        };
        for own in [
            "localhost",
            "LOCALHOST:9464",
            "127.0.0.1:9464",
            "192.0.2.7",
            "[::1]:9464",
            "[::1]",
        ] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:9464",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[::1].evil.example",
            "localhost:x",
            "::1",
        ] {
            assert!(!is_own(other), "{other}");
        }
        assert!(!is_own_name(&HeaderMap::new()), "HTTP/1.0 without a name");
    }
}
