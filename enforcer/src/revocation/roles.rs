//! What a flow is for, besides a Pod's own business.

use std::net::{IpAddr, SocketAddr};

use ahash::HashSet;
use policy::Protocol;

use crate::desired::DesiredState;

use super::Flow;

/// What a flow is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowRole {
    /// What a Pod, or somebody else, wants of a destination.
    Direct,
    /// A lookup that is intercepted, or that was sent to the proxy itself.
    Lookup,
    /// A connection that was handed over to be looked into.
    HandedOver,
    /// The connection that is made in the place of one that was handed over.
    Resumed,
}

/// Tells flows apart under one desired state.
#[derive(Debug)]
pub struct FlowRoles {
    resolvers: HashSet<SocketAddr>,
    listeners: HashSet<SocketAddr>,
}

impl FlowRoles {
    /// Those of this state, which is to be given to [`of`](Self::of) too.
    pub fn new(desired: &DesiredState) -> Self {
        Self {
            resolvers: desired.resolvers.iter().map(|binding| binding.asked).collect(),
            listeners: desired.resolvers.iter().map(|binding| binding.listener).collect(),
        }
    }

    /// What the flow is for.
    pub fn of(&self, desired: &DesiredState, flow: &Flow) -> FlowRole {
        if self.is_lookup(desired, flow) {
            return FlowRole::Lookup;
        }
        match &desired.handover {
            Some(_) if flow.protocol != Protocol::Tcp.number() => FlowRole::Direct,
            Some(handover) if flow.zone == handover.zone => FlowRole::Resumed,
            // Whatever the port: one may be that of an agent which another one has followed.
            Some(handover) if is_at(&handover.listeners, flow.destination.ip()) => FlowRole::HandedOver,
            _ => FlowRole::Direct,
        }
    }

    fn is_lookup(&self, desired: &DesiredState, flow: &Flow) -> bool {
        let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(Protocol::number);
        let is_listening = |own: &SocketAddr| {
            let is_own = own.ip() == flow.destination.ip()
                || own.ip().is_unspecified() && desired.host.contains(&flow.destination.ip());
            is_own && own.port() == flow.destination.port()
        };
        [udp, tcp].contains(&flow.protocol)
            && desired.intercepted.contains(&flow.source.ip())
            && (self.resolvers.contains(&flow.asked)
                || self.listeners.contains(&flow.destination)
                || desired.listening.iter().any(is_listening))
    }
}

fn is_at(listeners: &[SocketAddr], address: IpAddr) -> bool {
    listeners.iter().any(|listener| listener.ip() == address)
}
