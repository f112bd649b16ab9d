//! Requests that are meant to be read in two ways: what becomes of each.

use super::super::Ending;
use super::talk::Talk;

/// What came back (statuses), and what the server saw: nothing, or the start line of each request.
#[track_caller]
fn outcome(request: &str, statuses: &[u16], server: &[&str]) {
    let talk = Talk::http();
    talk.client(request);
    let mut seen = talk.server_saw();
    let mut answered = talk.statuses();
    // A server that answers each request that it sees.
    for _ in 0..3 {
        if seen.is_empty() || talk.ending().is_some() || talk.ends_client() {
            break;
        }
        talk.server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        answered.extend(talk.statuses());
        match talk.server_saw() {
            more if more.is_empty() => break,
            more => seen.push_str(&more),
        }
    }
    let lines: Vec<&str> = seen.lines().filter(|line| line.ends_with(" HTTP/1.1")).collect();
    assert_eq!(
        (&answered[..], &lines[..]),
        (statuses, server),
        "{request:?}, of which came {seen:?}"
    );
    if statuses.iter().any(|status| *status == 400 || *status >= 431) {
        assert!(talk.ends_client(), "nothing that follows is read");
        talk.client_ends();
        assert_eq!(talk.ending(), Some(Ending::Close));
    }
}

/// A request for `/allowed` with these fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /allowed HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

const SMUGGLED: &str = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn two_lengths_are_refused() {
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4 \r\ncontent-length: 4\r\n",
        "Content-Length: 0x4\r\n",
        "Content-Length: -4\r\n",
        "Content-Length: 4;\r\n",
        "Content_Length: 4\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding: \0chunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
    ] {
        outcome(&post(fields, &format!("0\r\n\r\n{SMUGGLED}")), &[400], &[]);
    }
    outcome(
        &format!("POST /allowed HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{SMUGGLED}"),
        &[400],
        &[],
    );
}

#[test]
fn bodies_that_are_no_plain_chunks_are_refused_before_the_head_leaves() {
    for body in [
        "3;x=y\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "g\r\n",
        "3\nabc\n0\n\n",
        "ffffffffffffffff1\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "0\r\nContent-Length: 40\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nX: y\n\r\n",
    ] {
        outcome(&post("Transfer-Encoding: chunked\r\n", body), &[400], &[]);
    }
}

#[test]
fn a_body_that_breaks_later_resets_the_server() {
    let talk = Talk::http();
    talk.client(post("Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n"));
    assert!(talk.server_saw().ends_with("3\r\nabc\r\n"));
    talk.client("3;x\r\n");
    assert_eq!(talk.server_saw(), "");
    assert_eq!(talk.ending(), Some(Ending::Reset));
}

#[test]
fn what_follows_a_body_is_a_request_of_its_own() {
    let first = "POST /allowed HTTP/1.1";
    outcome(
        &post("Content-Length: 3\r\n", &format!("abc{SMUGGLED}")),
        &[200, 403],
        &[first],
    );
    outcome(&post("Content-Length: 0\r\n", SMUGGLED), &[200, 403], &[first]);
    outcome(&post("", SMUGGLED), &[200, 403], &[first]);
    let chunked = format!("3\r\nabc\r\n0\r\n\r\n{SMUGGLED}");
    outcome(&post("Transfer-Encoding: chunked\r\n", &chunked), &[200, 403], &[first]);
    // The whole of it is a body, whatever it looks like.
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let talk = Talk::http();
    talk.client(post(&length, SMUGGLED));
    talk.server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(talk.statuses(), [200]);
    assert_eq!(talk.events().iter().filter(|event| event.starts_with("GET")).count(), 0);
    // Line ends behind a body begin no request.
    outcome(
        &post("Content-Length: 3\r\n", &format!("abc\r\n{SMUGGLED}")),
        &[200, 400],
        &[first],
    );
}

#[test]
fn lines_that_do_not_end_in_cr_lf_are_refused() {
    for request in [
        "GET /allowed HTTP/1.1\nHost: a\n\n",
        "GET /allowed HTTP/1.1\r\nHost: a\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\n\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "\r\nGET /allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        "\nGET /allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        " GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\n Host: a\r\nHost: a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nX: a\0\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nX y: a\r\n\r\n",
        "GET /allowed\r\nHost: a\r\n\r\n",
        "GET  /allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/allowed HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        outcome(request, &[400], &[]);
    }
}

#[test]
fn hosts_that_could_be_another_are_refused() {
    for request in [
        "GET /allowed HTTP/1.1\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: a/allowed\r\n\r\n",
        "GET /allowed HTTP/1.1\r\nHost: \r\n\r\n",
        "GET http://b/allowed HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a@b/allowed HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET http://a\\@b/allowed HTTP/1.1\r\nHost: b\r\n\r\n",
        "CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        outcome(request, &[400], &[]);
    }
}

#[test]
fn paths_are_matched_as_they_are_forwarded() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    for path in [
        "/allowed/../secret",
        "/allowed/%2e%2e/secret",
        "/allowed/.%2E/secret",
        "/allowed/./../secret",
        "//secret",
        "/%73ecret",
        "/./secret",
        "http://a/allowed/../secret",
    ] {
        outcome(&get(path), &[403], &[]);
    }
    for path in [
        "/allowed%2f..%2fsecret",
        "/allowed%5c..%5csecret",
        "/allowed\\..\\secret",
        "/allowed/..;/secret",
        "/allowed/%252e%252e/secret",
        "/allowed%252f..%252fsecret",
        "/allowed%00",
        "/allowed/../../secret",
        "/allowed//../../secret",
        "/allowed#/secret",
        "/allowed%",
        "/allowed\u{7f}",
        "/allowed\u{e9}",
        "allowed",
    ] {
        outcome(&get(path), &[400], &[]);
    }
    outcome(&get("/secret/../allowed"), &[200], &["GET /allowed HTTP/1.1"]);
    outcome(&get("//allowed"), &[200], &["GET /allowed HTTP/1.1"]);
    outcome(&get("/%61llowed?x=%2f.."), &[200], &["GET /allowed?x=%2f.. HTTP/1.1"]);
}

#[test]
fn floods_of_fields_and_long_heads_are_refused() {
    let fields = |count: usize| "X: y\r\n".repeat(count);
    let request = |fields: String| format!("GET /allowed HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    outcome(&request(fields(99)), &[200], &["GET /allowed HTTP/1.1"]);
    outcome(&request(fields(100)), &[431], &[]);
    outcome(
        &request(format!("X: {}\r\n", "y".repeat(65_000))),
        &[200],
        &["GET /allowed HTTP/1.1"],
    );
    outcome(&request(format!("X: {}\r\n", "y".repeat(66_000))), &[431], &[]);
    // Without an end, and so without anything to wait for.
    outcome(&format!("GET /{}", "a".repeat(70_000)), &[431], &[]);
}

#[test]
fn other_versions_are_not_spoken() {
    for line in [
        "PRI * HTTP/2.0",
        "GET /allowed HTTP/2.0",
        "GET /allowed HTTP/1.2",
        "GET /allowed HTTP/0.9",
    ] {
        outcome(&format!("{line}\r\nHost: a\r\n\r\n"), &[505], &[]);
    }
}

#[test]
fn a_field_that_was_judged_cannot_be_taken_away_behind_us() {
    let request = |fields: &str| format!("GET /allowed HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    outcome(&request("Connection: close, X-Auth\r\nX-Auth: y\r\n"), &[400], &[]);
    outcome(&request("Connection: host\r\n"), &[400], &[]);
    outcome(
        &request("Connection: keep-alive, TE\r\nTE: trailers\r\n"),
        &[200],
        &["GET /allowed HTTP/1.1"],
    );
}
