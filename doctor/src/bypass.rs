//! Ways by which a workload may resolve names unobserved. None of them opens an address; they make
//! lookups that nothing is learned from.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Facts, Finding};

/// RFC 7858; RFC 9250 uses the same port over UDP.
pub const DNS_OVER_TLS: u16 = 853;

/// Nobody lists these as servers (RFC 5737, RFC 3849): who may reach them may reach anybody.
pub const ANYBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![second_resolver(facts)];
    findings.extend(
        facts
            .running
            .as_ref()
            .map(|running| encrypted(&running.open_to_encrypted_dns)),
    );
    findings
}

/// A server on this node that answers workloads, and is no known resolver.
fn second_resolver(facts: &Facts) -> Finding {
    const CODE: &str = "second-resolver";
    let Some(running) = &facts.running else {
        return Finding::note(
            CODE,
            "no agent runs here, so its known resolvers are not compared with the servers on port 53 of this node",
            "run it again beside the agent",
        );
    };
    let unknown: Vec<String> = facts
        .dns_sockets
        .iter()
        .filter(|socket| is_for_workloads(socket.ip()) && !running.resolvers.contains(socket))
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

/// A server that is bound to loopback answers this node alone. One that is bound to everything
/// answers on addresses that cannot be told from here.
fn is_for_workloads(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified()
}

/// Workloads that policy closes, and that may ask any server over TLS all the same. Nothing is
/// learned from what is answered there.
fn encrypted(open: &[String]) -> Finding {
    const CODE: &str = "encrypted-dns";
    match open.is_empty() {
        true => Finding::ok(
            CODE,
            "no workload that is closed for egress may speak DNS over TLS to anybody",
        ),
        false => Finding::note(
            CODE,
            format!(
                "port {DNS_OVER_TLS} of any address is open to {}: names that are resolved there are not seen, and open nothing",
                open.join(", ")
            ),
            format!("deny port {DNS_OVER_TLS} in a policy (`egressDeny` with `toPorts`)"),
        ),
    }
}
