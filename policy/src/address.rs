//! Addresses that a *name* may never open (design.md, "Who may teach us addresses").

use std::net::IpAddr;

use ipnet::IpNet;

/// Why an address that a name resolved to is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unteachable {
    /// 127.0.0.0/8, ::1, and their IPv4-mapped forms.
    Loopback,
    /// 169.254.0.0/16 and fe80::/10: the metadata services live here.
    LinkLocal,
    /// Multicast and broadcast.
    Multicast,
    /// 0.0.0.0/8 and ::.
    Unspecified,
    /// An address of this node, or of a pod or service of the cluster.
    Cluster,
}

/// Which addresses names may open.
#[derive(Debug, Clone, Default)]
pub struct Teachable {
    /// Ranges that the configuration exempts from every refusal (`--allow-rebind`).
    pub exempt: Vec<IpNet>,
    /// The node's own, pod and service addresses and ranges.
    pub cluster: Vec<IpNet>,
}

impl Teachable {
    /// `Ok` when a name may open `address`.
    ///
    /// IPv4-mapped and IPv4-compatible IPv6 addresses, NAT64 (64:ff9b::/96) and 6to4 are judged by the IPv4
    /// address inside them as well: a pod must not reach metadata by another spelling.
    pub fn judge(&self, address: IpAddr) -> Result<(), Unteachable> {
        let _ = address;
        todo!()
    }
}
