//! The compiled policy of an endpoint in one direction.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use names::Pattern;
use siphasher::sip::SipHasher24;

use crate::direction::PerDirection;
use crate::dns_rules::QuestionRules;
use crate::extensions::{DenyResponse, LeaseTerms};
use crate::l7::L7Rules;
use crate::name_group::NameGroup;
use crate::peer_selector::{NamedPort, ObjectSelector};
use crate::policy::Action;
use crate::policy_id::PolicyId;
use crate::ports::PortSet;
use crate::zone::Zone;

/// The compiled policy of one endpoint in one direction, or of many endpoints that are governed
/// alike. It speaks of peers and says nothing of the direction.
///
/// [`gather`](crate::compile::gather) makes one in which every rule stands by itself, for people;
/// [`merged`](Program::merged) brings it into the one form that all programs of the same effect
/// share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// What is enforced.
    pub enforced: Tiers,
    /// Every policy, also those in mode audit, as if all were enforced; `None` where none is
    /// audited. What `enforced` lets through and this refuses passes, and is recorded.
    pub audited: Option<Tiers>,
    /// What a refused packet gets, where a policy says so.
    pub response: Option<DenyResponse>,
}

/// What governs an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointPolicy {
    /// The program of each direction; `None` where no policy says anything of that direction.
    pub programs: PerDirection<Option<Program>>,
    /// What the endpoint may ask resolvers.
    pub questions: QuestionRules,
}

/// Rules in the order in which they decide: tier by tier, in each the first that matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tiers {
    /// Of ClusterNetworkPolicies in tier Admin.
    pub admin: Vec<Rule>,
    /// Of Cilium's policies and NetworkPolicies: denials before allowances.
    pub network: Vec<Rule>,
    /// The specs that close the direction: what no rule of `network` matches is refused. Where
    /// there are none, `baseline` decides.
    pub closed_by: Vec<Origin>,
    /// Of ClusterNetworkPolicies in tier Baseline. What these leave undecided is let through.
    pub baseline: Vec<Rule>,
    /// Servers that DNS rules of the same endpoints list, where rules speak of names: what such a
    /// server answers may open addresses here and not for endpoints that have the same rules and
    /// not this server (docs/security.md, 3). So these must not share sets.
    pub teachers: BTreeSet<IpAddr>,
    /// The names that stand together in `admin` and `network`. They decide which sets hold what is
    /// learned, and no verdict.
    pub name_groups: Vec<NameGroup>,
}

/// One peer, crossed with ports. A [`PolicyRule`](crate::PolicyRule), which people write,
/// has many peers and becomes many of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What the rule does with the packets that it matches.
    pub action: Action,
    /// The peer that the rule matches.
    pub peer: Peer,
    /// The ports that the rule matches at the peer.
    pub ports: PortSet,
    /// More ports, at peers that are pods: those that their containers give these names.
    pub named: Vec<NamedPort>,
    /// What connections must announce, where the rule lets through only some of those to its
    /// ports. Only rules that allow have it, of tier [`network`](Tiers::network), where that is
    /// closed.
    pub through: Option<Arc<L7Rules>>,
    /// How long the addresses of a name stay.
    pub lease: LeaseTerms,
    /// Where it was written; no part of the program's identity.
    pub origins: Vec<Origin>,
}

/// The other end of the packets that a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Peer {
    /// Addresses of a zone.
    Prefix(Zone, IpNet),
    /// The pods whose addresses lie in there, for named ports.
    PodsWithin(Zone, IpNet),
    /// The addresses that names matching the pattern resolve to.
    Name(Pattern),
    /// The addresses of objects. Which these are is no part of the program: it stays as it is when
    /// pods come and go.
    Object(ObjectSelector),
}

/// A rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The policy that the rule stands in.
    pub policy: PolicyId,
    /// The rule within it, for example `spec.egress[0]`.
    pub rule: String,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// The packet passes.
    Allow,
    /// The packet is refused.
    Deny,
    /// What the connection announces decides, by the rules that it must go
    /// [through](Rule::through). Unless it is looked into, it is refused.
    Inspect,
}

/// The identity of what a program makes the kernel do: equal for programs that differ only in
/// origins.
///
/// Stable between processes of one build and, as long as [`ProgramId::SCHEME`] stays, meant to be
/// so between versions: kernel chains and sets are named after it and outlive the agent. (If it is
/// not, an upgrade installs every program anew, and nothing worse.)
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u64);

impl ProgramId {
    /// Raise when the meaning of a program in the kernel changes.
    pub const SCHEME: u8 = 5;
}

impl fmt::Display for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ProgramId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl EndpointPolicy {
    /// With [merged](Program::merged) programs.
    #[must_use]
    pub fn merged(self) -> Self {
        Self {
            programs: self.programs.map(|_, program| program.map(Program::merged)),
            ..self
        }
    }
}

impl Program {
    /// The identity of what it does to packets. That of a program without audited policies and
    /// without a response of its own is [its tiers'](Tiers::id).
    pub fn id(&self) -> ProgramId {
        if self.audited.is_none() && self.response.is_none() {
            return self.enforced.id();
        }
        let mut hasher = hasher();
        self.enforced.id().hash(&mut hasher);
        self.audited.as_ref().map(Tiers::id).hash(&mut hasher);
        self.response.hash(&mut hasher);
        ProgramId(hasher.finish())
    }

    /// The form that all programs of the same effect share, as far as that is cheap to see.
    #[must_use]
    pub fn merged(self) -> Self {
        Self {
            enforced: self.enforced.merged(),
            audited: self.audited.map(Tiers::merged),
            ..self
        }
    }
}

impl Tiers {
    /// Whether what no rule of `network` matches is refused.
    pub fn closed(&self) -> bool {
        !self.closed_by.is_empty()
    }

    /// Whether some connections are looked into.
    pub fn inspects(&self) -> bool {
        self.network.iter().any(|rule| rule.through.is_some())
    }

    /// All rules, in order.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.admin.iter().chain(&self.network).chain(&self.baseline)
    }

    /// The identity of a program that enforces just this.
    pub fn id(&self) -> ProgramId {
        let mut hasher = hasher();
        ProgramId::SCHEME.hash(&mut hasher);
        self.closed().hash(&mut hasher);
        for rules in [&self.admin, &self.network, &self.baseline] {
            rules.len().hash(&mut hasher);
            for rule in rules {
                rule.effect().hash(&mut hasher);
            }
        }
        if !self.teachers.is_empty() {
            self.teachers.hash(&mut hasher);
        }
        if !self.name_groups.is_empty() {
            self.name_groups.hash(&mut hasher);
        }
        ProgramId(hasher.finish())
    }

    /// Lets these servers teach, if there is a name whose addresses they could tell.
    pub(crate) fn taught_by(mut self, servers: &BTreeSet<IpAddr>) -> Self {
        if self.rules().any(|rule| matches!(rule.peer, Peer::Name(_))) {
            self.teachers.clone_from(servers);
        }
        self
    }

    /// Takes out what is looked into where nothing closes the direction: connections to the same
    /// ports that announce anything else pass there too. A denial of tier Baseline denies them.
    pub(crate) fn without_void_inspection(mut self) -> Self {
        if !self.closed() {
            self.network.retain(|rule| rule.through.is_none());
        }
        self
    }

    /// In `network` the order in which rules were written means nothing, so there they are sorted,
    /// and of those that differ in ports only the ports are added up. In the other tiers the order
    /// is the meaning, and stays.
    fn merged(mut self) -> Self {
        self.network.retain(Rule::matches_anything);
        self.network.sort_by(|a, b| a.without_ports().cmp(&b.without_ports()));
        self.network.dedup_by(|next, kept| {
            let same = next.without_ports() == kept.without_ports();
            if same {
                kept.ports = kept.ports.union(&next.ports);
                kept.origins.append(&mut next.origins);
            }
            same
        });
        for rule in &mut self.network {
            rule.origins.sort_unstable();
            rule.origins.dedup();
        }
        self.closed_by.sort_unstable();
        self.name_groups = NameGroup::merged(self.name_groups);
        self.admin.retain(Rule::matches_anything);
        self.baseline.retain(Rule::matches_anything);
        if self.closed() {
            // Nothing comes that far.
            self.baseline.clear();
        }
        self
    }
}

impl Rule {
    fn matches_anything(&self) -> bool {
        !self.ports.is_empty() || !self.named.is_empty()
    }

    /// The names of which it lets every connection through, without looking into them.
    pub(crate) fn plain_name(&self) -> Option<&Pattern> {
        match &self.peer {
            Peer::Name(pattern) if self.action == Action::Allow && self.through.is_none() => Some(pattern),
            _ => None,
        }
    }

    /// Ordered as the rules of tier Network decide.
    fn without_ports(&self) -> impl Ord + Hash + '_ {
        (self.order(), &self.peer, &self.named, self.lease, &self.through)
    }

    /// In tier Network denials come first, and allowances of all connections before those of some.
    pub(crate) fn order(&self) -> (Action, bool) {
        (self.action, self.through.is_some())
    }

    fn effect(&self) -> impl Hash {
        (self.without_ports(), &self.ports)
    }
}

/// Keys are fixed for ever: kernel objects are named with them. (The ASCII of `namegate program`.)
fn hasher() -> SipHasher24 {
    SipHasher24::new_with_keys(0x6e61_6d65_6761_7465, 0x2070_726f_6772_616d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy_id::PolicyKind;
    use crate::ports::{PortRange, Protocol};

    fn origin(name: &str) -> Origin {
        Origin {
            policy: PolicyId {
                kind: PolicyKind::CiliumNetworkPolicy,
                namespace: "n".into(),
                name: name.into(),
            },
            rule: "spec.egress[0]".into(),
        }
    }

    fn rule(peer: Peer, port: u16) -> Rule {
        Rule {
            action: Action::Allow,
            peer,
            ports: PortSet::from_ranges([PortRange::single(Protocol::Tcp, port)]),
            named: Vec::new(),
            through: None,
            lease: LeaseTerms::default(),
            origins: vec![origin("p")],
        }
    }

    fn name(pattern: &str) -> Peer {
        Peer::Name(Pattern::pattern(pattern).unwrap())
    }

    fn prefix(text: &str) -> Peer {
        Peer::Prefix(Zone::World, text.parse().unwrap())
    }

    fn program() -> Program {
        Program {
            enforced: Tiers {
                network: vec![rule(prefix("192.0.2.0/24"), 80), rule(name("*.example.com"), 443)],
                closed_by: vec![origin("p")],
                ..Tiers::default()
            },
            ..Program::default()
        }
    }

    #[test]
    fn the_id_is_the_same_in_every_process_and_version() {
        assert_eq!(
            program().id().to_string(),
            "6bc44c825810c927",
            "raise ProgramId::SCHEME if the meaning changed"
        );
    }

    #[test]
    fn origins_are_no_part_of_the_id() {
        let mut other = program();
        other.enforced.network[0].origins.clear();
        other.enforced.closed_by.push(origin("q"));
        assert_eq!(other.id(), program().id());
    }

    #[test]
    fn whatever_the_kernel_does_is_part_of_the_id() {
        let mut others = vec![program(); 9];
        others[0].enforced.closed_by.clear();
        others[1].enforced.admin = std::mem::take(&mut others[1].enforced.network);
        others[2].enforced.network[0].peer = Peer::Prefix(Zone::Anywhere, "192.0.2.0/24".parse().unwrap());
        others[3].enforced.network[0].action = Action::Deny;
        others[4].enforced.network[1].ports = PortSet::All;
        others[5].enforced.network[1].peer = name("a.example.com");
        others[6].audited = Some(others[6].enforced.clone());
        others[7].response = Some(DenyResponse::Drop);
        others[8].enforced.network[1].through = Some(Arc::default());
        others.push(program());
        let ids: std::collections::BTreeSet<_> = others.iter().map(Program::id).collect();
        assert_eq!(ids.len(), others.len());
    }

    #[test]
    fn who_may_teach_names_is_part_of_the_id_and_means_nothing_without_names() {
        let servers = BTreeSet::from(["203.0.113.53".parse().unwrap()]);
        let taught = |tiers: Tiers| tiers.taught_by(&servers).id();
        assert_ne!(taught(program().enforced), program().enforced.id());
        let mut without_names = program().enforced;
        without_names.network.truncate(1);
        assert_eq!(taught(without_names.clone()), without_names.id());
    }

    #[test]
    fn programs_that_say_the_same_in_another_order_are_one() {
        let mut other = program();
        other.enforced.network.reverse();
        let mut more = rule(name("*.example.com"), 443);
        more.origins = vec![origin("q")];
        other.enforced.network.push(more);
        let other = other.merged();
        assert_eq!(other.id(), program().merged().id());
        assert_eq!(other.enforced.network[1].origins, [origin("p"), origin("q")]);
    }

    #[test]
    fn what_comes_behind_a_closed_tier_is_no_part_of_a_program() {
        let mut other = program();
        other.enforced.baseline = vec![rule(prefix("198.51.100.0/24"), 80)];
        assert_eq!(other.clone().merged().id(), program().merged().id());
        other.enforced.closed_by.clear();
        let mut open = program();
        open.enforced.closed_by.clear();
        assert_ne!(other.merged().id(), open.merged().id());
    }

    #[test]
    fn the_order_of_an_admin_tier_is_its_meaning() {
        let mut other = program();
        other.enforced.admin = std::mem::take(&mut other.enforced.network);
        let mut reversed = other.clone();
        reversed.enforced.admin.reverse();
        assert_ne!(other.merged().id(), reversed.merged().id());
    }
}
