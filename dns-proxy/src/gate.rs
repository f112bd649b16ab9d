//! The border between the proxy and the rest of the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use names::Name;
use smallvec::SmallVec;

pub use crate::ticket::Ticket;
pub use crate::validate::Bogus;

/// How a lookup arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

/// Whom a client asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A known resolver, intercepted on its way.
    Resolver(SocketAddr),
    /// Our own listener (`--listen`): any upstream will do.
    Us,
}

/// One question, as far as it matters here.
#[derive(Debug, Clone)]
pub struct Question {
    /// The name, folded. The client's own spelling stays in the message.
    pub name: Name,
    /// The type, for example 1 for A.
    pub qtype: u16,
    /// The class; 1 is IN.
    pub qclass: u16,
    /// Whether the client sent OPT, and so is told the reason of a refusal (RFC 8914).
    pub takes_reasons: bool,
}

/// What the gate says of a question.
#[derive(Debug)]
pub enum Screening<I> {
    /// Ask these upstreams in order; the answer goes through [`Gate::admit`] with this identity.
    Forward {
        /// Who asks.
        identity: I,
        /// Whom to ask, first to last; never empty.
        upstreams: Arc<[SocketAddr]>,
    },
    /// Refuse at once.
    Refuse(Denial),
}

/// How a refusal is said to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// NXDOMAIN or REFUSED; SERVFAIL where it is too early to say, which nobody keeps; NOERROR
    /// where there is no such record.
    pub rcode: Rcode,
    /// The extra text of EDE 15 (RFC 8914), one line; may be empty when [`Question::takes_reasons`]
    /// is false.
    pub reason: String,
}

/// The response codes that we make ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rcode {
    /// There is no such record.
    NoError,
    /// The query cannot be read.
    FormErr,
    /// Upstreams or the kernel failed.
    ServFail,
    /// Denied by policy.
    NxDomain,
    /// Not implemented (opcode other than QUERY).
    NotImp,
    /// Refused.
    Refused,
}

impl Rcode {
    /// The wire value (RFC 1035 §4.1.1).
    pub fn code(self) -> u8 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
        }
    }
}

/// Who asks, in the gate's own terms.
pub trait Identity: Send + Sync + 'static {}
impl<T: Send + Sync + 'static> Identity for T {}

/// Addresses and TTLs; most answers have a few, which are kept in place.
pub type Addresses = SmallVec<[(IpAddr, Duration); 2]>;

/// What an answer teaches, already validated: id, source and question matched, every address hangs
/// on an unbroken chain of CNAMEs from the question's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lesson {
    /// The question's name.
    pub name: Name,
    /// The further names of the validated chain, in order, without the question's.
    pub chain: Vec<Name>,
    /// A and AAAA of the last owner, and `ipv4hint`/`ipv6hint` of its HTTPS and SVCB records, each
    /// with the smallest TTL along the chain; ascending, each address once.
    pub addresses: Addresses,
    /// The upstream that answered.
    pub source: SocketAddr,
}

impl Lesson {
    /// What an answer without addresses teaches.
    pub(crate) fn nothing(name: Name, source: SocketAddr) -> Self {
        Self {
            name,
            chain: Vec::new(),
            addresses: Addresses::new(),
            source,
        }
    }
}

/// Why an answer may not be released. The client gets SERVFAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    /// What stood in the way.
    pub obstacle: Obstacle,
    /// For the log and the EDE text.
    pub reason: String,
}

/// What stands between a valid answer and its release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// A set of the kernel has no room for its addresses.
    Full,
    /// The kernel refused its addresses.
    Refused,
    /// The kernel did not take its addresses in time.
    Late,
    /// Nobody tells the kernel any more.
    Stopped,
}

/// Why an answer that belongs to its question was withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// It is not believed.
    Bogus(Bogus),
    /// It was not admitted.
    NotAdmitted(Obstacle),
}

/// What happened, for metrics and records. Made for every lookup, so it borrows.
#[derive(Debug)]
pub enum Event<'a> {
    /// A query was read. `qtype` is the wire value.
    Query {
        /// How it came.
        transport: Transport,
        /// What it asks.
        question: &'a Question,
        /// Whether it is forwarded.
        forwarded: bool,
    },
    /// A reply was sent.
    Reply {
        /// How the query came.
        transport: Transport,
        /// The wire RCODE (lower four bits).
        rcode: u8,
        /// From receiving the query to sending the reply.
        took: Duration,
    },
    /// An upstream answered, or not.
    Upstream {
        /// Which.
        server: SocketAddr,
        /// How it was asked.
        transport: Transport,
        /// What came of it.
        outcome: UpstreamOutcome,
        /// How long it took.
        took: Duration,
    },
    /// An upstream has fallen silent, and others are asked first from now on; or it answers again.
    /// Told once a change.
    UpstreamState {
        /// Which.
        server: SocketAddr,
        /// Asked how; an encrypted one has TCP.
        transport: Transport,
        /// It answers again.
        answers: bool,
    },
    /// An answer waited for the kernel.
    CommitWait {
        /// How long.
        took: Duration,
        /// Whether the kernel acknowledged.
        committed: bool,
    },
    /// An answer was withheld from a client. It gets SERVFAIL, unless another upstream has a better
    /// one.
    Withheld {
        /// From whom; nobody where the proxy asked for its cache.
        client: Option<IpAddr>,
        /// What it asked for.
        name: &'a Name,
        /// The upstream that answered.
        server: SocketAddr,
        /// Why.
        why: Withheld,
        /// The same for people, one line.
        reason: &'a str,
    },
    /// The answer cache was asked.
    Cache(CacheOutcome),
    /// A packet or a connection was discarded without a reply, or a limit was met.
    Discarded(Discard),
}

/// What the answer cache had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// The answer.
    Hit,
    /// Nothing: an upstream is asked.
    Miss,
    /// An answer past its time, given because no upstream has one.
    Stale,
    /// A hot answer near its end, which is asked again before anybody waits for it.
    Refresh,
}

/// What came of asking an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamOutcome {
    /// A valid answer.
    Answered,
    /// A valid answer with TC set; asked again over TCP.
    Truncated,
    /// No answer in time.
    TimedOut,
    /// The socket said no (ICMP unreachable, connection refused).
    Unreachable,
    /// An answer that does not belong to the question was discarded (the wait goes on).
    Mismatched,
    /// An answer without our cookie (RFC 7873) from an upstream that sends cookies; asked again
    /// over TCP.
    Unproven,
}

/// Why something was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Shorter than a header, or itself a response.
    NotAQuery,
    /// The client has too many lookups in flight.
    ClientLimit,
    /// The proxy has too many lookups in flight.
    TotalLimit,
    /// Too many TCP connections.
    ConnectionLimit,
}

/// Who else may be admitted in the same batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Nobody: no other lookup of the worker is in flight. There is nothing to be gained by
    /// collecting.
    Alone,
    /// Others, whose elements go to the kernel in the same transaction.
    Others,
}

/// What came of asking for an admission.
#[derive(Debug)]
pub enum Admission<P> {
    /// It is decided.
    Settled(Result<P, NotAdmitted>),
    /// The kernel has to be told first. The [`Ticket`] that was given says what came of it, within
    /// this time: after it, the answer is withheld.
    Waiting(Duration),
}

/// What the proxy asks the rest of the agent. Implementations must be cheap to call from many
/// threads.
///
/// Each worker thread works at a desk of its own: what it keeps there it shares with nobody.
pub trait Gate: Send + Sync + 'static {
    /// Who asks, carried from [`screen`](Self::screen) to [`admit`](Self::admit).
    type Identity: Identity;
    /// Evidence that the kernel holds what an answer needs. Only the enforcer can make one, so no
    /// code path of the proxy can release an answer that was not committed.
    type Proof: Send + 'static;
    /// What a worker keeps between calls: snapshots, counters, admissions that are collected.
    type Desk: Send + 'static;

    /// A desk for a new worker.
    fn desk(&self) -> Self::Desk;

    /// Identify and decide: may `source` ask this, and whom do we ask? Does no I/O and does not
    /// block.
    fn screen(
        &self,
        desk: &mut Self::Desk,
        source: IpAddr,
        asked: Asked,
        question: &Question,
    ) -> Screening<Self::Identity>;

    /// Learn and commit: settled when the kernel holds every element that the lesson opens for
    /// anybody. A lesson without addresses is admitted at once, and so may be one
    /// [alone](Company::Alone), by the caller's hand. Waits for nobody: for what takes time it
    /// takes a ticket and settles that later, from any thread, but not before
    /// [`flush`](Self::flush).
    fn admit(
        &self,
        desk: &mut Self::Desk,
        identity: &Self::Identity,
        lesson: Lesson,
        company: Company,
        ticket: impl FnOnce() -> Ticket<Self::Proof>,
    ) -> Admission<Self::Proof>;

    /// The worker has come to the end of a batch: admissions that were collected are to be put on
    /// their way.
    fn flush(&self, desk: &mut Self::Desk);

    /// The replies of a batch are on their way: what nobody waits for has its time now.
    fn replied(&self, _desk: &mut Self::Desk) {}

    /// Count what happened.
    fn observe(&self, desk: &mut Self::Desk, event: Event<'_>);
}
