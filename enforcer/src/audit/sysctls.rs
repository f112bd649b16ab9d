//! Sysctls that the ruleset relies on. Pure.
//!
//! Most of them are set by the node's owner or the network plugin. So their values at the beginning
//! are how the node is meant to be, and only later changes are reported. One is set back: the
//! sysctl without which the proxy loses its own address.

use std::collections::{BTreeMap, BTreeSet};

use super::{Damage, DamageKind};

/// IPv6 on `lo`, below `/proc/sys/net`. Without it `lo` has no IPv6 address for lookups to be sent
/// to.
pub(crate) const LOOPBACK_IPV6: &str = "ipv6/conf/lo/disable_ipv6";
/// The reverse-path check of all links; the stricter of this and the link's own counts.
const REVERSE_PATH_OF_ALL: &str = "ipv4/conf/all/rp_filter";

/// The sysctls that must not be 0, with what it means when they are.
const NOT_ZERO: [(&str, &str); 4] = [
    ("ipv4/ip_forward", "this node passes no IPv4 packets of its Pods on"),
    (
        "ipv6/conf/all/forwarding",
        "this node passes no IPv6 packets of its Pods on",
    ),
    (
        "bridge/bridge-nf-call-iptables",
        "IPv4 between Pods of one bridge passes no rule",
    ),
    (
        "bridge/bridge-nf-call-ip6tables",
        "IPv6 between Pods of one bridge passes no rule",
    ),
];

/// What is known of the sysctls so far.
#[derive(Debug, Default)]
pub(crate) struct Sysctls {
    /// The paths of [`NOT_ZERO`] that were not 0 at some time.
    relied_on: BTreeSet<&'static str>,
    /// The links whose reverse-path check was on at some time.
    strict: BTreeSet<String>,
}

/// The file of a link's reverse-path check, below `/proc/sys/net`.
pub(crate) fn reverse_path(link: &str) -> String {
    format!("ipv4/conf/{link}/rp_filter")
}

/// The files to be read, below `/proc/sys/net`, without those of links.
pub(crate) fn paths() -> impl Iterator<Item = &'static str> {
    let not_zero = NOT_ZERO.iter().map(|(path, _)| *path);
    not_zero.chain([REVERSE_PATH_OF_ALL, LOOPBACK_IPV6])
}

/// Those among [`paths`] whose changes the kernel does not notify of (`RTNLGRP_IPV4_NETCONF`,
/// `RTNLGRP_IPV6_NETCONF`).
pub(crate) const WITHOUT_NOTIFICATION: [&str; 3] = [
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    LOOPBACK_IPV6,
];

/// Whether IPv6 was switched off on `lo`.
pub(crate) fn is_loopback_without_ipv6(values: &BTreeMap<String, String>) -> bool {
    values.get(LOOPBACK_IPV6).is_some_and(|value| value == "1")
}

impl Sysctls {
    /// The changes since the beginning that are the owner's to set back. `values` are by path,
    /// without the line's end; `links` are those that lead to governed pods.
    pub(crate) fn changed(&mut self, values: &BTreeMap<String, String>, links: &[String]) -> Vec<Damage> {
        let number = |path: &str| values.get(path).and_then(|value| value.parse::<u32>().ok());
        let mut changed = Vec::new();
        for (path, meaning) in NOT_ZERO {
            match number(path) {
                Some(0) if self.relied_on.contains(path) => changed.push(told(path, meaning)),
                Some(0) | None => {}
                Some(_) => drop(self.relied_on.insert(path)),
            }
        }
        let of_all = number(REVERSE_PATH_OF_ALL).unwrap_or(0);
        self.strict.retain(|link| links.contains(link));
        for link in links {
            let path = reverse_path(link);
            let Some(own) = number(&path) else { continue };
            match own.max(of_all) {
                0 if self.strict.contains(link) => changed.push(told(&path, "a Pod may send as another Pod")),
                0 => {}
                _ => drop(self.strict.insert(link.clone())),
            }
        }
        changed
    }
}

fn told(path: &str, meaning: &str) -> Damage {
    let key = path.replace('/', ".");
    Damage::new(DamageKind::Sysctl, format!("net.{key} was set to 0: {meaning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(sysctls: &mut Sysctls, values: &[(&str, &str)], links: &[&str]) -> Vec<String> {
        let values = values.iter().map(|(path, value)| (path.to_string(), value.to_string()));
        let links: Vec<String> = links.iter().map(ToString::to_string).collect();
        let changed = sysctls.changed(&values.collect(), &links).into_iter();
        changed.map(|damage| damage.what).collect()
    }

    #[test]
    fn what_was_off_from_the_beginning_is_how_the_node_is_meant_to_be() {
        let mut sysctls = Sysctls::default();
        let off = [
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/veth0/rp_filter", "0"),
        ];
        assert_eq!(changed(&mut sysctls, &off, &["veth0"]), [""; 0]);
        let on = [
            ("ipv4/ip_forward", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/veth0/rp_filter", "1"),
        ];
        assert_eq!(changed(&mut sysctls, &on, &["veth0"]), [""; 0]);
        assert_eq!(
            changed(&mut sysctls, &off, &["veth0"]),
            [
                "net.ipv4.ip_forward was set to 0: this node passes no IPv4 packets of its Pods on",
                "net.ipv4.conf.veth0.rp_filter was set to 0: a Pod may send as another Pod",
            ]
        );
        assert_eq!(changed(&mut sysctls, &on, &["veth0"]), [""; 0]);
    }

    #[test]
    fn the_stricter_of_all_links_and_of_one_counts_and_a_link_that_went_is_forgotten() {
        let mut sysctls = Sysctls::default();
        let strict = [("ipv4/conf/all/rp_filter", "2"), ("ipv4/conf/veth0/rp_filter", "0")];
        assert_eq!(changed(&mut sysctls, &strict, &["veth0"]), [""; 0]);
        let lax = [("ipv4/conf/all/rp_filter", "0"), ("ipv4/conf/veth0/rp_filter", "0")];
        assert_eq!(changed(&mut sysctls, &lax, &["veth0"]).len(), 1);
        assert_eq!(changed(&mut sysctls, &lax, &[]), [""; 0]);
        assert_eq!(
            changed(&mut sysctls, &lax, &["veth0"]),
            [""; 0],
            "another link of that name"
        );
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        let mut sysctls = Sysctls::default();
        let on = [("ipv4/ip_forward", "1")];
        assert_eq!(changed(&mut sysctls, &on, &["veth0"]), [""; 0]);
        assert_eq!(changed(&mut sysctls, &[], &["veth0"]), [""; 0]);
        assert_eq!(changed(&mut sysctls, &[("ipv4/ip_forward", "x")], &[]), [""; 0]);
    }
}
