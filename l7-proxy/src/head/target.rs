//! The target of a request (RFC 9112 §3.2), normalised once: what is matched is what is forwarded.
//!
//! Escapes of unreserved octets are resolved, the others' digits are upper case, dot segments are
//! removed, and slashes in a row become one (RFC 3986 §6.2.2; the last as Envoy does). What could
//! be taken for a slash, a dot or an end by a server that unescapes once more is refused.

use std::borrow::Cow;

use super::error::HeadError;
use super::host::is_host;

/// A target, normalised.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    pub(crate) form: TargetForm<'a>,
    /// Path and query; `*` for OPTIONS of the server as a whole, and empty for CONNECT.
    pub(crate) path: Cow<'a, str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetForm<'a> {
    Origin,
    /// As it is sent to an HTTP proxy.
    Absolute {
        scheme: &'static str,
        authority: &'a str,
    },
    /// `OPTIONS *`.
    Asterisk,
    /// Of CONNECT.
    Authority(&'a str),
}

impl<'a> Target<'a> {
    pub(crate) fn parse(method: &str, text: &'a str) -> Result<Self, HeadError> {
        if method == "CONNECT" {
            // RFC 9110 §9.3.6: the port has to be there.
            let has_port = text.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
            return match is_host(text) && has_port {
                true => Ok(Self {
                    form: TargetForm::Authority(text),
                    path: Cow::Borrowed(""),
                }),
                false => Err(HeadError::Target),
            };
        }
        if text.starts_with('/') {
            return Ok(Self {
                form: TargetForm::Origin,
                path: normalize(text)?,
            });
        }
        if text == "*" {
            return match method {
                "OPTIONS" => Ok(Self {
                    form: TargetForm::Asterisk,
                    path: Cow::Borrowed(text),
                }),
                _ => Err(HeadError::Target),
            };
        }
        Self::parse_absolute(text)
    }

    fn parse_absolute(text: &'a str) -> Result<Self, HeadError> {
        let (scheme, rest) = text.split_once("://").ok_or(HeadError::Target)?;
        let scheme = ["http", "https"]
            .into_iter()
            .find(|known| scheme.eq_ignore_ascii_case(known))
            .ok_or(HeadError::Target)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len()));
        if !is_host(authority) {
            return Err(HeadError::Host);
        }
        let path = match path.starts_with('/') {
            true => normalize(path)?,
            // RFC 9110 §4.2.3: an empty path is the root.
            false => Cow::Owned(normalize(&format!("/{path}"))?.into_owned()),
        };
        Ok(Self {
            form: TargetForm::Absolute { scheme, authority },
            path,
        })
    }
}

/// Path and query, normalised. The query stays as it is.
fn normalize(text: &str) -> Result<Cow<'_, str>, HeadError> {
    if !text.bytes().all(|octet| octet.is_ascii_graphic() && octet != b'#') {
        return Err(HeadError::Target);
    }
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    if path.contains('\\') {
        return Err(HeadError::HiddenOctet);
    }
    if !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Ok(Cow::Borrowed(text));
    }
    let unescaped = unescape(path)?;
    let mut normal = String::with_capacity(text.len());
    let mut segments = unescaped[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "" if !is_last => {}
            "." => {}
            ".." => {
                let parent = normal.rfind('/').ok_or(HeadError::DotSegment)?;
                normal.truncate(parent);
            }
            // Some servers cut parameters off before they resolve dot segments.
            _ if is_dot_segment_with_parameters(segment) => return Err(HeadError::DotSegment),
            _ => {
                normal.push('/');
                normal.push_str(segment);
                continue;
            }
        }
        // What ends with a dot segment is a directory.
        if is_last {
            normal.push('/');
        }
    }
    normal.push_str(query);
    Ok(Cow::Owned(normal))
}

fn is_dot_segment_with_parameters(segment: &str) -> bool {
    let parameters = segment.strip_prefix("..").or_else(|| segment.strip_prefix('.'));
    parameters.is_some_and(|parameters| parameters.starts_with(';') || parameters.starts_with("%3B"))
}

/// Resolves the escapes of unreserved octets, and writes those of the others in upper case.
fn unescape(path: &str) -> Result<String, HeadError> {
    let mut unescaped = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        unescaped.push_str(before);
        let octet = escaped_octet(after).ok_or(HeadError::Escape)?;
        rest = &after[2..];
        match octet {
            b'/' | b'\\' | 0 => return Err(HeadError::HiddenOctet),
            // An escaped percent sign, with what a second reader would unescape.
            b'%' if matches!(escaped_octet(rest), Some(b'/' | b'\\' | 0 | b'.' | b'%')) => {
                return Err(HeadError::HiddenOctet);
            }
            _ if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) => unescaped.push(char::from(octet)),
            _ => {
                unescaped.push('%');
                unescaped.push_str(&after[..2].to_ascii_uppercase());
            }
        }
    }
    unescaped.push_str(rest);
    Ok(unescaped)
}

/// The octet that the first two digits stand for.
fn escaped_octet(text: &str) -> Option<u8> {
    let digit = |at: usize| char::from(*text.as_bytes().get(at)?).to_digit(16);
    u8::try_from(digit(0)? << 4 | digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Result<String, HeadError> {
        Target::parse("GET", text).map(|target| target.path.into_owned())
    }

    #[test]
    fn a_path_is_normalised() {
        for (text, normal) in [
            ("/", "/"),
            ("/a/b?c=/../d//e", "/a/b?c=/../d//e"),
            ("/allowed/../secret", "/secret"),
            ("/allowed/%2e%2E/secret", "/secret"),
            ("/a/./b", "/a/b"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a//b///c", "/a/b/c"),
            ("//a", "/a"),
            ("//", "/"),
            ("/a//", "/a/"),
            ("/a//../b", "/b"),
            ("/%41%7e%2d", "/A~-"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/%2541", "/%2541"),
            ("/...", "/..."),
            ("/.hidden", "/.hidden"),
            ("/a?%zz\\", "/a?%zz\\"),
        ] {
            assert_eq!(path(text).as_deref(), Ok(normal), "{text}");
        }
    }

    #[test]
    fn a_path_that_hides_something_is_refused() {
        for (text, error) in [
            ("/a%2fb", HeadError::HiddenOctet),
            ("/a%5Cb", HeadError::HiddenOctet),
            ("/a%00", HeadError::HiddenOctet),
            ("/a\\b", HeadError::HiddenOctet),
            ("/%252e%252e/secret", HeadError::HiddenOctet),
            ("/a%252Fb", HeadError::HiddenOctet),
            ("/a%25252fb", HeadError::HiddenOctet),
            ("/a%255cb", HeadError::HiddenOctet),
            ("/a%2500", HeadError::HiddenOctet),
            ("/..", HeadError::DotSegment),
            ("/a/../../b", HeadError::DotSegment),
            ("/a/..;/b", HeadError::DotSegment),
            ("/a/.;x/b", HeadError::DotSegment),
            ("/a/..%3bx/b", HeadError::DotSegment),
            ("/a%", HeadError::Escape),
            ("/a%2", HeadError::Escape),
            ("/a%zz", HeadError::Escape),
            ("/a#b", HeadError::Target),
            ("/a\u{7f}", HeadError::Target),
            ("/ä", HeadError::Target),
            ("a", HeadError::Target),
            ("", HeadError::Target),
            ("*", HeadError::Target),
        ] {
            assert_eq!(path(text), Err(error), "{text}");
        }
    }

    #[test]
    fn each_method_has_its_forms() {
        let form = |method, text| Target::parse(method, text).map(|target| (target.form, target.path.into_owned()));
        let absolute = TargetForm::Absolute {
            scheme: "http",
            authority: "a.example:80",
        };
        assert_eq!(
            form("GET", "HTTP://a.example:80/x/../y"),
            Ok((absolute, "/y".to_owned()))
        );
        assert_eq!(form("GET", "http://a.example:80"), Ok((absolute, "/".to_owned())));
        assert_eq!(form("GET", "http://a.example:80?q"), Ok((absolute, "/?q".to_owned())));
        assert_eq!(form("GET", "http://u@a.example/"), Err(HeadError::Host));
        assert_eq!(form("GET", "ftp://a.example/"), Err(HeadError::Target));
        assert_eq!(form("OPTIONS", "*"), Ok((TargetForm::Asterisk, "*".to_owned())));
        assert_eq!(
            form("CONNECT", "a.example:443"),
            Ok((TargetForm::Authority("a.example:443"), String::new()))
        );
        assert_eq!(
            form("CONNECT", "[fd00::1]:443"),
            Ok((TargetForm::Authority("[fd00::1]:443"), String::new()))
        );
        assert_eq!(form("CONNECT", "[fd00::1]"), Err(HeadError::Target));
        assert_eq!(form("CONNECT", "a.example"), Err(HeadError::Target));
        assert_eq!(form("CONNECT", "/"), Err(HeadError::Target));
        assert_eq!(form("GET", "a.example:443"), Err(HeadError::Target));
    }

    proptest! {
        /// What is normal stays so, and holds nothing that a reader could resolve further.
        #[test]
        fn normal_paths_are_stable(text in "/(([a-c.;/%\\\\]|%2[ef5]|%5c|%41|%25){0,12})(\\?[a-c/.%]{0,4})?") {
            if let Ok(normal) = path(&text) {
                let again = path(&normal);
                prop_assert_eq!(again.as_deref(), Ok(normal.as_str()));
                let path = normal.split('?').next().unwrap();
                prop_assert!(path.starts_with('/'));
                prop_assert!(!path.contains("//") && !path.contains('\\'), "{}", path);
                prop_assert!(!path.split('/').any(|segment| segment == "." || segment == ".."), "{}", path);
            }
        }

        /// What normalises is what a plain resolver of RFC 3986 §5.2.4 makes
        /// of it.
        #[test]
        fn dot_segments_are_those_of_the_plain_model(segments in prop::collection::vec("[ab]|\\.|\\.\\.", 1..8)) {
            let text = format!("/{}", segments.join("/"));
            let mut model: Vec<&str> = Vec::new();
            let mut underflows = false;
            for segment in &segments {
                match segment.as_str() {
                    "." => {}
                    ".." => underflows |= model.pop().is_none(),
                    name => model.push(name),
                }
            }
            let mut expected = format!("/{}", model.join("/"));
            if segments.last().unwrap().starts_with('.') && !model.is_empty() {
                expected.push('/');
            }
            match path(&text) {
                Ok(normal) => prop_assert!(!underflows && normal == expected, "{text}: {normal}, {expected}"),
                Err(error) => prop_assert!(underflows && error == HeadError::DotSegment),
            }
        }
    }
}
