//! Requests of HTTP/2, with `h2` as client and as server.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex};

use super::super::Ending;
use super::talk::Talk;
use crate::event::DialFailure;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// More than any test sends.
const ROOM: usize = 8 << 20;

/// What both ends have agreed on before the first request.
struct Http2Talk {
    talk: Talk,
    client: h2::client::Connection<DuplexStream, Bytes>,
    requests: SendRequest<Bytes>,
    client_octets: DuplexStream,
    server: ServerEnd,
    server_octets: DuplexStream,
    accepted: Vec<(Request<RecvStream>, SendResponse<Bytes>)>,
    /// Whether the server says nothing.
    server_is_silent: bool,
}

enum ServerEnd {
    Greeting(Pin<Box<h2::server::Handshake<DuplexStream, Bytes>>>),
    Open(Box<h2::server::Connection<DuplexStream, Bytes>>),
    Over,
}

fn now<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Everything that can be read at once.
fn drain(from: &mut DuplexStream) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), [0; 16384]);
    loop {
        let mut buffer = ReadBuf::new(&mut piece);
        match Pin::new(&mut *from).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => all.extend_from_slice(buffer.filled()),
            _ => return all,
        }
    }
}

fn fill(to: &mut DuplexStream, octets: &[u8]) {
    if !octets.is_empty() {
        let written: Poll<io::Result<usize>> = Pin::new(to).poll_write(&mut Context::from_waker(Waker::noop()), octets);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == octets.len()));
    }
}

impl Http2Talk {
    fn new(talk: Talk) -> Self {
        let (client_end, client_octets) = duplex(ROOM);
        let (server_end, server_octets) = duplex(ROOM);
        let Poll::Ready(Ok((requests, client))) = now(h2::client::handshake(client_end)) else {
            panic!("a client greets without waiting");
        };
        let mut this = Self {
            talk,
            client,
            requests,
            client_octets,
            server: ServerEnd::Greeting(Box::pin(h2::server::handshake(server_end))),
            server_octets,
            accepted: Vec::new(),
            server_is_silent: false,
        };
        this.turn();
        this
    }

    /// Lets both ends and the proxy go on until nothing moves.
    fn turn(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        let mut quiet = 0;
        while quiet < 2 {
            let _ = Pin::new(&mut self.client).poll(&mut context);
            if let ServerEnd::Greeting(greeting) = &mut self.server
                && let Poll::Ready(greeted) = greeting.as_mut().poll(&mut context)
            {
                self.server = greeted.map_or(ServerEnd::Over, |server| ServerEnd::Open(Box::new(server)));
            }
            if let ServerEnd::Open(server) = &mut self.server {
                while let Poll::Ready(Some(Ok(accepted))) = server.poll_accept(&mut context) {
                    self.accepted.push(accepted);
                }
            }
            let up = drain(&mut self.client_octets);
            // A server greets as soon as it is there, and is there once it was dialled.
            let down = match self.talk.reads_server() && !self.server_is_silent {
                true => drain(&mut self.server_octets),
                false => Vec::new(),
            };
            let has_moved = !up.is_empty() || !down.is_empty();
            if !up.is_empty() {
                self.talk.client(&up);
            }
            if !down.is_empty() {
                self.talk.server(&down);
            }
            self.talk.time_passes(Duration::ZERO);
            fill(&mut self.client_octets, &self.talk.client_octets());
            fill(&mut self.server_octets, &self.talk.server_octets());
            quiet = if has_moved { 0 } else { quiet + 1 };
        }
    }

    fn ask(&mut self, request: http::request::Builder, ends: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let asked = self.requests.send_request(request.body(()).unwrap(), ends).unwrap();
        self.turn();
        asked
    }

    fn get(&mut self, path: &str) -> ResponseFuture {
        self.ask(Request::get(format!("http://a{path}")), true).0
    }

    /// The response that has come.
    fn response(&mut self, response: &mut ResponseFuture) -> Result<Response<RecvStream>, h2::Error> {
        self.turn();
        match now(response) {
            Poll::Ready(response) => response,
            Poll::Pending => panic!("no response has come"),
        }
    }

    fn status(&mut self, mut response: ResponseFuture) -> u16 {
        self.response(&mut response).unwrap().status().as_u16()
    }
}

/// All of a body that has come, its window given back, and its trailers.
fn body(from: &mut RecvStream) -> (Vec<u8>, Option<HeaderMap>) {
    let mut all = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(Ok(data))) = from.poll_data(&mut context) {
        from.flow_control().release_capacity(data.len()).unwrap();
        all.extend_from_slice(&data);
    }
    let trailers = match from.poll_trailers(&mut context) {
        Poll::Ready(Ok(trailers)) => trailers,
        _ => None,
    };
    (all, trailers)
}

#[test]
fn each_stream_is_judged_by_itself() {
    let mut talk = Http2Talk::new(Talk::http());
    let first = talk.get("/allowed/1/../2?q");
    let denied = talk.get("/secret");
    let hidden = talk.get("/allowed/../secret");
    let second = talk.get("/allowed/3");
    assert_eq!((talk.status(denied), talk.status(hidden)), (403, 403));
    let asked: Vec<String> = talk.accepted.iter().map(|(asked, _)| asked.uri().to_string()).collect();
    assert_eq!(asked, ["http://a/allowed/2?q", "http://a/allowed/3"]);
    // The later one is answered first.
    while let Some((_, mut respond)) = talk.accepted.pop() {
        respond.send_response(Response::new(()), true).unwrap();
    }
    assert_eq!((talk.status(second), talk.status(first)), (200, 200));
    assert_eq!(talk.talk.ending(), None);
}

/// One of HTTP/1 alone might take a body for requests.
#[test]
fn a_server_that_has_not_shown_that_it_speaks_http2_hears_no_request() {
    let mut talk = Http2Talk::new(Talk::http());
    talk.server_is_silent = true;
    let allowed = talk.get("/allowed");
    assert!(talk.talk.is_dialling() || talk.talk.reads_server());
    assert!(talk.accepted.is_empty());
    talk.server_is_silent = false;
    talk.turn();
    let (_, mut respond) = talk.accepted.pop().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(talk.status(allowed), 200);
}

#[test]
fn a_server_hears_nothing_of_what_is_refused() {
    let mut talk = Http2Talk::new(Talk::http());
    let denied = talk.get("/secret");
    assert_eq!(talk.status(denied), 403);
    assert!(!talk.talk.is_dialling());
    assert!(matches!(talk.server, ServerEnd::Greeting(_)));
}

#[test]
fn a_denied_call_of_grpc_sees_permission_denied() {
    let mut talk = Http2Talk::new(Talk::http());
    let request = Request::post("http://a/pkg.Service/Method").header("content-type", "application/grpc+proto");
    let (mut response, _body) = talk.ask(request, false);
    let response = talk.response(&mut response).unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    assert_eq!(response.headers()["grpc-status"], "7");
    assert!(response.body().is_end_stream());
    // What is no gRPC has a status of HTTP.
    let request = Request::post("http://a/secret").header("content-type", "application/grpc-web");
    let (response, _body) = talk.ask(request, true);
    assert_eq!(talk.status(response), 403);
}

#[test]
fn bodies_and_trailers_pass_both_ways() {
    let mut talk = Http2Talk::new(Talk::http());
    let (mut response, mut up) = talk.ask(Request::post("http://a/allowed"), false);
    let (mut asked, mut respond) = talk.accepted.pop().unwrap();
    let mut down = respond.send_response(Response::new(()), false).unwrap();
    let mut answer = talk.response(&mut response).unwrap();
    up.send_data(vec![b'u'; 1_000_000].into(), false).unwrap();
    down.send_data(vec![b'd'; 1_000_000].into(), false).unwrap();
    let trailers: HeaderMap = [("x-sum".parse().unwrap(), "1".parse().unwrap())].into_iter().collect();
    up.send_trailers(trailers.clone()).unwrap();
    down.send_trailers(trailers.clone()).unwrap();
    let (mut uploaded, mut downloaded) = (0, 0);
    let (mut of_up, mut of_down) = (None, None);
    for _ in 0..100 {
        talk.turn();
        let (data, trailers) = body(asked.body_mut());
        uploaded += data.len();
        of_up = of_up.or(trailers);
        let (data, trailers) = body(answer.body_mut());
        downloaded += data.len();
        of_down = of_down.or(trailers);
    }
    assert_eq!((uploaded, downloaded), (1_000_000, 1_000_000));
    assert_eq!((of_up.as_ref(), of_down.as_ref()), (Some(&trailers), Some(&trailers)));
}

#[test]
fn a_server_that_reads_nothing_holds_its_client_back() {
    let mut talk = Http2Talk::new(Talk::http());
    let (_response, mut up) = talk.ask(Request::post("http://a/allowed"), false);
    up.send_data(vec![b'u'; 4_000_000].into(), false).unwrap();
    talk.turn();
    // The window of the server, and what the proxy gave.
    up.reserve_capacity(4_000_000);
    let (_asked, _respond) = talk.accepted.pop().unwrap();
    assert_eq!(up.capacity(), 0);
}

#[test]
fn a_server_that_cannot_be_reached_is_told_in_the_clients_words() {
    let mut talk = Talk::http();
    talk.accepts = false;
    let mut talk = Http2Talk::new(talk);
    let web = talk.get("/allowed");
    let call = Request::post("http://a/allowed").header("content-type", "application/grpc");
    let (mut call, _body) = talk.ask(call, true);
    talk.talk.dial_failed(DialFailure::Refused);
    assert_eq!(talk.status(web), 502);
    assert_eq!(talk.response(&mut call).unwrap().headers()["grpc-status"], "14");
    talk.talk.time_passes(Duration::from_secs(5));
    talk.turn();
    assert_eq!(talk.talk.ending(), Some(Ending::Close));
}

#[test]
fn a_request_that_could_be_read_in_two_ways_is_a_400() {
    let mut talk = Http2Talk::new(Talk::http());
    for request in [
        Request::get("http://a/allowed%2fx"),
        Request::get("http://a/.."),
        Request::get("http://a/allowed").header("host", "b"),
        Request::get("http://a/allowed").header("content_length", "1"),
    ] {
        let (response, _body) = talk.ask(request, true);
        assert_eq!(talk.status(response), 400);
    }
    assert!(talk.accepted.is_empty());
}

#[test]
fn a_client_that_takes_everything_back_is_told_to_calm_down() {
    let mut talk = Http2Talk::new(Talk::http());
    let mut sent = 0;
    while sent < 1000 && talk.talk.ending().is_none() {
        let request = Request::get("http://a/allowed").body(()).unwrap();
        let Ok((_, mut body)) = talk.requests.send_request(request, false) else {
            break;
        };
        talk.turn();
        body.send_reset(Reason::CANCEL);
        talk.turn();
        talk.accepted.clear();
        sent += 1;
    }
    assert!((100..=250).contains(&sent), "{sent}");
    let events = talk.talk.events();
    assert!(events.iter().any(|event| event.contains("Flood")), "{events:?}");
}

#[test]
fn what_the_client_takes_back_the_server_hears() {
    let mut talk = Http2Talk::new(Talk::http());
    let (_response, mut body) = talk.ask(Request::post("http://a/allowed"), false);
    let (_asked, mut respond) = talk.accepted.pop().unwrap();
    body.send_reset(Reason::CANCEL);
    talk.turn();
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        respond.poll_reset(&mut context),
        Poll::Ready(Ok(Reason::CANCEL))
    ));
}

#[test]
fn a_drained_connection_ends_with_its_last_response() {
    let mut talk = Http2Talk::new(Talk::http());
    let response = talk.get("/allowed");
    talk.talk.drain();
    talk.turn();
    let (_, mut respond) = talk.accepted.pop().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(talk.status(response), 200);
    let refused = Request::get("http://a/allowed").body(()).unwrap();
    assert!(
        talk.requests.send_request(refused, true).is_err(),
        "the client knows (GOAWAY)"
    );
}

#[test]
fn narrower_rules_reset_the_streams_that_they_refuse() {
    let mut talk = Http2Talk::new(Talk::http());
    let mut response = talk.get("/allowed");
    talk.talk.rules_change(false);
    talk.turn();
    assert!(matches!(now(&mut response), Poll::Pending));
    talk.talk.rules_change(true);
    let error = talk.response(&mut response).err().unwrap();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    assert_eq!(talk.talk.ending(), None);
}

/// A frame: type, flags, stream and payload.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client that is no `h2`, behind its preface and settings.
fn raw() -> Talk {
    let talk = Talk::http();
    talk.client([PREFACE, &frame(4, 0, 0, &[])].concat());
    talk.client_octets();
    talk
}

#[test]
fn frames_that_break_the_rules_end_the_connection() {
    for (what, frames) in [
        ("data without a request", frame(0, 0, 1, b"x")),
        ("a stream of the server's", frame(1, 5, 2, &[0x82])),
        ("a continuation of nothing", frame(9, 4, 1, &[0x82])),
        ("a window of zero", frame(8, 0, 0, &[0; 4])),
        ("a frame that is too long", frame(0, 0, 1, &[0; 20_000])),
        ("settings of a wrong length", frame(4, 0, 0, &[0; 5])),
        ("a broken compression", frame(1, 5, 1, &[0xff; 16])),
    ] {
        let talk = raw();
        talk.client(frames);
        let seen = talk.client_octets();
        assert!(seen.windows(4).any(|four| four[3] == 7), "{what}: no GOAWAY");
        assert!(talk.ends_client(), "{what}");
        assert!(!talk.is_dialling());
    }
}

#[test]
fn a_header_without_end_is_cut_off() {
    let talk = raw();
    talk.client(frame(1, 1, 1, &[0x82]));
    for _ in 0..10_000 {
        // A field that is not indexed, of 4 KiB.
        let field = [&[0x00, 0x01, b'a', 0x7f, 0x81, 0x1f][..], &[b'b'; 4096]].concat();
        talk.client(frame(9, 0, 1, &field));
        if talk.ends_client() {
            return;
        }
    }
    panic!("it goes on");
}

#[test]
fn pings_of_a_client_that_reads_nothing_are_not_kept() {
    let talk = raw();
    let pings = frame(6, 0, 0, &[0; 8]).repeat(1000);
    for _ in 0..100 {
        talk.client_unread(&pings);
    }
    assert!(talk.waits_for_client() <= 256 << 10, "{}", talk.waits_for_client());
}

#[test]
fn a_preface_may_come_octet_by_octet_and_not_slower() {
    let talk = Talk::http();
    for octet in PREFACE {
        talk.client([*octet]);
    }
    talk.client(frame(4, 0, 0, &[]));
    assert!(!talk.client_octets().is_empty(), "settings");
    let slow = Talk::http();
    slow.client(&PREFACE[..10]);
    slow.time_passes(Duration::from_secs(31));
    assert!(slow.ends_client());
}

#[test]
fn nothing_keeps_an_idle_connection_open() {
    let talk = raw();
    for _ in 0..10 {
        talk.time_passes(Duration::from_secs(40));
        talk.client(frame(6, 0, 0, &[0; 8]));
    }
    assert!(talk.ends_client() || talk.ending() == Some(Ending::Close));
}

#[test]
fn a_request_may_be_refused_when_those_before_it_are_over() {
    let mut talk = Http2Talk::new(Talk::http());
    let mut first = talk.get("/allowed/1");
    let (_, mut respond) = talk.accepted.pop().unwrap();
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data(Bytes::from_static(b"said"), true).unwrap();
    let mut response = talk.response(&mut first).unwrap();
    assert_eq!(body(response.body_mut()).0, b"said");
    talk.turn();
    let denied = talk.get("/secret");
    assert_eq!(talk.status(denied), 403);
    talk.turn();
    let second = talk.get("/allowed/2");
    let (_, mut respond) = talk.accepted.pop().unwrap();
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(talk.status(second), 200);
    assert_eq!(talk.talk.ending(), None);
}
