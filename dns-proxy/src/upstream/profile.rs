//! What an upstream understands of EDNS and DNS cookies (RFC 7873).
//!
//! A cookie is a secret that a forger off the path has to guess besides port and id. An upstream
//! that has sent a cookie is believed over UDP only with ours, so nothing that a forger can send
//! may reset that. Answers over a connection cannot be forged and are believed as they are.
//!
//! Pure: time is an argument.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::cookie::{self, CLIENT, Cookies};
use crate::edns::{self, COOKIE};
use crate::wire_format::{Header, Malformed};

/// How long an upstream is asked with less after it did not understand something.
const SPARED: Duration = Duration::from_secs(600);

/// Upstreams that are remembered; more than anybody configures.
const REMEMBERED: usize = 256;

/// FORMERR and NOTIMP: what servers say to an OPT or an option that they do not know (RFC 6891 §7).
const NOT_UNDERSTOOD: [u8; 2] = [1, 4];

/// BADCOOKIE (RFC 7873 §8) is 23: its lower four bits stand in the header, the others in OPT.
const BADCOOKIE: (u8, u8) = (7, 1);

/// How much of EDNS a query carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EdnsLevel {
    /// No more than the client's query carries.
    Plain,
    /// OPT, with our UDP size.
    Edns,
    /// OPT with our cookie.
    Cookies,
}

impl EdnsLevel {
    fn lower(self) -> Self {
        match self {
            Self::Cookies => Self::Edns,
            Self::Edns | Self::Plain => Self::Plain,
        }
    }
}

/// The profiles of the upstreams that a worker asks.
pub(crate) struct UpstreamProfiles {
    cookies: Arc<Cookies>,
    /// Few, so that a linear search is fast.
    known: Vec<UpstreamProfile>,
    /// The next to be replaced when there are too many.
    oldest: usize,
}

/// What one upstream has shown to understand.
pub(crate) struct UpstreamProfile {
    server: SocketAddr,
    /// Told when it sends one.
    cookies: Arc<Cookies>,
    /// Our cookie for this server alone, and behind it the server's as it was last sent.
    cookie: SmallVec<[u8; 40]>,
    level: EdnsLevel,
    /// When a higher level is tried again.
    lowered_until: Option<Instant>,
    /// The highest level at which it has answered.
    proven: Option<EdnsLevel>,
    /// It sends cookies.
    sends_cookies: bool,
}

/// The result of checking an answer that belongs to its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EdnsCheck {
    /// It is from the upstream, as far as cookies can tell.
    Accepted,
    /// It has another cookie than ours, so it is forged, and the wait goes on.
    Forged,
    /// The upstream sends cookies, and this answer has none: TCP tells whether it is genuine.
    MissingCookie,
    /// The upstream wants to see the server cookie that came with this answer.
    BadCookie,
    /// The upstream did not understand the query, perhaps because of what we added. It is to be
    /// asked again at this level.
    NotUnderstood(EdnsLevel),
}

impl UpstreamProfiles {
    pub(crate) fn new(cookies: Arc<Cookies>) -> Self {
        Self {
            cookies,
            known: Vec::new(),
            oldest: 0,
        }
    }

    pub(crate) fn of(&mut self, server: SocketAddr) -> &mut UpstreamProfile {
        let index = match self.known.iter().position(|it| it.server == server) {
            Some(index) => index,
            None if self.known.len() < REMEMBERED => {
                self.known.push(UpstreamProfile::new(server, &self.cookies));
                self.known.len() - 1
            }
            None => {
                self.oldest = (self.oldest + 1) % REMEMBERED;
                self.known[self.oldest] = UpstreamProfile::new(server, &self.cookies);
                self.oldest
            }
        };
        &mut self.known[index]
    }
}

impl UpstreamProfile {
    fn new(server: SocketAddr, cookies: &Arc<Cookies>) -> Self {
        Self {
            server,
            cookie: SmallVec::from_slice(&cookies.for_upstream(server)),
            cookies: Arc::clone(cookies),
            level: EdnsLevel::Cookies,
            lowered_until: None,
            proven: None,
            sends_cookies: false,
        }
    }

    /// The level at which to ask it now.
    pub(crate) fn level(&mut self, now: Instant) -> EdnsLevel {
        if self.lowered_until.is_some_and(|until| now >= until) {
            self.lowered_until = None;
            self.level = EdnsLevel::Cookies;
        }
        self.level
    }

    /// The data of the COOKIE option to send.
    pub(crate) fn cookie(&self) -> &[u8] {
        &self.cookie
    }

    /// Checks an answer that came by UDP to a question asked at this level. `may_lower`: what we
    /// added to the question can be left out.
    pub(crate) fn check(&mut self, now: Instant, level: EdnsLevel, may_lower: bool, answer: &[u8]) -> EdnsCheck {
        let received = self.read(answer);
        match received.cookie {
            ReceivedCookie::Matching => {}
            ReceivedCookie::Foreign => return EdnsCheck::Forged,
            ReceivedCookie::Absent if level == EdnsLevel::Cookies && self.sends_cookies => {
                return EdnsCheck::MissingCookie;
            }
            ReceivedCookie::Absent => {}
        }
        self.judge(now, level, may_lower, &received)
    }

    /// The same for an answer that came over a connection, where nobody can forge it.
    pub(crate) fn check_connected(
        &mut self,
        now: Instant,
        level: EdnsLevel,
        may_lower: bool,
        answer: &[u8],
    ) -> EdnsCheck {
        let received = self.read(answer);
        if level == EdnsLevel::Cookies && received.cookie == ReceivedCookie::Absent {
            self.forget_cookie();
        }
        self.judge(now, level, may_lower, &received)
    }

    fn judge(&mut self, now: Instant, level: EdnsLevel, may_lower: bool, received: &ReceivedEdns) -> EdnsCheck {
        if received.is_bad_cookie && level == EdnsLevel::Cookies {
            return EdnsCheck::BadCookie;
        }
        if received.is_not_understood {
            return match may_lower && level > EdnsLevel::Plain {
                true => EdnsCheck::NotUnderstood(level.lower()),
                false => EdnsCheck::Accepted,
            };
        }
        // The upstream understands the question with less. A question that it does not understand
        // at any level shows nothing.
        if level < self.level && !self.sends_cookies {
            self.lower(now, level);
        }
        self.proven = self.proven.max(Some(level));
        EdnsCheck::Accepted
    }

    /// The upstream sends cookies no more: it was replaced by one that knows none, or some servers
    /// behind its address know them and others do not.
    fn forget_cookie(&mut self) {
        self.sends_cookies = false;
        self.cookie.truncate(CLIENT);
    }

    /// Notes that a question at this level got no answer. Some networks drop queries that they do
    /// not understand; an upstream that has answered at this level before is only slow.
    pub(crate) fn timed_out(&mut self, now: Instant, level: EdnsLevel) {
        if level > EdnsLevel::Plain && self.proven < Some(level) {
            self.lower(now, level.lower());
        }
    }

    fn lower(&mut self, now: Instant, level: EdnsLevel) {
        self.level = self.level.min(level);
        self.lowered_until = Some(now + SPARED);
    }

    /// Reads the EDNS part of an answer, and keeps the server's cookie.
    fn read(&mut self, answer: &[u8]) -> ReceivedEdns {
        let rcode = Header::read(answer).map_or(0, |header| header.rcode());
        let is_not_understood = NOT_UNDERSTOOD.contains(&rcode);
        let mut cookie = ReceivedCookie::Absent;
        let mut is_bad_cookie = false;
        // What cannot be read is for `validate` to say.
        if let Ok(Some(opt)) = edns::find(answer) {
            is_bad_cookie = (rcode, opt.rcode) == BADCOOKIE;
            cookie = match opt.option(COOKIE) {
                Ok(Some(data)) if self.is_ours(data) => {
                    if data.len() > CLIENT {
                        self.sends_cookies = true;
                        self.cookies.upstream_speaks();
                        self.cookie = SmallVec::from_slice(data);
                    }
                    ReceivedCookie::Matching
                }
                Ok(None) => ReceivedCookie::Absent,
                Ok(Some(_)) | Err(Malformed) => ReceivedCookie::Foreign,
            };
        }
        ReceivedEdns {
            cookie,
            is_bad_cookie,
            is_not_understood,
        }
    }

    /// Our client cookie, alone or with a server cookie.
    fn is_ours(&self, data: &[u8]) -> bool {
        data.starts_with(&self.cookie[..CLIENT]) && cookie::is_length(data.len())
    }
}

struct ReceivedEdns {
    cookie: ReceivedCookie,
    is_bad_cookie: bool,
    is_not_understood: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReceivedCookie {
    Matching,
    Foreign,
    Absent,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets;

    const SERVER: &str = "192.0.2.53:53";

    fn profile() -> UpstreamProfile {
        UpstreamProfile::new(SERVER.parse().unwrap(), &Arc::new(Cookies::new()))
    }

    fn answer(cookie: Option<&[u8]>) -> Vec<u8> {
        let mut answer = packets::answer(&packets::query("a.example.", "A"), &["a.example. 60 A 192.0.2.1"]);
        if let Some(cookie) = cookie {
            answer[11] += 1;
            answer.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, cookie.len() as u8 + 4]);
            edns::push_option(&mut answer, COOKIE, cookie);
        }
        answer
    }

    fn from_server(profile: &UpstreamProfile) -> Vec<u8> {
        [&profile.cookie()[..CLIENT], b"+servers"].concat()
    }

    #[test]
    fn who_has_sent_a_cookie_is_not_believed_without_ours() {
        let (mut profile, now) = (profile(), Instant::now());
        let heard = |profile: &mut UpstreamProfile, cookie: Option<&[u8]>| {
            profile.check(now, EdnsLevel::Cookies, true, &answer(cookie))
        };
        assert_eq!(
            heard(&mut profile, None),
            EdnsCheck::Accepted,
            "it may not know cookies"
        );
        let cookie = from_server(&profile);
        assert_eq!(heard(&mut profile, Some(&cookie)), EdnsCheck::Accepted);
        assert_eq!(profile.cookie(), cookie, "sent back from now on");
        assert_eq!(heard(&mut profile, None), EdnsCheck::MissingCookie);
        assert_eq!(heard(&mut profile, Some(b"anothers+servers")), EdnsCheck::Forged);
        assert_eq!(heard(&mut profile, Some(&cookie[..8])), EdnsCheck::Accepted);
        assert_eq!(profile.cookie(), cookie);
        // Only TCP can tell that it has changed.
        profile.check_connected(Instant::now(), EdnsLevel::Cookies, true, &answer(None));
        assert_eq!(heard(&mut profile, None), EdnsCheck::Accepted);
    }

    #[test]
    fn each_server_sees_a_cookie_of_its_own() {
        let cookies = Arc::new(Cookies::new());
        let of = |server: &str| UpstreamProfile::new(server.parse().unwrap(), &cookies);
        assert_ne!(of(SERVER).cookie(), of("192.0.2.54:53").cookie());
        assert_eq!(of(SERVER).cookie(), of(SERVER).cookie());
        assert_ne!(of(SERVER).cookie(), profile().cookie(), "nor the same at each start");
    }

    #[test]
    fn what_is_not_understood_is_left_out_for_a_while_step_by_step() {
        let (mut profile, now) = (profile(), Instant::now());
        let mut sorry = answer(None);
        sorry[3] |= 1;
        assert_eq!(
            profile.check(now, EdnsLevel::Cookies, true, &sorry),
            EdnsCheck::NotUnderstood(EdnsLevel::Edns)
        );
        assert_eq!(
            profile.check(now, EdnsLevel::Edns, true, &sorry),
            EdnsCheck::NotUnderstood(EdnsLevel::Plain)
        );
        assert_eq!(
            profile.check(now, EdnsLevel::Plain, true, &sorry),
            EdnsCheck::Accepted,
            "it is the question"
        );
        assert_eq!(
            profile.level(now),
            EdnsLevel::Cookies,
            "which shows nothing of the upstream"
        );
        assert_eq!(
            profile.check(now, EdnsLevel::Edns, true, &answer(None)),
            EdnsCheck::Accepted
        );
        assert_eq!(profile.level(now), EdnsLevel::Edns);
        assert_eq!(profile.level(now + SPARED), EdnsLevel::Cookies);
    }

    #[test]
    fn a_forger_cannot_have_what_is_proven_left_out() {
        let (mut profile, now) = (profile(), Instant::now());
        let cookie = from_server(&profile);
        profile.check(now, EdnsLevel::Cookies, true, &answer(Some(&cookie)));
        let mut sorry = answer(None);
        sorry[3] |= 1;
        assert_eq!(
            profile.check(now, EdnsLevel::Cookies, true, &sorry),
            EdnsCheck::MissingCookie
        );
        profile.timed_out(now, EdnsLevel::Cookies);
        assert_eq!(profile.level(now), EdnsLevel::Cookies);
    }

    #[test]
    fn silence_at_the_first_word_lowers_the_voice() {
        let (mut profile, now) = (profile(), Instant::now());
        profile.timed_out(now, EdnsLevel::Cookies);
        assert_eq!(profile.level(now), EdnsLevel::Edns);
    }

    #[test]
    fn a_bad_cookie_is_exchanged_for_the_one_that_comes_with_it() {
        let (mut profile, now) = (profile(), Instant::now());
        let cookie = from_server(&profile);
        let mut bad = answer(Some(&cookie));
        bad[3] |= 7;
        let ttl = bad.len() - 4 - cookie.len() - 6;
        bad[ttl] = 1;
        assert_eq!(profile.check(now, EdnsLevel::Cookies, true, &bad), EdnsCheck::BadCookie);
        assert_eq!(profile.cookie(), cookie);
    }
}
