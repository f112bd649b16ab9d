//! TLS that ends here. Keys and records are not known to the conversation: whoever drives it agrees
//! with the client, and puts in and takes out what is in clear.

use clock::Time;

use super::http::Exchange;
use super::{Conversation, Ending, Stage};
use crate::judge::Judge;
use crate::refusal::Unreadable;
use crate::termination::Termination;

impl<J: Judge> Conversation<J> {
    /// How to agree on TLS with the client, while that is what is waited for. What the client has
    /// sent already, its hello first, is [`take_hello`](Self::take_hello)'s.
    pub fn wants_handshake(&self) -> Option<&Termination> {
        self.termination
            .as_ref()
            .filter(|_| matches!(self.stage, Stage::Handshake))
    }

    /// How TLS ends here, if it does.
    pub fn termination(&self) -> Option<&Termination> {
        self.termination.as_ref()
    }

    /// What the client has sent until now. Nothing of it is for the server.
    pub fn take_hello(&mut self) -> Vec<u8> {
        let hello = self.to_server.fresh().to_vec();
        self.to_server.discard_fresh();
        hello
    }

    /// The client and the proxy agree: requests follow.
    pub fn client_secured(&mut self, now: Time) {
        self.stage = Stage::Http(Exchange::new());
        self.since = now;
    }

    /// They do not.
    pub fn handshake_failed(&mut self, judge: &J, detail: &str) {
        self.refuse_handshake(judge, Unreadable::FailedHandshake, detail);
    }

    pub(super) fn refuse_handshake(&mut self, judge: &J, why: Unreadable, detail: &str) {
        self.refused(judge, why.into(), detail);
        self.ending = Some(Ending::Close);
    }

    /// The server is gone without the end that TLS has for that (`close_notify`), so that what it
    /// sent may be cut off. Where that cannot be seen from the length of a response, the client
    /// sees it cut off too.
    pub fn server_broke_off(&mut self) {
        let is_cut_off = match &self.stage {
            Stage::Http(exchange) => exchange.lasts_until_end(),
            Stage::Opaque(_) => true,
            // Its streams have ends of their own.
            Stage::Opening(_) | Stage::Handshake | Stage::Http2(_) | Stage::Farewell => false,
        };
        match is_cut_off {
            true => self.ending = Some(Ending::Reset),
            false => self.server_ended(),
        }
    }
}
