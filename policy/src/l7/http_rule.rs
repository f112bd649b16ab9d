//! One entry of `rules.http`.

use std::fmt;

use super::header_condition::{HeaderChange, HeaderCondition, HeaderMatch, HeaderNote};
use super::http_expression::HttpExpression;
use super::http_request::HttpRequest;

/// One entry: a request matches where all that is stated matches. An entry that states nothing
/// matches every request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpRule {
    /// The method, case-sensitive. `GET` is not `HEAD`.
    pub method: Option<HttpExpression>,
    /// The path with the query, normalised.
    pub path: Option<HttpExpression>,
    /// The host with the port, as the request writes it.
    pub host: Option<HttpExpression>,
    /// Headers that must be there.
    pub headers: Vec<HeaderCondition>,
    /// Headers that must be there, or are dealt with.
    pub header_matches: Vec<HeaderMatch>,
}

impl HttpRule {
    /// Whether all but the path, and `headerMatches`, match.
    pub(super) fn matches_beside_path(&self, request: &HttpRequest<'_>) -> bool {
        let matches =
            |wanted: &Option<HttpExpression>, value| wanted.as_ref().is_none_or(|wanted| wanted.matches(value));
        matches(&self.method, request.method)
            && matches(&self.host, request.host)
            && self.headers.iter().all(|condition| condition.holds(request))
    }

    /// Whether `headerMatches` match. What they change and record counts only if all of them do.
    pub(super) fn apply_header_matches<'r>(
        &'r self,
        request: &HttpRequest<'_>,
        changes: &mut Vec<HeaderChange<'r>>,
        notes: &mut Vec<HeaderNote<'r>>,
    ) -> bool {
        let (before, noted) = (changes.len(), notes.len());
        let matches = self.header_matches.iter().all(|it| it.apply(request, changes, notes));
        if !matches {
            changes.truncate(before);
            notes.truncate(noted);
        }
        matches
    }
}

/// As people read it: `GET /users at api.example with header x-token`.
impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |expression: &Option<HttpExpression>, other: &str| match expression {
            Some(expression) => expression.to_string(),
            None => other.to_owned(),
        };
        write!(
            f,
            "{} {}",
            shown(&self.method, "any method"),
            shown(&self.path, "any path")
        )?;
        if let Some(host) = &self.host {
            write!(f, " at {host}")?;
        }
        let conditions = self.headers.iter().map(|condition| &condition.name);
        let names: Vec<&str> = conditions
            .chain(self.header_matches.iter().map(|it| &it.name))
            .map(String::as_str)
            .collect();
        match names.as_slice() {
            [] => Ok(()),
            [one] => write!(f, " with the header {one}"),
            several => write!(f, " with the headers {}", several.join(", ")),
        }
    }
}
