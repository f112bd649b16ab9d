//! What the pods do while something breaks, and what became of it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use lab::internet::CLOSE_PORT;
use lab::{Pod, RESOLVER, dns};
use namegate_integration::Scenario;

use crate::site::{DENIED, DENIED_NAME, LIVE, NEW};

/// A lookup without an answer for this long is lost. Stub resolvers wait five seconds and
/// ask again.
const LOST_AFTER: Duration = Duration::from_secs(1);
/// A connection without an answer for this long is refused in silence.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
/// Between two lookups, or two connections, of one client: 300 lookups a second of all clients.
const PACE: Duration = Duration::from_millis(10);
/// How long the pods work before something breaks.
const WARM_UP: Duration = Duration::from_secs(1);
/// Clients that look up and connect.
const CLIENTS: usize = 3;
/// When nothing was wrong for this long the fault is over.
const CALM: Duration = Duration::from_millis(1_500);
/// A fault that is not over after this long is not repaired.
const PATIENCE: Duration = Duration::from_secs(25);

/// Something that must not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeError {
    /// An answered name's address was refused.
    AllowedRefused,
    /// A denied address was reached.
    DeniedLetThrough,
    /// A denied name was answered with an address: the lookup went past the agent.
    DeniedAnswered,
    /// A lookup had no answer, a refusal in its place, or SERVFAIL.
    LookupLost,
}

/// What the pods observed from the beginning of a fault to its end.
#[derive(Debug, Default)]
pub(crate) struct ProbeResult {
    /// Lookups of allowed names.
    pub(crate) lookups: u32,
    /// Each error, and how long after the beginning it happened.
    pub(crate) wrong: Vec<(ProbeError, Duration)>,
    /// Whether errors still happened when the observation ended.
    pub(crate) goes_on: bool,
}

impl ProbeResult {
    pub(crate) fn count(&self, what: ProbeError) -> usize {
        self.wrong.iter().filter(|(wrong, _)| *wrong == what).count()
    }

    /// How long after the beginning each of these errors happened.
    pub(crate) fn when(&self, what: ProbeError) -> Vec<Duration> {
        let of_kind = self.wrong.iter().filter(|(wrong, _)| *wrong == what);
        of_kind.map(|(_, at)| *at).collect()
    }

    /// How long after the beginning the last error happened.
    pub(crate) fn repaired_after(&self) -> Option<Duration> {
        self.wrong.iter().map(|(_, at)| *at).max()
    }
}

struct Tally {
    begun: Instant,
    lookups: AtomicU32,
    wrong: Mutex<Vec<(ProbeError, Duration)>>,
    over: AtomicBool,
    next: AtomicU32,
}

impl Tally {
    fn note(&self, wrong: ProbeError, at: Instant) {
        let at = at.saturating_duration_since(self.begun);
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((wrong, at));
    }

    fn last(&self) -> Duration {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.iter().map(|(_, at)| *at).max().unwrap_or_default()
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Probes while `break_it` breaks something, until no error has happened for a while after it.
pub(crate) fn observe(scenario: &mut Scenario, break_it: impl FnOnce(&mut Scenario)) -> ProbeResult {
    let tally = Tally {
        begun: Instant::now() + WARM_UP,
        lookups: AtomicU32::new(0),
        wrong: Mutex::default(),
        over: AtomicBool::new(false),
        next: AtomicU32::new(0),
    };
    let pods: Vec<Pod> = (0..2).map(|pod| scenario.pod(pod).clone()).collect();
    let mut goes_on = false;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (pod, tally) = (&pods[client % 2], &tally);
            scope.spawn(move || pod.namespace().run(|| look_up(tally, client)).unwrap());
        }
        for work in [connect_denied, ask_denied] {
            let (pod, tally) = (&pods[1], &tally);
            scope.spawn(move || pod.namespace().run(|| work(tally)).unwrap());
        }
        let _end = namegate_integration::SetOnDrop(&tally.over);
        // What breaks has something to break: known names, leases, flows.
        thread::sleep(WARM_UP);
        break_it(scenario);
        let broken = Instant::now().saturating_duration_since(tally.begun);
        loop {
            thread::sleep(Duration::from_millis(50));
            let now = tally.begun.elapsed();
            // What a lookup came to is known when it is lost, a second after it was asked.
            if now.saturating_sub(tally.last().max(broken)) > CALM + LOST_AFTER {
                break;
            }
            if now.saturating_sub(broken) > PATIENCE {
                goes_on = true;
                break;
            }
        }
    });
    ProbeResult {
        lookups: tally.lookups.into_inner(),
        wrong: tally.wrong.into_inner().unwrap_or_else(PoisonError::into_inner),
        goes_on,
    }
}

/// Asks a known name and a new one in turn, and connects to what was answered.
fn look_up(tally: &Tally, client: usize) {
    while !tally.is_over() {
        let number = tally.next.fetch_add(1, Ordering::Relaxed);
        let name = match number.is_multiple_of(2) {
            true => LIVE.0.to_owned(),
            false => format!("n{number}.{NEW}"),
        };
        let asked = Instant::now();
        tally.lookups.fetch_add(1, Ordering::Relaxed);
        match ask(
            &name,
            u16::try_from(number % 65_536).unwrap_or_default() ^ (client as u16) << 14,
        ) {
            Ok((ResponseCode::NoError, Some(address))) => {
                if !connects(address) {
                    tally.note(ProbeError::AllowedRefused, Instant::now());
                }
            }
            _ => tally.note(ProbeError::LookupLost, asked),
        }
        thread::sleep(PACE);
    }
}

fn connect_denied(tally: &Tally) {
    while !tally.is_over() {
        if connects(DENIED.parse().unwrap()) {
            tally.note(ProbeError::DeniedLetThrough, Instant::now());
        }
        thread::sleep(PACE);
    }
}

fn ask_denied(tally: &Tally) {
    let mut id = 0u16;
    while !tally.is_over() {
        id = id.wrapping_add(1);
        if let Ok((_, Some(_))) = ask(DENIED_NAME, id) {
            tally.note(ProbeError::DeniedAnswered, Instant::now());
        }
        thread::sleep(PACE);
    }
}

fn connects(to: IpAddr) -> bool {
    TcpStream::connect_timeout(&SocketAddr::new(to, CLOSE_PORT), CONNECT_PATIENCE).is_ok()
}

/// One lookup from a port of its own, as stub resolvers do; not repeated.
pub(crate) fn ask(name: &str, id: u16) -> io::Result<(ResponseCode, Option<IpAddr>)> {
    let socket = send(name, id, dns(RESOLVER))?;
    let until = Instant::now() + LOST_AFTER;
    let mut buffer = [0; 4_096];
    let answer = loop {
        let left = until.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let length = socket.recv(&mut buffer)?;
        let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
        // What is late for a lookup that was given up may come to one that has its port now.
        let is_asked = |query: &Query| query.name().to_utf8().trim_end_matches('.') == name;
        if answer.metadata.id == id && answer.queries.first().is_some_and(is_asked) {
            break answer;
        }
    };
    let address = answer.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    Ok((answer.metadata.response_code, address))
}

/// Sends a lookup, and gives the socket that its answer comes to.
pub(crate) fn send(name: &str, id: u16, server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(
        Name::from_ascii(name).map_err(io::Error::other)?,
        RecordType::A,
    ));
    socket.send(&query.to_vec().map_err(io::Error::other)?)?;
    Ok(socket)
}
