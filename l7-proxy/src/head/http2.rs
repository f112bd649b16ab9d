//! The head of a request of HTTP/2, held against the list that requests of HTTP/1 are held against.
//!
//! `h2` has read the frames and refused what RFC 9113 §8 calls malformed: pseudo-fields in
//! disorder, names in upper case, fields of a connection. What two readers could take for two
//! things is left.

use http::header::{COOKIE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};

use super::MOST_FIELDS;
use super::error::HeadError;
use super::host::is_host;
use super::length::LengthFields;
use super::request::{Fields, HttpVersion, RequestHead};
use super::target::{Target, TargetForm};
use super::write;
use crate::edit::HeaderEdit;

/// A request of HTTP/2.
#[derive(Debug)]
pub(crate) struct Http2Request<'a> {
    method: &'a str,
    target: Target<'a>,
    host: &'a str,
    scheme: Scheme,
    /// `host` first, whether it came as `:authority` or as a field.
    fields: Fields<'a>,
}

impl<'a> Http2Request<'a> {
    /// Reads a head whose cookies are joined.
    pub(crate) fn read(parts: &'a Parts) -> Result<Self, HeadError> {
        if parts.extensions.get::<h2::ext::Protocol>().is_some() {
            return Err(HeadError::Target);
        }
        let host = host(parts)?;
        let scheme = match parts.uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => scheme.clone(),
            Some(_) => return Err(HeadError::Target),
            // `http` keeps none where there is no authority.
            None => Scheme::HTTP,
        };
        let target = target(parts, host)?;
        if parts.headers.len() > MOST_FIELDS {
            return Err(HeadError::TooManyFields);
        }
        let mut fields = Fields::new();
        fields.push(("host", host.as_bytes()));
        let mut length = LengthFields::default();
        for (name, value) in &parts.headers {
            let (name, value) = (name.as_str(), value.as_bytes());
            if name == "host" {
                continue;
            }
            // RFC 9113 §8.2.1. HTTP/1 would drop that white space, and so judge another value.
            if value.first().is_some_and(is_space) || value.last().is_some_and(is_space) {
                return Err(HeadError::FieldValue);
            }
            length.read(name, value)?;
            fields.push((name, value));
        }
        if length.is_chunked {
            return Err(HeadError::TransferEncoding);
        }
        Ok(Self {
            method: parts.method.as_str(),
            target,
            host,
            scheme,
            fields,
        })
    }

    /// What the judge sees.
    pub(crate) fn view(&self) -> RequestHead<'_> {
        RequestHead {
            method: self.method,
            path: &self.target.path,
            host: Some(self.host),
            version: HttpVersion::Http2,
            fields: &self.fields,
        }
    }

    /// What is forwarded, with these edits. An edit that may not be is an error.
    pub(crate) fn forward(&self, edits: &[HeaderEdit]) -> Result<ForwardedHead, HeadError> {
        let uri = match self.target.form {
            TargetForm::Authority(_) => Uri::builder().authority(self.host).build(),
            _ => Uri::builder()
                .scheme(self.scheme.clone())
                .authority(self.host)
                .path_and_query(&*self.target.path)
                .build(),
        };
        let edited = match edits {
            [] => None,
            _ => Some(header_map(&write::edit(&self.fields, edits)?)?),
        };
        Ok(ForwardedHead {
            uri: uri.map_err(|_| HeadError::Target)?,
            edited,
        })
    }
}

/// What of a head is another than what was read.
#[derive(Debug)]
pub(crate) struct ForwardedHead {
    uri: Uri,
    edited: Option<HeaderMap>,
}

impl ForwardedHead {
    /// The request as it leaves. Its host is in `:authority` alone.
    pub(crate) fn replace(self, parts: Parts) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = parts.method;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.edited.unwrap_or(parts.headers);
        request.headers_mut().remove(HOST);
        request
    }
}

/// Makes one field of the cookies. A client may send them in several for the sake of compression,
/// and means one (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    if let (Some(first), Some(second)) = (cookies.next(), cookies.next()) {
        let parts: Vec<&[u8]> = [first, second]
            .into_iter()
            .chain(cookies)
            .map(HeaderValue::as_bytes)
            .collect();
        // Values stay values when they are joined.
        if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

fn host(parts: &Parts) -> Result<&str, HeadError> {
    let mut fields = parts.headers.get_all(HOST).iter();
    let field = match (fields.next(), fields.next()) {
        (_, Some(_)) => return Err(HeadError::RepeatedHost),
        (field, None) => field.map(|field| field.to_str()).transpose(),
    };
    let field = field.map_err(|_| HeadError::Host)?;
    let host = match (parts.uri.authority().map(|authority| authority.as_str()), field) {
        (Some(authority), Some(field)) if !authority.eq_ignore_ascii_case(field) => {
            return Err(HeadError::OtherAuthority);
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(HeadError::NoHost),
    };
    match is_host(host) {
        true => Ok(host),
        false => Err(HeadError::Host),
    }
}

fn target<'a>(parts: &'a Parts, host: &'a str) -> Result<Target<'a>, HeadError> {
    let text = match parts.method {
        Method::CONNECT => host,
        _ => parts
            .uri
            .path_and_query()
            .map(PathAndQuery::as_str)
            .ok_or(HeadError::Target)?,
    };
    let target = Target::parse(parts.method.as_str(), text)?;
    match target.form {
        TargetForm::Absolute { .. } => Err(HeadError::Target),
        _ => Ok(target),
    }
}

fn header_map(fields: &[(&str, &[u8])]) -> Result<HeaderMap, HeadError> {
    let mut map = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| HeadError::FieldName)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| HeadError::FieldValue)?;
        map.append(name, value);
    }
    Ok(map)
}

fn is_space(octet: &u8) -> bool {
    matches!(octet, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).body(()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    /// What is judged, and what leaves.
    fn read(method: &str, uri: &str, fields: &[(&'static str, &'static str)]) -> Result<(String, String), HeadError> {
        let parts = parts(method, uri, fields);
        let request = Http2Request::read(&parts)?;
        let view = request.view();
        let judged = format!("{} {} {}", view.method(), view.host().unwrap(), view.path());
        let head = request.forward(&[])?.replace(parts.clone());
        Ok((judged, format!("{} {}", head.method(), head.uri())))
    }

    #[test]
    fn what_is_judged_is_what_leaves() {
        for (method, uri, fields, judged, left) in [
            (
                "GET",
                "http://a/x/../y//z?q",
                &[][..],
                "GET a /y/z?q",
                "GET http://a/y/z?q",
            ),
            ("GET", "/x", &[("host", "a:80")], "GET a:80 /x", "GET http://a:80/x"),
            ("GET", "https://A/x", &[("host", "a")], "GET A /x", "GET https://A/x"),
            ("CONNECT", "a:443", &[], "CONNECT a:443 ", "CONNECT a:443"),
            (
                "POST",
                "http://a/p.S/M",
                &[("te", "trailers")],
                "POST a /p.S/M",
                "POST http://a/p.S/M",
            ),
        ] {
            assert_eq!(
                read(method, uri, fields),
                Ok((judged.to_owned(), left.to_owned())),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (method, uri, fields, error) in [
            ("GET", "/x", &[][..], HeadError::NoHost),
            ("GET", "http://a/x", &[("host", "b")], HeadError::OtherAuthority),
            ("GET", "/x", &[("host", "a"), ("host", "a")], HeadError::RepeatedHost),
            ("GET", "http://u@a/x", &[], HeadError::Host),
            ("GET", "ftp://a/x", &[], HeadError::Target),
            ("GET", "http://a/..", &[], HeadError::DotSegment),
            ("GET", "http://a/x%2fy", &[], HeadError::HiddenOctet),
            ("GET", "http://a/%252e%252e/y", &[], HeadError::HiddenOctet),
            ("GET", "http://a/x\\y", &[], HeadError::HiddenOctet),
            ("CONNECT", "a", &[], HeadError::Target),
            (
                "GET",
                "http://a/",
                &[("content_length", "1")],
                HeadError::AmbiguousFieldName,
            ),
            (
                "GET",
                "http://a/",
                &[("content-length", "+1")],
                HeadError::ContentLength,
            ),
            (
                "GET",
                "http://a/",
                &[("transfer-encoding", "chunked")],
                HeadError::TransferEncoding,
            ),
            ("GET", "http://a/", &[("x", " y")], HeadError::FieldValue),
            ("GET", "http://a/", &[("x", "y\t")], HeadError::FieldValue),
        ] {
            assert_eq!(read(method, uri, fields), Err(error), "{uri} {fields:?}");
        }
    }

    #[test]
    fn edits_are_made() {
        let parts = parts("GET", "http://a/", &[("x-a", "1"), ("x-b", "2")]);
        let request = Http2Request::read(&parts).unwrap();
        let edits = [
            HeaderEdit::Set {
                name: "X-A".into(),
                value: b"3".as_slice().into(),
            },
            HeaderEdit::Remove { name: "x-b".into() },
        ];
        let head = request.forward(&edits).unwrap().replace(parts.clone());
        let fields: Vec<_> = head
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .collect();
        assert_eq!(fields, [("x-a", &b"3"[..])]);
        let host = HeaderEdit::Remove { name: "host".into() };
        assert_eq!(request.forward(&[host]).err(), Some(HeadError::FieldName));
    }

    #[test]
    fn cookies_are_one_field() {
        let mut parts = parts("GET", "http://a/", &[("cookie", "a=1"), ("cookie", "b=2"), ("x", "y")]);
        join_cookies(&mut parts.headers);
        let request = Http2Request::read(&parts).unwrap();
        assert_eq!(request.view().values("cookie").collect::<Vec<_>>(), [b"a=1; b=2"]);
    }
}
