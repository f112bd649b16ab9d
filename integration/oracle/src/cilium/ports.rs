//! Which traffic a rule speaks of.

use std::net::IpAddr;

use serde_json::Value;

use crate::announced;
use crate::flow::{Direction, Flow};
use crate::json::{list, text};
use crate::probe::{Protocol, Traffic};

use super::Side;
use super::peers;

/// `None` where the rule speaks of all traffic.
pub(super) fn matches(flow: Flow<'_>, rule: &Value, side: Side) -> Option<bool> {
    let (ports, icmps) = (list(rule, "toPorts"), list(rule, "icmps"));
    if !icmps.is_empty() {
        let mut fields = icmps.iter().flat_map(|entry| list(entry, "fields"));
        return Some(fields.any(|field| is_icmp(field, flow)));
    }
    if ports.is_empty() {
        return None;
    }
    Some(ports.iter().any(|entry| is_entry(flow, rule, entry, side)))
}

fn is_icmp(field: &Value, flow: Flow<'_>) -> bool {
    let Traffic::Icmp(kind) = flow.traffic else {
        return false;
    };
    let family = match flow.peer {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    };
    let number = match (&field["type"], family) {
        (Value::Number(number), _) => number.as_u64(),
        (Value::String(digits), _) if digits.parse::<u64>().is_ok() => digits.parse().ok(),
        // RFC 792 and RFC 4443, as Cilium spells them.
        (Value::String(name), "IPv4") => match name.as_str() {
            "EchoReply" => Some(0),
            "DestinationUnreachable" => Some(3),
            "EchoRequest" => Some(8),
            "Timestamp" => Some(13),
            other => panic!("the generators know no ICMP type {other}"),
        },
        (Value::String(name), _) => match name.as_str() {
            "DestinationUnreachable" => Some(1),
            "PacketTooBig" => Some(2),
            "EchoRequest" => Some(128),
            "EchoReply" => Some(129),
            other => panic!("the generators know no ICMPv6 type {other}"),
        },
        _ => None,
    };
    text(field, "family").unwrap_or("IPv4") == family && number == Some(kind.into())
}

/// Entries with DNS rules open nothing: lookups are intercepted. Those that ask for more than ports
/// open TCP, to connections that announce it.
fn is_entry(flow: Flow<'_>, rule: &Value, entry: &Value, side: Side) -> bool {
    let has_dns = !entry["rules"]["dns"].is_null();
    let ports = list(entry, "ports");
    match side {
        Side::Allow => !has_dns && !announced::asks(entry) && ports.iter().any(|port| is_port(flow, rule, port, side)),
        Side::AllowAnnounced => {
            let is_fulfilled = flow
                .announced
                .is_some_and(|announced| announced::fulfils(entry, announced));
            let is_tcp = matches!(flow.traffic, Traffic::Port(Protocol::Tcp, _));
            announced::asks(entry) && is_fulfilled && is_tcp && ports.iter().any(|port| is_port(flow, rule, port, side))
        }
        // A denial that lists no ports denies every one.
        Side::Deny => ports.is_empty() || ports.iter().any(|port| is_port(flow, rule, port, side)),
    }
}

fn is_port(flow: Flow<'_>, rule: &Value, written: &Value, side: Side) -> bool {
    // Protocols without ports are not enforced: nothing is opened for them, and their denial denies
    // everything.
    if text(written, "protocol").is_some_and(|name| WITHOUT_PORTS.contains(&name)) {
        return side == Side::Deny;
    }
    let Traffic::Port(protocol, port) = flow.traffic else {
        return false;
    };
    if !is_protocol(text(written, "protocol").unwrap_or("ANY"), protocol) {
        return false;
    }
    let text = text(written, "port").unwrap_or_default();
    match text.parse::<u16>() {
        Ok(0) => true,
        Ok(first) => {
            let last = written["endPort"]
                .as_u64()
                .filter(|last| *last != 0)
                .unwrap_or(first.into());
            first <= port && u64::from(port) <= last
        }
        Err(_) if flow.direction == Direction::Egress && peers::are_outside(rule) => match iana(text) {
            Some(number) => number == port,
            // A denial of a port that is not known denies every one.
            None => side == Side::Deny,
        },
        Err(_) => flow.receiver().is_some_and(|pod| pod.names_port(text, protocol, port)),
    }
}

const WITHOUT_PORTS: [&str; 7] = ["VRRP", "IGMP", "GRE", "IPIP", "IPV6", "ESP", "AH"];

fn is_protocol(written: &str, protocol: Protocol) -> bool {
    written.eq_ignore_ascii_case("ANY") || written.eq_ignore_ascii_case(protocol.as_str())
}

fn iana(name: &str) -> Option<u16> {
    match name.to_ascii_lowercase().as_str() {
        "http" => Some(80),
        "https" => Some(443),
        "domain" => Some(53),
        "http-alt" => Some(8080),
        _ => None,
    }
}
