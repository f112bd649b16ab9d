//! The rules that a connection must fulfil, of the programs of both its ends. Pure.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use names::Name;
use planner::Plan;
use policy::classifier::{Classifier, ConnectionClass, ConnectionPeer, RuleIndex};
use policy::l7::{Announcement, HeaderChange, L7Decision, L7Denial, TlsEnd};
use policy::{Direction, Origin, Peer, ProgramId};
use smallvec::SmallVec;

/// Who connects to whom: the client, and the destination before the kernel handed it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ConnectionParties {
    pub(super) source: SocketAddr,
    pub(super) asked: SocketAddr,
}

/// What the programs of both ends say of a connection before anything of it is read.
#[derive(Debug)]
pub(super) enum PartyVerdict {
    /// No program governs an end. Such a connection is not handed over.
    Ungoverned,
    Denied,
    Allowed,
    Inspected(ConnectionRules),
}

/// For each end whose program looks into the connection, the rules of which one must be fulfilled.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionRules {
    ends: SmallVec<[RulesOfEnd; 2]>,
}

/// How something passes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Passing<'r> {
    /// What is done to its headers.
    pub(super) changes: Vec<HeaderChange<'r>>,
    /// Of a hello: where TLS ends, if it ends here.
    pub(super) tls_end: Option<&'r TlsEnd>,
    /// Why it would be refused, if that is only recorded.
    pub(super) audited: Option<L7Denial>,
}

#[derive(Debug, Clone)]
struct RulesOfEnd {
    tiers: ProgramId,
    classifier: Arc<Classifier>,
    rules: SmallVec<[RuleIndex; 2]>,
    /// The address of the other end.
    peer: IpAddr,
}

impl ConnectionRules {
    /// `names` says which names hold an address now, for these tiers.
    pub(super) fn of(
        plan: &Plan,
        parties: ConnectionParties,
        names: impl Fn(IpAddr, ProgramId) -> SmallVec<[Name; 2]>,
    ) -> PartyVerdict {
        let ConnectionParties { source, asked } = parties;
        let mut rules = Self::default();
        let mut is_governed = false;
        for (direction, judged, peer) in [
            (Direction::Egress, source.ip(), asked.ip()),
            (Direction::Ingress, asked.ip(), source.ip()),
        ] {
            let Some(id) = plan.desired.dispatch[direction].get(&judged) else {
                continue;
            };
            is_governed = true;
            let Some(program) = plan.desired.programs.get(id) else {
                return PartyVerdict::Denied;
            };
            let (tiers, classifier) = (program.enforced.id, &program.enforced.classifier);
            // Names select no sources.
            let names = match direction {
                Direction::Egress => names(peer, tiers),
                Direction::Ingress => SmallVec::new(),
            };
            let towards = ConnectionPeer {
                address: peer,
                zone: plan.places.of(peer),
                port: asked.port(),
                names: &names,
            };
            match classifier.connection(towards, &plan.inventory) {
                ConnectionClass::Allowed => {}
                ConnectionClass::Denied => return PartyVerdict::Denied,
                ConnectionClass::Inspected(of_end) => rules.ends.push(RulesOfEnd {
                    tiers,
                    classifier: Arc::clone(classifier),
                    rules: of_end,
                    peer,
                }),
            }
        }
        match (is_governed, rules.ends.is_empty()) {
            (false, _) => PartyVerdict::Ungoverned,
            (true, true) => PartyVerdict::Allowed,
            (true, false) => PartyVerdict::Inspected(rules),
        }
    }

    /// Where the rules that look into it are written.
    pub(super) fn origins(&self) -> impl Iterator<Item = &Origin> {
        let rules = self.ends.iter().flat_map(|end| {
            let rules = end.classifier.rules();
            end.rules.iter().filter_map(move |index| rules.get(*index))
        });
        rules.flat_map(|rule| &rule.origins)
    }

    /// Whether neither end looks into the connection.
    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Whether TLS may fulfil the rules of both ends.
    pub(super) fn take_tls(&self) -> bool {
        self.each_end(|rules| rules.takes_tls())
    }

    /// Whether plain HTTP may.
    pub(super) fn take_http(&self) -> bool {
        self.each_end(|rules| rules.takes_http())
    }

    fn each_end(&self, takes: impl Fn(&policy::l7::L7Rules) -> bool) -> bool {
        self.ends.iter().all(|end| end.through().any(|(_, rules)| takes(rules)))
    }

    /// What becomes of what is announced; or why it is refused. The rules of each end must be
    /// fulfilled, and of these one. TLS ends here where the rules of either end want that.
    pub(super) fn decide<'r>(
        &'r self,
        announced: Announcement<'_>,
        names: impl Fn(IpAddr, ProgramId) -> SmallVec<[Name; 2]>,
    ) -> Result<Passing<'r>, L7Denial> {
        let mut passing = Passing::default();
        for end in &self.ends {
            let decisions = end.through().map(|(index, rules)| {
                rules.decide(announced, |announced| {
                    let is_selected = match &end.classifier.rules()[index].peer {
                        Peer::Name(pattern) => pattern.matches(announced),
                        _ => false,
                    };
                    is_selected && names(end.peer, end.tiers).contains(announced)
                })
            });
            match decisions.reduce(L7Decision::better) {
                None => return Err(L7Denial::NoRule),
                Some(L7Decision::Denied(denial)) => return Err(denial),
                Some(L7Decision::Audited(denial)) => passing.audited = Some(denial),
                Some(L7Decision::Terminated(end)) => passing.tls_end = Some(end),
                Some(L7Decision::Allowed { changes: more, .. }) => passing.changes.extend(more),
            }
        }
        Ok(passing)
    }
}

impl RulesOfEnd {
    fn through(&self) -> impl Iterator<Item = (RuleIndex, &policy::l7::L7Rules)> {
        let rules = self.classifier.rules();
        let indices = self.rules.iter().copied();
        indices.filter_map(|index| Some((index, rules.get(index)?.through.as_deref()?)))
    }
}
