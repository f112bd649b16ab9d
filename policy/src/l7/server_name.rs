//! `serverNames`: patterns of the names that a TLS client announces.

use std::fmt;
use std::sync::Arc;

use names::Name;
use thiserror::Error;

/// One entry of `serverNames`, as in Cilium 1.20.
///
/// `*` stands for any characters within one label, also for none beside others; a whole label `**`
/// for one or more labels; `*` alone for any name. Letters match in either case, and always the
/// whole name.
///
/// ```
/// use names::Name;
/// use policy::l7::ServerNamePattern;
///
/// let matches = |pattern: &str, name: &str| {
///     ServerNamePattern::parse(pattern).unwrap().matches(&Name::parse(name).unwrap())
/// };
/// assert!(matches("*.example.com", "a.example.com"));
/// assert!(!matches("*.example.com", "a.b.example.com"));
/// assert!(matches("**.example.com", "a.b.example.com"));
/// assert!(matches("a.**.com", "a.b.c.com"));
/// assert!(matches("api*.example.com", "api.example.com"));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerNamePattern {
    /// In lower case.
    text: Arc<str>,
}

/// Why a text is no pattern of `serverNames`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ServerNameError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// A character that no name holds.
    #[error("the character {0:?} is not one of a-z, 0-9, '-', '_', '.' and '*'")]
    Character(char),
    /// TLS has no trailing dot (RFC 6066 §3), so such a pattern would match nothing.
    #[error("it ends with a dot, and no name in TLS does")]
    TrailingDot,
    /// Two dots in a row, or one in front.
    #[error("it has an empty label")]
    EmptyLabel,
    /// Two stars in a row that are not a whole label.
    #[error("two stars stand for labels, and only where they are a whole label")]
    StarsInLabel,
    /// Longer than any name.
    #[error("it is longer than a name can be")]
    TooLong,
}

/// The longest name, in characters.
const LONGEST: usize = 253;
const EVERY_NAME: &str = "*";
const LABELS: &str = "**";

impl ServerNamePattern {
    /// Reads an entry as a person writes it.
    pub fn parse(text: &str) -> Result<Self, ServerNameError> {
        if text.is_empty() {
            return Err(ServerNameError::Empty);
        }
        if text.len() > LONGEST {
            return Err(ServerNameError::TooLong);
        }
        let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
        if let Some(stranger) = text.chars().find(|c| !is_known(*c)) {
            return Err(ServerNameError::Character(stranger));
        }
        if text.ends_with('.') {
            return Err(ServerNameError::TrailingDot);
        }
        for label in text.split('.') {
            match label {
                "" => return Err(ServerNameError::EmptyLabel),
                LABELS => {}
                _ if label.contains(LABELS) => return Err(ServerNameError::StarsInLabel),
                _ => {}
            }
        }
        Ok(Self {
            text: text.to_ascii_lowercase().into(),
        })
    }

    /// Whether it matches a name. Costs the product of both lengths at most.
    pub fn matches(&self, name: &Name) -> bool {
        let name = name.as_str().trim_end_matches('.');
        if name.is_empty() {
            return false;
        }
        *self.text == *EVERY_NAME || labels_match(&self.text, name)
    }

    /// Whether it is the name itself, without stars.
    pub fn is_exact(&self) -> bool {
        !self.text.contains('*')
    }

    /// As it is written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Label by label from the left. Where labels do not match, the last `**` takes one more: to try
/// only the last suffices, since what stands behind it may be anywhere after it.
fn labels_match(pattern: &str, name: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').collect();
    let name: Vec<&str> = name.split('.').collect();
    let (mut of_pattern, mut of_name) = (0, 0);
    // Behind the last `**`, and behind the labels that it has taken.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(of_pattern), name.get(of_name)) {
            (None, None) => return true,
            (Some(&LABELS), Some(_)) => {
                retry = Some((of_pattern + 1, of_name + 1));
                (of_pattern, of_name) = (of_pattern + 1, of_name + 1);
                continue;
            }
            (Some(label), Some(written)) if label_matches(label, written) => {
                (of_pattern, of_name) = (of_pattern + 1, of_name + 1);
                continue;
            }
            // Nothing is left of the name: to take more of it does not help.
            (Some(_), None) => return false,
            _ => {}
        }
        match &mut retry {
            Some((behind, taken)) => {
                *taken += 1;
                (of_pattern, of_name) = (*behind, *taken);
            }
            None => return false,
        }
    }
}

fn label_matches(pattern: &str, label: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == label;
    };
    // A star stands for characters of names alone: the octets that a `Name` escapes are none.
    if label.contains('\\') {
        return false;
    }
    let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let inner = label.strip_prefix(prefix).and_then(|label| label.strip_suffix(suffix));
    let Some(mut inner) = inner else { return false };
    middle.split('*').all(|piece| match inner.find(piece) {
        Some(at) => {
            inner = &inner[at + piece.len()..];
            true
        }
        None => false,
    })
}

impl fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        ServerNamePattern::parse(pattern)
            .unwrap()
            .matches(&Name::parse(name).unwrap())
    }

    #[test]
    fn patterns_match_as_in_cilium() {
        for (pattern, matching, others) in [
            (
                "www.example.com",
                &["www.example.com", "WWW.Example.com"][..],
                &["example.com", "a.www.example.com"][..],
            ),
            ("*.example.com", &["a.example.com"], &["example.com", "a.b.example.com"]),
            ("*example.com", &["example.com", "sub-example.com"], &["a.example.com"]),
            (
                "sub*.example.com",
                &["sub.example.com", "subdomain.example.com"],
                &["www.example.com"],
            ),
            (
                "**.example.com",
                &["a.example.com", "a.b.example.com"],
                &["example.com"],
            ),
            ("a.**.b.com", &["a.x.b.com", "a.x.b.b.com"], &["a.b.com", "x.b.com"]),
            ("**.x.**", &["a.x.b", "a.x.x", "x.x.x"], &["x.a", "a.x"]),
            ("*", &["a", "a.example.com"], &[]),
            ("**", &["a", "a.example.com"], &[]),
            ("a*b*c", &["abc", "axbxc"], &["acb", "abcx"]),
            ("API.example.com", &["api.example.com"], &[]),
        ] {
            for name in matching {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in others {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
        assert!(
            !ServerNamePattern::parse("*")
                .unwrap()
                .matches(&Name::parse(".").unwrap())
        );
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_the_reason() {
        for (text, error) in [
            ("", ServerNameError::Empty),
            ("a.example.", ServerNameError::TrailingDot),
            (".example", ServerNameError::EmptyLabel),
            ("a..b", ServerNameError::EmptyLabel),
            ("a**.example", ServerNameError::StarsInLabel),
            ("***", ServerNameError::StarsInLabel),
            ("a b", ServerNameError::Character(' ')),
            ("bücher.example", ServerNameError::Character('ü')),
        ] {
            assert_eq!(ServerNamePattern::parse(text), Err(error), "{text}");
        }
    }

    proptest! {
        /// Cilium makes a regular expression of the pattern.
        #[test]
        fn it_matches_as_the_regular_expression_of_the_pattern(
            pattern in prop::collection::vec(prop::sample::select(vec!["**", "*", "a", "b", "a*", "*b", "a*b"]), 1..5),
            name in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "aab", "c"]), 1..6),
        ) {
            let (pattern, name) = (pattern.join("."), name.join("."));
            const LABEL: &str = "[-a-z0-9_]";
            let regex = match pattern.as_str() {
                "*" => ".*".to_owned(),
                text => text.split('.').map(|label| match label {
                    "**" => format!("{LABEL}+([.]{LABEL}+)*"),
                    "*" => format!("{LABEL}+"),
                    label => label.replace('*', &format!("{LABEL}*")),
                }).collect::<Vec<_>>().join("[.]"),
            };
            let expected = Regex::new(&format!("^(?:{regex})$")).unwrap().is_match(&name);
            prop_assert_eq!(matches(&pattern, &name), expected, "{} {}", pattern, name);
        }
    }
}
