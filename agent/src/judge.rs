//! The agent's side of the L7 proxy: may this connection, or this request in it, pass?
//!
//! - `connection_rules`: which rules of both ends a connection must fulfil, and whether it does;
//!   pure.
//! - `request_events`: what became of hellos and requests, as events.
//!
//! Rules are looked up once for a connection, and again when a plan is published. Names that held
//! its address when it began count for as long as it lives: a lease that ends stops new connections
//! only.

mod connection_rules;
mod request_events;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use events::{EventKind, RequestEvent};
use fqdn_cache::Ledger;
use l7_proxy::{
    BackendVerdict, ClientHello, ConnectionVerdict, DialTime, HeaderEdit, HelloVerdict, Inspection, Judge,
    PassageEvent, Refusal, RequestHead, RequestVerdict, Termination, Unreadable,
};
use names::Name;
use parking_lot::Mutex;
use planner::Plan;
use policy::ProgramId;
use policy::l7::{Announcement, HeaderChange, HttpRequest, L7Denial, TlsEnd};
use smallvec::SmallVec;

use crate::gate::NodeGate;
use crate::local_authority::LocalAuthority;

use connection_rules::{ConnectionParties, ConnectionRules, PartyVerdict, Passing};

/// Judges by the plan in force.
#[derive(Debug)]
pub struct NodeJudge {
    gate: Arc<NodeGate>,
    ledger: Arc<Mutex<Ledger>>,
    /// With whose certificates TLS ends here, where rules want that.
    authority: Option<Arc<LocalAuthority>>,
}

/// Evidence that a connection or request was judged. Only this module makes one.
#[derive(Debug)]
pub struct Judged(());

/// A connection as the judge knows it.
#[derive(Debug, Clone)]
pub struct JudgedConnection {
    /// Once it is known, the backend stands in the place of the Service.
    parties: ConnectionParties,
    /// Whether the client asked for a Service. Then it was handed over before its backend was
    /// known, which nobody need govern.
    through_service: bool,
    rules: ConnectionRules,
    /// Of which publication the rules are.
    generation: u64,
    /// The server that its client named, where TLS ends here.
    secured: Option<Name>,
    /// The names that held the destination's address when it began.
    held: SmallVec<[Name; 2]>,
    allowed: Option<LastAllowed>,
}

/// What became of a hello, a request, or what cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InspectionOutcome {
    Allowed,
    /// It passes, and that it would be refused is recorded.
    Audited(Refusal),
    Refused(Refusal),
}

/// What was allowed last, to be judged again under other rules.
#[derive(Debug, Clone)]
enum LastAllowed {
    /// Everything.
    Anything,
    Hello {
        server_name: Option<Name>,
        is_encrypted: bool,
    },
    Request(OwnedRequest),
    /// What could not be read.
    Unread,
}

/// The parts of a request that rules speak of.
#[derive(Debug, Clone)]
struct OwnedRequest {
    method: String,
    path: String,
    host: String,
    fields: Vec<(String, Vec<u8>)>,
}

impl NodeJudge {
    /// A judge by what `gate` has in force and what `ledger` holds. Without an authority nothing
    /// passes whose TLS is to end here by its certificates.
    pub fn new(gate: Arc<NodeGate>, ledger: Arc<Mutex<Ledger>>, authority: Option<Arc<LocalAuthority>>) -> Self {
        Self {
            gate,
            ledger,
            authority,
        }
    }

    /// The rules of now. A plan that is about to be in force counts where it alone knows the pod:
    /// the kernel may have handed the connection over by it.
    fn rules(&self, parties: ConnectionParties, held: &[Name]) -> PartyVerdict {
        let in_force = self.gate.in_force();
        let of = |plan: &Plan| {
            let names = |address, tiers| self.names_of(plan, address, tiers, held);
            ConnectionRules::of(plan, parties, names)
        };
        match (of(&in_force.plan), &in_force.coming) {
            (PartyVerdict::Ungoverned, Some(coming)) => of(coming),
            (verdict, _) => verdict,
        }
    }

    /// The names that hold an address now, by teachers that count for these tiers, and those that
    /// held it when the connection began.
    fn names_of(&self, plan: &Plan, address: IpAddr, tiers: ProgramId, held: &[Name]) -> SmallVec<[Name; 2]> {
        let ledger = self.ledger.lock();
        let holders = ledger.holders(clock::now(), address).into_iter();
        let counting = holders.filter(|entry| plan.may_teach(entry.teacher, tiers));
        let mut names: SmallVec<[Name; 2]> = counting.map(|entry| entry.name.clone()).collect();
        names.extend(held.iter().cloned());
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names that hold the destination now, whoever is to be asked about them.
    fn held(&self, parties: ConnectionParties) -> SmallVec<[Name; 2]> {
        let in_force = self.gate.in_force();
        let plan = &in_force.plan;
        let program = plan.desired.dispatch.egress.get(&parties.source.ip());
        let program = program.and_then(|id| plan.desired.programs.get(id));
        program.map_or_else(SmallVec::new, |program| {
            self.names_of(plan, parties.asked.ip(), program.enforced.id, &[])
        })
    }

    fn decide<'c>(
        &self,
        connection: &'c JudgedConnection,
        announced: Announcement<'_>,
    ) -> Result<Passing<'c>, L7Denial> {
        let in_force = self.gate.in_force();
        let names = |address, tiers| self.names_of(&in_force.plan, address, tiers, &connection.held);
        connection.rules.decide(announced, names)
    }

    fn judge_hello(
        &self,
        connection: &mut JudgedConnection,
        hello: &ClientHello,
    ) -> Result<(HelloVerdict<Judged>, InspectionOutcome), Refusal> {
        let announced = Announcement::Tls {
            server_name: hello.server_name.as_ref(),
            is_encrypted: hello.is_encrypted,
        };
        let passing = self.decide(connection, announced).map_err(refusal)?;
        let outcome = outcome(&passing);
        if let Some(end) = passing.tls_end {
            let name = hello.server_name.clone().ok_or(Refusal::NoName)?;
            let termination = self.termination(end, name.clone())?;
            connection.secured = Some(name);
            return Ok((HelloVerdict::Terminate(termination), outcome));
        }
        connection.allowed = Some(LastAllowed::Hello {
            server_name: hello.server_name.clone(),
            is_encrypted: hello.is_encrypted,
        });
        Ok((HelloVerdict::Pass(Judged(())), outcome))
    }

    fn termination(&self, end: &TlsEnd, name: Name) -> Result<Termination, Refusal> {
        match (end, &self.authority) {
            (TlsEnd::LocalAuthority, Some(authority)) => Ok(authority.termination(name)),
            (TlsEnd::LocalAuthority, None) => Err(Refusal::NoCertificate),
        }
    }

    fn judge_request(
        &self,
        connection: &mut JudgedConnection,
        request: &RequestHead<'_>,
    ) -> Result<(Vec<HeaderEdit>, InspectionOutcome), Refusal> {
        self.update(connection)?;
        let fields: SmallVec<[(&str, &[u8]); 24]> = request.fields().collect();
        let host = request.host().unwrap_or_default();
        // `CONNECT` has an authority in the place of a path.
        let path = match request.path() {
            "" => host,
            path => path,
        };
        let read = HttpRequest {
            method: request.method().as_bytes(),
            path: path.as_bytes(),
            host: host.as_bytes(),
            headers: &fields,
        };
        let announced = announcement(connection.secured.as_ref(), &read);
        let passing = self.decide(connection, announced).map_err(refusal)?;
        let outcome = outcome(&passing);
        let edits = passing.changes.into_iter().map(edit).collect();
        connection.allowed = Some(LastAllowed::Request(OwnedRequest {
            method: request.method().to_owned(),
            path: path.to_owned(),
            host: host.to_owned(),
            fields: fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
        }));
        Ok((edits, outcome))
    }

    /// Gives a connection the rules of now, if others than its own are in force.
    fn update(&self, connection: &mut JudgedConnection) -> Result<(), Refusal> {
        let generation = self.gate.publications();
        if generation == connection.generation {
            return Ok(());
        }
        connection.rules = match self.rules(connection.parties, &connection.held) {
            PartyVerdict::Inspected(rules) => rules,
            PartyVerdict::Allowed => ConnectionRules::default(),
            PartyVerdict::Ungoverned if connection.through_service => ConnectionRules::default(),
            PartyVerdict::Ungoverned | PartyVerdict::Denied => return Err(Refusal::Destination),
        };
        connection.generation = generation;
        Ok(())
    }

    /// Whether connections to this address are handed over because of what is behind it.
    fn is_service(&self, asked: SocketAddr) -> bool {
        let in_force = self.gate.in_force();
        let has = |plan: &Plan| {
            let services = &plan.desired.inspected_services;
            services.egress.contains(&asked) || services.ingress.contains(&asked)
        };
        has(&in_force.plan) || in_force.coming.as_deref().is_some_and(has)
    }

    /// Looks up the rules for the backend that the kernel has chosen. It has let the connection
    /// there already.
    fn judge_backend(&self, connection: &mut JudgedConnection) -> Result<BackendVerdict<Judged>, Refusal> {
        let ConnectionParties { source, asked } = connection.parties;
        let zone = self
            .gate
            .in_force()
            .plan
            .desired
            .handover
            .as_ref()
            .map_or(0, |it| it.zone);
        let backend = match enforcer::conntrack::translated(source, asked, zone) {
            Ok(backend) => backend.ok_or(Refusal::NoDestination)?,
            Err(error) => {
                tracing::warn!(%error, %source, service = %asked, "cannot tell which backend a connection has");
                return Err(Refusal::NoDestination);
            }
        };
        connection.parties.asked = backend;
        connection.held = self.held(connection.parties);
        connection.generation = self.gate.publications();
        match self.rules(connection.parties, &connection.held) {
            PartyVerdict::Denied => Err(Refusal::Destination),
            PartyVerdict::Ungoverned | PartyVerdict::Allowed => {
                connection.allowed = Some(LastAllowed::Anything);
                Ok(BackendVerdict::Pass(Judged(())))
            }
            PartyVerdict::Inspected(rules) => {
                let inspection = inspection(&rules).ok_or(Refusal::Destination)?;
                connection.rules = rules;
                Ok(BackendVerdict::Inspect(inspection))
            }
        }
    }

    fn count(&self, outcome: InspectionOutcome) {
        let metrics = self.gate.metrics();
        match outcome {
            InspectionOutcome::Allowed => metrics.inspection_allowed(),
            InspectionOutcome::Audited(refusal) => metrics.inspection_audited(refusal.label()),
            InspectionOutcome::Refused(refusal) => metrics.inspection_refused(refusal.label()),
        }
    }

    /// Counts what became of a hello or request, and records it: what is refused or would be
    /// always, what is allowed only while somebody watches.
    fn record(
        &self,
        connection: &JudgedConnection,
        outcome: InspectionOutcome,
        announced: impl FnOnce() -> RequestEvent,
    ) {
        self.count(outcome);
        let events = self.gate.events();
        if outcome == InspectionOutcome::Allowed && !events.is_watched(EventKind::Request) {
            return;
        }
        let in_force = self.gate.in_force();
        let (plan, parties) = (&in_force.plan, connection.parties);
        let part = request_events::part(plan, parties);
        if events.takes(part, EventKind::Request, clock::now()) {
            let event = request_events::event(plan, parties, &connection.rules, outcome, announced());
            events.record(part, event);
        }
    }
}

impl Judge for NodeJudge {
    type Connection = JudgedConnection;
    type Judged = Judged;

    fn connection(&self, source: SocketAddr, asked: SocketAddr) -> ConnectionVerdict<JudgedConnection, Judged> {
        let parties = ConnectionParties { source, asked };
        if self.is_service(asked) {
            return ConnectionVerdict::Inspect {
                connection: JudgedConnection {
                    parties,
                    through_service: true,
                    rules: ConnectionRules::default(),
                    generation: self.gate.publications(),
                    secured: None,
                    held: SmallVec::new(),
                    allowed: None,
                },
                // Until the backend is known.
                inspection: Inspection::HelloOrHttp,
                dial: DialTime::First,
            };
        }
        // Before the rules: those of a later plan are looked up once more.
        let generation = self.gate.publications();
        let held = self.held(parties);
        match self.rules(parties, &held) {
            PartyVerdict::Ungoverned | PartyVerdict::Denied => {
                self.count(InspectionOutcome::Refused(Refusal::Destination));
                ConnectionVerdict::Refuse(Refusal::Destination)
            }
            PartyVerdict::Allowed => ConnectionVerdict::Pass {
                connection: JudgedConnection {
                    parties,
                    through_service: false,
                    rules: ConnectionRules::default(),
                    generation,
                    secured: None,
                    held,
                    allowed: Some(LastAllowed::Anything),
                },
                judged: Judged(()),
            },
            PartyVerdict::Inspected(rules) => {
                let Some(inspection) = inspection(&rules) else {
                    self.count(InspectionOutcome::Refused(Refusal::Destination));
                    return ConnectionVerdict::Refuse(Refusal::Destination);
                };
                ConnectionVerdict::Inspect {
                    connection: JudgedConnection {
                        parties,
                        through_service: false,
                        rules,
                        generation,
                        secured: None,
                        held,
                        allowed: None,
                    },
                    inspection,
                    dial: DialTime::WhenAllowed,
                }
            }
        }
    }

    fn dialled(&self, connection: &mut JudgedConnection) -> Result<BackendVerdict<Judged>, Refusal> {
        let judged = self.judge_backend(connection);
        if let Err(refusal) = &judged {
            self.count(InspectionOutcome::Refused(*refusal));
        }
        judged
    }

    fn hello(&self, connection: &mut JudgedConnection, hello: &ClientHello) -> Result<HelloVerdict<Judged>, Refusal> {
        let judged = self.judge_hello(connection, hello);
        let outcome = match &judged {
            Ok((_, outcome)) => *outcome,
            Err(refusal) => InspectionOutcome::Refused(*refusal),
        };
        self.record(connection, outcome, || RequestEvent {
            is_tls: true,
            method: None,
            host: hello.server_name.as_ref().map_or_else(String::new, Name::to_string),
            path: None,
            status: None,
            reason: None,
        });
        judged.map(|(verdict, _)| verdict)
    }

    fn request(&self, connection: &mut JudgedConnection, request: &RequestHead<'_>) -> RequestVerdict<Judged> {
        let judged = self.judge_request(connection, request);
        let outcome = match &judged {
            Ok((_, outcome)) => *outcome,
            Err(refusal) => InspectionOutcome::Refused(*refusal),
        };
        let is_tls = connection.secured.is_some();
        self.record(connection, outcome, || RequestEvent {
            is_tls,
            method: Some(request.method().to_owned()),
            host: request.host().unwrap_or_default().to_owned(),
            path: Some(request.path().to_owned()),
            status: None,
            reason: None,
        });
        match judged {
            Ok((edits, _)) => RequestVerdict::Forward {
                judged: Judged(()),
                edits,
            },
            Err(refusal) => RequestVerdict::Deny(refusal),
        }
    }

    fn unreadable(&self, connection: &mut JudgedConnection, why: Unreadable) -> Result<Judged, Refusal> {
        let decided = self.decide(connection, Announcement::Other);
        let outcome = match decided {
            Ok(_) => InspectionOutcome::Audited(Refusal::Unreadable(why)),
            Err(_) => InspectionOutcome::Refused(Refusal::Unreadable(why)),
        };
        self.record(connection, outcome, RequestEvent::default);
        if let InspectionOutcome::Refused(refusal) = outcome {
            return Err(refusal);
        }
        connection.allowed = Some(LastAllowed::Unread);
        Ok(Judged(()))
    }

    fn generation(&self) -> u64 {
        self.gate.publications()
    }

    fn judge_again(&self, connection: &mut JudgedConnection) -> Result<Judged, Refusal> {
        self.update(connection)?;
        if connection.rules.is_empty() {
            return Ok(Judged(()));
        }
        let decided = match &connection.allowed {
            // Nothing was read that could be judged now.
            None => return Ok(Judged(())),
            Some(LastAllowed::Anything | LastAllowed::Unread) => self.decide(connection, Announcement::Other),
            Some(LastAllowed::Hello {
                server_name,
                is_encrypted,
            }) => self.decide(
                connection,
                Announcement::Tls {
                    server_name: server_name.as_ref(),
                    is_encrypted: *is_encrypted,
                },
            ),
            Some(LastAllowed::Request(request)) => {
                let fields: Vec<(&str, &[u8])> = request
                    .fields
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_slice()))
                    .collect();
                let read = HttpRequest {
                    method: request.method.as_bytes(),
                    path: request.path.as_bytes(),
                    host: request.host.as_bytes(),
                    headers: &fields,
                };
                self.decide(connection, announcement(connection.secured.as_ref(), &read))
            }
        };
        decided.map(|_| Judged(())).map_err(refusal)
    }

    fn observe(&self, connection: Option<&mut JudgedConnection>, event: PassageEvent<'_>) {
        let parties = connection.map(|connection| connection.parties);
        match &event {
            PassageEvent::Refused { refusal, .. } => self.count(InspectionOutcome::Refused(*refusal)),
            PassageEvent::DialFailed(why) => self.gate.metrics().inspection_dial_failed(why.label()),
            _ => {}
        }
        tracing::debug!(?parties, ?event, "a connection that is looked into");
    }
}

/// What a request announces, within TLS to this server or in clear.
fn announcement<'a>(secured: Option<&'a Name>, request: &'a HttpRequest<'a>) -> Announcement<'a> {
    match secured {
        Some(server_name) => Announcement::Secured { server_name, request },
        None => Announcement::Http(request),
    }
}

fn outcome(passing: &Passing<'_>) -> InspectionOutcome {
    match passing.audited {
        None => InspectionOutcome::Allowed,
        Some(denial) => InspectionOutcome::Audited(refusal(denial)),
    }
}

/// What can be judged by these rules; `None` where those of both ends ask for what no connection
/// announces together.
fn inspection(rules: &ConnectionRules) -> Option<Inspection> {
    match (rules.take_tls(), rules.take_http()) {
        (true, true) => Some(Inspection::HelloOrHttp),
        (false, true) => Some(Inspection::Http),
        (true, false) => Some(Inspection::Hello),
        (false, false) => None,
    }
}

fn refusal(denial: L7Denial) -> Refusal {
    match denial {
        L7Denial::NoRule => Refusal::Destination,
        L7Denial::OtherProtocol => Refusal::Unreadable(Unreadable::NotTls),
        L7Denial::NotTls => Refusal::Unreadable(Unreadable::NotTls),
        L7Denial::NotHttp => Refusal::Unreadable(Unreadable::NotHttp),
        L7Denial::EncryptedHello => Refusal::EncryptedHello,
        L7Denial::NoName => Refusal::NoName,
        L7Denial::ServerName => Refusal::Name,
        L7Denial::Request => Refusal::Request,
        L7Denial::OtherHost => Refusal::OtherHost,
        L7Denial::OtherName => Refusal::NameOfAnotherAddress,
    }
}

fn edit(change: HeaderChange<'_>) -> HeaderEdit {
    match change {
        HeaderChange::Add { name, value } => HeaderEdit::Append {
            name: name.into(),
            value: value.as_bytes().into(),
        },
        HeaderChange::Delete { name } => HeaderEdit::Remove { name: name.into() },
        HeaderChange::Replace { name, value } => HeaderEdit::Set {
            name: name.into(),
            value: value.as_bytes().into(),
        },
    }
}
