//! The story of a lookup, told without a socket: packets and time go in, packets come out.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::answer::ValidatedAnswer;
use crate::completion::AdmissionError;
use crate::completion::AdmissionErrorKind;
use crate::completion::Completion;
use crate::denial::{Denial, DenialKind};
use crate::gate::AdmissionStatus;
use crate::gate::CommitMode;
use crate::gate::Screening;
use crate::packets;
use crate::question::{DnsQuestion, QueryTarget};
use crate::rcode::Rcode;
use crate::worker::mailbox::{Mailbox, WorkerMessage};

mod single_flight;

const ONE: &str = "192.0.2.1:53";
const ANOTHER: &str = "192.0.2.2:53";

/// Lets everything pass but names under `denied.`; holds admissions when told to.
#[derive(Default)]
struct Gatekeeper {
    holds: bool,
    /// Whom it admits nothing for.
    strict_with: Option<IpAddr>,
    admitted: Mutex<Vec<(IpAddr, String)>>,
    completions: Mutex<Vec<Completion<Proof>>>,
    modes: Mutex<Vec<CommitMode>>,
    events: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Proof;

impl Gate for Gatekeeper {
    type Identity = IpAddr;
    type Proof = Proof;
    type WorkerState = ();

    fn worker_state(&self) {}

    fn screen(&self, _: &mut (), source: IpAddr, _: QueryTarget, question: &DnsQuestion) -> Screening<IpAddr> {
        match question.name.as_str().ends_with("denied.") {
            true => Screening::Refuse(Denial {
                rcode: Rcode::NxDomain,
                reason: "denied".into(),
                kind: DenialKind::Refused,
            }),
            false => Screening::Forward {
                identity: source,
                upstreams: [ONE, ANOTHER].map(|it| it.parse().unwrap()).into(),
            },
        }
    }

    fn admit(
        &self,
        _: &mut (),
        client_waiting: &IpAddr,
        validated: ValidatedAnswer,
        mode: CommitMode,
        completion: impl FnOnce() -> Completion<Proof>,
    ) -> AdmissionStatus<Proof> {
        self.modes.lock().unwrap().push(mode);
        self.admitted
            .lock()
            .unwrap()
            .push((*client_waiting, validated.name.to_string()));
        if self.strict_with == Some(*client_waiting) {
            return AdmissionStatus::Settled(Err(AdmissionError {
                kind: AdmissionErrorKind::Refused,
                reason: "not for this one".into(),
            }));
        }
        if !self.holds {
            return AdmissionStatus::Settled(Ok(Proof));
        }
        self.completions.lock().unwrap().push(completion());
        AdmissionStatus::Pending(Duration::from_millis(500))
    }

    fn flush(&self, _: &mut ()) {}

    fn observe(&self, _: &mut (), event: ProxyEvent<'_>) {
        self.events.lock().unwrap().push(format!("{event:?}"));
    }
}

/// What was sent.
#[derive(Default)]
struct Sheet {
    asked: Vec<(SocketAddr, LookupKey, SentQuery, Vec<u8>)>,
    forgotten: usize,
    /// Queries in flight, by id.
    pending: BTreeMap<u16, Vec<u8>>,
    by_tcp: Vec<(SocketAddr, LookupKey)>,
    replies: Vec<Vec<u8>>,
    owed: isize,
    unreachable: bool,
}

impl LookupOutput<()> for Sheet {
    fn send_query(&mut self, _: Instant, server: SocketAddr, lookup: LookupKey, query: &[u8]) -> io::Result<SentQuery> {
        if self.unreachable {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        let id = 0x5000 + self.asked.len() as u16;
        let sent = SentQuery { socket: 0, id };
        self.asked.push((server, lookup, sent, query.to_vec()));
        self.pending.insert(id, query.to_vec());
        Ok(sent)
    }

    fn forget_query(&mut self, sent: SentQuery) {
        self.forgotten += 1;
        self.pending.remove(&sent.id);
    }

    fn query_over_connection(&mut self, server: SocketAddr, _: IpAddr, lookup: LookupKey, _: &[u8], _: Instant) {
        self.by_tcp.push((server, lookup));
    }

    fn track_pending(&mut self, (): &()) {
        self.owed += 1;
    }

    fn untrack_pending(&mut self, (): &()) {
        self.owed -= 1;
    }

    fn send_reply(&mut self, (): &(), _: SocketAddr, reply: &ClientReply<'_>) {
        self.replies.push(reply.as_bytes().to_vec());
    }
}

struct LookupStage {
    lookups: Lookups<Gatekeeper, ()>,
    gate: Arc<Gatekeeper>,
    mailbox: Arc<Mailbox<Proof>>,
    out: Sheet,
    now: Instant,
}

impl LookupStage {
    fn new(gate: Gatekeeper) -> Self {
        Self::beside(gate, &SingleFlight::new())
    }

    /// A worker that shares its questions in flight with others.
    fn beside(gate: Gatekeeper, flights: &Arc<SingleFlight>) -> Self {
        let (gate, now) = (Arc::new(gate), Instant::now());
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let shared = SharedLookupState {
            quota: ClientQuota::new(10, 100),
            flights: Arc::clone(flights),
            health: Arc::default(),
            cookies: Arc::new(Cookies::new()),
        };
        let config = ServerConfig::default();
        Self {
            lookups: Lookups::new(Arc::clone(&gate), config, shared, &mailbox, now),
            gate,
            mailbox,
            out: Sheet::default(),
            now,
        }
    }

    fn receive(&mut self, packet: &[u8]) {
        self.receive_from("10.0.0.1:4000", packet);
    }

    fn receive_from(&mut self, client: &str, packet: &[u8]) {
        let client = Client {
            source: client.parse().unwrap(),
            target: QueryTarget::Proxy,
            transport: Transport::Udp,
            received: self.now,
        };
        self.lookups.receive(self.now, client, (), packet, &mut self.out);
    }

    /// The upstream's answer to the last query.
    fn answer(&mut self, answer: &[u8]) -> bool {
        let (_, key, sent, _) = *self.out.asked.last().unwrap();
        let mut answer = answer.to_vec();
        answer[..2].copy_from_slice(&sent.id.to_be_bytes());
        self.lookups.answered(self.now, key, sent.id, &answer, &mut self.out)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.lookups.expire(self.now, &mut self.out);
    }

    fn read_messages(&mut self) {
        let mut messages = Vec::new();
        self.mailbox.take_all(&mut messages);
        for message in messages {
            match message {
                WorkerMessage::AdmissionSettled(key, outcome) => {
                    self.lookups.settled(self.now, key, outcome, &mut self.out)
                }
                WorkerMessage::FlightEnded(key, landed) => self.lookups.landed(self.now, key, landed, &mut self.out),
                _ => panic!("{message:?}"),
            }
        }
    }

    fn rcodes(&self) -> Vec<u8> {
        self.out.replies.iter().map(|reply| reply[3] & 0xf).collect()
    }
}

fn query() -> Vec<u8> {
    packets::query("a.example.", "A")
}

fn answer() -> Vec<u8> {
    packets::answer(&query(), &["a.example. 60 A 192.0.2.7"])
}

#[test]
fn an_answer_is_released_under_the_clients_id_and_its_place_is_free_again() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    assert_eq!((stage.out.asked.len(), stage.out.owed), (1, 1));
    assert!(stage.answer(&answer()));
    assert_eq!(stage.out.replies, [answer()]);
    assert_eq!((stage.out.forgotten, stage.out.owed), (1, 0));
    assert!(!stage.answer(&answer()), "once");
    stage.receive(&query());
    let keys: Vec<LookupKey> = stage.out.asked.iter().map(|it| it.1).collect();
    assert_eq!(keys[0].slot(), keys[1].slot());
    assert_ne!(keys[0], keys[1], "another turn");
}

#[test]
fn a_denial_asks_nobody_and_takes_no_place() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&packets::query("x.denied.", "A"));
    assert_eq!(stage.rcodes(), [3]);
    assert!(stage.out.asked.is_empty() && stage.out.owed == 0);
    assert_eq!(stage.lookups.next_deadline(), None);
}

#[test]
fn a_lookup_is_alone_while_no_other_is_in_flight() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&packets::query("b.example.", "A"));
    stage.receive(&query());
    stage.answer(&answer());
    stage.out.asked.pop();
    stage.answer(&packets::answer(
        &packets::query("b.example.", "A"),
        &["b.example. 60 A 192.0.2.7"],
    ));
    assert_eq!(
        *stage.gate.modes.lock().unwrap(),
        [CommitMode::Batched, CommitMode::Immediate]
    );
}

#[test]
fn an_answer_is_held_until_its_completion_is_settled() {
    let mut stage = LookupStage::new(Gatekeeper {
        holds: true,
        ..Gatekeeper::default()
    });
    stage.receive(&query());
    stage.answer(&answer());
    assert!(stage.out.replies.is_empty());
    stage.gate.completions.lock().unwrap().remove(0).settle(Ok(Proof));
    stage.read_messages();
    assert_eq!(stage.out.replies, [answer()]);
}

#[test]
fn an_answer_whose_commit_takes_too_long_is_withheld_and_a_late_commit_changes_nothing() {
    let mut stage = LookupStage::new(Gatekeeper {
        holds: true,
        ..Gatekeeper::default()
    });
    stage.receive(&query());
    stage.answer(&answer());
    let key = stage.out.asked[0].1;
    stage.pass(Duration::from_millis(490));
    assert!(stage.out.replies.is_empty());
    stage.pass(Duration::from_millis(30));
    assert_eq!(stage.rcodes(), [2]);
    stage.lookups.settled(stage.now, key, Ok(Proof), &mut stage.out);
    assert_eq!(stage.out.replies.len(), 1);
}

#[test]
fn silence_moves_on_to_the_next_upstream_and_ends_with_servfail() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    for _ in 0..3 {
        stage.pass(Duration::from_millis(2_020));
    }
    let asked: Vec<String> = stage.out.asked.iter().map(|it| it.0.to_string()).collect();
    assert_eq!(asked, [ONE, ANOTHER, ONE], "five seconds in all");
    assert_eq!(stage.rcodes(), [2]);
    assert_eq!(stage.out.owed, 0);
}

#[test]
fn an_upstream_that_cannot_be_reached_is_passed_over_at_once() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    let key = stage.out.asked[0].1;
    let refused = io::ErrorKind::ConnectionRefused;
    stage
        .lookups
        .unreachable(stage.now, key, refused.into(), &mut stage.out);
    assert_eq!(stage.out.asked[1].0.to_string(), ANOTHER);
    stage.out.unreachable = true;
    stage
        .lookups
        .unreachable(stage.now, key, refused.into(), &mut stage.out);
    assert_eq!(stage.rcodes(), [2]);
}

#[test]
fn a_truncated_answer_is_asked_for_by_tcp_and_is_not_timed_out_meanwhile() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    let mut truncated = answer();
    truncated[2] |= 2;
    assert!(stage.answer(&truncated));
    assert_eq!(stage.out.by_tcp.len(), 1);
    stage.pass(Duration::from_secs(3));
    assert!(stage.out.replies.is_empty());
}

#[test]
fn what_does_not_belong_to_the_question_is_waited_out() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    stage.receive(&query());
    let other = packets::answer(&packets::query("b.example.", "A"), &["b.example. 60 A 192.0.2.66"]);
    assert!(!stage.answer(&other));
    assert!(stage.answer(&answer()));
    assert_eq!(stage.out.replies, [answer()]);
}

#[test]
fn a_client_has_so_many_places_and_is_told() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    for number in 0..11 {
        stage.receive(&packets::query(&format!("{number}.example."), "A"));
    }
    assert_eq!(stage.out.asked.len(), 10);
    assert_eq!(stage.rcodes(), [5]);
}

#[test]
fn a_silent_upstream_is_waited_for_three_times_and_then_asked_last_until_it_answers() {
    let mut stage = LookupStage::new(Gatekeeper::default());
    let named = |number: usize| packets::query(&format!("{number}.example."), "A");
    for number in 0..3 {
        stage.receive(&named(number));
        assert_eq!(stage.out.asked.last().unwrap().0.to_string(), ONE);
        stage.pass(Duration::from_millis(2_020));
        assert!(stage.answer(&packets::answer(&named(number), &[])));
    }
    stage.receive(&named(3));
    assert_eq!(stage.out.asked.last().unwrap().0.to_string(), ANOTHER);
    assert!(stage.answer(&packets::answer(&named(3), &[])));
    let told = |stage: &LookupStage, answers| {
        let told = format!("UpstreamState {{ server: {ONE}, transport: Udp, answers: {answers} }}");
        stage
            .gate
            .events
            .lock()
            .unwrap()
            .iter()
            .filter(|it| **it == told)
            .count()
    };
    assert_eq!((told(&stage, false), told(&stage, true)), (1, 0));

    // Time to try it: with a question of ours, for which no client waits.
    stage.pass(Duration::from_millis(1_100));
    let before = stage.out.asked.len();
    stage.receive(&named(4));
    let asked: Vec<String> = stage.out.asked[before..].iter().map(|it| it.0.to_string()).collect();
    assert_eq!(asked, [ONE, ANOTHER]);
    assert!(stage.answer(&packets::answer(&named(4), &[])));
    stage.out.asked.truncate(before + 1);
    let probe = stage.out.asked[before].3.clone();
    let replies = stage.out.replies.len();
    assert!(stage.answer(&packets::answer_with_rcode(&probe, 5)));
    assert_eq!((told(&stage, true), stage.out.replies.len()), (1, replies));
    stage.receive(&named(5));
    assert_eq!(stage.out.asked.last().unwrap().0.to_string(), ONE);
}
