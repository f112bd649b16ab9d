//! Examines the privileges of the process, and the sysctls of the kernel.

use settings::InterceptionMode;

use crate::{NodeFacts, NodeFinding};

/// The number of the capability in linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;

/// The share of the connection tracking table from which on it counts as full. New connections fail
/// at 100 %.
const CONNTRACK_FULL_PERCENT: u64 = 80;

pub(crate) fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    let mut findings = vec![privileges(facts), nft(facts)];
    findings.extend(forwarding(facts));
    findings.extend(bridges(facts));
    findings.extend(marks(facts));
    findings.extend(conntrack(facts));
    findings
}

fn privileges(facts: &NodeFacts) -> NodeFinding {
    const CODE: &str = "capabilities";
    match facts.capabilities & (1 << CAP_NET_ADMIN) {
        0 => NodeFinding::problem(
            CODE,
            "this process lacks CAP_NET_ADMIN, so nothing of the kernel can be read or set",
            "run it as root, or with `capabilities: {add: [NET_ADMIN]}`",
        ),
        _ => NodeFinding::ok(CODE, "CAP_NET_ADMIN is there"),
    }
}

fn nft(facts: &NodeFacts) -> NodeFinding {
    const CODE: &str = "nft";
    match &facts.nft {
        Ok(version) => NodeFinding::ok(CODE, format!("{version}, on Linux {}", facts.kernel)),
        Err(error) => NodeFinding::problem(
            CODE,
            format!("the program nft does not run: {error}"),
            "install the package nftables",
        ),
    }
}

fn forwarding(facts: &NodeFacts) -> Vec<NodeFinding> {
    const CODE: &str = "forwarding";
    let switches = [
        ("ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding"),
    ];
    let off = |(path, _): &(&str, &str)| facts.sysctls.get(*path).is_some_and(|value| value == "0");
    let findings: Vec<NodeFinding> = switches
        .iter()
        .filter(|switch| off(switch))
        .map(|(_, key)| {
            NodeFinding::note(
                CODE,
                format!("{key} is 0: this node passes no packets of that family on for its Pods"),
                format!("if it has such Pods: sysctl -w {key}=1"),
            )
        })
        .collect();
    match findings.is_empty() {
        true => vec![NodeFinding::ok(CODE, "the node forwards packets")],
        false => findings,
    }
}

/// Frames between the ports of a bridge pass the hooks of IP only where br_netfilter is switched
/// on.
fn bridges(facts: &NodeFacts) -> Vec<NodeFinding> {
    const CODE: &str = "bridge-netfilter";
    let shared: Vec<&str> = facts
        .bridges
        .iter()
        .filter(|(_, ports)| **ports > 1)
        .map(|(name, _)| name.as_str())
        .collect();
    if shared.is_empty() {
        return vec![NodeFinding::ok(CODE, "no bridge joins several workloads")];
    }
    let shared = shared.join(", ");
    let switch = |path: &str| facts.sysctls.get(path).map(String::as_str);
    let switches = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];
    if switches
        .iter()
        .any(|name| switch(&format!("bridge/{name}")) != Some("1"))
    {
        return vec![NodeFinding::problem(
            CODE,
            format!(
                "what goes between workloads of one bridge ({shared}) passes no rule of this node, lookups to a resolver \
                 on that bridge included"
            ),
            "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1",
        )];
    }
    if facts.interception == InterceptionMode::Tproxy {
        return vec![NodeFinding::problem(
            CODE,
            format!("tproxy does not work for workloads on a bridge ({shared}) whose frames pass the hooks of IP"),
            "use --intercept dnat",
        )];
    }
    vec![NodeFinding::ok(
        CODE,
        format!("what goes between workloads of one bridge ({shared}) passes the rules of this node"),
    )]
}

/// With `src_valid_mark` the reverse-path check uses the packet's mark. Marked packets are routed
/// to `lo`, so that the check drops them.
fn marks(facts: &NodeFacts) -> Option<NodeFinding> {
    const CODE: &str = "src-valid-mark";
    if facts.interception != InterceptionMode::Tproxy {
        return None;
    }
    let on: Vec<&str> = facts
        .sysctls
        .iter()
        .filter(|(path, value)| path.ends_with("/src_valid_mark") && *value == "1")
        .filter_map(|(path, _)| path.split('/').nth(2))
        .collect();
    Some(match on.is_empty() {
        true => NodeFinding::ok(CODE, "packet marks do not take part in the reverse-path check"),
        false => NodeFinding::problem(
            CODE,
            format!(
                "src_valid_mark is 1 on {}: intercepted lookups are dropped as spoofed",
                on.join(", ")
            ),
            "use --intercept dnat, or: ip rule add pref 99 iif lo fwmark MARK/MARK goto 32766",
        ),
    })
}

fn conntrack(facts: &NodeFacts) -> Option<NodeFinding> {
    const CODE: &str = "conntrack";
    let read = |name: &str| facts.sysctls.get(&format!("netfilter/{name}"))?.parse::<u64>().ok();
    let (used, limit) = (read("nf_conntrack_count")?, read("nf_conntrack_max")?);
    let found = format!("{used} of {limit} flows are tracked");
    Some(
        match used.saturating_mul(100) >= limit.saturating_mul(CONNTRACK_FULL_PERCENT) {
            true => NodeFinding::problem(
                CODE,
                format!("{found}: near the limit new connections are dropped, allowed ones too"),
                "sysctl -w net.netfilter.nf_conntrack_max=MORE",
            ),
            false => NodeFinding::ok(CODE, found),
        },
    )
}
