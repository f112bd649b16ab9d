//! The border between the proxy and the rest of the agent.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use names::Name;
use smallvec::SmallVec;

pub use crate::completion::Completion;
pub use crate::validate::InvalidAnswer;

/// How a DNS message travels: from a client to the proxy, or between the proxy and an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A TCP connection in plain text (RFC 7766).
    Tcp,
}

/// The server that a client sent its query to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTarget {
    /// This resolver: the kernel intercepted the query on its way there.
    Resolver(SocketAddr),
    /// The proxy itself, at its own listener (`--listen`): any upstream may answer.
    Proxy,
}

/// The question of a query, as far as the gate needs it.
#[derive(Debug, Clone)]
pub struct DnsQuestion {
    /// The name in lower case. The client's own spelling stays in the message.
    pub name: Name,
    /// The type, for example 1 for A.
    pub qtype: u16,
    /// The class; 1 is IN.
    pub qclass: u16,
    /// Whether the client sent OPT, so that a refusal can carry its reason (RFC 8914).
    pub takes_reasons: bool,
}

/// The gate's decision on a question.
#[derive(Debug)]
pub enum Screening<I> {
    /// The question is forwarded; its answer goes through [`Gate::admit`] with this identity.
    Forward {
        /// The client.
        identity: I,
        /// The upstreams in order of preference; never empty.
        upstreams: Arc<[SocketAddr]>,
    },
    /// The question is refused.
    Refuse(Denial),
}

/// A refusal, as the client gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// NXDOMAIN or REFUSED; SERVFAIL where the gate cannot decide yet, since nobody caches that;
    /// NOERROR where the name has no such record.
    pub rcode: Rcode,
    /// The extra text of EDE 15 (RFC 8914), one line. May be empty when
    /// [`DnsQuestion::takes_reasons`] is false.
    pub reason: String,
}

/// The response codes of replies that the proxy makes itself.
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

/// Addresses with their TTLs. Two fit without an allocation, which most answers have at most.
pub type AddressTtls = SmallVec<[(IpAddr, Duration); 2]>;

/// The names and addresses of an answer that was validated: id, source and question match, and an
/// unbroken chain of CNAMEs leads from the question's name to every address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedAnswer {
    /// The question's name.
    pub name: Name,
    /// The names of the chain behind the question's, in order.
    pub chain: Vec<Name>,
    /// A and AAAA of the last owner, and `ipv4hint`/`ipv6hint` of its HTTPS and SVCB records, each
    /// with the smallest TTL along the chain; ascending, each address once.
    pub addresses: AddressTtls,
    /// The upstream that answered.
    pub source: SocketAddr,
}

impl ValidatedAnswer {
    /// An answer that holds no addresses.
    pub(crate) fn without_addresses(name: Name, source: SocketAddr) -> Self {
        Self {
            name,
            chain: Vec::new(),
            addresses: AddressTtls::new(),
            source,
        }
    }
}

/// Why an answer may not be released. The client gets SERVFAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdmissionError {
    /// The kind of error, for metrics.
    pub kind: AdmissionErrorKind,
    /// One line for the log and for the extended error of the reply.
    pub reason: String,
}

/// The kind of an [`AdmissionError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdmissionErrorKind {
    /// A set of the kernel has no room for its addresses.
    Full,
    /// The kernel refused its addresses.
    Refused,
    /// The kernel did not take its addresses in time.
    TimedOut,
    /// The writer to the kernel has stopped.
    Stopped,
}

/// Why an answer that belongs to its question was withheld.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WithheldReason {
    /// It is not valid.
    Invalid(InvalidAnswer),
    /// It was not admitted.
    NotAdmitted(AdmissionErrorKind),
}

/// What happened to a lookup, for metrics and records. There are several for each lookup, so events
/// borrow.
#[derive(Debug)]
pub enum ProxyEvent<'a> {
    /// A query was read and screened.
    Query {
        /// How the client sent it.
        transport: Transport,
        /// What it asks.
        question: &'a DnsQuestion,
        /// Whether the gate lets it be forwarded.
        forwarded: bool,
    },
    /// A reply was sent.
    Reply {
        /// How the client sent the query.
        transport: Transport,
        /// The wire RCODE (lower four bits).
        rcode: u8,
        /// From receiving the query to sending the reply.
        took: Duration,
    },
    /// An exchange with an upstream has ended.
    Upstream {
        /// The upstream's address.
        server: SocketAddr,
        /// How it was asked.
        transport: Transport,
        /// Answered, or why not.
        outcome: UpstreamOutcome,
        /// From asking to the outcome.
        took: Duration,
    },
    /// An upstream has fallen silent, so that others are asked first from now on; or it answers
    /// again. There is one event for each change.
    UpstreamState {
        /// The upstream's address.
        server: SocketAddr,
        /// How it was asked.
        transport: Transport,
        /// Whether it answers again.
        answers: bool,
    },
    /// An answer has waited for the kernel.
    CommitWait {
        /// How long the commit took.
        took: Duration,
        /// Whether the kernel acknowledged it.
        committed: bool,
    },
    /// An answer was withheld from a client. The client gets SERVFAIL, unless another upstream has a
    /// better answer.
    Withheld {
        /// The client; `None` where the proxy asked on behalf of its cache.
        client: Option<IpAddr>,
        /// The name in question.
        name: &'a Name,
        /// The upstream that answered.
        server: SocketAddr,
        /// The reason as a closed enum, for metrics.
        why: WithheldReason,
        /// The reason as one line for people.
        reason: &'a str,
    },
    /// The answer cache was asked.
    Cache(CacheOutcome),
    /// A packet or a connection was discarded without a reply, or a limit was met.
    Discarded(DiscardReason),
}

/// The outcome of asking the answer cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CacheOutcome {
    /// The cache has the answer.
    Hit,
    /// It has none, so an upstream is asked.
    Miss,
    /// It has an expired answer, which is given because no upstream has one (RFC 8767).
    Stale,
    /// It asks again for a popular answer that is about to expire.
    Refresh,
}

/// The outcome of one exchange with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpstreamOutcome {
    /// A valid answer.
    Answered,
    /// A valid answer with TC set; asked again over TCP.
    Truncated,
    /// No answer in time.
    TimedOut,
    /// The socket reports an error (ICMP unreachable, connection refused).
    Unreachable,
    /// An answer that does not belong to the question was discarded (the wait goes on).
    Mismatched,
    /// An answer without our cookie (RFC 7873) from an upstream that sends cookies; asked again
    /// over TCP.
    Unproven,
}

/// Why a packet or a connection was discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiscardReason {
    /// Shorter than a header, or itself a response.
    NotAQuery,
    /// The client has too many lookups in flight.
    ClientLimit,
    /// The proxy has too many lookups in flight.
    TotalLimit,
    /// The client, or all of them together, have too many TCP connections.
    ConnectionLimit,
}

/// When the elements of an admission are to go to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitMode {
    /// At once, on the caller's thread if that is possible: the worker has no other lookup in
    /// flight, so there is nothing to collect.
    Immediate,
    /// At the next [`Gate::flush`], in one transaction with those of other lookups.
    Batched,
}

/// How far an admission has come.
#[derive(Debug)]
pub enum AdmissionStatus<P> {
    /// It is decided.
    Settled(Result<P, AdmissionError>),
    /// The kernel has to be told first. The [`Completion`] delivers the result within this time;
    /// after it, the proxy withholds the answer.
    Pending(Duration),
}

/// What the proxy asks the rest of the agent. Many threads call an implementation for every
/// packet, so its methods must be cheap and must not block.
///
/// Each worker thread has a [`WorkerState`](Self::WorkerState) of its own, so that what a lookup
/// needs there takes no lock.
pub trait Gate: Send + Sync + 'static {
    /// The client as the gate knows it, carried from [`screen`](Self::screen) to
    /// [`admit`](Self::admit).
    type Identity: Send + Sync + 'static;
    /// Evidence that the kernel holds what an answer needs. Only the enforcer can make one, so no
    /// code path of the proxy can release an answer that was not committed.
    type Proof: Send + 'static;
    /// What a worker keeps between calls: snapshots, counters, admissions that are collected.
    type WorkerState: Send + 'static;

    /// Makes the state of a new worker.
    fn worker_state(&self) -> Self::WorkerState;

    /// Identifies the client and decides: may `source` ask this question, and which upstreams are
    /// to answer it? Does no I/O.
    fn screen(
        &self,
        worker_state: &mut Self::WorkerState,
        source: IpAddr,
        target: QueryTarget,
        question: &DnsQuestion,
    ) -> Screening<Self::Identity>;

    /// Learns and commits: the admission is settled when the kernel holds every element that the
    /// answer opens for anybody.
    ///
    /// An answer without addresses is settled at once, and so may be an
    /// [immediate](CommitMode::Immediate) one. For everything else the gate takes a completion,
    /// which any thread may settle later, but not before the next [`flush`](Self::flush).
    fn admit(
        &self,
        worker_state: &mut Self::WorkerState,
        identity: &Self::Identity,
        answer: ValidatedAnswer,
        mode: CommitMode,
        completion: impl FnOnce() -> Completion<Self::Proof>,
    ) -> AdmissionStatus<Self::Proof>;

    /// Submits the admissions that were collected: the worker has come to the end of a batch.
    fn flush(&self, worker_state: &mut Self::WorkerState);

    /// Does what no client waits for: the replies of a batch are sent.
    fn replied(&self, _worker_state: &mut Self::WorkerState) {}

    /// Counts what happened.
    fn observe(&self, worker_state: &mut Self::WorkerState, event: ProxyEvent<'_>);
}
