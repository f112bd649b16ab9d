//! Queries and answers, written as text and built by another implementation than the one under
//! test.
#![allow(dead_code, reason = "the unit tests and the loopback tests need different parts")]

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{CNAME, HTTPS, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// `query("Name.example.", "AAAA")`, with the id 0x1234 and RD.
pub(crate) fn query(name: &str, rtype: &str) -> Vec<u8> {
    message(name, rtype).to_vec().unwrap()
}

/// A query with an OPT record.
pub(crate) fn query_with_edns(name: &str, rtype: &str, udp_size: u16) -> Vec<u8> {
    let mut message = message(name, rtype);
    let mut edns = Edns::new();
    edns.set_max_payload(udp_size);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

/// A query with an OPT record that holds this option.
pub(crate) fn query_with_option(name: &str, rtype: &str, code: u16, data: &[u8]) -> Vec<u8> {
    use hickory_proto::rr::rdata::opt::EdnsOption;
    let mut message = message(name, rtype);
    let mut edns = Edns::new();
    edns.set_max_payload(1_232);
    edns.options_mut().insert(EdnsOption::Unknown(code, data.to_vec()));
    message.set_edns(edns);
    message.to_vec().unwrap()
}

/// The data of this option of a message.
pub(crate) fn option(message: &[u8], code: u16) -> Option<Vec<u8>> {
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    let message = Message::from_vec(message).unwrap();
    match message.edns?.option(EdnsCode::from(code))? {
        EdnsOption::Unknown(_, data) => Some(data.clone()),
        _ => None,
    }
}

fn message(name: &str, rtype: &str) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let rtype: RecordType = rtype.parse().unwrap();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

/// An answer to `query` with the records given as text, for example `www.example. 60 A 192.0.2.1`.
pub(crate) fn answer(query: &[u8], records: &[&str]) -> Vec<u8> {
    let mut message = Message::from_vec(query).unwrap().into_response();
    message.metadata.recursion_available = true;
    message.add_answers(records.iter().map(|text| record(text)));
    message.to_vec().unwrap()
}

/// An answer that is one of these codes and nothing more.
pub(crate) fn answer_with_rcode(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut bytes = answer(query, &[]);
    bytes[3] = bytes[3] & 0xf0 | rcode;
    bytes
}

pub(crate) fn record(text: &str) -> Record {
    let fields: Vec<&str> = text.split(' ').collect();
    let [owner, ttl, rtype, ref data @ ..] = fields[..] else {
        panic!("not a record: {text}");
    };
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let data = match (rtype, data) {
        ("A", [address]) => RData::A(address.parse().unwrap()),
        ("AAAA", [address]) => RData::AAAA(address.parse().unwrap()),
        ("CNAME", [target]) => RData::CNAME(CNAME(name(target))),
        ("TXT", [text]) => RData::TXT(TXT::new(vec![text.to_string()])),
        ("SVCB", data) => RData::SVCB(service(data)),
        ("HTTPS", data) => RData::HTTPS(HTTPS(service(data))),
        _ => panic!("not a record: {text}"),
    };
    Record::from_rdata(name(owner), ttl.parse().unwrap(), data)
}

/// `1 . ipv4hint=192.0.2.1,192.0.2.2 ipv6hint=2001:db8::1`
fn service(data: &[&str]) -> SVCB {
    let [priority, target, parameters @ ..] = data else {
        panic!("not a service: {data:?}");
    };
    let parameters = parameters.iter().map(|parameter| match parameter.split_once('=') {
        Some(("ipv4hint", list)) => (
            SvcParamKey::Ipv4Hint,
            SvcParamValue::Ipv4Hint(IpHint(
                list.split(',').map(|address| address.parse().unwrap()).collect(),
            )),
        ),
        Some(("ipv6hint", list)) => (
            SvcParamKey::Ipv6Hint,
            SvcParamValue::Ipv6Hint(IpHint(
                list.split(',').map(|address| address.parse().unwrap()).collect(),
            )),
        ),
        _ => panic!("not a parameter: {parameter}"),
    });
    SVCB::new(
        priority.parse().unwrap(),
        Name::from_ascii(target).unwrap(),
        parameters.collect(),
    )
}

/// The extended error (RFC 8914) of a reply: its code and text.
pub(crate) fn extended_error(reply: &[u8]) -> Option<(u16, String)> {
    use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
    let message = Message::from_vec(reply).unwrap();
    match message.edns?.option(EdnsCode::Unknown(15))? {
        EdnsOption::Unknown(_, data) => {
            let code = u16::from_be_bytes([data[0], data[1]]);
            Some((code, String::from_utf8(data[2..].to_vec()).unwrap()))
        }
        _ => None,
    }
}
