//! The response codes of replies that the proxy makes itself.

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
    /// REFUSED: the server does not answer this client or question.
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
