//! Network namespaces: what `exec`, the demo and the lab build their networks from.
//!
//! Namespaces are anonymous (held by a file descriptor, never mounted under a name), so that the kernel removes them,
//! with every veth, address, route and nftables table in them, when the process ends, however it ends.

use std::ffi::OsStr;
use std::io;
use std::process::Command;

use ipnet::IpNet;

/// A network namespace, alive as long as this value or a process in it.
#[derive(Debug)]
pub struct Namespace {}

impl Namespace {
    /// A new namespace with `lo` up and nothing else. Needs CAP_SYS_ADMIN.
    pub fn new() -> io::Result<Self> {
        todo!()
    }

    /// The namespace of the calling thread.
    pub fn current() -> io::Result<Self> {
        todo!()
    }

    /// Runs `work` on a thread of its own inside the namespace, and waits for it. Sockets made there stay there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let _ = work;
        todo!()
    }

    /// A command whose process will run in the namespace.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let _ = program;
        todo!()
    }

    /// Joins two namespaces with a veth pair, both ends up.
    pub fn connect(&self, link: &str, peer: &Namespace, peer_link: &str) -> io::Result<()> {
        let _ = (link, peer, peer_link);
        todo!()
    }

    /// Adds an address to a link (without duplicate address detection for IPv6, so it is usable at once).
    pub fn add_address(&self, link: &str, address: IpNet) -> io::Result<()> {
        let _ = (link, address);
        todo!()
    }

    /// Adds a route; `via` a gateway, or directly on the link.
    pub fn add_route(&self, destination: IpNet, via: Option<std::net::IpAddr>, link: &str) -> io::Result<()> {
        let _ = (destination, via, link);
        todo!()
    }

    /// Adds a bridge, up; and enslaves links to it.
    pub fn add_bridge(&self, bridge: &str, ports: &[&str]) -> io::Result<()> {
        let _ = (bridge, ports);
        todo!()
    }

    /// Sets a sysctl under `/proc/sys/net/` inside the namespace, for example `ipv4/ip_forward`.
    pub fn set_sysctl(&self, key: &str, value: &str) -> io::Result<()> {
        let _ = (key, value);
        todo!()
    }
}
