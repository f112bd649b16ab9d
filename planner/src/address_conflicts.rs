//! Which endpoint an address belongs to, and what happens to an address that several Pods claim
//! (docs/security.md, 7).
//!
//! Packets and lookups are told apart by a Pod's address alone. When Pods that are governed
//! differently claim one, nobody can tell whose packets come from it and go to it: to let one of
//! them decide would open to the others what only it may reach, or leave open what should be
//! closed. So nothing is let through from it and to it, until the objects say whose it is. That
//! happens when an address is given to a new Pod while the object of the old one still lingers; a
//! Pod that is being deleted has already lost the address to the other one (`Cluster::endpoints`),
//! so what remains is a mistake, or a status that is about to be corrected.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use cluster::{ObjectKey, ReadReport, ReportState};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy::{
    Action, Diagnostic, Direction, Endpoint, EndpointId, LeaseTerms, Peer, PerDirection, PortSet, Program, ProgramId,
    Rule, Severity, Tiers, Zone,
};

use super::compiling::Compiled;
use super::governed::Governed;

/// An address that several local Pods claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressConflict {
    /// Which.
    pub address: IpAddr,
    /// By name; at least two.
    pub claimants: Vec<EndpointId>,
    /// Whether they are governed differently, so that nothing is let through from it and to it.
    pub closed: bool,
}

/// `10.0.0.1 is claimed by shop/a and shop/b, …`, as one sentence.
impl fmt::Display for AddressConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let claimants: Vec<String> = self.claimants.iter().map(ToString::to_string).collect();
        let consequence = match self.closed {
            true => "whose policies differ: NOTHING is let through from it and to it",
            false => "which are governed alike",
        };
        write!(
            f,
            "{} is claimed by {}, {consequence}",
            self.address,
            claimants.join(" and ")
        )
    }
}

/// Every claimed address that a program governs, and those that are contested.
pub(super) struct AddressConflicts {
    /// Those that an egress program governs.
    pub(super) governed: BTreeMap<IpAddr, Arc<Governed>>,
    pub(super) dispatch: PerDirection<BTreeMap<IpAddr, ProgramId>>,
    pub(super) conflicts: Vec<AddressConflict>,
}

/// What lets nothing through: the program of a contested address.
pub(super) fn refuse_all() -> Program {
    let everything = [IpNet::V4(Ipv4Net::default()), IpNet::V6(Ipv6Net::default())].into_iter();
    let deny = |prefix: IpNet| Rule {
        action: Action::Deny,
        peer: Peer::Prefix(Zone::Anywhere, prefix),
        ports: PortSet::All,
        named: Vec::new(),
        through: None,
        lease: LeaseTerms::default(),
        origins: Vec::new(),
    };
    Program {
        enforced: Tiers {
            network: everything.map(deny).collect(),
            ..Tiers::default()
        },
        ..Program::default()
    }
}

pub(super) fn settle(local: &[Endpoint], compiled: &[Option<Compiled>]) -> AddressConflicts {
    type Claimant<'a> = (&'a EndpointId, Option<&'a Compiled>);
    let mut claims: BTreeMap<IpAddr, Vec<Claimant<'_>>> = BTreeMap::new();
    for (endpoint, compiled) in local.iter().zip(compiled) {
        for address in &endpoint.addresses {
            let claimants = claims.entry(*address).or_default();
            claimants.push((&endpoint.id, compiled.as_ref()));
        }
    }
    let mut governed = BTreeMap::new();
    let mut dispatch: PerDirection<BTreeMap<IpAddr, ProgramId>> = PerDirection::default();
    let mut conflicts = Vec::new();
    let nothing = refuse_all().id();
    for (address, claimants) in claims {
        let [(first, program), others @ ..] = claimants.as_slice() else {
            continue;
        };
        let closed = others.iter().any(|(_, other)| !alike(*program, *other));
        if !others.is_empty() {
            conflicts.push(AddressConflict {
                address,
                claimants: claimants.iter().map(|(id, _)| (*id).clone()).collect(),
                closed,
            });
        }
        let programs = PerDirection::from_fn(|direction| match closed {
            true => Some(nothing),
            false => program.and_then(|compiled| compiled.id(direction)),
        });
        for (direction, program) in programs.iter() {
            dispatch[direction].extend(program.map(|program| (address, program)));
        }
        let Some(egress) = programs.egress else { continue };
        let questions = program.filter(|_| !closed).map(|it| Arc::clone(&it.questions));
        let entry = Governed {
            id: (*first).clone(),
            program: egress,
            questions,
        };
        governed.insert(address, Arc::new(entry));
    }
    AddressConflicts {
        governed,
        dispatch,
        conflicts,
    }
}

/// Whether two endpoints may do exactly the same.
fn alike(one: Option<&Compiled>, other: Option<&Compiled>) -> bool {
    match (one, other) {
        (None, None) => true,
        // The ids leave out what may be asked.
        (Some(one), Some(other)) => {
            let is_same = |direction: &Direction| one.id(*direction) == other.id(*direction);
            Direction::BOTH.iter().all(is_same) && one.question_rules == other.question_rules
        }
        _ => false,
    }
}

/// Adds the conflicts to what is reported of the Pods, at each of them.
pub fn report(conflicts: &[AddressConflict], reports: &mut Vec<ReadReport>) {
    for conflict in conflicts {
        for claimant in &conflict.claimants {
            let object = ObjectKey::Pod(claimant.namespace.clone(), claimant.name.clone()).to_string();
            let counts = |report: &&mut ReadReport| report.object == object && report.state != ReportState::Rejected;
            match reports.iter_mut().find(counts) {
                Some(report) => {
                    let state = match report.state {
                        ReportState::Accepted if conflict.closed => ReportState::Partial,
                        state => state,
                    };
                    let mut diagnostics = std::mem::take(&mut report.diagnostics);
                    diagnostics.push(finding(conflict));
                    *report = ReadReport::new(report.file.as_deref(), object, state, diagnostics);
                }
                None => {
                    let state = if conflict.closed {
                        ReportState::Partial
                    } else {
                        ReportState::Accepted
                    };
                    reports.push(ReadReport::new(None, object, state, vec![finding(conflict)]));
                }
            }
        }
    }
}

fn finding(conflict: &AddressConflict) -> Diagnostic {
    Diagnostic {
        severity: if conflict.closed {
            Severity::Unenforced
        } else {
            Severity::Warning
        },
        code: "contested-address",
        path: String::new(),
        position: None,
        reason: conflict.to_string(),
        suggestion: Some("remove the Pod that does not have the address any more".into()),
    }
}
