//! A packet as one of its ends sees it.

use std::net::IpAddr;

use crate::announced::Announced;
use crate::probe::Traffic;
use crate::world::{Pod, World};

/// Which end decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The sender, about what it may reach.
    Egress,
    /// The receiver, about who may reach it.
    Ingress,
}

impl Direction {
    pub(crate) const BOTH: [Direction; 2] = [Direction::Egress, Direction::Ingress];

    /// As the lists of rules are named.
    pub(crate) fn field(self) -> &'static str {
        match self {
            Direction::Egress => "egress",
            Direction::Ingress => "ingress",
        }
    }

    /// The list of denials in Cilium's kinds.
    pub(crate) fn deny_field(self) -> &'static str {
        match self {
            Direction::Egress => "egressDeny",
            Direction::Ingress => "ingressDeny",
        }
    }

    /// The list of peers in the other kinds.
    pub(crate) fn peers_field(self) -> &'static str {
        match self {
            Direction::Egress => "to",
            Direction::Ingress => "from",
        }
    }
}

/// A packet, as policies that select one of its ends speak of it.
#[derive(Clone, Copy)]
pub(crate) struct Flow<'a> {
    pub(crate) world: &'a World,
    pub(crate) direction: Direction,
    /// The pod that policies select.
    pub(crate) subject: Pod<'a>,
    /// The address of the other end.
    pub(crate) peer: IpAddr,
    pub(crate) traffic: Traffic,
    /// What the connection announces, where somebody looks into it.
    pub(crate) announced: Option<&'a Announced>,
}

impl<'a> Flow<'a> {
    /// The pod that the packet is for, whose ports are meant.
    pub(crate) fn receiver(&self) -> Option<Pod<'a>> {
        match self.direction {
            Direction::Egress => self.world.pod_at(self.peer),
            Direction::Ingress => Some(self.subject),
        }
    }
}
