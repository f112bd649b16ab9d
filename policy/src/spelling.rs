//! Names as people paste them: URLs, `host:port`, and letters beyond ASCII.

use names::Pattern;

/// What to write in place of a text that is no name or pattern.
pub(crate) fn meant(text: &str) -> Option<String> {
    // A browser's bar, a connection string.
    const LONGEST: usize = 1_024;
    if text.len() > LONGEST {
        return None;
    }
    let (scheme, rest) = text
        .trim()
        .split_once("://")
        .map_or((None, text.trim()), |(scheme, rest)| (Some(scheme), rest));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = host
        .rsplit_once(':')
        .map_or((host, None), |(host, port)| (host, Some(port)));
    let port = port.and_then(|port| port.parse::<u16>().ok()).or(match scheme {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    });
    // As names stand in DNS (RFC 5891); what looks alike stays told apart.
    let host = match host.is_ascii() {
        true => host.to_owned(),
        false => idna::domain_to_ascii(host).ok()?,
    };
    if host == text || host.is_empty() || Pattern::pattern(&host).is_err() {
        return None;
    }
    Some(match port {
        Some(port) => format!("write {host:?}, and the port under `toPorts`: {:?}", port.to_string()),
        None => format!("write {host:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_told_as_a_name() {
        for (text, expected) in [
            (
                "https://api.example.com/v1?x=y",
                Some("write \"api.example.com\", and the port under `toPorts`: \"443\""),
            ),
            (
                "postgres://user:secret@db.example.com:5432/app",
                Some("write \"db.example.com\", and the port under `toPorts`: \"5432\""),
            ),
            (
                "api.example.com:8443",
                Some("write \"api.example.com\", and the port under `toPorts`: \"8443\""),
            ),
            ("api.example.com/path", Some("write \"api.example.com\"")),
            ("bücher.example", Some("write \"xn--bcher-kva.example\"")),
            (" api.example.com ", Some("write \"api.example.com\"")),
            ("two words.example", None),
            ("", None),
        ] {
            assert_eq!(meant(text).as_deref(), expected, "{text}");
        }
    }
}
