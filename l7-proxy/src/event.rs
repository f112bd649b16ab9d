//! What happens to connections, for metrics and records.

use crate::refusal::Refusal;

/// Something that happened.
#[derive(Debug, Clone, Copy)]
pub enum PassageEvent<'a> {
    /// The proxy refused by itself; what the judge refuses, it knows. `detail` says more, in words
    /// for people, where there is more to say: which line of the strict list a request broke.
    Refused {
        /// Why.
        refusal: Refusal,
        /// More about it.
        detail: &'a str,
    },
    /// The server could not be reached.
    DialFailed(DialFailure),
    /// The final head of a response came.
    Responded {
        /// The status code.
        status: u16,
    },
    /// The server's answer could not be read, and the client got 502 or a reset. `detail` says why.
    UnreadableResponse {
        /// Why, in words for people.
        detail: &'a str,
    },
    /// The connection is over.
    Closed {
        /// Octets that went to the server.
        to_server: u64,
        /// Octets that went to the client.
        to_client: u64,
    },
}

/// Why a server could not be reached; a closed set, so that it can be a label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DialFailure {
    /// It refused (RST), or a rule of the kernel did.
    Refused,
    /// It did not answer in time.
    TimedOut,
    /// There is no route to it, or something on the way says so.
    Unreachable,
    /// The client's address and port are in use towards this server (EADDRNOTAVAIL, EADDRINUSE).
    AddressInUse,
    /// It does not agree on TLS, or its certificate is not trusted or for another name.
    Tls,
    /// Anything else.
    Other,
}

impl DialFailure {
    /// The value of the label `why`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::AddressInUse => "address_in_use",
            Self::Tls => "tls",
            Self::Other => "other",
        }
    }
}
