//! A packet.

use std::fmt;
use std::net::IpAddr;

/// A new connection, or a packet that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Who sends it.
    pub from: Sender,
    /// The destination.
    pub to: IpAddr,
    /// The protocol, with its port or message type.
    pub traffic: Traffic,
}

/// Who sends a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// A pod of the node, by its namespace and name, from its own address.
    Pod(String, String),
    /// Somebody else, from this address.
    Address(IpAddr),
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traffic {
    /// To a port.
    Port(Protocol, u16),
    /// ICMP or, to an IPv6 address, ICMPv6 of a type.
    Icmp(u8),
    /// A protocol that no policy can name, GRE for example.
    Other,
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// As policies write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.from {
            Sender::Pod(namespace, name) => write!(f, "{namespace}/{name} to {}, ", self.to)?,
            Sender::Address(address) => write!(f, "{address} to {}, ", self.to)?,
        }
        match self.traffic {
            Traffic::Port(protocol, port) => write!(f, "{} {port}", protocol.as_str()),
            Traffic::Icmp(kind) if self.to.is_ipv4() => write!(f, "ICMP type {kind}"),
            Traffic::Icmp(kind) => write!(f, "ICMPv6 type {kind}"),
            Traffic::Other => f.write_str("GRE"),
        }
    }
}
