//! Checks that the kernel's nftables has each feature that the ruleset uses. Each feature is tried:
//! a kernel's version does not tell how it was configured.

use settings::InterceptionMode;

use crate::{NodeFacts, NodeFinding};

/// A feature of nftables that the ruleset uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KernelFeature {
    /// Sets whose elements time out.
    Timeouts,
    /// Interval sets of concatenations (Linux 5.6).
    Concatenations,
    /// Maps from an address to a chain.
    VerdictMaps,
    /// Rules that match the state of connection tracking.
    Conntrack,
    /// Destination NAT through maps, for `--intercept dnat`.
    Dnat,
    /// Transparent proxying, for `--intercept tproxy`.
    Tproxy,
    /// Refusals by TCP resets and ICMP errors.
    Reject,
}

impl KernelFeature {
    /// Every feature, in the order in which they are tried.
    pub const ALL: [KernelFeature; 7] = [
        KernelFeature::Timeouts,
        KernelFeature::Concatenations,
        KernelFeature::VerdictMaps,
        KernelFeature::Conntrack,
        KernelFeature::Dnat,
        KernelFeature::Tproxy,
        KernelFeature::Reject,
    ];

    /// The body of a table that nft checks, without applying it.
    pub(crate) fn script(self) -> &'static str {
        match self {
            KernelFeature::Timeouts => {
                "set s { type ipv4_addr . inet_proto . inet_service; flags timeout; timeout 60s; size 100; }"
            }
            KernelFeature::Concatenations => {
                "set s { type ipv4_addr . inet_proto . inet_service; flags interval; \
                 elements = { 192.0.2.0/24 . tcp . 1-1024 }; }"
            }
            KernelFeature::VerdictMaps => {
                "chain c {
                 }
                 chain d {
                   type filter hook forward priority 0
                   ip saddr vmap { 192.0.2.1 : goto c }
                 }"
            }
            KernelFeature::Conntrack => {
                "chain c {
                   type filter hook forward priority 0
                   ct state established,related accept
                   meta l4proto { tcp, udp } ct original ip daddr . ct original proto-dst { 192.0.2.1 . 53 } accept
                 }"
            }
            KernelFeature::Dnat => {
                "chain c {
                   type nat hook prerouting priority -105
                   meta l4proto { tcp, udp } dnat ip to ip daddr . th dport map { 192.0.2.1 . 53 : 192.0.2.2 . 1053 }
                 }"
            }
            KernelFeature::Tproxy => {
                "chain c {
                   type filter hook prerouting priority -99
                   meta l4proto { tcp, udp } tproxy ip to :1053 accept
                 }"
            }
            KernelFeature::Reject => {
                "chain c {
                   type filter hook forward priority 0
                   meta l4proto tcp reject with tcp reset
                   reject with icmpx type admin-prohibited
                 }"
            }
        }
    }

    fn is_needed(self, interception: InterceptionMode) -> bool {
        match self {
            KernelFeature::Dnat => interception == InterceptionMode::Dnat,
            KernelFeature::Tproxy => interception == InterceptionMode::Tproxy,
            _ => true,
        }
    }

    /// The kernel's option, and the name of the module.
    fn origin(self) -> &'static str {
        match self {
            KernelFeature::Timeouts | KernelFeature::VerdictMaps => "CONFIG_NF_TABLES, module nf_tables",
            KernelFeature::Concatenations => "Linux 5.6 or later, CONFIG_NF_TABLES",
            KernelFeature::Conntrack => "CONFIG_NFT_CT, module nft_ct",
            KernelFeature::Dnat => "CONFIG_NFT_NAT, module nft_nat",
            KernelFeature::Tproxy => "CONFIG_NFT_TPROXY, module nft_tproxy",
            KernelFeature::Reject => "CONFIG_NFT_REJECT_INET, module nft_reject_inet",
        }
    }

    fn name(self) -> &'static str {
        match self {
            KernelFeature::Timeouts => "sets with timeouts",
            KernelFeature::Concatenations => "interval sets of concatenations",
            KernelFeature::VerdictMaps => "verdict maps",
            KernelFeature::Conntrack => "connection tracking",
            KernelFeature::Dnat => "destination NAT",
            KernelFeature::Tproxy => "transparent proxying",
            KernelFeature::Reject => "refusals",
        }
    }
}

pub(crate) fn examine(facts: &NodeFacts) -> Vec<NodeFinding> {
    const CODE: &str = "kernel-feature";
    let needed = facts
        .features
        .iter()
        .filter(|(feature, _)| feature.is_needed(facts.interception));
    let missing: Vec<NodeFinding> = needed
        .filter_map(|(feature, outcome)| {
            let complaint = outcome.as_ref().err()?;
            Some(NodeFinding::problem(
                CODE,
                format!("nftables cannot do {} here: {complaint}", feature.name()),
                format!("use a kernel with it: {}", feature.origin()),
            ))
        })
        .collect();
    match missing.is_empty() {
        true => vec![NodeFinding::ok(CODE, "nftables can do all that is needed")],
        false => missing,
    }
}
