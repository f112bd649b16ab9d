//! All policies that select an endpoint → one program.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::endpoint::Endpoint;
use crate::inventory::Inventory;
use crate::pattern::Pattern;
use crate::policy::{DnsRule, EgressRule, Peers, Policy, PolicyId, Spec, Zone};
use crate::ports::PortSet;
use crate::program::{DnsGrant, DnsServers, NameRule, Origin, PrefixRule, Program, Rules};

/// Compiles the egress policy of one endpoint.
///
/// `None` when no policy selects it: such an endpoint is left untouched. A spec that says nothing of egress (only ingress, or
/// empty lists) does not count as selecting.
///
/// The addresses of objects that rules speak of are those of `inventory`, and become part of the program: when they change, so does it.
pub fn compile<'a>(
    endpoint: &Endpoint,
    policies: impl IntoIterator<Item = &'a Policy>,
    inventory: &Inventory,
) -> Option<Program> {
    let selecting = policies
        .into_iter()
        .flat_map(|policy| policy.specs.iter().map(move |spec| (&policy.id, spec)));
    let selecting = selecting.filter(|(_, spec)| spec.subject.matches(&endpoint.labels) && governs_egress(spec));

    let mut governed = false;
    let mut closed = false;
    let mut deny = Gathered::default();
    let mut allow = Gathered::default();
    let mut dns = BTreeMap::new();
    for (id, spec) in selecting {
        governed = true;
        closed |= spec.closes_egress;
        spec.deny.iter().for_each(|rule| deny.add(id, rule, inventory));
        for rule in &spec.allow {
            allow.add(id, rule, inventory);
            grant_questions(rule, &mut dns);
        }
    }
    governed.then(|| Program {
        closed,
        deny: deny.into_rules(),
        allow: allow.into_rules(),
        dns: grants(dns),
    })
}

fn governs_egress(spec: &Spec) -> bool {
    spec.closes_egress || !spec.allow.is_empty() || !spec.deny.is_empty()
}

/// One side of a program while rules are added up. Ordered, so that the order of policies does not show.
#[derive(Default)]
struct Gathered {
    prefixes: BTreeMap<(Zone, IpNet), PortSet>,
    names: BTreeMap<Pattern, (PortSet, BTreeSet<Origin>)>,
}

impl Gathered {
    fn add(&mut self, policy: &PolicyId, rule: &EgressRule, inventory: &Inventory) {
        if let Peers::Names(patterns) = &rule.peers {
            for pattern in patterns {
                self.add_name(pattern, policy, rule);
            }
            return;
        }
        let destinations = inventory.prefixes(&rule.peers);
        if !rule.named.is_empty() {
            for (host, ports) in inventory.named_ports(&destinations, &rule.named) {
                self.add_prefix(Zone::Anywhere, host, &ports);
            }
        }
        for (zone, prefix) in destinations {
            self.add_prefix(zone, prefix, &rule.ports);
        }
    }

    fn add_prefix(&mut self, zone: Zone, prefix: IpNet, ports: &PortSet) {
        if !ports.is_empty() {
            let known = self.prefixes.entry((zone, prefix)).or_insert_with(no_ports);
            *known = known.union(ports);
        }
    }

    fn add_name(&mut self, pattern: &Pattern, policy: &PolicyId, rule: &EgressRule) {
        if rule.ports.is_empty() {
            return;
        }
        let (ports, origins) = self
            .names
            .entry(pattern.clone())
            .or_insert_with(|| (no_ports(), BTreeSet::new()));
        *ports = ports.union(&rule.ports);
        origins.insert(Origin {
            policy: policy.clone(),
            rule: rule.origin.clone(),
        });
    }

    fn into_rules(self) -> Rules {
        let names = self.names.into_iter().map(|(pattern, (ports, origins))| NameRule {
            pattern,
            ports,
            origins: origins.into_iter().collect(),
        });
        Rules {
            prefixes: disjoint(self.prefixes),
            names: names.collect(),
        }
    }
}

fn no_ports() -> PortSet {
    PortSet::Ranges(Vec::new())
}

/// Gives each prefix its ports without those that a prefix around it already has.
///
/// Two prefixes are nested or disjoint, and one that contains another sorts before it, so the prefixes around the current one
/// are a stack.
fn disjoint(prefixes: BTreeMap<(Zone, IpNet), PortSet>) -> Vec<PrefixRule> {
    let mut rules = Vec::new();
    // Each with the ports that it and what is around it have.
    let mut around: Vec<(Zone, IpNet, PortSet)> = Vec::new();
    for ((zone, prefix), ports) in prefixes {
        while around
            .last()
            .is_some_and(|(z, outer, _)| *z != zone || !outer.contains(&prefix))
        {
            around.pop();
        }
        let covered = around.last().map_or_else(no_ports, |(_, _, ports)| ports.clone());
        // `All` is more than any ranges (ICMP) and keeps itself whole beside them; it stands in a set of its own.
        let own = ports.subtract(&covered);
        around.push((zone, prefix, ports.union(&covered)));
        if !own.is_empty() {
            rules.push(PrefixRule {
                zone,
                prefix,
                ports: own,
            });
        }
    }
    rules
}

type Questions = BTreeMap<(DnsServers, u16), BTreeSet<Pattern>>;

/// Binds the DNS rules of a rule to servers: to its destinations where these are single addresses (they become known
/// resolvers), and to every trusted resolver where they cannot be listed (`toEndpoints` of the cluster's DNS, entities,
/// wide prefixes, names).
fn grant_questions(rule: &EgressRule, questions: &mut Questions) {
    if rule.dns.is_empty() {
        return;
    }
    let servers = match rule.peers.single_hosts() {
        // A rule that selects nothing speaks of no server.
        Some(addresses) if addresses.is_empty() => return,
        Some(addresses) => DnsServers::Listed(addresses.into_iter().collect::<BTreeSet<_>>().into_iter().collect()),
        None => DnsServers::Trusted,
    };
    for dns in &rule.dns {
        let patterns = questions.entry((servers.clone(), dns.port)).or_default();
        patterns.extend(dns.patterns.iter().cloned());
    }
}

fn grants(questions: Questions) -> Vec<DnsGrant> {
    let grants = questions.into_iter().map(|((servers, port), patterns)| DnsGrant {
        servers,
        rule: DnsRule {
            port,
            patterns: patterns.into_iter().collect(),
        },
    });
    grants.collect()
}

#[cfg(test)]
mod tests;
