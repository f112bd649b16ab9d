//! A packet's verdict by the compiled program, with the doors that a node would open.

use std::collections::BTreeMap;
use std::net::IpAddr;

use oracle::world::{World, yaml};
use oracle::{Policies, Probe, Traffic, Verdict};
use policy::address::Teachable;
use policy::compile::compile;
use policy::document;
use policy::fold::{At, Door, Fold, Place};
use policy::{Endpoint, Inventory, Name, Policy, Protocol, Tiers};

use crate::objects;

/// All that a node makes of a world.
pub(crate) struct Compiled<'a> {
    world: &'a World,
    inventory: Inventory,
    teachable: Teachable,
    /// By namespace and name of the pod; nothing for one that no policy selects.
    programs: BTreeMap<(String, String), Option<Folds>>,
}

struct Folds {
    enforced: Fold,
    all: Fold,
}

impl<'a> Compiled<'a> {
    /// The objects go through their YAML, as they come in files.
    pub(crate) fn new(world: &'a World) -> Result<Self, String> {
        let mut policies = Vec::new();
        for object in &world.objects {
            if objects::is_policy(object) {
                policies.push(validated(&yaml(object))?);
            }
        }
        let inventory = objects::inventory(world)?;
        let endpoints = objects::endpoints(world);
        let programs = endpoints.iter().map(|endpoint| {
            let key = (endpoint.id.namespace.clone(), endpoint.id.name.clone());
            (key, folds(endpoint, &policies, &inventory))
        });
        let programs = programs.collect();
        Ok(Self {
            world,
            programs,
            inventory,
            teachable: objects::teachable(world),
        })
    }

    pub(crate) fn verdict(&self, probe: &Probe, policies: Policies) -> Verdict {
        let key = (probe.namespace.clone(), probe.pod.clone());
        let Some(folds) = &self.programs[&key] else {
            return Verdict::Allow;
        };
        let fold = match policies {
            Policies::Enforced => &folds.enforced,
            Policies::All => &folds.all,
        };
        let place = self.place(probe.to);
        let doors = self.doors(fold, probe.to, place);
        match fold.verdict(probe.to, place, doors.iter(), traffic(probe)) {
            policy::Verdict::Allow => Verdict::Allow,
            policy::Verdict::Deny => Verdict::Deny,
        }
    }

    fn place(&self, address: IpAddr) -> Place {
        if self.world.is_host(address) {
            Place::Host
        } else if self.world.is_inside(address) {
            Place::Cluster
        } else {
            Place::World
        }
    }

    /// Those of each name that the address was learned for, and those of the objects that have it.
    fn doors(&self, fold: &Fold, address: IpAddr, place: Place) -> Vec<Door> {
        let objects: Vec<_> = fold
            .objects()
            .filter_map(|(index, rule)| Some((index, self.inventory.members(rule).remove(&address)?)))
            .collect();
        let at = At {
            address,
            place,
            objects: &objects,
        };
        let mut doors = Vec::new();
        if self.teachable.judge(address).is_ok() {
            let learned = self
                .world
                .names
                .iter()
                .filter(|(_, addresses)| addresses.contains(&address));
            for (name, _) in learned {
                let name = Name::parse(name).expect("names are generated");
                let matching = fold.names().filter(|(_, pattern)| pattern.matches(&name));
                doors.extend(matching.flat_map(|(index, _)| fold.learned(index, at)));
            }
        }
        if !objects.is_empty() {
            doors.extend(fold.member(at));
        }
        doors
    }
}

fn validated(text: &str) -> Result<Policy, String> {
    let (documents, errors) = document::parse(text);
    let [document] = documents.as_slice() else {
        return Err(format!("it is not one document: {errors:?}"));
    };
    let (verdict, diagnostics) = policy::validate::validate(document);
    verdict
        .accepted()
        .ok_or_else(|| format!("it is refused: {diagnostics:#?}"))
}

fn folds(endpoint: &Endpoint, policies: &[Policy], inventory: &Inventory) -> Option<Folds> {
    let program = compile(endpoint, policies, inventory)?;
    let all: &Tiers = program.audited.as_ref().unwrap_or(&program.enforced);
    Some(Folds {
        enforced: Fold::new(&program.enforced),
        all: Fold::new(all),
    })
}

fn traffic(probe: &Probe) -> Option<(Protocol, u16)> {
    match probe.traffic {
        Traffic::Port(oracle::Protocol::Tcp, port) => Some((Protocol::Tcp, port)),
        Traffic::Port(oracle::Protocol::Udp, port) => Some((Protocol::Udp, port)),
        Traffic::Port(oracle::Protocol::Sctp, port) => Some((Protocol::Sctp, port)),
        Traffic::Icmp(kind) if probe.to.is_ipv4() => Some((Protocol::Icmp, kind.into())),
        Traffic::Icmp(kind) => Some((Protocol::Icmpv6, kind.into())),
        Traffic::Other => None,
    }
}
