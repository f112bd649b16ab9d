//! All policies that select an endpoint → one program.

mod name_groups;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use names::Pattern;

use crate::direction::{Direction, PerDirection};
use crate::dns_rules::{DnsGrant, DnsRule, DnsServers, QuestionMode, QuestionRules};
use crate::endpoint::Endpoint;
use crate::extensions::{DenyResponse, LeaseTerms};
use crate::inventory::{ContainerPort, Inventory, named_ports};
use crate::l7::{L7Rules, VerifyNames};
use crate::peer_selector::NamedPort;
use crate::policy::{Action, DirectionSpec, Policy, PolicyRule, PolicySpec, Tier};
use crate::ports::{PortRange, PortSet, Protocol};
use crate::program::{EndpointPolicy, Origin, Peer, Program, Rule, Tiers};

/// Compiles the policies that govern one endpoint. Endpoints that are governed alike get equal
/// results.
///
/// `None` when no policy selects the endpoint: it is left untouched. A spec that says nothing of
/// either direction (empty lists) does not count as selecting.
///
/// Of `inventory` only the prefixes of CiliumCIDRGroups become part of a program. The addresses of
/// Pods and other objects do not, so that they change without a new program.
pub fn compile<'a>(
    endpoint: &Endpoint,
    policies: impl IntoIterator<Item = &'a Policy>,
    inventory: &Inventory,
) -> Option<EndpointPolicy> {
    gather(endpoint, policies, inventory).map(EndpointPolicy::merged)
}

/// As [`compile`], but equal rules are not merged, so that the one that decides can be named.
pub fn gather<'a>(
    endpoint: &Endpoint,
    policies: impl IntoIterator<Item = &'a Policy>,
    inventory: &Inventory,
) -> Option<EndpointPolicy> {
    let specs = policies
        .into_iter()
        .flat_map(|policy| policy.specs.iter().map(move |spec| (policy, spec)));
    let governing = specs.filter(|(_, spec)| governs(spec, endpoint));
    gather_selected(governing, &endpoint.ports, inventory)
}

/// Whether a spec selects an endpoint, and says anything of a direction. Endpoints that the same
/// specs govern have the same programs, if they also name the same ports or none of the specs
/// [names ports of theirs](names_ports_of_subject).
pub fn governs(spec: &PolicySpec, endpoint: &Endpoint) -> bool {
    says_anything(spec) && spec.selects(endpoint)
}

/// Whether a spec says anything of either direction. One that does not governs nobody.
pub fn says_anything(spec: &PolicySpec) -> bool {
    spec.directions.iter().any(|(_, spec)| spec.says_anything())
}

/// Whether a spec speaks of ports by the names that the containers of its own subject give them.
pub fn names_ports_of_subject(spec: &PolicySpec) -> bool {
    let names_ports =
        |rule: &PolicyRule| !rule.named.is_empty() || rule.inspected.iter().any(|ports| !ports.named.is_empty());
    spec.directions.ingress.rules.iter().any(names_ports)
}

/// As [`gather`], for specs of which [`governs`] is true, of an endpoint whose containers name
/// `ports`.
pub fn gather_selected<'a>(
    specs: impl IntoIterator<Item = (&'a Policy, &'a PolicySpec)>,
    ports: &[ContainerPort],
    inventory: &Inventory,
) -> Option<EndpointPolicy> {
    let mut specs: Vec<_> = specs.into_iter().collect();
    if specs.is_empty() {
        return None;
    }
    // The name decides between equal priorities. The API leaves this open, but every node must
    // decide alike.
    specs.sort_by(|(a, a_spec), (b, b_spec)| (a_spec.tier, &a.id).cmp(&(b_spec.tier, &b.id)));
    let questions = question_rules(&specs);
    let teachers = questions.listed_servers();
    Some(EndpointPolicy {
        programs: PerDirection::from_fn(|direction| {
            let sources = RuleSources {
                direction,
                ports,
                inventory,
            };
            program(&specs, &teachers, sources)
        }),
        questions,
    })
}

/// What rules are compiled with, beside the policies.
#[derive(Clone, Copy)]
struct RuleSources<'a> {
    direction: Direction,
    /// The ports that the endpoint's own containers name.
    ports: &'a [ContainerPort],
    inventory: &'a Inventory,
}

/// The program of one direction; `None` where no spec says anything of it. `specs` must be in the
/// order of evaluation.
fn program(specs: &[(&Policy, &PolicySpec)], teachers: &BTreeSet<IpAddr>, sources: RuleSources<'_>) -> Option<Program> {
    let mut enforced = Tiers::default();
    let mut all = Tiers::default();
    let mut response = None;
    let (mut governed, mut audited) = (false, false);
    for (policy, spec) in specs {
        if !spec.directions[sources.direction].says_anything() {
            continue;
        }
        governed = true;
        add(&mut all, policy, spec, sources);
        if policy.extensions.audit {
            audited = true;
            continue;
        }
        add(&mut enforced, policy, spec, sources);
        response = quieter(response, policy.extensions.response);
    }
    governed.then(|| Program {
        enforced: enforced.without_void_inspection().taught_by(teachers),
        audited: audited.then(|| all.without_void_inspection().taught_by(teachers)),
        response,
    })
}

/// What may be asked, by the egress rules that are enforced. Audited policies do not count.
fn question_rules(specs: &[(&Policy, &PolicySpec)]) -> QuestionRules {
    let mut granted = GrantedPatterns::new();
    let mut mode = None;
    for (policy, spec) in specs {
        let egress = &spec.directions.egress;
        if policy.extensions.audit || !egress.says_anything() {
            continue;
        }
        let allowing = egress.rules_that(Action::Allow);
        allowing.for_each(|rule| grant_questions(rule, &mut granted));
        mode = stricter(mode, policy.extensions.questions);
    }
    QuestionRules {
        grants: grants(granted),
        mode,
    }
}

/// The mode that lets less be asked, of policies that set one.
fn stricter(a: Option<QuestionMode>, b: Option<QuestionMode>) -> Option<QuestionMode> {
    match (a, b) {
        (Some(QuestionMode::AllowedOnly), _) | (_, Some(QuestionMode::AllowedOnly)) => Some(QuestionMode::AllowedOnly),
        (a, b) => a.or(b),
    }
}

/// The response that tells the client less, of policies that set one.
fn quieter(a: Option<DenyResponse>, b: Option<DenyResponse>) -> Option<DenyResponse> {
    match (a, b) {
        (Some(DenyResponse::Drop), _) | (_, Some(DenyResponse::Drop)) => Some(DenyResponse::Drop),
        (a, b) => a.or(b),
    }
}

/// Adds a spec's rules for one direction to the spec's tier.
fn add(tiers: &mut Tiers, policy: &Policy, spec: &PolicySpec, sources: RuleSources<'_>) {
    let DirectionSpec { closes, rules: written } = &spec.directions[sources.direction];
    let rules = match spec.tier {
        Tier::Admin { .. } => &mut tiers.admin,
        Tier::Network => &mut tiers.network,
        Tier::Baseline { .. } => &mut tiers.baseline,
    };
    let added: Vec<Rule> = written
        .iter()
        .flat_map(|rule| rules_of(policy, rule, sources))
        .collect();
    match spec.tier {
        Tier::Admin { .. } => tiers.name_groups.extend(name_groups::of(&added, true)),
        Tier::Network => tiers.name_groups.extend(name_groups::of(&added, false)),
        // No kind of policy has names there.
        Tier::Baseline { .. } => {}
    }
    rules.extend(added);
    if spec.tier == Tier::Network {
        // The sort is stable: rules with one action stay in the order in which they were written.
        tiers.network.sort_by_key(Rule::order);
        if *closes {
            tiers.closed_by.push(Origin {
                policy: policy.id.clone(),
                rule: String::new(),
            });
        }
    }
}

/// A rule as it was written → one rule for each of its peers, and more for the ports whose
/// connections are looked into.
fn rules_of(policy: &Policy, rule: &PolicyRule, sources: RuleSources<'_>) -> Vec<Rule> {
    let mut rules = rules_of_ports(policy, rule, RulePorts::all(&rule.ports, &rule.named, sources), sources);
    for inspected in &rule.inspected {
        let ports = RulePorts {
            through: Some(&inspected.rules),
            ..RulePorts::all(&inspected.ports, &inspected.named, sources)
        };
        rules.extend(rules_of_ports(policy, rule, ports, sources));
    }
    rules
}

/// Ports of a rule, and what connections to them must announce.
#[derive(Clone)]
struct RulePorts<'r> {
    ports: PortSet,
    named: &'r [NamedPort],
    through: Option<&'r Arc<L7Rules>>,
}

impl<'r> RulePorts<'r> {
    /// Ports that a rule names are those of the packet's receiver. At egress that is the peer, so
    /// that the names stay for the [`membership`](crate::membership) to resolve. At ingress it is
    /// the endpoint itself, and they are numbers at once.
    fn all(ports: &PortSet, named: &'r [NamedPort], sources: RuleSources<'_>) -> Self {
        let (ports, named) = match sources.direction {
            Direction::Egress => (ports.clone(), named),
            Direction::Ingress => (ports.union(&named_ports(sources.ports, named)), &[][..]),
        };
        Self {
            ports,
            named,
            through: None,
        }
    }
}

/// One rule for each peer.
fn rules_of_ports(policy: &Policy, rule: &PolicyRule, ports: RulePorts<'_>, sources: RuleSources<'_>) -> Vec<Rule> {
    let RulePorts { ports, named, through } = ports;
    let of = |peer, ports: PortSet, named: &[_], lease, through: Option<&Arc<L7Rules>>| Rule {
        action: rule.action,
        peer,
        ports,
        named: named.to_vec(),
        through: through.cloned(),
        lease,
        origins: vec![Origin {
            policy: policy.id.clone(),
            rule: rule.origin.clone(),
        }],
    };
    let lease = policy.extensions.lease;
    let none = LeaseTerms::default();
    let mut rules = Vec::new();
    for peer in sources.inventory.peers(&rule.peers) {
        match peer {
            Peer::Name(_) => match policy.extensions.verify_names.filter(|_| rule.action == Action::Allow) {
                None => rules.push(of(peer, ports.clone(), &[], lease, through)),
                Some(mode) => {
                    let (verified, plain) = verified(&ports, through, mode);
                    if let Some((ports, through)) = verified {
                        rules.push(of(peer.clone(), ports, &[], lease, Some(&through)));
                    }
                    if !plain.is_empty() {
                        rules.push(of(peer, plain, &[], lease, None));
                    }
                }
            },
            Peer::Prefix(zone, prefix) => {
                if !ports.is_empty() {
                    rules.push(of(peer, ports.clone(), &[], none, through));
                }
                if !named.is_empty() {
                    let pods = Peer::PodsWithin(zone, prefix);
                    rules.push(of(pods, PortSet::Ranges(Vec::new()), named, none, through));
                }
            }
            Peer::PodsWithin(..) | Peer::Object(_) => {
                rules.push(of(peer, ports.clone(), named, none, through));
            }
        }
    }
    rules
}

/// The ports of a rule about names where names are verified: those whose connections are looked
/// into, with what they must announce, and the others.
///
/// Names are verified in TCP. QUIC announces them too, in a form that is not read here, so its port
/// is among neither unless the mode only records. Of every port and protocol those remain that can
/// be told apart.
fn verified(
    ports: &PortSet,
    through: Option<&Arc<L7Rules>>,
    mode: VerifyNames,
) -> (Option<(PortSet, Arc<L7Rules>)>, PortSet) {
    let tcp = PortSet::from_ranges([PortRange::every(Protocol::Tcp)]);
    let looked_into = ports.intersection(&tcp);
    let rules = L7Rules {
        verify_names: Some(mode),
        ..through.map(|rules| L7Rules::clone(rules)).unwrap_or_default()
    };
    let verified = (!looked_into.is_empty()).then(|| (looked_into, Arc::new(rules)));
    let every = PortSet::from_ranges(Protocol::ALL.map(PortRange::every));
    let mut others = ports.intersection(&every).subtract(&tcp);
    if mode == VerifyNames::Enforce {
        others = others.subtract(&PortSet::from_ranges([PortRange::single(Protocol::Udp, QUIC_PORT)]));
    }
    (verified, others)
}

/// RFC 9114 §3.1: HTTP/3 has the port of `https` unless it is told otherwise.
const QUIC_PORT: u16 = 443;

/// The patterns that may be asked, by servers and port.
type GrantedPatterns = BTreeMap<(DnsServers, u16), BTreeSet<Pattern>>;

/// Grants what the DNS rules of a rule let be asked. The servers are the rule's peers where these
/// are single addresses, which become known resolvers. They are all trusted resolvers where the
/// peers cannot be listed (`toEndpoints` of the cluster's DNS, entities, wide prefixes, names).
fn grant_questions(rule: &PolicyRule, granted: &mut GrantedPatterns) {
    if rule.dns.is_empty() {
        return;
    }
    let servers = match rule.peers.single_hosts() {
        // A rule without peers grants nothing.
        Some(addresses) if addresses.is_empty() => return,
        Some(addresses) => DnsServers::Listed(addresses.into_iter().collect::<BTreeSet<_>>().into_iter().collect()),
        None => DnsServers::Trusted,
    };
    for dns in &rule.dns {
        let patterns = granted.entry((servers.clone(), dns.port)).or_default();
        patterns.extend(dns.patterns.iter().cloned());
    }
}

fn grants(granted: GrantedPatterns) -> Vec<DnsGrant> {
    let grants = granted.into_iter().map(|((servers, port), patterns)| DnsGrant {
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
