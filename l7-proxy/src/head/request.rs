//! The head of a request, as the judge sees it.

/// The version in a request line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0: served, and the connection ends with the response.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
}

/// The head of a request: read strictly, normalised once. What it shows is what is forwarded, octet
/// by octet.
#[derive(Debug)]
pub struct RequestHead<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
    pub(crate) version: HttpVersion,
    pub(crate) fields: &'a [(&'a str, &'a [u8])],
}

impl<'a> RequestHead<'a> {
    /// A head of these parts, for tests of a judge. `path` is taken to be normalised.
    pub fn new(method: &'a str, host: Option<&'a str>, path: &'a str, fields: &'a [(&'a str, &'a [u8])]) -> Self {
        Self {
            method,
            path,
            host,
            version: HttpVersion::Http11,
            fields,
        }
    }

    /// The method, case kept.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// Path and query of the target, normalised (dot segments, slashes, escapes); `*` for `OPTIONS
    /// *`, and empty for CONNECT.
    pub fn path(&self) -> &'a str {
        self.path
    }

    /// The authority: of CONNECT the target, otherwise the Host, with its port and case as sent.
    /// `None` in HTTP/1.0 without one.
    pub fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// The host without its port, and without the brackets of an IPv6 address.
    pub fn host_name(&self) -> Option<&'a str> {
        self.host.map(|host| {
            if let Some(bracketed) = host.strip_prefix('[') {
                return bracketed.split_once(']').map_or(bracketed, |(address, _)| address);
            }
            host.rsplit_once(':').map_or(host, |(name, _)| name)
        })
    }

    /// The version.
    pub fn version(&self) -> HttpVersion {
        self.version
    }

    /// Names and values of the header's lines, in order, case kept, values without the white space
    /// around them.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.fields.iter().copied()
    }

    /// The values of one field, in order; the name compares without case.
    pub fn values<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.fields()
            .filter(move |(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_name_is_told_from_its_port() {
        let name = |host| RequestHead::new("GET", Some(host), "/", &[]).host_name().unwrap();
        assert_eq!(name("a.example:8080"), "a.example");
        assert_eq!(name("a.example"), "a.example");
        assert_eq!(name("[fd00::1]:80"), "fd00::1");
        assert_eq!(name("[fd00::1]"), "fd00::1");
    }
}
