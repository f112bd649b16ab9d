//! One connection as a state machine: octets and time go in, octets come out, and no socket is
//! known here.
//!
//! - `lane`, `server_bound`: what is on its way in one direction.
//! - `opening`: before anything is judged. `handshake`: TLS that ends here. `http`: requests and
//!   responses, one after the other. `http2`: those of HTTP/2. What follows an opaque verdict is
//!   passed on here.
//! - `reply`: what the proxy answers itself.
//!
//! Whoever drives it reads into [`client_space`](Conversation::client_space) and
//! [`server_space`](Conversation::server_space) where it wants more, says what came, calls
//! [`advance`](Conversation::advance), and writes what is pending.

mod handshake;
mod http;
mod http2;
mod lane;
mod opening;
mod reply;
mod server_bound;
#[cfg(test)]
mod tests;

use std::time::Duration;

use clock::Time;

use crate::event::{DialFailure, PassageEvent};
use crate::judge::{BackendVerdict, DialTime, Inspection, Judge};
use crate::limits::PassageLimits;
use crate::refusal::{Refusal, Unreadable};
use crate::termination::Termination;
use http::Exchange;
use http2::Http2Exchange;
use lane::Lane;
use opening::Opening;
use reply::OwnReply;
use server_bound::ServerBound;

/// What waits in one direction before its sender is no longer read, in octets.
const MOST_HELD: usize = 256 << 10;
/// How long the end of a client is waited for that got an answer which ends its connection. A
/// socket that is closed while octets of the client wait in it is reset, and the answer lost. The
/// last octets of TLS may take as long to leave.
pub(crate) const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// One connection, from its accept to its end.
pub struct Conversation<J: Judge> {
    limits: PassageLimits,
    connection: J::Connection,
    stage: Stage<J>,
    to_server: ServerBound<J::Judged>,
    to_client: Lane,
    dial: Dial,
    /// How TLS ends here, if it does.
    termination: Option<Termination>,
    /// Since when the stage, or the wait within it, lasts.
    since: Time,
    ending: Option<Ending>,
    /// Whether the server's side is over before the client's.
    server_is_done: bool,
    /// Whether the connection is to end with the response that is under way.
    drains: bool,
}

enum Stage<J: Judge> {
    Opening(Opening),
    /// Whoever drives the conversation agrees on TLS with the client.
    Handshake,
    Http(Exchange<J::Judged>),
    Http2(Box<Http2Exchange<J>>),
    /// Everything passes.
    Opaque(J::Judged),
    /// The last answer is on its way; what the client still sends is discarded.
    Farewell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dial {
    NotYet,
    Wanted(Time),
    Connected,
}

/// How a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Both sides are closed.
    Close,
    /// Both sides are reset.
    Reset,
}

impl<J: Judge> Conversation<J> {
    /// A connection whose content is judged.
    pub fn inspect(
        connection: J::Connection,
        inspection: Inspection,
        dial: DialTime,
        limits: PassageLimits,
        now: Time,
    ) -> Self {
        let dial = match dial {
            DialTime::First => Dial::Wanted(now),
            DialTime::WhenAllowed => Dial::NotYet,
        };
        Self::new(connection, Stage::Opening(Opening::new(inspection)), dial, limits, now)
    }

    /// A connection that passes unread.
    pub fn pass(connection: J::Connection, judged: J::Judged, limits: PassageLimits, now: Time) -> Self {
        Self::new(connection, Stage::Opaque(judged), Dial::Wanted(now), limits, now)
    }

    fn new(connection: J::Connection, stage: Stage<J>, dial: Dial, limits: PassageLimits, now: Time) -> Self {
        Self {
            limits,
            connection,
            stage,
            to_server: ServerBound::new(),
            to_client: Lane::default(),
            dial,
            termination: None,
            since: now,
            ending: None,
            server_is_done: false,
            drains: false,
        }
    }

    /// Goes as far as what has come allows.
    pub fn advance(&mut self, judge: &J, now: Time) {
        while self.ending.is_none() && self.step(judge, now) {}
    }

    /// Whether something changed, so that another step may follow.
    fn step(&mut self, judge: &J, now: Time) -> bool {
        match &mut self.stage {
            Stage::Opening(_) => self.step_opening(judge, now),
            Stage::Handshake => false,
            Stage::Http(_) => self.step_http(judge, now),
            Stage::Http2(_) => self.step_http2(judge, now),
            Stage::Opaque(judged) => {
                let (up, down) = (self.to_server.fresh().len(), self.to_client.fresh().len());
                self.to_server.clear(judged, up);
                self.to_client.clear(down);
                if up + down > 0 {
                    self.since = now;
                }
                let are_over = self.to_server.has_ended() && self.to_client.has_ended;
                if are_over && self.to_server.is_flushed() && self.to_client.is_flushed() {
                    self.ending = Some(Ending::Close);
                }
                false
            }
            Stage::Farewell => {
                self.to_server.discard_fresh();
                self.to_client.discard_fresh();
                if self.to_server.has_ended() && self.to_client.is_flushed() {
                    self.ending = Some(Ending::Close);
                }
                false
            }
        }
    }

    /// Everything passes from here on.
    fn go_opaque(&mut self, judged: J::Judged, now: Time) {
        self.want_dial(now);
        self.since = now;
        self.stage = Stage::Opaque(judged);
    }

    fn want_dial(&mut self, now: Time) {
        if self.dial == Dial::NotYet {
            self.dial = Dial::Wanted(now);
        }
    }

    /// What the client sends cannot be read: the judge may let it pass nevertheless, unread.
    fn unreadable(&mut self, judge: &J, why: Unreadable, reply: Option<OwnReply>, now: Time) {
        match (judge.unreadable(&mut self.connection, why), reply) {
            (Ok(judged), _) => self.go_opaque(judged, now),
            (Err(_), Some(reply)) => self.reply_and_end(reply, now),
            (Err(_), None) => self.ending = Some(Ending::Reset),
        }
    }

    /// Answers, and ends the connection when the answer has left. It must not stand in the middle
    /// of another.
    fn reply_and_end(&mut self, reply: OwnReply, now: Time) {
        if !self.to_client.is_flushed() {
            self.ending = Some(Ending::Reset);
            return;
        }
        self.to_client.discard_fresh();
        self.to_client.replace(0, reply.write(false, true));
        self.say_farewell(now);
    }

    /// Ends the connection when what is cleared for the client has left.
    fn say_farewell(&mut self, now: Time) {
        self.server_is_done = true;
        self.since = now;
        self.stage = Stage::Farewell;
    }

    // What sockets say.

    /// Where to put what the client sends; `None` while no more is wanted.
    pub fn client_space(&mut self) -> Option<&mut Vec<u8>> {
        let most = match self.stage {
            // As much as a head may have, and one octet more to tell that it has more.
            Stage::Opening(_) | Stage::Handshake | Stage::Http(_) => MOST_HELD.max(self.limits.head_octets + 1),
            Stage::Http2(_) | Stage::Opaque(_) | Stage::Farewell => MOST_HELD,
        };
        let is_wanted =
            !self.to_server.has_ended() && self.to_server.held() < most && !matches!(self.stage, Stage::Handshake);
        is_wanted.then(|| self.to_server.io().space())
    }

    /// A read has appended `count` octets to the space, where `room` would have fitted.
    pub fn client_sent(&mut self, count: usize, room: usize) {
        self.to_server.io().came(count, room);
    }

    /// The client will send nothing more.
    pub fn client_ended(&mut self) {
        self.to_server.io().ended();
    }

    /// As [`client_space`](Self::client_space), for the server.
    pub fn server_space(&mut self) -> Option<&mut Vec<u8>> {
        let is_wanted = !self.server_is_done
            && self.dial == Dial::Connected
            && !self.to_client.has_ended
            && self.to_client.held() < MOST_HELD;
        is_wanted.then(|| self.to_client.space())
    }

    /// As [`client_sent`](Self::client_sent), for the server.
    pub fn server_sent(&mut self, count: usize, room: usize) {
        self.to_client.came(count, room);
    }

    /// The server will send nothing more.
    pub fn server_ended(&mut self) {
        self.to_client.has_ended = true;
    }

    /// What is to be written to the server, in order. Empty before the server is dialled.
    pub fn for_server(&self) -> [&[u8]; 2] {
        match self.dial == Dial::Connected && !self.server_is_done {
            true => self.to_server.pending(),
            false => [&[], &[]],
        }
    }

    /// So many octets of it have been written.
    pub fn sent_to_server(&mut self, count: usize) {
        self.to_server.io().sent(count);
    }

    /// What is to be written to the client, in order.
    pub fn for_client(&self) -> [&[u8]; 2] {
        self.to_client.pending()
    }

    /// So many octets of it have been written.
    pub fn sent_to_client(&mut self, count: usize) {
        self.to_client.sent(count);
    }

    /// Gives memory back that nothing is in: the connection is about to wait.
    pub fn release_memory(&mut self) {
        self.to_server.io().release();
        self.to_client.release();
    }

    /// Whether the server is to be dialled now.
    pub fn wants_dial(&self) -> bool {
        matches!(self.dial, Dial::Wanted(_)) && self.ending.is_none() && !self.server_is_done
    }

    /// The connection to the server stands.
    pub fn connected(&mut self, judge: &J, now: Time) {
        self.dial = Dial::Connected;
        if let Stage::Opening(opening) = &mut self.stage {
            match judge.dialled(&mut self.connection) {
                Ok(BackendVerdict::Inspect(inspection)) => *opening = Opening::new(inspection),
                Ok(BackendVerdict::Pass(judged)) => self.stage = Stage::Opaque(judged),
                Err(_) => self.ending = Some(Ending::Reset),
            }
        }
        if let Stage::Opaque(_) = self.stage {
            self.since = now;
        }
    }

    /// The server cannot be reached.
    pub fn dial_failed(&mut self, judge: &J, why: DialFailure, now: Time) {
        self.observe(judge, PassageEvent::DialFailed(why));
        match (&self.stage, why) {
            (Stage::Http2(_), why) => self.http2_dial_failed(why, now),
            (Stage::Http(_), DialFailure::TimedOut) => self.reply_and_end(OwnReply::GatewayTimeout, now),
            (Stage::Http(_), _) => self.reply_and_end(OwnReply::BadGateway, now),
            _ => self.ending = Some(Ending::Reset),
        }
    }

    /// Whether the server is to be told that nothing more comes (FIN).
    pub fn ends_server(&self) -> bool {
        let is_passed_on = match &self.stage {
            Stage::Opaque(_) => true,
            Stage::Http(exchange) => exchange.passes_end_on(),
            Stage::Opening(_) | Stage::Handshake | Stage::Http2(_) | Stage::Farewell => false,
        };
        is_passed_on && self.to_server.has_ended() && self.to_server.fresh().is_empty() && self.to_server.is_flushed()
    }

    /// Whether the client is to be told that nothing more comes (FIN).
    pub fn ends_client(&self) -> bool {
        let is_passed_on = match &self.stage {
            Stage::Opaque(_) => self.to_client.has_ended,
            Stage::Farewell => true,
            Stage::Opening(_) | Stage::Handshake | Stage::Http(_) | Stage::Http2(_) => false,
        };
        is_passed_on && self.to_client.fresh().is_empty() && self.to_client.is_flushed()
    }

    /// Whether the socket to the server may be closed already.
    pub fn server_is_done(&self) -> bool {
        self.server_is_done
    }

    /// Whether the kernel may pass on what comes from now on, both ways.
    pub fn may_splice(&self) -> bool {
        matches!(self.stage, Stage::Opaque(_))
            && self.termination.is_none()
            && self.dial == Dial::Connected
            && self.ending.is_none()
            && [self.to_server.held(), self.to_client.held()] == [0, 0]
    }

    /// How it ends, once that is so.
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Whether the sender of either side has ended, for whoever goes on with a splice.
    pub fn ended_sides(&self) -> (bool, bool) {
        (self.to_server.has_ended(), self.to_client.has_ended)
    }

    // Time and rules.

    /// When [`time_passed`](Self::time_passed) is to be called at the latest.
    pub fn deadline(&self) -> Option<Time> {
        let of_stage = match &self.stage {
            Stage::Opening(opening) => Some(self.since + opening.patience(&self.limits)),
            Stage::Handshake => Some(self.since + self.limits.handshake_time),
            Stage::Http(exchange) => exchange.patience(&self.limits).map(|patience| self.since + patience),
            Stage::Http2(exchange) => exchange.deadline(self.since, self.to_client.is_flushed(), &self.limits),
            Stage::Opaque(_) => Some(self.since + self.limits.opaque_idle_time),
            Stage::Farewell => Some(self.since + FAREWELL_TIME),
        };
        let of_dial = match self.dial {
            Dial::Wanted(since) if !self.server_is_done => Some(since + self.limits.connect_time),
            _ => None,
        };
        of_stage.into_iter().chain(of_dial).min()
    }

    /// Ends what has lasted too long.
    pub fn time_passed(&mut self, judge: &J, now: Time) {
        if self.deadline().is_none_or(|deadline| now < deadline) || self.ending.is_some() {
            return;
        }
        if let Dial::Wanted(since) = self.dial
            && since + self.limits.connect_time <= now
            && !self.server_is_done
        {
            return self.dial_failed(judge, DialFailure::TimedOut, now);
        }
        match &self.stage {
            Stage::Opening(opening) if opening.reads_hello() => {
                self.unreadable(judge, Unreadable::SlowHello, None, now)
            }
            Stage::Handshake => self.refuse_handshake(judge, Unreadable::SlowHandshake, ""),
            Stage::Http(exchange) if exchange.waits_for_head() => {
                self.unreadable(judge, Unreadable::SlowRequest, Some(OwnReply::RequestTimeout), now);
            }
            Stage::Http2(_) => self.http2_stands_still(judge, now),
            Stage::Opening(_) | Stage::Http(_) | Stage::Farewell => self.ending = Some(Ending::Close),
            Stage::Opaque(_) => self.ending = Some(Ending::Reset),
        }
    }

    /// Octets have passed without being seen here.
    pub fn spliced(&mut self, now: Time) {
        self.since = now;
    }

    /// Judges again what was last allowed, since the rules have changed.
    pub fn judge_again(&mut self, judge: &J) {
        let judged = match &mut self.stage {
            Stage::Opaque(judged) => judged,
            Stage::Http(exchange) => match exchange.judged_mut() {
                Some(judged) => judged,
                // The next request is judged by the rules of then.
                None => return,
            },
            Stage::Http2(exchange) => return exchange.judge_again(judge),
            Stage::Opening(_) | Stage::Handshake | Stage::Farewell => return,
        };
        match judge.judge_again(&mut self.connection) {
            Ok(again) => *judged = again,
            Err(_) => self.ending = Some(Ending::Reset),
        }
    }

    /// The connection is to end as soon as that loses nothing: with the next response, and
    /// in HTTP/2 with the last of those under way.
    pub fn drain(&mut self) {
        self.drains = true;
        if let Stage::Http2(exchange) = &mut self.stage {
            exchange.leave();
        }
    }

    /// Tells the judge that it is over.
    pub fn closed(&mut self, judge: &J, spliced: (u64, u64)) {
        let (to_server, to_client) = (
            self.to_server.octets_sent() + spliced.0,
            self.to_client.sent + spliced.1,
        );
        self.observe(judge, PassageEvent::Closed { to_server, to_client });
    }

    fn observe(&mut self, judge: &J, event: PassageEvent<'_>) {
        judge.observe(Some(&mut self.connection), event);
    }

    fn refused(&mut self, judge: &J, refusal: Refusal, detail: &str) {
        self.observe(judge, PassageEvent::Refused { refusal, detail });
    }
}
