//! The head of a request: as it is read, and as the judge sees it.

use std::mem::MaybeUninit;

use smallvec::SmallVec;

use super::MOST_FIELDS;
use super::connection_field::ConnectionOptions;
use super::error::HeadError;
use super::host::is_host;
use super::length::LengthFields;
use super::target::{Target, TargetForm};

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

/// Names and values, in order.
pub(crate) type Fields<'a> = SmallVec<[(&'a str, &'a [u8]); 24]>;

/// A request's head with what its framing and forwarding need.
#[derive(Debug)]
pub(crate) struct ParsedRequest<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: Target<'a>,
    pub(crate) version: HttpVersion,
    host: Option<&'a str>,
    /// What is forwarded, unless the judge edits it.
    pub(crate) fields: Fields<'a>,
    pub(crate) length: LengthFields,
    /// The protocols that the client would change to, where one of them may be granted.
    pub(crate) upgrade: Option<&'a str>,
}

impl<'a> ParsedRequest<'a> {
    /// Reads a whole head, with its empty line, in which every line ends with CR LF.
    pub(crate) fn parse(head: &'a [u8]) -> Result<Self, HeadError> {
        let mut space = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, &mut space) {
            Ok(httparse::Status::Complete(length)) if length == head.len() => {}
            // `httparse` found another end: one of the two is wrong.
            Ok(_) => return Err(HeadError::StartLine),
            Err(httparse::Error::Version) if !ends_with_a_version(head) => return Err(HeadError::StartLine),
            Err(error) => return Err(HeadError::from(error)),
        }
        let method = parsed.method.ok_or(HeadError::StartLine)?;
        let version = match parsed.version {
            Some(0) => HttpVersion::Http10,
            _ => HttpVersion::Http11,
        };
        let mut request = Self {
            method,
            target: Target::parse(method, parsed.path.ok_or(HeadError::StartLine)?)?,
            version,
            host: None,
            fields: parsed.headers.iter().map(|field| (field.name, field.value)).collect(),
            length: LengthFields::default(),
            upgrade: None,
        };
        let mut options = ConnectionOptions::default();
        let mut upgrades: SmallVec<[&str; 1]> = SmallVec::new();
        for (name, value) in &request.fields {
            request.length.read(name, value)?;
            // By length first: most fields are none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => {
                    if request.host.is_some() {
                        return Err(HeadError::RepeatedHost);
                    }
                    let host = str::from_utf8(value).map_err(|_| HeadError::Host)?;
                    if !is_host(host) {
                        return Err(HeadError::Host);
                    }
                    request.host = Some(host);
                }
                7 if name.eq_ignore_ascii_case("upgrade") => {
                    upgrades.push(str::from_utf8(value).map_err(|_| HeadError::FieldValue)?);
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    let has_field =
                        |option: &str| request.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(option));
                    options.read(value, has_field)?;
                }
                _ => {}
            }
        }
        request.length.check(version == HttpVersion::Http10)?;
        request.check_host()?;
        if method == "CONNECT" && (request.length.is_chunked || request.length.content_length.is_some_and(|it| it > 0))
        {
            return Err(HeadError::Body);
        }
        request.take_upgrade(&upgrades, options);
        Ok(request)
    }

    fn check_host(&mut self) -> Result<(), HeadError> {
        let authority = match self.target.form {
            TargetForm::Absolute { authority, .. } | TargetForm::Authority(authority) => Some(authority),
            TargetForm::Origin | TargetForm::Asterisk => None,
        };
        match (self.host, authority) {
            (None, _) if self.version == HttpVersion::Http11 => Err(HeadError::NoHost),
            (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(HeadError::OtherAuthority),
            (None, Some(authority)) => {
                self.host = Some(authority);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An upgrade to another version of HTTP, or to TLS, would hide every request that follows. So
    /// it is not offered to the server, which then goes on in HTTP/1.1 (RFC 9110 §7.8).
    fn take_upgrade(&mut self, upgrades: &[&'a str], options: ConnectionOptions) {
        let hides_requests = |protocol: &str| {
            let name = protocol.trim_matches([' ', '\t']).split('/').next().unwrap_or_default();
            ["h2c", "h2", "http", "tls"]
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known))
        };
        match upgrades {
            [] => return,
            [one] if options.upgrade && self.version == HttpVersion::Http11 && !one.split(',').any(hides_requests) => {
                self.upgrade = Some(one);
                return;
            }
            _ => {}
        }
        self.fields.retain(|(name, _)| {
            !["upgrade", "http2-settings", "connection"]
                .iter()
                .any(|gone| name.eq_ignore_ascii_case(gone))
        });
        if options.close {
            self.fields.push(("Connection", b"close"));
        } else if options.keep_alive {
            self.fields.push(("Connection", b"keep-alive"));
        }
    }

    /// What the judge sees.
    pub(crate) fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            path: &self.target.path,
            host: self.host,
            version: self.version,
            fields: &self.fields,
        }
    }
}

/// Whether a start line has three parts, of which the last is some version of HTTP.
fn ends_with_a_version(head: &[u8]) -> bool {
    let line = head.split(|octet| *octet == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|octet| *octet == b' ').skip(2);
    match (
        parts.next().and_then(|version| version.strip_prefix(b"HTTP/")),
        parts.next(),
    ) {
        (Some([major, b'.', minor]), None) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<ParsedRequest<'_>, HeadError> {
        ParsedRequest::parse(head.as_bytes())
    }

    fn error_of(head: &str) -> Option<HeadError> {
        parse(head).err()
    }

    #[test]
    fn a_head_is_read_with_case_and_order() {
        let head = "GET /a//b?c HTTP/1.1\r\nHOST: a.example\r\nX-b:  1 \t\r\nx-B:2\r\nEmpty:\r\n\r\n";
        let request = parse(head).unwrap();
        let view = request.view();
        assert_eq!(
            (view.method(), view.path(), view.host()),
            ("GET", "/a/b?c", Some("a.example"))
        );
        let fields: Vec<_> = view.fields().collect();
        assert_eq!(
            fields,
            [
                ("HOST", &b"a.example"[..]),
                ("X-b", b"1"),
                ("x-B", b"2"),
                ("Empty", b"")
            ]
        );
        assert_eq!(view.values("X-B").collect::<Vec<_>>(), [b"1", b"2"]);
    }

    #[test]
    fn the_host_is_there_once_and_agrees_with_the_target() {
        let host = |head| parse(head).map(|request| request.view().host().map(str::to_owned));
        assert_eq!(host("GET / HTTP/1.1\r\n\r\n"), Err(HeadError::NoHost));
        assert_eq!(host("GET / HTTP/1.0\r\n\r\n"), Ok(None));
        assert_eq!(
            host("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            Err(HeadError::RepeatedHost)
        );
        assert_eq!(
            host("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
            Err(HeadError::RepeatedHost)
        );
        assert_eq!(host("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Err(HeadError::Host));
        assert_eq!(
            host("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            Err(HeadError::OtherAuthority)
        );
        assert_eq!(
            host("GET http://A/ HTTP/1.1\r\nHost: a\r\n\r\n"),
            Ok(Some("a".to_owned()))
        );
        assert_eq!(
            host("CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n"),
            Err(HeadError::OtherAuthority)
        );
        assert_eq!(host("CONNECT a:1 HTTP/1.0\r\n\r\n"), Ok(Some("a:1".to_owned())));
    }

    #[test]
    fn what_could_be_framed_in_two_ways_is_refused() {
        for (fields, error) in [
            (
                "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                HeadError::TwoLengths,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                HeadError::TwoLengths,
            ),
            (
                "Content-Length: 1\r\nContent-Length: 1\r\n",
                HeadError::RepeatedContentLength,
            ),
            ("Content-Length: 1, 1\r\n", HeadError::RepeatedContentLength),
            ("Content-Length: +1\r\n", HeadError::ContentLength),
            ("Content-Length: 0x1\r\n", HeadError::ContentLength),
            ("Content-Length: 1 1\r\n", HeadError::ContentLength),
            ("Content-Length:\r\n", HeadError::ContentLength),
            ("Content-Length: 99999999999999999999\r\n", HeadError::ContentLength),
            ("Transfer-Encoding: identity, chunked\r\n", HeadError::TransferEncoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HeadError::TransferEncoding,
            ),
            ("Transfer-Encoding: Chunked\r\n", HeadError::TransferEncoding),
            ("Transfer-Encoding: chunked, identity\r\n", HeadError::TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", HeadError::TransferEncoding),
            ("Transfer-Encoding:\r\n", HeadError::TransferEncoding),
            ("Transfer-Encoding: \x0bchunked\r\n", HeadError::FieldValue),
            ("Transfer_Encoding: chunked\r\n", HeadError::AmbiguousFieldName),
            ("content_length: 3\r\n", HeadError::AmbiguousFieldName),
            ("Content-Length : 1\r\n", HeadError::FieldName),
            (" Content-Length: 1\r\n", HeadError::FieldName),
            ("A: b\r\n folded\r\n", HeadError::FieldName),
            ("A: b\0c\r\n", HeadError::FieldValue),
            ("A\0: b\r\n", HeadError::FieldName),
            (": b\r\n", HeadError::FieldName),
            ("A\r\n", HeadError::FieldName),
            ("Connection: X-Auth\r\nX-Auth: secret\r\n", HeadError::ConnectionOption),
            ("Connection: close, host\r\n", HeadError::ConnectionOption),
        ] {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            assert_eq!(error_of(&head), Some(error), "{fields:?}");
        }
        assert_eq!(
            error_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Some(HeadError::TransferEncoding)
        );
        assert_eq!(
            error_of("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n"),
            Some(HeadError::Body)
        );
    }

    #[test]
    fn start_lines_are_exact() {
        for (line, error) in [
            ("GET  / HTTP/1.1", HeadError::StartLine),
            ("GET / HTTP/1.1 ", HeadError::BareLineEnd),
            ("GET /\tHTTP/1.1", HeadError::StartLine),
            ("GET / http/1.1", HeadError::StartLine),
            ("GET / HTTP/1.2", HeadError::Version),
            ("GET / HTTP/0.9", HeadError::Version),
            ("PRI * HTTP/2.0", HeadError::Version),
            ("GET /", HeadError::StartLine),
            ("G\u{7f}T / HTTP/1.1", HeadError::StartLine),
            ("GET /a b HTTP/1.1", HeadError::StartLine),
            ("GET /#a HTTP/1.1", HeadError::Target),
        ] {
            let found = error_of(&format!("{line}\r\nHost: a\r\n\r\n"));
            assert_eq!(found, Some(error), "{line:?}");
        }
    }

    #[test]
    fn upgrades_that_would_hide_requests_are_not_offered() {
        let fields = |fields: &str| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            let request = parse(&head).unwrap();
            let names: Vec<String> = request.fields.iter().map(|(name, _)| (*name).to_owned()).collect();
            (request.upgrade.map(str::to_owned), names)
        };
        let (upgrade, names) = fields("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n");
        assert_eq!((upgrade, names), (None, vec!["Host".to_owned()]));
        let (upgrade, names) = fields("Connection: keep-alive, upgrade\r\nUpgrade: websocket, TLS/1.0\r\n");
        assert_eq!((upgrade, names.len()), (None, 2));
        let (upgrade, names) = fields("Upgrade: websocket\r\n");
        assert_eq!((upgrade, names.len()), (None, 1));
        let (upgrade, names) = fields("Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n");
        assert_eq!((upgrade, names.len()), (None, 1));
        let (upgrade, names) = fields("Connection: Upgrade\r\nUpgrade: websocket\r\n");
        assert_eq!((upgrade.as_deref(), names.len()), (Some("websocket"), 3));
    }

    #[test]
    fn a_hosts_name_is_told_from_its_port() {
        let name = |host| RequestHead::new("GET", Some(host), "/", &[]).host_name().unwrap();
        assert_eq!(name("a.example:8080"), "a.example");
        assert_eq!(name("a.example"), "a.example");
        assert_eq!(name("[fd00::1]:80"), "fd00::1");
        assert_eq!(name("[fd00::1]"), "fd00::1");
    }
}
