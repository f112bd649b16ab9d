//! Requests and responses, one after the other.

use std::time::Duration;

use super::super::Ending;
use super::talk::{PlainJudge, Talk};
use crate::edit::HeaderEdit;
use crate::event::DialFailure;
use crate::judge::{DialTime, Inspection};

const ALLOWED: &str = "GET /allowed HTTP/1.1\r\nHost: a\r\n\r\n";
const SECRET: &str = "GET /secret HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn allowed_requests_pass_one_after_the_other() {
    let talk = Talk::http();
    for _ in 0..3 {
        talk.client(ALLOWED);
        assert_eq!(talk.server_saw(), ALLOWED);
        talk.server(OK);
        assert_eq!(talk.client_saw(), OK);
    }
    assert_eq!(talk.ending(), None);
}

#[test]
fn a_denied_request_is_answered_and_the_connection_goes_on() {
    let talk = Talk::http();
    talk.client(SECRET);
    let denied = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nAccess denied\r\n";
    assert_eq!(talk.client_saw(), denied);
    assert!(!talk.is_dialling(), "a server hears nothing of what is refused");
    assert_eq!(talk.server_saw(), "");
    talk.client(ALLOWED);
    assert_eq!(talk.server_saw(), ALLOWED);
    talk.client("HEAD /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    talk.server(OK);
    assert_eq!(
        talk.client_saw(),
        OK.to_owned() + denied.strip_suffix("Access denied\r\n").unwrap()
    );
}

#[test]
fn a_denied_request_with_a_body_ends_the_connection() {
    for fields in [
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nExpect: 100-continue\r\n",
    ] {
        let talk = Talk::http();
        talk.client(format!("POST /secret HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert!(talk.client_saw().contains("Connection: close\r\n"), "{fields}");
        assert!(talk.ends_client());
        // What follows is no request.
        talk.client(ALLOWED);
        assert_eq!((talk.server_saw(), talk.client_saw()), (String::new(), String::new()));
        talk.client_ends();
        assert_eq!(talk.ending(), Some(Ending::Close));
    }
}

#[test]
fn pipelined_requests_wait_for_the_response_before_them() {
    let talk = Talk::http();
    talk.client([ALLOWED, SECRET, ALLOWED].concat());
    assert_eq!(talk.server_saw(), ALLOWED);
    assert_eq!(talk.client_saw(), "");
    talk.server(OK);
    assert_eq!(talk.statuses(), [200, 403]);
    assert_eq!(talk.server_saw(), ALLOWED);
    talk.server(OK);
    assert_eq!(talk.statuses(), [200]);
}

#[test]
fn octet_by_octet_it_is_the_same() {
    let talk = Talk::http();
    let request =
        "POST /allowed HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n";
    for octet in request.bytes() {
        talk.client([octet]);
    }
    assert_eq!(talk.server_saw(), request);
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for octet in response.bytes() {
        talk.server([octet]);
    }
    assert_eq!(talk.client_saw(), response);
    talk.client(SECRET);
    assert_eq!(talk.statuses(), [403]);
}

#[test]
fn bodies_of_each_framing_end_where_they_end() {
    for (request, response) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        ),
    ] {
        let talk = Talk::http();
        talk.client(format!("{request} /allowed HTTP/1.1\r\nHost: a\r\n\r\n"));
        talk.server(response);
        assert_eq!(talk.client_saw(), response);
        talk.client(SECRET);
        assert_eq!(talk.statuses(), [403], "{request}: {response}");
    }
}

#[test]
fn a_response_without_a_length_lasts_until_the_server_ends() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.server("HTTP/1.1 200 OK\r\n\r\nall");
    talk.server(" that follows");
    assert!(!talk.ends_client());
    talk.server_ends();
    assert!(talk.client_saw().ends_with("all that follows"));
    assert!(talk.ends_client());
    talk.client_ends();
    assert_eq!(talk.ending(), Some(Ending::Close));
}

#[test]
fn expect_waits_for_the_servers_word() {
    let talk = Talk::http();
    let head = "PUT /allowed HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    talk.client(head);
    assert_eq!(talk.server_saw(), head);
    talk.server("HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(talk.client_saw(), "HTTP/1.1 100 Continue\r\n\r\n");
    talk.client("abc");
    assert_eq!(talk.server_saw(), "abc");
    talk.server(OK);
    assert_eq!(talk.client_saw(), OK);
}

#[test]
fn a_client_may_end_and_wait_for_its_response() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.client_ends();
    assert!(talk.ends_server());
    assert_eq!(talk.ending(), None);
    talk.server(OK);
    assert_eq!(talk.client_saw(), OK);
    assert_eq!(talk.ending(), Some(Ending::Close));
}

#[test]
fn an_early_response_does_not_stop_the_request() {
    let talk = Talk::http();
    talk.client("POST /allowed HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    talk.server(OK);
    assert_eq!(talk.statuses(), [200]);
    talk.client("def");
    talk.client(SECRET);
    assert!(talk.server_saw().ends_with("abcdef"));
    assert_eq!(talk.statuses(), [403]);
}

#[test]
fn a_server_that_ends_without_an_answer_is_seen_as_such() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.server_ends();
    assert_eq!(talk.client_saw(), "");
    assert!(talk.ends_client());
}

#[test]
fn what_a_server_sends_unasked_answers_nothing() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.server([OK, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"].concat());
    assert_eq!(talk.client_saw(), OK);
    talk.client(ALLOWED);
    assert_eq!(talk.client_saw(), "");
    assert!(talk.ends_client());
}

#[test]
fn http_1_0_is_served_once() {
    let talk = Talk::http();
    talk.client("GET /allowed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(
        talk.server_saw(),
        "GET /allowed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    );
    talk.server("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok");
    assert!(talk.client_saw().ends_with("ok"));
    assert!(talk.ends_client());
}

#[test]
fn a_body_of_any_size_is_passed_on_as_it_comes() {
    let talk = Talk::http();
    talk.client("POST /allowed HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    talk.server_saw();
    let piece = vec![b'x'; 100_000];
    for _ in 0..1000 {
        talk.client(&piece);
        assert_eq!(talk.server_saw().len(), piece.len());
    }
    talk.client(SECRET);
    assert_eq!(talk.client_saw(), "");
    talk.server(OK);
    assert_eq!(talk.statuses(), [200, 403]);
}

#[test]
fn a_websocket_is_opaque_behind_the_101_and_not_before() {
    let talk = Talk::http();
    let upgrade = "GET /allowed HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    talk.client([upgrade, "early"].concat());
    assert_eq!(talk.server_saw(), upgrade);
    talk.server("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframe");
    assert_eq!(talk.server_saw(), "early");
    assert!(talk.client_saw().ends_with("\r\n\r\nframe"));
    assert!(talk.may_splice());
}

#[test]
fn an_upgrade_that_is_not_granted_leaves_requests_judged() {
    let talk = Talk::http();
    talk.client("GET /allowed HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    talk.client(SECRET);
    talk.server(OK);
    assert_eq!(talk.statuses(), [200, 403]);
}

#[test]
fn a_101_that_nobody_asked_for_is_no_answer() {
    for upgrade in ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Upgrade: websocket\r\n"] {
        let talk = Talk::http();
        talk.client(format!("GET /allowed HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n"));
        talk.server("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n");
        assert_eq!(talk.statuses(), [502], "{upgrade}");
        talk.client(SECRET);
        assert!(!talk.may_splice());
    }
}

#[test]
fn a_tunnel_is_opaque_behind_the_2xx() {
    let connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    let talk = Talk::http();
    talk.client(connect);
    assert_eq!(talk.server_saw(), connect);
    assert_eq!(talk.events()[0], "CONNECT a.example:443 ");
    talk.server("HTTP/1.1 200 Connection established\r\n\r\n");
    talk.client("anything");
    assert_eq!(talk.server_saw(), "anything");
    assert!(talk.may_splice());

    let talk = Talk::http();
    talk.client(connect);
    talk.client(SECRET);
    talk.server("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(talk.statuses(), [407, 403]);
}

#[test]
fn rules_edit_the_header() {
    let judge = PlainJudge {
        edits: vec![HeaderEdit::Set {
            name: "X-Token".into(),
            value: b"right".as_slice().into(),
        }],
        ..PlainJudge::default()
    };
    let talk = Talk::with(judge, Inspection::Http, DialTime::WhenAllowed);
    talk.client("GET /allowed HTTP/1.1\r\nHost: a\r\nx-token: wrong\r\n\r\n");
    assert_eq!(
        talk.server_saw(),
        "GET /allowed HTTP/1.1\r\nHost: a\r\nX-Token: right\r\n\r\n"
    );
}

#[test]
fn rules_cannot_edit_what_frames_or_routes() {
    let judge = PlainJudge {
        edits: vec![HeaderEdit::Remove {
            name: "content-length".into(),
        }],
        ..PlainJudge::default()
    };
    let talk = Talk::with(judge, Inspection::Http, DialTime::WhenAllowed);
    talk.client("GET /allowed HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(talk.statuses(), [403]);
    assert_eq!(talk.server_saw(), "");
}

#[test]
fn a_server_that_cannot_be_reached_is_a_502_or_504() {
    for (why, status) in [(DialFailure::Refused, 502), (DialFailure::TimedOut, 504)] {
        let mut talk = Talk::http();
        talk.accepts = false;
        talk.client(ALLOWED);
        talk.dial_failed(why);
        assert_eq!(talk.statuses(), [status]);
        assert!(talk.ends_client());
    }
    let mut talk = Talk::http();
    talk.accepts = false;
    talk.client(ALLOWED);
    talk.time_passes(Duration::from_secs(4));
    assert_eq!(talk.statuses(), [504]);
}

#[test]
fn what_waits_for_the_server_leaves_when_it_accepts() {
    let mut talk = Talk::http();
    talk.accepts = false;
    talk.client(ALLOWED);
    assert!(talk.is_dialling());
    assert_eq!(talk.server_saw(), "");
    talk.connected();
    assert_eq!(talk.server_saw(), ALLOWED);
}

#[test]
fn the_backend_is_known_before_anything_is_judged() {
    let judge = PlainJudge {
        backend: Some(Inspection::Http),
        ..PlainJudge::default()
    };
    let mut talk = Talk::with(judge, Inspection::HelloOrHttp, DialTime::First);
    talk.accepts = false;
    talk.client(ALLOWED);
    assert!(talk.is_dialling());
    assert!(talk.events().is_empty());
    talk.connected();
    assert_eq!(talk.events(), ["dialled", "GET a /allowed"]);
    assert_eq!(talk.server_saw(), ALLOWED);
}

#[test]
fn slow_heads_and_idle_connections_end() {
    let talk = Talk::http();
    talk.client("GET /allowed HTTP/1.1\r\n");
    talk.time_passes(Duration::from_secs(29));
    assert_eq!(talk.statuses(), [0_u16; 0]);
    talk.time_passes(Duration::from_secs(2));
    assert_eq!(talk.statuses(), [408]);

    let talk = Talk::http();
    talk.client(ALLOWED);
    // A response may take as long as the server wants.
    talk.time_passes(Duration::from_secs(7200));
    talk.server(OK);
    assert_eq!(talk.statuses(), [200]);
    talk.time_passes(Duration::from_secs(299));
    assert_eq!(talk.ending(), None);
    talk.time_passes(Duration::from_secs(2));
    assert_eq!(talk.ending(), Some(Ending::Close));
}

#[test]
fn a_head_that_begins_late_has_its_whole_time() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.server(OK);
    talk.time_passes(Duration::from_secs(200));
    let (begin, rest) = ALLOWED.split_at(10);
    talk.client(begin);
    talk.time_passes(Duration::from_secs(29));
    talk.client(rest);
    talk.server(OK);
    assert_eq!(talk.statuses(), [200, 200]);
}

#[test]
fn narrower_rules_cut_what_is_under_way_and_the_next_request_is_judged_by_them() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.rules_change(false);
    assert_eq!(talk.ending(), None);
    talk.server(OK);
    talk.rules_change(true);
    assert_eq!(talk.ending(), None, "nothing is under way");
    talk.client(ALLOWED);
    talk.rules_change(true);
    assert_eq!(talk.ending(), Some(Ending::Reset));
}

#[test]
fn while_it_drains_the_next_response_is_the_last() {
    let talk = Talk::http();
    talk.client(ALLOWED);
    talk.server_saw();
    talk.drain();
    talk.server("HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nconnection: keep-alive\r\nContent-Length: 2\r\n\r\nok");
    assert_eq!(
        talk.client_saw(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    );
    assert!(talk.ends_client());
}

#[test]
fn a_malformed_response_is_a_502() {
    for response in [
        "HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
    ] {
        let talk = Talk::http();
        talk.client(ALLOWED);
        talk.server(response);
        assert_eq!(talk.statuses(), [502], "{response}");
    }
}

#[test]
fn in_mode_audit_what_cannot_be_read_passes_unread() {
    let judge = PlainJudge {
        audits: true,
        ..PlainJudge::default()
    };
    let talk = Talk::with(judge, Inspection::Http, DialTime::WhenAllowed);
    talk.client("GET /a HTTP/1.1\nHost: a\n\n");
    assert_eq!(talk.server_saw(), "GET /a HTTP/1.1\nHost: a\n\n");
    assert!(talk.may_splice());
}
