//! Hellos, and what passes unread behind them.

use std::time::Duration;

use super::super::Ending;
use super::talk::{PlainJudge, Talk};
use crate::event::DialFailure;
use crate::hello::samples::{self, HelloSample};
use crate::judge::{DialTime, Inspection};

fn hello(name: &str) -> Vec<u8> {
    HelloSample {
        extensions: vec![HelloSample::server_name(name)],
        ..HelloSample::default()
    }
    .records(&[usize::MAX])
}

#[test]
fn a_hello_with_an_allowed_name_passes_and_all_that_follows() {
    let talk = Talk::new(Inspection::Hello);
    let hello = hello("www.allowed.example");
    for octet in &hello[..hello.len() - 1] {
        talk.client([*octet]);
    }
    assert!(!talk.is_dialling());
    assert_eq!(talk.server_saw(), "");
    talk.client(&hello[hello.len() - 1..]);
    assert_eq!(talk.server_saw(), String::from_utf8_lossy(&hello));
    talk.server("anything");
    talk.client("else");
    assert_eq!(
        (talk.client_saw(), talk.server_saw()),
        ("anything".to_owned(), "else".to_owned())
    );
    assert!(talk.may_splice());
}

#[test]
fn other_names_and_no_name_are_reset() {
    for input in [hello("www.other.example"), HelloSample::default().records(&[9])] {
        let talk = Talk::new(Inspection::Hello);
        talk.client(input);
        assert_eq!(talk.ending(), Some(Ending::Reset));
        assert_eq!(talk.server_saw(), "");
    }
}

#[test]
fn what_the_rules_do_not_speak_of_is_reset() {
    for (inspection, input, why) in [
        (Inspection::Hello, b"GET / HTTP/1.1\r\n".to_vec(), "NotTls"),
        (Inspection::Http, samples::OPENSSL_HELLO.to_vec(), "NotHttp"),
        (Inspection::HelloOrHttp, vec![22, 9, 9], "MalformedHello"),
        (Inspection::Hello, vec![22, 3, 1, 0, 4, 1, 9, 9, 9], "LongHello"),
    ] {
        let talk = Talk::new(inspection);
        talk.client(input);
        assert_eq!(talk.events(), [why]);
        assert_eq!(talk.ending(), Some(Ending::Reset));
        assert_eq!(talk.server_saw(), "");
    }
}

#[test]
fn either_language_is_judged_where_rules_speak_of_both() {
    let talk = Talk::new(Inspection::HelloOrHttp);
    talk.client(hello("allowed.example"));
    assert!(talk.may_splice());
    let talk = Talk::new(Inspection::HelloOrHttp);
    talk.client("GET /secret HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(talk.statuses(), [403]);
}

#[test]
fn a_slow_hello_is_reset_and_passes_in_mode_audit() {
    let talk = Talk::new(Inspection::Hello);
    talk.client([22, 3]);
    talk.time_passes(Duration::from_secs(4));
    assert_eq!(talk.ending(), None);
    talk.time_passes(Duration::from_secs(1));
    assert_eq!(talk.ending(), Some(Ending::Reset));

    let judge = PlainJudge {
        audits: true,
        ..PlainJudge::default()
    };
    let talk = Talk::with(judge, Inspection::Hello, DialTime::WhenAllowed);
    talk.time_passes(Duration::from_secs(5));
    talk.server("220 ready\r\n");
    assert_eq!(talk.client_saw(), "220 ready\r\n");
}

#[test]
fn each_end_is_passed_on_by_itself() {
    let talk = Talk::new(Inspection::Hello);
    talk.client(hello("allowed.example"));
    talk.client_ends();
    assert!(talk.ends_server() && !talk.ends_client());
    talk.server("still");
    assert_eq!(talk.client_saw(), "still");
    talk.server_ends();
    assert!(talk.ends_client());
    assert_eq!(talk.ending(), Some(Ending::Close));
}

#[test]
fn a_server_that_cannot_be_reached_is_a_reset() {
    let mut talk = Talk::new(Inspection::Hello);
    talk.accepts = false;
    talk.client(hello("allowed.example"));
    talk.dial_failed(DialFailure::Unreachable);
    assert_eq!(talk.ending(), Some(Ending::Reset));
}

#[test]
fn what_a_backend_is_asked_passes_unread_where_nothing_restricts_it() {
    let mut talk = Talk::with(PlainJudge::default(), Inspection::HelloOrHttp, DialTime::First);
    talk.accepts = false;
    talk.client("\0 whatever it is");
    assert_eq!(talk.server_saw(), "");
    talk.connected();
    assert_eq!(talk.server_saw(), "\0 whatever it is");
    talk.server("an answer");
    assert_eq!(talk.client_saw(), "an answer");
    assert_eq!(talk.events(), ["dialled"]);

    // A server that speaks first is heard without a word of the client.
    let talk = Talk::with(PlainJudge::default(), Inspection::HelloOrHttp, DialTime::First);
    talk.connected();
    talk.server("220 ready\r\n");
    assert_eq!(talk.client_saw(), "220 ready\r\n");
}

#[test]
fn narrower_rules_cut_what_passes_and_idleness_does() {
    let talk = Talk::new(Inspection::Hello);
    talk.client(hello("allowed.example"));
    talk.rules_change(false);
    assert_eq!(talk.ending(), None);
    talk.rules_change(true);
    assert_eq!(talk.ending(), Some(Ending::Reset));

    let talk = Talk::new(Inspection::Hello);
    talk.client(hello("allowed.example"));
    talk.time_passes(Duration::from_secs(3599));
    talk.client("x");
    talk.time_passes(Duration::from_secs(3599));
    assert_eq!(talk.ending(), None);
    talk.time_passes(Duration::from_secs(2));
    assert_eq!(talk.ending(), Some(Ending::Reset));
}

#[test]
fn a_client_that_ends_in_its_hello_is_let_go() {
    let talk = Talk::new(Inspection::Hello);
    talk.client([22]);
    talk.client_ends();
    assert_eq!(talk.ending(), Some(Ending::Close));
    assert!(talk.events().is_empty());
}
