//! A packet's verdict by the compiled program, with the entries that a node would add.

use std::collections::BTreeMap;
use std::net::IpAddr;

use names::Name;
use oracle::{Announced, Direction, Policies, Probe, Verdict};
use policy::classifier::{AddressContext, Classifier, ClassifierEntry, ConnectionClass, ConnectionPeer};
use policy::compile::compile;
use policy::l7::{Announcement, HttpRequest, L7Rules};
use policy::{AddressZone, EndpointId, PerDirection, Program, Tiers};

use crate::node::{Node, traffic};

/// The programs of a node's pods.
pub(crate) struct Compiled<'a> {
    node: &'a Node<'a>,
    /// By pod and direction; nothing for one that no policy selects.
    programs: BTreeMap<EndpointId, PerDirection<Option<Classifiers>>>,
}

struct Classifiers {
    enforced: Classifier,
    all: Classifier,
}

impl<'a> Compiled<'a> {
    pub(crate) fn new(node: &'a Node<'a>) -> Self {
        let programs = node.endpoints.iter().map(|endpoint| {
            let programs = compile(endpoint, &node.policies, &node.inventory).map(|governed| governed.programs);
            let programs = programs.unwrap_or_default();
            let of = |_, program: Option<Program>| program.as_ref().map(classifiers);
            (endpoint.id.clone(), programs.map(of))
        });
        let programs = programs.collect();
        Self { node, programs }
    }

    /// `None` where no pod of the node is that end.
    pub(crate) fn verdict(&self, direction: Direction, probe: &Probe, policies: Policies) -> Option<Verdict> {
        let (endpoint, peer) = self.node.end(direction, probe)?;
        let Some(classifier) = self.classifier(&endpoint.id, direction, policies) else {
            return Some(Verdict::Allow);
        };
        let zone = self.node.zone(peer);
        let entries = self.entries(classifier, peer, zone);
        Some(match classifier.verdict(peer, zone, entries.iter(), traffic(probe)) {
            policy::Verdict::Allow => Verdict::Allow,
            // Connections are not looked into yet.
            policy::Verdict::Deny | policy::Verdict::Inspect => Verdict::Deny,
        })
    }

    /// The same of a connection that somebody looks into, and that announces this.
    pub(crate) fn verdict_announced(
        &self,
        direction: Direction,
        probe: &Probe,
        policies: Policies,
        announced: &Announced,
    ) -> Option<Verdict> {
        let (endpoint, address) = self.node.end(direction, probe)?;
        let Some((policy::Protocol::Tcp, port)) = traffic(probe) else {
            return self.verdict(direction, probe, policies);
        };
        let Some(classifier) = self.classifier(&endpoint.id, direction, policies) else {
            return Some(Verdict::Allow);
        };
        let names: Vec<Name> = self.node.names_of(address).into_iter().collect();
        let peer = ConnectionPeer {
            address,
            zone: self.node.zone(address),
            port,
            names: &names,
        };
        Some(match classifier.connection(peer, &self.node.inventory) {
            ConnectionClass::Allowed => Verdict::Allow,
            ConnectionClass::Denied => Verdict::Deny,
            ConnectionClass::Inspected(rules) => {
                let through = rules
                    .iter()
                    .filter_map(|index| classifier.rules()[*index].through.as_ref());
                let mut decisions = through.map(|rules| decided(rules, announced));
                match decisions.any(|passes| passes) {
                    true => Verdict::Allow,
                    false => Verdict::Deny,
                }
            }
        })
    }

    /// `None` where no policy speaks of that direction of the pod.
    fn classifier(&self, endpoint: &EndpointId, direction: Direction, policies: Policies) -> Option<&Classifier> {
        let programs = &self.programs[endpoint];
        let classifiers = match direction {
            Direction::Egress => &programs.egress,
            Direction::Ingress => &programs.ingress,
        };
        classifiers.as_ref().map(|classifiers| match policies {
            Policies::Enforced => &classifiers.enforced,
            Policies::All => &classifiers.all,
        })
    }

    /// Those of each name that the address was learned for, and those of the objects that have it.
    fn entries(&self, classifier: &Classifier, address: IpAddr, zone: AddressZone) -> Vec<ClassifierEntry> {
        let objects: Vec<_> = classifier
            .object_rules()
            .filter_map(|(index, rule)| Some((index, self.node.inventory.members(rule).remove(&address)?)))
            .collect();
        let at = AddressContext {
            address,
            zone,
            objects: &objects,
        };
        let mut entries = Vec::new();
        for name in self.node.names_of(address) {
            let matching = classifier.name_rules().filter(|(_, pattern)| pattern.matches(&name));
            entries.extend(matching.flat_map(|(index, _)| classifier.entries_for_name(index, at)));
        }
        if !objects.is_empty() {
            entries.extend(classifier.entries_for_objects(at));
        }
        entries
    }
}

fn decided(rules: &L7Rules, announced: &Announced) -> bool {
    let not_asked = |_: &Name| -> bool { unreachable!("no names are verified here") };
    match announced {
        Announced::Tls(name) => {
            let name = Name::parse(name).expect("a name");
            let hello = Announcement::Tls {
                server_name: Some(&name),
                is_encrypted: false,
            };
            rules.decide(hello, not_asked).passes()
        }
        Announced::Http { method, path, host } => {
            let request = HttpRequest {
                method: method.as_bytes(),
                path: path.as_bytes(),
                host: host.as_bytes(),
                headers: &[],
            };
            rules.decide(Announcement::Http(&request), not_asked).passes()
        }
        Announced::Other => rules.decide(Announcement::Other, not_asked).passes(),
    }
}

fn classifiers(program: &Program) -> Classifiers {
    let all: &Tiers = program.audited.as_ref().unwrap_or(&program.enforced);
    Classifiers {
        enforced: Classifier::new(&program.enforced),
        all: Classifier::new(all),
    }
}
