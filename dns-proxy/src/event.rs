//! What happens to lookups, for metrics and records. Every label is a closed enum.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use names::Name;

use crate::completion::AdmissionErrorKind;
use crate::denial::DenialKind;
use crate::question::{DnsQuestion, Transport};
use crate::validate::InvalidAnswer;

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
        /// What it is refused as; `None`: it may be forwarded.
        denied: Option<DenialKind>,
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
    /// An answer was withheld from a client. The client gets SERVFAIL, unless another upstream has
    /// a better answer.
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
    /// No upstream had an answer. The client gets SERVFAIL.
    Unanswered {
        /// The client.
        client: IpAddr,
        /// The name in question.
        name: &'a Name,
        /// What the upstreams did, as one line for people.
        reason: fmt::Arguments<'a>,
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
