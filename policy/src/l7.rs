//! What a rule asks of a connection beyond its addresses and ports: the names and requests in it.
//!
//! - [`ServerNamePattern`]: one entry of `serverNames`.
//! - [`HttpRule`]: one entry of `rules.http`, made of [`HttpExpression`]s and conditions on
//!   headers.
//! - [`L7Rules`]: all that one `toPorts` entry asks, and its decision about what a connection
//!   announces.
//!
//! This is data and its meaning. Nobody here reads a connection: what is decided about has been
//! taken apart, checked and normalised before.

mod decision;
mod header_condition;
mod http_expression;
mod http_request;
mod http_rule;
mod http_rule_list;
mod server_name;
mod tls_end;

use std::fmt;

use serde::Serialize;

pub use decision::{Announcement, L7Decision, L7Denial};
pub use header_condition::{HeaderChange, HeaderCondition, HeaderMatch, HeaderMismatch, HeaderNote, HeaderNoteKind};
pub use http_expression::{HttpExpression, HttpExpressionError};
pub use http_request::HttpRequest;
pub use http_rule::HttpRule;
pub use http_rule_list::{AllowedRequest, HttpRuleList};
pub use server_name::{ServerNameError, ServerNamePattern};
pub use tls_end::TlsEnd;

/// What a connection must announce for a rule to let it through: all of it.
///
/// A rule without any of these conditions has no `L7Rules`: addresses and ports alone decide.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct L7Rules {
    /// `serverNames`: the connection is TLS and names one of these. Empty: no condition.
    pub server_names: Vec<ServerNamePattern>,
    /// `rules.http`: the connection is HTTP, and each request matches an entry. `None`: no
    /// condition.
    pub http: Option<HttpRuleList>,
    /// `namegate.io/verify-names`: the name that the connection announces (by TLS, or as the host
    /// of plain HTTP) is one that the rule selects, and that its address was learned for.
    pub verify_names: Option<VerifyNames>,
    /// TLS ends at the node, so that `http` speaks of the requests within it. `None`: `http` speaks
    /// of requests in clear.
    pub tls: Option<TlsEnd>,
}

/// What becomes of a connection that announces another name than its address was learned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyNames {
    /// It is refused.
    Enforce,
    /// It passes, and is recorded.
    Audit,
}

impl L7Rules {
    /// Whether it asks for nothing, so that there is nothing to look into.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the first bytes of a TLS connection can fulfil it.
    pub fn takes_tls(&self) -> bool {
        self.http.is_none() || self.tls.is_some()
    }

    /// Whether plain HTTP can fulfil it. Where TLS is to end, what comes in clear is refused.
    pub fn takes_http(&self) -> bool {
        self.server_names.is_empty() && self.tls.is_none()
    }
}

/// As people read it: `TLS to a.example or *.b.example`, `GET /users or POST /orders/[0-9]+`.
impl fmt::Display for L7Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut conditions = Vec::new();
        if !self.server_names.is_empty() {
            let names: Vec<String> = self.server_names.iter().map(ServerNamePattern::to_string).collect();
            conditions.push(format!("TLS to {}", names.join(" or ")));
        }
        if self.tls.is_some() {
            conditions.push("TLS that ends at the node".to_owned());
        }
        conditions.extend(self.http.as_ref().map(HttpRuleList::to_string));
        if self.verify_names.is_some() {
            conditions.push("the name that is announced is the one that led there".to_owned());
        }
        f.write_str(&conditions.join(", and "))
    }
}
