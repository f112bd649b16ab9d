//! A conversation with a judge of simple rules, and what both sides see.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use clock::Time;

use super::super::{Conversation, Ending, Stage};
use crate::edit::HeaderEdit;
use crate::event::{DialFailure, PassageEvent};
use crate::head::request::RequestHead;
use crate::hello::ClientHello;
use crate::judge::{BackendVerdict, ConnectionVerdict, DialTime, HelloVerdict, Inspection, Judge, RequestVerdict};
use crate::limits::PassageLimits;
use crate::refusal::{Refusal, Unreadable};

/// Lets pass what is called `allowed`: names below `allowed.example`, and paths below `/allowed`.
#[derive(Default)]
pub(super) struct PlainJudge {
    /// Whether it lets everything pass (mode audit).
    pub(super) audits: bool,
    /// What can be judged once the backend is known; `None`: it is let through.
    pub(super) backend: Option<Inspection>,
    pub(super) edits: Vec<HeaderEdit>,
    pub(super) refuses_again: Mutex<bool>,
    pub(super) events: Mutex<Vec<String>>,
}

/// Only [`PlainJudge`] makes one.
pub(super) struct PlainJudged(());

impl Judge for PlainJudge {
    type Connection = ();
    type Judged = PlainJudged;

    fn connection(&self, _source: SocketAddr, _asked: SocketAddr) -> ConnectionVerdict<(), PlainJudged> {
        ConnectionVerdict::Refuse(Refusal::Destination)
    }

    fn dialled(&self, (): &mut ()) -> Result<BackendVerdict<PlainJudged>, Refusal> {
        self.note("dialled".to_owned());
        Ok(match self.backend {
            Some(inspection) => BackendVerdict::Inspect(inspection),
            None => BackendVerdict::Pass(PlainJudged(())),
        })
    }

    fn hello(&self, (): &mut (), hello: &ClientHello) -> Result<HelloVerdict<PlainJudged>, Refusal> {
        match &hello.server_name {
            Some(name) if name.as_str().ends_with("allowed.example.") => Ok(HelloVerdict::Pass(PlainJudged(()))),
            Some(_) => Err(Refusal::Name),
            None => Err(Refusal::NoName),
        }
    }

    fn request(&self, (): &mut (), request: &RequestHead<'_>) -> RequestVerdict<PlainJudged> {
        self.note(format!(
            "{} {} {}",
            request.method(),
            request.host().unwrap_or("-"),
            request.path()
        ));
        match request.path().starts_with("/allowed") || ["CONNECT", "OPTIONS"].contains(&request.method()) {
            true => RequestVerdict::Forward {
                judged: PlainJudged(()),
                edits: self.edits.clone(),
            },
            false => RequestVerdict::Deny(Refusal::Request),
        }
    }

    fn unreadable(&self, (): &mut (), why: Unreadable) -> Result<PlainJudged, Refusal> {
        self.note(format!("{why:?}"));
        match self.audits {
            true => Ok(PlainJudged(())),
            false => Err(why.into()),
        }
    }

    fn generation(&self) -> u64 {
        0
    }

    fn judge_again(&self, (): &mut ()) -> Result<PlainJudged, Refusal> {
        match *self.refuses_again.lock().unwrap() {
            true => Err(Refusal::Destination),
            false => Ok(PlainJudged(())),
        }
    }

    fn observe(&self, _connection: Option<&mut ()>, event: PassageEvent<'_>) {
        self.note(format!("{event:?}"));
    }
}

impl PlainJudge {
    fn note(&self, what: String) {
        self.events.lock().unwrap().push(what);
    }
}

/// One conversation. Each side sees at once what the proxy writes, unless it is told to wait.
pub(super) struct Talk {
    pub(super) judge: PlainJudge,
    conversation: RefCell<Conversation<PlainJudge>>,
    now: Cell<Time>,
    /// Whether a server accepts as soon as it is dialled.
    pub(super) accepts: bool,
    to_server: RefCell<Vec<u8>>,
    to_client: RefCell<Vec<u8>>,
}

impl Talk {
    pub(super) fn new(inspection: Inspection) -> Self {
        Self::with(PlainJudge::default(), inspection, DialTime::WhenAllowed)
    }

    pub(super) fn http() -> Self {
        Self::new(Inspection::Http)
    }

    pub(super) fn with(judge: PlainJudge, inspection: Inspection, dial: DialTime) -> Self {
        let begin = Time::from_millis(1_000_000);
        let limits = PassageLimits::default();
        Self {
            judge,
            conversation: Conversation::inspect((), inspection, dial, limits, begin).into(),
            now: begin.into(),
            accepts: true,
            to_server: RefCell::default(),
            to_client: RefCell::default(),
        }
    }

    /// The client sends.
    pub(super) fn client(&self, octets: impl AsRef<[u8]>) {
        let mut conversation = self.conversation.borrow_mut();
        if let Some(space) = conversation.client_space() {
            let room = space.capacity() - space.len();
            space.extend_from_slice(octets.as_ref());
            conversation.client_sent(octets.as_ref().len(), room);
        }
        drop(conversation);
        self.pump();
    }

    /// The server sends.
    pub(super) fn server(&self, octets: impl AsRef<[u8]>) {
        let mut conversation = self.conversation.borrow_mut();
        let space = conversation.server_space().expect("the server is read");
        let room = space.capacity() - space.len();
        space.extend_from_slice(octets.as_ref());
        conversation.server_sent(octets.as_ref().len(), room);
        drop(conversation);
        self.pump();
    }

    pub(super) fn client_ends(&self) {
        self.conversation.borrow_mut().client_ended();
        self.pump();
    }

    pub(super) fn server_ends(&self) {
        self.conversation.borrow_mut().server_ended();
        self.pump();
    }

    pub(super) fn connected(&self) {
        self.conversation.borrow_mut().connected(&self.judge, self.now.get());
        self.pump();
    }

    pub(super) fn dial_failed(&self, why: DialFailure) {
        self.conversation
            .borrow_mut()
            .dial_failed(&self.judge, why, self.now.get());
        self.pump();
    }

    pub(super) fn drain(&self) {
        self.conversation.borrow_mut().drain();
    }

    pub(super) fn rules_change(&self, are_narrower: bool) {
        *self.judge.refuses_again.lock().unwrap() = are_narrower;
        self.conversation.borrow_mut().judge_again(&self.judge);
        self.pump();
    }

    pub(super) fn time_passes(&self, time: Duration) {
        self.now.set(self.now.get() + time);
        self.conversation.borrow_mut().time_passed(&self.judge, self.now.get());
        self.pump();
    }

    fn pump(&self) {
        let mut conversation = self.conversation.borrow_mut();
        loop {
            conversation.advance(&self.judge, self.now.get());
            if self.accepts && conversation.wants_dial() {
                conversation.connected(&self.judge, self.now.get());
                continue;
            }
            let up: Vec<u8> = conversation.for_server().concat();
            let down: Vec<u8> = conversation.for_client().concat();
            if up.is_empty() && down.is_empty() {
                break;
            }
            conversation.sent_to_server(up.len());
            conversation.sent_to_client(down.len());
            self.to_server.borrow_mut().extend(up);
            self.to_client.borrow_mut().extend(down);
        }
        conversation.release_memory();
    }

    /// What came to the server since it was last asked.
    pub(super) fn server_saw(&self) -> String {
        String::from_utf8_lossy(&self.to_server.take()).into_owned()
    }

    /// Whether more is wanted of the server.
    pub(super) fn reads_server(&self) -> bool {
        self.conversation.borrow_mut().server_space().is_some()
    }

    /// As [`server_saw`](Self::server_saw), as octets.
    pub(super) fn server_octets(&self) -> Vec<u8> {
        self.to_server.take()
    }

    /// As [`client_saw`](Self::client_saw), as octets.
    pub(super) fn client_octets(&self) -> Vec<u8> {
        self.to_client.take()
    }

    /// The client sends as much as it may, and reads nothing.
    pub(super) fn client_unread(&self, octets: &[u8]) {
        let mut conversation = self.conversation.borrow_mut();
        if let Some(space) = conversation.client_space() {
            space.extend_from_slice(octets);
            conversation.client_sent(octets.len(), octets.len());
        }
        conversation.advance(&self.judge, self.now.get());
    }

    /// How many octets wait for a client that reads nothing.
    pub(super) fn waits_for_client(&self) -> usize {
        self.conversation.borrow().for_client().concat().len()
    }

    /// What came to the client since it was last asked.
    pub(super) fn client_saw(&self) -> String {
        String::from_utf8_lossy(&self.to_client.take()).into_owned()
    }

    /// The status of each response that came to the client since it was last asked.
    pub(super) fn statuses(&self) -> Vec<u16> {
        let seen = self.client_saw();
        seen.split("HTTP/1.1 ")
            .skip(1)
            .filter_map(|rest| rest.get(..3)?.parse().ok())
            .collect()
    }

    /// Whether a request has left, and no response has come.
    pub(super) fn awaits_response(&self) -> bool {
        let conversation = self.conversation.borrow();
        match &conversation.stage {
            Stage::Http(exchange) => exchange.awaits_response(),
            _ => false,
        }
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.conversation.borrow().wants_dial()
    }

    pub(super) fn ending(&self) -> Option<Ending> {
        self.conversation.borrow().ending()
    }

    /// Whether the client is told the end, as far as the proxy is concerned.
    pub(super) fn ends_client(&self) -> bool {
        self.conversation.borrow().ends_client()
    }

    pub(super) fn ends_server(&self) -> bool {
        self.conversation.borrow().ends_server()
    }

    pub(super) fn may_splice(&self) -> bool {
        self.conversation.borrow().may_splice()
    }

    pub(super) fn events(&self) -> Vec<String> {
        std::mem::take(&mut *self.judge.events.lock().unwrap())
    }
}
