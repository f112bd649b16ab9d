//! Before anything is judged: what does the client speak, and whom does its hello name?

use std::time::Duration;

use clock::Time;

use super::http::Exchange;
use super::{Conversation, Dial, Ending, Stage};
use crate::hello::{HANDSHAKE, HelloProgress, HelloReader};
use crate::judge::{HelloVerdict, Inspection, Judge};
use crate::limits::PassageLimits;
use crate::refusal::Unreadable;

pub(super) struct Opening {
    inspection: Inspection,
    reader: HelloReader,
}

impl Opening {
    pub(super) fn new(inspection: Inspection) -> Self {
        Self {
            inspection,
            reader: HelloReader::default(),
        }
    }

    /// A client of HTTP may be silent as long as between two requests.
    pub(super) fn patience(&self, limits: &PassageLimits) -> Duration {
        match self.inspection {
            Inspection::Hello | Inspection::HelloOrHttp => limits.hello_time,
            Inspection::Http => limits.idle_time,
        }
    }

    pub(super) fn reads_hello(&self) -> bool {
        self.inspection != Inspection::Http
    }
}

impl<J: Judge> Conversation<J> {
    pub(super) fn step_opening(&mut self, judge: &J, now: Time) -> bool {
        let Stage::Opening(opening) = &mut self.stage else {
            return false;
        };
        // The judge is to know the backend before it is asked anything.
        if let Dial::Wanted(_) = self.dial {
            return false;
        }
        let input = self.to_server.fresh();
        let Some(first) = input.first() else {
            if self.to_server.has_ended() {
                self.ending = Some(Ending::Close);
            }
            return false;
        };
        match (opening.inspection, *first == HANDSHAKE) {
            (Inspection::Hello, false) => {
                self.unreadable(judge, Unreadable::NotTls, None, now);
                return true;
            }
            (Inspection::Http, true) => {
                self.unreadable(judge, Unreadable::NotHttp, None, now);
                return true;
            }
            (Inspection::Http | Inspection::HelloOrHttp, false) => {
                self.stage = Stage::Http(Exchange::new());
                self.since = now;
                return true;
            }
            (Inspection::Hello | Inspection::HelloOrHttp, true) => {}
        }
        match opening.reader.read(input, self.limits.hello_octets) {
            HelloProgress::Incomplete => {
                if self.to_server.has_ended() {
                    self.ending = Some(Ending::Close);
                }
                return false;
            }
            HelloProgress::Whole(hello) => match judge.hello(&mut self.connection, &hello) {
                Ok(HelloVerdict::Pass(judged)) => self.go_opaque(judged, now),
                Ok(HelloVerdict::Terminate(termination)) => {
                    self.termination = Some(termination);
                    self.since = now;
                    self.stage = Stage::Handshake;
                }
                Err(_) => self.ending = Some(Ending::Reset),
            },
            HelloProgress::TooLong => self.unreadable(judge, Unreadable::LongHello, None, now),
            HelloProgress::Invalid(_) => self.unreadable(judge, Unreadable::MalformedHello, None, now),
        }
        true
    }
}
