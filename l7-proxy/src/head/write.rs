//! The head that goes to the server, written from what was read and judged.

use super::error::HeadError;
use super::request::{Fields, HttpVersion, ParsedRequest};
use super::target::TargetForm;
use crate::edit::HeaderEdit;

/// Fields that decide framing or routing. No rule may edit them: what was matched must be what is
/// forwarded.
const UNEDITABLE: [&str; 10] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "upgrade",
    "expect",
    "te",
    "trailer",
];

/// Appends the head. An edit that may not be is an error, and nothing is written then.
pub(crate) fn write(request: &ParsedRequest<'_>, edits: &[HeaderEdit], to: &mut Vec<u8>) -> Result<(), HeadError> {
    let edited;
    let fields: &[(&str, &[u8])] = match edits {
        [] => &request.fields,
        _ => {
            edited = edit(&request.fields, edits)?;
            &edited
        }
    };
    to.extend_from_slice(request.method.as_bytes());
    to.push(b' ');
    match request.target.form {
        TargetForm::Origin | TargetForm::Asterisk => {}
        TargetForm::Absolute { scheme, authority } => {
            to.extend_from_slice(scheme.as_bytes());
            to.extend_from_slice(b"://");
            to.extend_from_slice(authority.as_bytes());
        }
        TargetForm::Authority(authority) => to.extend_from_slice(authority.as_bytes()),
    }
    to.extend_from_slice(request.target.path.as_bytes());
    to.extend_from_slice(match request.version {
        HttpVersion::Http10 => b" HTTP/1.0\r\n",
        HttpVersion::Http11 | HttpVersion::Http2 => b" HTTP/1.1\r\n",
    });
    for (name, value) in fields {
        to.extend_from_slice(name.as_bytes());
        to.extend_from_slice(b": ");
        to.extend_from_slice(value);
        to.extend_from_slice(b"\r\n");
    }
    to.extend_from_slice(b"\r\n");
    Ok(())
}

/// The fields after these edits. One that may not be is an error.
pub(crate) fn edit<'a>(fields: &[(&'a str, &'a [u8])], edits: &'a [HeaderEdit]) -> Result<Fields<'a>, HeadError> {
    let mut edited = Fields::from(fields);
    for edit in edits {
        let (HeaderEdit::Append { name, .. } | HeaderEdit::Remove { name } | HeaderEdit::Set { name, .. }) = edit;
        if !is_token(name) || UNEDITABLE.iter().any(|fixed| name.eq_ignore_ascii_case(fixed)) {
            return Err(HeadError::FieldName);
        }
        if let HeaderEdit::Remove { .. } | HeaderEdit::Set { .. } = edit {
            edited.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        }
        if let HeaderEdit::Append { value, .. } | HeaderEdit::Set { value, .. } = edit {
            if value.iter().any(|octet| octet.is_ascii_control() && *octet != b'\t') {
                return Err(HeadError::FieldValue);
            }
            edited.push((name, value));
        }
    }
    Ok(edited)
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(head: &str, edits: &[HeaderEdit]) -> Result<String, HeadError> {
        let request = ParsedRequest::parse(head.as_bytes()).unwrap();
        let mut out = Vec::new();
        write(&request, edits, &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_head_leaves_as_it_was_matched() {
        let head = "GET /a/../b?c=//d HTTP/1.1\r\nHOST:a:80\r\nx-1: y  \r\n\r\n";
        assert_eq!(
            written(head, &[]).unwrap(),
            "GET /b?c=//d HTTP/1.1\r\nHOST: a:80\r\nx-1: y\r\n\r\n"
        );
        let head = "GET http://a/x/./y HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(
            written(head, &[]).unwrap(),
            "GET http://a/x/y HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let head = "CONNECT a:443 HTTP/1.0\r\n\r\n";
        assert_eq!(written(head, &[]).unwrap(), head);
        let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(written(head, &[]).unwrap(), head);
    }

    #[test]
    fn edits_are_made_in_order() {
        let append = |name: &str, value: &[u8]| HeaderEdit::Append {
            name: name.into(),
            value: value.into(),
        };
        let head = "GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nx-a: 2\r\nX-B: 3\r\n\r\n";
        let edits = [
            HeaderEdit::Remove { name: "X-A".into() },
            HeaderEdit::Set {
                name: "x-b".into(),
                value: b"4".as_slice().into(),
            },
            append("X-A", b"5"),
        ];
        assert_eq!(
            written(head, &edits).unwrap(),
            "GET / HTTP/1.1\r\nHost: a\r\nx-b: 4\r\nX-A: 5\r\n\r\n"
        );
        for (name, value) in [
            ("Host", &b"b"[..]),
            ("content-length", b"3"),
            ("Transfer-Encoding", b"chunked"),
            ("", b"x"),
            ("a b", b"x"),
            ("a:", b"x"),
            ("X", b"a\r\nHost: b"),
            ("X", b"a\0"),
        ] {
            assert!(written(head, &[append(name, value)]).is_err(), "{name}: {value:?}");
        }
    }
}
