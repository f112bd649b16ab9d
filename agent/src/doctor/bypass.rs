//! Ways by which a workload may resolve names unobserved. None of them opens an address; they make lookups that nothing is learned from.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use super::{Facts, Finding};

/// RFC 7858; RFC 9250 uses the same port over UDP.
const DNS_OVER_TLS: u64 = 853;

/// Prefixes that are at most so long, and allowed with port 853, are more than a list of servers.
const WIDE: u64 = 16;

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![second_resolver(facts)];
    if let Ok(ruleset) = &facts.ruleset {
        findings.extend(encrypted(ruleset, &facts.table));
    }
    findings
}

/// A server on this node that answers workloads, and is no known resolver.
fn second_resolver(facts: &Facts) -> Finding {
    const CODE: &str = "second-resolver";
    let Some(known) = &facts.known_resolvers else {
        return Finding::note(
            CODE,
            "no agent runs here, so its known resolvers are not compared with the servers on port 53 of this node",
            "run it again beside the agent",
        );
    };
    let unknown: Vec<String> = facts
        .dns_sockets
        .iter()
        .filter(|socket| is_for_workloads(socket.ip()) && !known.contains(socket))
        .map(SocketAddr::to_string)
        .collect();
    match unknown.is_empty() {
        true => Finding::ok(
            CODE,
            "every server on port 53 that workloads can reach here is a known resolver",
        ),
        false => Finding::note(
            CODE,
            format!(
                "something answers on {}, which is no known resolver: lookups there are ordinary egress, and open nothing",
                unknown.join(", ")
            ),
            "if workloads are to use it, name it with --upstream or in a policy's DNS rule",
        ),
    }
}

/// A server that is bound to loopback answers this node alone. One that is bound to everything answers on addresses that
/// cannot be told from here.
fn is_for_workloads(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified()
}

/// Programs that let workloads reach DNS over TLS on many servers.
fn encrypted(ruleset: &Value, table: &str) -> Option<Finding> {
    const CODE: &str = "encrypted-dns";
    let objects = || ruleset["nftables"].as_array().into_iter().flatten();
    if !objects().any(|object| object["table"]["family"] == "inet" && object["table"]["name"] == table) {
        return None;
    }
    let open: BTreeSet<&str> = objects()
        .filter_map(|object| object.get("rule"))
        .filter(|rule| rule["family"] == "inet" && rule["table"] == table)
        .filter_map(|rule| Some((rule["chain"].as_str()?, rule["expr"].as_array()?)))
        .filter(|(chain, _)| chain.starts_with("ep4-") || chain.starts_with("ep6-"))
        .filter(|(_, statements)| statements.iter().any(|statement| statement.get("accept").is_some()))
        .filter(|(_, statements)| {
            let conditions: Vec<&Value> = statements
                .iter()
                .filter_map(|statement| statement.get("match"))
                .collect();
            conditions
                .iter()
                .any(|condition| lets_through(condition, ruleset, table))
        })
        .map(|(chain, _)| chain)
        .collect();
    let programs: BTreeSet<&str> = open.iter().filter_map(|chain| chain.get("ep4-".len()..)).collect();
    Some(match programs.is_empty() {
        true => Finding::ok(CODE, "no program opens DNS over TLS on whole ranges"),
        false => Finding::note(
            CODE,
            format!(
                "programs that open port 853 on whole ranges: {}; names that are resolved over TLS are not seen, and open nothing",
                programs.into_iter().collect::<Vec<_>>().join(", ")
            ),
            "deny port 853 in a policy (`egressDeny` with `toPorts`); `namegate status` tells which endpoints have which program",
        ),
    })
}

/// Whether a condition of an allowing rule lets through port 853 of a wide range.
fn lets_through(condition: &Value, ruleset: &Value, table: &str) -> bool {
    elements(&condition["right"], ruleset, table).any(|element| match element["concat"].as_array() {
        // address . protocol . port
        Some(parts) => parts.len() == 3 && is_wide(&parts[0]) && holds(&parts[2], DNS_OVER_TLS),
        None => is_wide(element),
    })
}

/// What stands in a set, named or not.
fn elements<'a>(set: &'a Value, ruleset: &'a Value, table: &str) -> impl Iterator<Item = &'a Value> {
    let named = set.as_str().and_then(|name| name.strip_prefix('@')).and_then(|name| {
        let objects = ruleset["nftables"].as_array()?.iter();
        let mut sets = objects.filter_map(|object| object.get("set"));
        sets.find(|set| set["family"] == "inet" && set["table"] == table && set["name"] == name)?
            .get("elem")
    });
    let elements = named.or_else(|| set.get("set")).and_then(Value::as_array);
    elements.into_iter().flatten()
}

fn is_wide(address: &Value) -> bool {
    let wide_prefix = address["prefix"]["len"].as_u64().is_some_and(|length| length <= WIDE);
    // Neighbouring prefixes are joined to a range.
    wide_prefix || address["range"].is_array() || *address == "0.0.0.0/0" || *address == "::/0"
}

fn holds(ports: &Value, port: u64) -> bool {
    match ports["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => first.as_u64() <= Some(port) && Some(port) <= last.as_u64(),
        _ => ports.as_u64() == Some(port),
    }
}
