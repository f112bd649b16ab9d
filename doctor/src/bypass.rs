//! Finds ways by which workloads can resolve names unobserved. None of them opens an address:
//! nothing is learned from such lookups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use policy::encrypted_dns::TLS_PORT;

use crate::{NodeFacts, NodeFinding, OpenProviders};

/// Addresses that no policy names as a server (RFC 5737, RFC 3849): a workload that may reach them
/// may reach any address.
pub const DOCUMENTATION_ADDRESSES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

pub(crate) fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    let mut findings = vec![second_resolver(facts)];
    findings.extend(
        facts
            .running
            .as_ref()
            .map(|running| encrypted(&running.open_to_encrypted_dns)),
    );
    findings.extend(facts.running.as_ref().map(|running| providers(&running.open_providers)));
    findings
}

/// Looks for servers on port 53 of this node that workloads can reach and that are no known
/// resolvers.
fn second_resolver(facts: &NodeFacts) -> NodeFinding {
    const CODE: &str = "second-resolver";
    let Some(running) = &facts.running else {
        return NodeFinding::note(
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
        true => NodeFinding::ok(
            CODE,
            "every server on port 53 that workloads can reach here is a known resolver",
        ),
        false => NodeFinding::note(
            CODE,
            format!(
                "something answers on {}, which is no known resolver: lookups there are ordinary egress, and open nothing",
                unknown.join(", ")
            ),
            "if workloads are to use it, name it with --upstream or in a policy's DNS rule",
        ),
    }
}

/// A server on loopback answers this node alone. A server on the unspecified address answers on
/// addresses that are not known here.
fn is_for_workloads(address: IpAddr) -> bool {
    !address.is_loopback() && !address.is_unspecified()
}

/// Reports workloads that are closed for egress and may still ask any server over TLS, where
/// nothing is learned from the answers.
fn encrypted(open: &[String]) -> NodeFinding {
    const CODE: &str = "encrypted-dns";
    match open.is_empty() {
        true => NodeFinding::ok(
            CODE,
            "no workload that is closed for egress may speak DNS over TLS to anybody",
        ),
        false => NodeFinding::note(
            CODE,
            format!(
                "port {TLS_PORT} of any address is open to {}: names that are resolved there are not seen, and open nothing",
                open.join(", ")
            ),
            format!("deny port {TLS_PORT} in a policy (`egressDeny` with `toPorts`)"),
        ),
    }
}

/// Workloads that policy closes, and that may reach public servers of encrypted DNS.
fn providers(open: &[OpenProviders]) -> NodeFinding {
    const CODE: &str = "encrypted-dns-servers";
    if open.is_empty() {
        return NodeFinding::ok(
            CODE,
            "no workload that is closed for egress may reach a known server of encrypted DNS",
        );
    }
    let told = |open: &OpenProviders| format!("{} ({})", open.endpoint, open.providers.join(", "));
    let told: Vec<String> = open.iter().map(told).collect();
    NodeFinding::note(
        CODE,
        format!(
            "known servers of encrypted DNS are open to {}: names that are resolved there are not seen, and open nothing",
            told.join("; ")
        ),
        "see the finding encrypted-dns-open of `namegate check`",
    )
}
