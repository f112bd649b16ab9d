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
    ClientHello, ConnectionVerdict, DialTime, HeaderEdit, HelloVerdict, Inspection, Judge, PassageEvent, Refusal,
    RequestHead, RequestVerdict, Termination, Unreadable,
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
#[derive(Debug)]
pub struct JudgedConnection {
    parties: ConnectionParties,
    rules: ConnectionRules,
    /// Of which publication the rules are.
    generation: u64,
    /// The server that its client named, where TLS ends here.
    secured: Option<Name>,
    /// The names that held the destination's address when it began.
    held: SmallVec<[Name; 2]>,
    allowed: Option<LastAllowed>,
}

/// What was allowed last, to be judged again under other rules.
#[derive(Debug)]
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
#[derive(Debug)]
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
    ) -> Result<HelloVerdict<Judged>, Refusal> {
        let announced = Announcement::Tls {
            server_name: hello.server_name.as_ref(),
            is_encrypted: hello.is_encrypted,
        };
        let passing = self.decide(connection, announced).map_err(refusal)?;
        if let Some(end) = passing.tls_end {
            let name = hello.server_name.clone().ok_or(Refusal::NoName)?;
            let termination = self.termination(end, name.clone())?;
            connection.secured = Some(name);
            return Ok(HelloVerdict::Terminate(termination));
        }
        connection.allowed = Some(LastAllowed::Hello {
            server_name: hello.server_name.clone(),
            is_encrypted: hello.is_encrypted,
        });
        Ok(HelloVerdict::Pass(Judged(())))
    }

    fn termination(&self, end: &TlsEnd, name: Name) -> Result<Termination, Refusal> {
        match (end, &self.authority) {
            (TlsEnd::LocalAuthority, Some(authority)) => Ok(authority.termination(name)),
            (TlsEnd::LocalAuthority, None) => Err(Refusal::NoCertificate),
        }
    }

    fn judge_request(&self, connection: &mut JudgedConnection, request: &RequestHead<'_>) -> RequestVerdict<Judged> {
        if let Err(refusal) = self.update(connection) {
            return RequestVerdict::Deny(refusal);
        }
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
        let decided = self.decide(connection, announcement(connection.secured.as_ref(), &read));
        match decided.map(|passing| passing.changes.into_iter().map(edit).collect()) {
            Err(denial) => RequestVerdict::Deny(refusal(denial)),
            Ok(edits) => {
                connection.allowed = Some(LastAllowed::Request(OwnedRequest {
                    method: request.method().to_owned(),
                    path: path.to_owned(),
                    host: host.to_owned(),
                    fields: fields
                        .iter()
                        .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                        .collect(),
                }));
                RequestVerdict::Forward {
                    judged: Judged(()),
                    edits,
                }
            }
        }
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
            PartyVerdict::Ungoverned | PartyVerdict::Denied => return Err(Refusal::Destination),
        };
        connection.generation = generation;
        Ok(())
    }

    fn count(&self, refused: Option<Refusal>) {
        match refused {
            None => self.gate.metrics().inspection_allowed(),
            Some(refusal) => self.gate.metrics().inspection_refused(refusal.label()),
        }
    }

    /// Counts what became of a hello or request, and records it: what is refused always, what
    /// passes only while somebody watches.
    fn record(
        &self,
        connection: &JudgedConnection,
        refused: Option<Refusal>,
        announced: impl FnOnce() -> RequestEvent,
    ) {
        self.count(refused);
        let events = self.gate.events();
        if refused.is_none() && !events.is_watched(EventKind::Request) {
            return;
        }
        let in_force = self.gate.in_force();
        let (plan, parties) = (&in_force.plan, connection.parties);
        let part = request_events::part(plan, parties);
        if events.takes(part, EventKind::Request, clock::now()) {
            let event = request_events::event(plan, parties, &connection.rules, refused, announced());
            events.record(part, event);
        }
    }
}

impl Judge for NodeJudge {
    type Connection = JudgedConnection;
    type Judged = Judged;

    fn connection(&self, source: SocketAddr, asked: SocketAddr) -> ConnectionVerdict<JudgedConnection, Judged> {
        let parties = ConnectionParties { source, asked };
        // Before the rules: those of a later plan are looked up once more.
        let generation = self.gate.publications();
        let held = self.held(parties);
        match self.rules(parties, &held) {
            PartyVerdict::Ungoverned | PartyVerdict::Denied => {
                self.count(Some(Refusal::Destination));
                ConnectionVerdict::Refuse(Refusal::Destination)
            }
            PartyVerdict::Allowed => ConnectionVerdict::Pass {
                connection: JudgedConnection {
                    parties,
                    rules: ConnectionRules::default(),
                    generation,
                    secured: None,
                    held,
                    allowed: Some(LastAllowed::Anything),
                },
                judged: Judged(()),
            },
            PartyVerdict::Inspected(rules) => {
                let inspection = match (rules.take_tls(), rules.take_http()) {
                    (true, true) => Inspection::HelloOrHttp,
                    (false, true) => Inspection::Http,
                    (true, false) => Inspection::Hello,
                    // The rules of both ends ask for what no connection announces together.
                    (false, false) => return ConnectionVerdict::Refuse(Refusal::Destination),
                };
                ConnectionVerdict::Inspect {
                    connection: JudgedConnection {
                        parties,
                        rules,
                        generation,
                        secured: None,
                        held,
                        allowed: None,
                    },
                    inspection,
                    // The kernel hands over by the address of the backend, never by a Service's.
                    dial: DialTime::WhenAllowed,
                }
            }
        }
    }

    fn dialled(&self, _connection: &mut JudgedConnection) -> Result<(), Refusal> {
        Ok(())
    }

    fn hello(&self, connection: &mut JudgedConnection, hello: &ClientHello) -> Result<HelloVerdict<Judged>, Refusal> {
        let judged = self.judge_hello(connection, hello);
        self.record(connection, judged.as_ref().err().copied(), || RequestEvent {
            is_tls: true,
            method: None,
            host: hello.server_name.as_ref().map_or_else(String::new, Name::to_string),
            path: None,
            status: None,
            reason: None,
        });
        judged
    }

    fn request(&self, connection: &mut JudgedConnection, request: &RequestHead<'_>) -> RequestVerdict<Judged> {
        let verdict = self.judge_request(connection, request);
        let refused = match &verdict {
            RequestVerdict::Forward { .. } => None,
            RequestVerdict::Deny(refusal) => Some(*refusal),
        };
        let is_tls = connection.secured.is_some();
        self.record(connection, refused, || RequestEvent {
            is_tls,
            method: Some(request.method().to_owned()),
            host: request.host().unwrap_or_default().to_owned(),
            path: Some(request.path().to_owned()),
            status: None,
            reason: None,
        });
        verdict
    }

    fn unreadable(&self, connection: &mut JudgedConnection, why: Unreadable) -> Result<Judged, Refusal> {
        let refused = |_| Refusal::Unreadable(why);
        let decided = self.decide(connection, Announcement::Other).map_err(refused);
        self.count(decided.as_ref().err().copied());
        decided?;
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
        if let PassageEvent::Refused { refusal, .. } = &event {
            self.count(Some(*refusal));
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
