//! Which rules decide about one connection: for who looks into those of [`SetClass::Inspect`].

use std::net::IpAddr;

use names::Name;
use smallvec::SmallVec;

use super::{Classifier, RuleIndex, SetClass};
use crate::inventory::Inventory;
use crate::ports::{PortSet, Protocol};
use crate::program::{Peer, Verdict};
use crate::zone::AddressZone;

/// The other end of a connection over TCP.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionPeer<'a> {
    /// Its address.
    pub address: IpAddr,
    /// Where the address lies.
    pub zone: AddressZone,
    /// The receiver's port.
    pub port: u16,
    /// The names that hold the address now.
    pub names: &'a [Name],
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionClass {
    /// It passes, whatever it announces.
    Allowed,
    /// It is refused, whatever it announces.
    Denied,
    /// It passes if it announces what one of these rules asks. In order, and not empty.
    Inspected(SmallVec<[RuleIndex; 2]>),
}

impl Classifier {
    /// Goes through the rules for one connection. The cost grows with the number of rules about
    /// names and objects, so it is for connections that are handed over and for no packet.
    ///
    /// It says what [`verdict`](Self::verdict) says of the entries of the same names and objects.
    pub fn connection(&self, peer: ConnectionPeer<'_>, inventory: &Inventory) -> ConnectionClass {
        let traffic = (Protocol::Tcp, peer.port);
        let span = self.span(peer.address, peer.zone);
        let by_prefix = span.into_iter().flat_map(|span| span.rules.iter().copied());
        let by_prefix = by_prefix.map(|index| (index, self.list.rules[index].ports.clone()));
        let others = self.list.rules.iter().enumerate().filter_map(|(index, rule)| {
            let ports = match &rule.peer {
                Peer::Prefix(..) => return None,
                Peer::Name(pattern) => {
                    let mut names = peer.names.iter();
                    names.any(|name| pattern.matches(name)).then(|| rule.ports.clone())?
                }
                Peer::PodsWithin(..) | Peer::Object(_) => inventory.ports_at(rule, peer.address),
            };
            (!ports.is_empty()).then_some((index, ports))
        });
        let mut matching: SmallVec<[(RuleIndex, PortSet); 8]> = by_prefix.chain(others).collect();
        matching.retain(|(_, ports)| ports.contains(traffic.0, traffic.1));
        matching.sort_unstable_by_key(|(index, _)| *index);
        let decided = self
            .list
            .evaluate(matching.iter().map(|(index, ports)| (*index, ports)));
        match decided.at(Some(traffic)).class() {
            SetClass::Inspect => {
                let through = matching
                    .iter()
                    .filter(|(index, _)| self.list.rules[*index].through.is_some());
                ConnectionClass::Inspected(through.map(|(index, _)| *index).collect())
            }
            class if class.verdict() == Verdict::Allow => ConnectionClass::Allowed,
            _ => ConnectionClass::Denied,
        }
    }
}
