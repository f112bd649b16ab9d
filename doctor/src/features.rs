//! What the kernel's nftables must be able to do. Each feature is tried, because version numbers do
//! not tell.

use settings::InterceptionMode;

use super::{Facts, Finding};

/// Something that the ruleset is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Sets whose elements lapse.
    Timeouts,
    /// Interval sets of concatenations (Linux 5.6).
    Concatenations,
    /// From address to chain.
    VerdictMaps,
    /// Connection tracking in rules.
    Conntrack,
    /// Destination NAT through maps, for `--intercept dnat`.
    Dnat,
    /// Transparent proxying, for `--intercept tproxy`.
    Tproxy,
    /// Resets and ICMP errors.
    Reject,
}

impl Feature {
    /// All of them.
    pub const ALL: [Feature; 7] = [
        Feature::Timeouts,
        Feature::Concatenations,
        Feature::VerdictMaps,
        Feature::Conntrack,
        Feature::Dnat,
        Feature::Tproxy,
        Feature::Reject,
    ];

    /// What nft is asked to check, without applying it: the body of a table.
    pub(super) fn script(self) -> &'static str {
        match self {
            Feature::Timeouts => {
                "set s { type ipv4_addr . inet_proto . inet_service; flags timeout; timeout 60s; size 100; }"
            }
            Feature::Concatenations => {
                "set s { type ipv4_addr . inet_proto . inet_service; flags interval; \
                 elements = { 192.0.2.0/24 . tcp . 1-1024 }; }"
            }
            Feature::VerdictMaps => {
                "chain c {
                 }
                 chain d {
                   type filter hook forward priority 0
                   ip saddr vmap { 192.0.2.1 : goto c }
                 }"
            }
            Feature::Conntrack => {
                "chain c {
                   type filter hook forward priority 0
                   ct state established,related accept
                   meta l4proto { tcp, udp } ct original ip daddr . ct original proto-dst { 192.0.2.1 . 53 } accept
                 }"
            }
            Feature::Dnat => {
                "chain c {
                   type nat hook prerouting priority -105
                   meta l4proto { tcp, udp } dnat ip to ip daddr . th dport map { 192.0.2.1 . 53 : 192.0.2.2 . 1053 }
                 }"
            }
            Feature::Tproxy => {
                "chain c {
                   type filter hook prerouting priority -99
                   meta l4proto { tcp, udp } tproxy ip to :1053 accept
                 }"
            }
            Feature::Reject => {
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
            Feature::Dnat => interception == InterceptionMode::Dnat,
            Feature::Tproxy => interception == InterceptionMode::Tproxy,
            _ => true,
        }
    }

    /// The kernel's option, and the module where it is one.
    fn origin(self) -> &'static str {
        match self {
            Feature::Timeouts | Feature::VerdictMaps => "CONFIG_NF_TABLES, module nf_tables",
            Feature::Concatenations => "Linux 5.6 or later, CONFIG_NF_TABLES",
            Feature::Conntrack => "CONFIG_NFT_CT, module nft_ct",
            Feature::Dnat => "CONFIG_NFT_NAT, module nft_nat",
            Feature::Tproxy => "CONFIG_NFT_TPROXY, module nft_tproxy",
            Feature::Reject => "CONFIG_NFT_REJECT_INET, module nft_reject_inet",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Feature::Timeouts => "sets with timeouts",
            Feature::Concatenations => "interval sets of concatenations",
            Feature::VerdictMaps => "verdict maps",
            Feature::Conntrack => "connection tracking",
            Feature::Dnat => "destination NAT",
            Feature::Tproxy => "transparent proxying",
            Feature::Reject => "refusals",
        }
    }
}

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    const CODE: &str = "kernel-feature";
    let needed = facts
        .features
        .iter()
        .filter(|(feature, _)| feature.is_needed(facts.interception));
    let missing: Vec<Finding> = needed
        .filter_map(|(feature, outcome)| {
            let complaint = outcome.as_ref().err()?;
            Some(Finding::problem(
                CODE,
                format!("nftables cannot do {} here: {complaint}", feature.name()),
                format!("use a kernel with it: {}", feature.origin()),
            ))
        })
        .collect();
    match missing.is_empty() {
        true => vec![Finding::ok(CODE, "nftables can do all that is needed")],
        false => missing,
    }
}
