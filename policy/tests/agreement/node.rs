//! What a node knows of a world.

use std::net::IpAddr;

use names::Name;
use oracle::world::{World, yaml};
use oracle::{Direction, Probe, Sender, Traffic, is_refused};
use policy::address::Teachable;
use policy::validate::Validation;
use policy::{AddressZone, Endpoint, Inventory, Policy, Protocol, document};
use serde_json::Value;

use crate::objects;

/// All that verdicts are made of.
pub(crate) struct Node<'a> {
    world: &'a World,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) policies: Vec<Policy>,
    pub(crate) inventory: Inventory,
    teachable: Teachable,
}

impl<'a> Node<'a> {
    /// The policies go through their YAML, as they come in files.
    pub(crate) fn new(world: &'a World) -> Result<Self, String> {
        let policies = world.objects.iter().filter(|object| objects::is_policy(object));
        Ok(Self {
            world,
            endpoints: objects::endpoints(world),
            policies: policies
                .filter_map(|object| validated(object).transpose())
                .collect::<Result<_, _>>()?,
            inventory: objects::inventory(world)?,
            teachable: objects::teachable(world),
        })
    }

    pub(crate) fn zone(&self, address: IpAddr) -> AddressZone {
        if self.world.is_host(address) {
            AddressZone::Host
        } else if self.world.is_inside(address) {
            AddressZone::Cluster
        } else {
            AddressZone::World
        }
    }

    /// The pod of the node that decides about a packet in a direction, and the address of the other
    /// end; `None` where no pod of the node is that end.
    pub(crate) fn end(&self, direction: Direction, probe: &Probe) -> Option<(&Endpoint, IpAddr)> {
        let sender = match &probe.from {
            Sender::Pod(namespace, name) => {
                let mut endpoints = self.endpoints.iter();
                endpoints.find(|it| it.id.namespace == *namespace && it.id.name == *name)
            }
            Sender::Address(_) => None,
        };
        match direction {
            Direction::Egress => Some((sender?, probe.to)),
            Direction::Ingress => {
                let mut endpoints = self.endpoints.iter();
                let receiver = endpoints.find(|endpoint| endpoint.addresses.contains(&probe.to))?;
                let source = match &probe.from {
                    Sender::Address(address) => *address,
                    Sender::Pod(..) => {
                        let mut own = sender?.addresses.iter().copied();
                        own.find(|address| address.is_ipv4() == probe.to.is_ipv4())?
                    }
                };
                Some((receiver, source))
            }
        }
    }

    /// The names that the address was learned for.
    pub(crate) fn names_of(&self, address: IpAddr) -> Vec<Name> {
        if self.teachable.judge(address).is_err() {
            return Vec::new();
        }
        let names = self.world.names.iter();
        let names = names.filter(|(_, addresses)| addresses.contains(&address));
        names
            .map(|(name, _)| Name::parse(name).expect("names are generated"))
            .collect()
    }
}

/// The policy, or what stands in for it where it is refused, as the interpreter says of the same
/// policies.
fn validated(object: &Value) -> Result<Option<Policy>, String> {
    let (documents, errors) = document::parse(&yaml(object));
    let [document] = documents.as_slice() else {
        return Err(format!("it is not one document: {errors:?}"));
    };
    let (verdict, diagnostics) = policy::validate::validate(document);
    match (verdict, is_refused(object)) {
        (Validation::Accepted(policy), false) => Ok(Some(policy)),
        (Validation::Refused(stand_in), true) => Ok(stand_in.policy),
        (Validation::Accepted(_), true) => Err("it is not refused".into()),
        (Validation::Refused(_), false) => Err(format!("it is refused: {diagnostics:#?}")),
    }
}

/// `None` for a protocol that no policy can name.
pub(crate) fn traffic(probe: &Probe) -> Option<(Protocol, u16)> {
    match probe.traffic {
        Traffic::Port(oracle::Protocol::Tcp, port) => Some((Protocol::Tcp, port)),
        Traffic::Port(oracle::Protocol::Udp, port) => Some((Protocol::Udp, port)),
        Traffic::Port(oracle::Protocol::Sctp, port) => Some((Protocol::Sctp, port)),
        Traffic::Icmp(kind) if probe.to.is_ipv4() => Some((Protocol::Icmp, kind.into())),
        Traffic::Icmp(kind) => Some((Protocol::Icmpv6, kind.into())),
        Traffic::Other => None,
    }
}
