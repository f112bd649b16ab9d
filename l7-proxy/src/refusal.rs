//! Why something does not pass.

use thiserror::Error;

/// A refusal, by the judge or by the proxy itself. A closed set, so that it can be a label of a
/// metric: see [`label`](Self::label).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// No program governs the source, or none allows it the destination any more.
    #[error("no rule allows the destination")]
    Destination,
    /// No rule allows the server name (or, for `verify-names` in clear, the Host).
    #[error("no rule allows the name")]
    Name,
    /// The rules ask for a server name, and the client sent none.
    #[error("the client names no server")]
    NoName,
    /// The name is allowed, but DNS did not teach this address for it.
    #[error("the name was not learned for this address")]
    NameOfAnotherAddress,
    /// The hello hides the name (ECH).
    #[error("the client hides the server name")]
    EncryptedHello,
    /// No rule allows the request.
    #[error("no rule allows the request")]
    Request,
    /// The request is for another host than the TLS connection that it comes in (421).
    #[error("the request is for another host than the connection")]
    OtherHost,
    /// TLS is to end here, and there is no certificate for it.
    #[error("there is no certificate to end TLS with")]
    NoCertificate,
    /// A rule would edit a field that decides framing or routing.
    #[error("a rule would edit a header field that decides framing or routing")]
    FramingEdit,
    /// The proxy cannot read what the client sends.
    #[error("{0}")]
    Unreadable(Unreadable),
    /// The connection asks for the proxy itself.
    #[error("the destination is the proxy itself")]
    Loop,
    /// The kernel does not say whom the client asked for.
    #[error("the original destination is not known")]
    NoDestination,
    /// The source has as many connections as it may.
    #[error("the pod has too many connections")]
    PodLimit,
    /// The source opens connections too fast.
    #[error("the pod opens connections too fast")]
    PodRate,
    /// The proxy has as many connections as it may.
    #[error("the node has too many inspected connections")]
    NodeLimit,
}

impl Refusal {
    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Destination => "destination",
            Self::Name => "name",
            Self::NoName => "no_name",
            Self::NameOfAnotherAddress => "name_of_another_address",
            Self::EncryptedHello => "encrypted_hello",
            Self::Request => "request",
            Self::OtherHost => "other_host",
            Self::NoCertificate => "no_certificate",
            Self::FramingEdit => "framing_edit",
            Self::Unreadable(why) => why.label(),
            Self::Loop => "loop",
            Self::NoDestination => "no_destination",
            Self::PodLimit => "pod_limit",
            Self::PodRate => "pod_rate",
            Self::NodeLimit => "node_limit",
        }
    }
}

impl From<Unreadable> for Refusal {
    fn from(why: Unreadable) -> Self {
        Self::Unreadable(why)
    }
}

/// Why the proxy cannot read what a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Unreadable {
    /// The first octet begins no TLS record, and the rules speak of TLS alone.
    #[error("it is no TLS")]
    NotTls,
    /// The first octet begins a TLS record, and the rules speak of HTTP in clear alone.
    #[error("it is TLS, and the rules speak of HTTP in clear")]
    NotHttp,
    /// The hello breaks RFC 8446 or RFC 6066.
    #[error("the TLS hello is malformed")]
    MalformedHello,
    /// The hello is longer than [`PassageLimits::hello_octets`](crate::PassageLimits).
    #[error("the TLS hello is too long")]
    LongHello,
    /// The hello did not come in time.
    #[error("the TLS hello did not come in time")]
    SlowHello,
    /// The client does not agree on TLS with the proxy: it trusts another certificate, or speaks a
    /// version that is not served.
    #[error("the client broke off the TLS handshake")]
    FailedHandshake,
    /// The handshake did not end in time.
    #[error("the TLS handshake did not end in time")]
    SlowHandshake,
    /// The head of a request is not well-formed, or could be read in two ways.
    #[error("the HTTP request is malformed")]
    MalformedRequest,
    /// The head of a request is longer or has more fields than the limit.
    #[error("the head of the HTTP request is too long")]
    LongRequest,
    /// The head of a request did not come in time.
    #[error("the head of the HTTP request did not come in time")]
    SlowRequest,
    /// The client of HTTP/2 takes back more requests than it may (rapid reset).
    #[error("the client takes back too many requests")]
    Flood,
    /// The request is of a version of HTTP that is not served here.
    #[error("the version of HTTP is not supported")]
    HttpVersion,
}

impl Unreadable {
    fn label(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::NotHttp => "not_http",
            Self::MalformedHello => "malformed_hello",
            Self::LongHello => "long_hello",
            Self::SlowHello => "slow_hello",
            Self::FailedHandshake => "failed_handshake",
            Self::SlowHandshake => "slow_handshake",
            Self::MalformedRequest => "malformed_request",
            Self::LongRequest => "long_request",
            Self::SlowRequest => "slow_request",
            Self::Flood => "flood",
            Self::HttpVersion => "http_version",
        }
    }
}
