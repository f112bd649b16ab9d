//! What a connection announces, and what entries of `toPorts` ask of that.

use serde_json::Value;

use crate::json::{list, text};
use crate::names;

/// What a connection announces when somebody looks into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// A TLS server name.
    Tls(String),
    /// A request of plain HTTP.
    Http {
        /// The method.
        method: String,
        /// The path with the query.
        path: String,
        /// The host.
        host: String,
    },
    /// Neither.
    Other,
}

/// Whether an entry asks for more than ports. Lists without entries ask nothing.
pub(crate) fn asks(entry: &Value) -> bool {
    !list(&entry["rules"], "http").is_empty() || !list(entry, "serverNames").is_empty()
}

/// Whether a connection announces what an entry asks.
pub(crate) fn fulfils(entry: &Value, announced: &Announced) -> bool {
    match announced {
        Announced::Tls(name) => {
            let mut listed = list(entry, "serverNames").iter().filter_map(Value::as_str);
            listed.any(|pattern| names::matches_pattern(pattern, name))
        }
        Announced::Http { method, path, host } => {
            let is = |wanted: Option<&str>, value: &str| wanted.is_none_or(|wanted| is_match(wanted, value));
            list(&entry["rules"], "http").iter().any(|rule| {
                is(text(rule, "method"), method) && is(text(rule, "path"), path) && is(text(rule, "host"), host)
            })
        }
        Announced::Other => false,
    }
}

/// The expressions that the generators know: alternatives, one at the end of which may stand `.*`.
fn is_match(expression: &str, value: &str) -> bool {
    expression.split('|').any(|one| {
        let one = one.replace("\\.", ".");
        match one.strip_suffix(".*") {
            Some(beginning) => value.starts_with(beginning),
            None => one == value,
        }
    })
}
