//! A request, as far as it is decided about.

use std::borrow::Cow;

/// What is decided about of a request: checked, normalised, and what is forwarded if it passes.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequest<'a> {
    /// The method as it is written.
    pub method: &'a [u8],
    /// The path with the query; of `CONNECT` the authority, of `OPTIONS *` the star.
    pub path: &'a [u8],
    /// `Host` or `:authority`, as it is written.
    pub host: &'a [u8],
    /// Name and value of each line, in order, without the white space around values.
    pub headers: &'a [(&'a str, &'a [u8])],
}

impl HttpRequest<'_> {
    /// The value of a header; of several lines the values, with `,` between them (RFC 9110 §5.3).
    pub fn header(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut lines = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let (_, first) = lines.next()?;
        let mut joined = Cow::Borrowed(*first);
        for (_, next) in lines {
            let joined = joined.to_mut();
            joined.push(b',');
            joined.extend_from_slice(next);
        }
        Some(joined)
    }

    /// The host without the port.
    pub fn host_name(&self) -> &[u8] {
        match self.host.iter().rposition(|byte| *byte == b':') {
            // The colons of an IPv6 address stand in brackets.
            Some(colon) if self.host[colon..].iter().all(|byte| *byte != b']') => &self.host[..colon],
            _ => self.host,
        }
    }
}
