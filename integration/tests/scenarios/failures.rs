//! Upstreams that lie, fail or are gone.

use std::net::IpAddr;

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use lab::client::LookupTransport;
use lab::hostile::{self, HostileReply};
use lab::{BAD_RESOLVER, DEAD_RESOLVER, RESOLVER, ScriptedAnswer, dns};
use namegate_integration::ip;

use super::plan;

const TRUE: &str = "198.51.100.1";
const FALSE: [&str; 4] = ["198.51.100.61", "198.51.100.62", "198.51.100.63", "198.51.100.64"];

#[test]
fn forged_answers_are_passed_over_for_the_true_one() {
    let upstream = BAD_RESOLVER.to_string();
    let scenario = plan().upstreams(&[&upstream]).allow(0, &["api.example"]).start();
    let _hostile = scenario
        .lab()
        .hostile(dns(BAD_RESOLVER), lies_then(Some(TRUE)))
        .unwrap();
    let reply = scenario
        .pod(0)
        .resolve(dns(BAD_RESOLVER), "api.example", RecordType::A, LookupTransport::Udp)
        .unwrap();
    assert_eq!(reply.addresses(), [ip(TRUE)]);
    assert!(scenario.connect(0, ip(TRUE)).is_connected());
    for address in FALSE {
        assert!(scenario.connect(0, ip(address)).is_refused(), "{address}");
    }
}

#[test]
fn an_upstream_that_only_lies_is_servfail() {
    let upstream = BAD_RESOLVER.to_string();
    let scenario = plan().upstreams(&[&upstream]).allow(0, &["api.example"]).start();
    let _hostile = scenario.lab().hostile(dns(BAD_RESOLVER), lies_then(None)).unwrap();
    let reply = scenario
        .pod(0)
        .resolve(dns(BAD_RESOLVER), "api.example", RecordType::A, LookupTransport::Udp)
        .unwrap();
    assert_eq!((reply.code(), reply.addresses().len()), (ResponseCode::ServFail, 0));
    assert!(scenario.leases("api.example").is_empty());
}

#[test]
fn a_dead_upstream_is_passed_over_for_the_next() {
    let upstreams = [DEAD_RESOLVER.to_string(), RESOLVER.to_string()];
    let scenario = plan()
        .upstreams(&[&upstreams[0], &upstreams[1]])
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7"])
        .start();
    for over in [LookupTransport::Udp, LookupTransport::Tcp] {
        let reply = scenario
            .pod(0)
            .resolve(dns(DEAD_RESOLVER), "api.example", RecordType::A, over)
            .unwrap();
        assert_eq!(reply.addresses(), [ip("198.51.100.7")]);
    }
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
}

#[test]
fn when_every_upstream_is_dead_the_answer_is_servfail() {
    let upstream = DEAD_RESOLVER.to_string();
    let scenario = plan().upstreams(&[&upstream]).allow(0, &["api.example"]).start();
    let reply = scenario
        .pod(0)
        .resolve(dns(DEAD_RESOLVER), "api.example", RecordType::A, LookupTransport::Udp)
        .unwrap();
    assert_eq!(reply.code(), ResponseCode::ServFail);
}

#[test]
fn negative_and_failed_answers_pass_as_they_are() {
    let scenario = plan()
        .allow(0, &["**.example"])
        .records(&["api.example 60 A 198.51.100.7"])
        .start();
    assert_eq!(
        scenario.ask(0, "missing.example", RecordType::A).code(),
        ResponseCode::NXDomain
    );
    let reply = scenario.ask(0, "api.example", RecordType::AAAA);
    assert_eq!((reply.code(), reply.answers().len()), (ResponseCode::NoError, 0));
    assert_eq!(
        reply.message.authorities.len(),
        1,
        "the SOA says how long this holds (RFC 2308 §5)"
    );
    scenario
        .lab()
        .resolver()
        .script("api.example", ScriptedAnswer::Code(ResponseCode::ServFail))
        .unwrap();
    assert_eq!(
        scenario.ask(0, "api.example", RecordType::A).code(),
        ResponseCode::ServFail
    );
}

/// A responder that sends every forgery it can think of, and then perhaps the truth.
fn lies_then(
    truth: Option<&'static str>,
) -> impl FnMut(&hickory_proto::op::Message) -> Vec<HostileReply> + Send + 'static {
    move |query| {
        let answer = |address: &str| hostile::reply(query, &[address.parse::<IpAddr>().unwrap()]);
        let mut wrong_id = answer(FALSE[0]);
        wrong_id.metadata.id ^= 0x5555;
        let mut wrong_question = answer(FALSE[2]);
        let other = Query::query(Name::from_ascii("other.example.").unwrap(), RecordType::A);
        wrong_question.queries = vec![other];
        let mut not_an_answer = answer(FALSE[3]);
        not_an_answer.metadata.message_type = hickory_proto::op::MessageType::Query;
        let mut shots = vec![
            HostileReply::Honest(wrong_id),
            HostileReply::OtherPort(answer(FALSE[1])),
            HostileReply::Honest(wrong_question),
            HostileReply::Honest(not_an_answer),
            HostileReply::Raw(vec![0; 5]),
            HostileReply::Raw(vec![0xff; 600]),
        ];
        shots.extend(truth.map(|address| HostileReply::Honest(answer(address))));
        shots
    }
}
