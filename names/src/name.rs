//! DNS names, in the one form that everything here compares them in.

mod reverse;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use thiserror::Error;

/// The longest name that a policy may write, in characters, without the trailing dot
/// (docs/policies.md).
pub const MAX_NAME_CHARS: usize = 255;

/// The longest label, in octets (RFC 1035 §2.3.4).
const MAX_LABEL_OCTETS: usize = 63;

/// A DNS name: lower case, with its trailing dot, in presentation form.
///
/// Octets outside printable ASCII, and any dot or backslash inside a label, are written as `\DDD`
/// (RFC 4343 §2.1), so that a `.` in the text is always a label border and such a label can be
/// matched by no star. Cloning is cheap.
///
/// ```
/// use names::Name;
///
/// let name = Name::parse("WWW.Example.com").unwrap();
/// assert_eq!(name.as_str(), "www.example.com.");
/// assert_eq!(name.to_string(), "www.example.com");
/// assert!(name.is_within(&Name::parse("example.com").unwrap()));
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Two dots in a row, or a leading dot.
    #[error("it has an empty label (two dots in a row, or a dot at the start)")]
    EmptyLabel,
    /// Longer than [`MAX_NAME_CHARS`].
    #[error("it has {0} characters, and a name has at most {MAX_NAME_CHARS}")]
    TooLong(usize),
    /// A label of more than 63 octets (RFC 1035 §2.3.4).
    #[error("the label {0:?} has more than 63 characters")]
    LabelTooLong(String),
    /// A character that no policy name may hold.
    #[error("the character {0:?} is not one of a-z, 0-9, '-', '_' and '.'")]
    Character(char),
}

impl Name {
    /// Reads a name as a person writes it: any case, with or without the trailing dot. `.` is the
    /// root.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text == "." {
            return Ok(Self::root());
        }
        if let Some(stranger) = text.chars().find(|&c| !is_written_char(c)) {
            return Err(NameError::Character(stranger));
        }
        let body = text.strip_suffix('.').unwrap_or(text);
        if body.len() > MAX_NAME_CHARS {
            return Err(NameError::TooLong(body.len()));
        }
        for label in body.split('.') {
            check_label(label, label.len())?;
        }
        let mut folded = String::with_capacity(body.len() + 1);
        folded.push_str(body);
        folded.push('.');
        folded.make_ascii_lowercase();
        Ok(Self(Arc::from(folded)))
    }

    /// Reads back what [`as_str`](Self::as_str) gave, `\DDD` escapes included.
    ///
    /// Unlike [`parse`](Self::parse) it takes every name that a packet can hold, and only those.
    pub fn from_presentation(text: &str) -> Result<Self, NameError> {
        const MAX_WIRE_OCTETS: usize = 255; // RFC 1035 §2.3.4, length octets and the root included
        if text == "." {
            return Ok(Self::root());
        }
        let body = text.strip_suffix('.').unwrap_or(text);
        let mut labels: Vec<Vec<u8>> = Vec::new();
        let mut wire_octets = 1;
        for written in body.split('.') {
            let label = unescape(written)?;
            check_label(written, label.len())?;
            wire_octets += 1 + label.len();
            if wire_octets > MAX_WIRE_OCTETS {
                return Err(NameError::TooLong(body.len()));
            }
            labels.push(label);
        }
        Ok(Self::from_wire_labels(labels.iter().map(Vec::as_slice)))
    }

    /// Builds a name from the labels of a wire-format name, leftmost first, without the root.
    ///
    /// Never fails: whatever a packet may hold has an escaped form. One allocation for any legal
    /// name.
    pub fn from_wire_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Self {
        // A wire name has at most 254 octets before the root; escaped, each takes at most four
        // characters. The buffer lives on the stack, so that only the final `Arc` allocates.
        let mut text: SmallVec<[u8; 1024]> = SmallVec::new();
        for label in labels.into_iter().filter(|label| !label.is_empty()) {
            // Without an early end, so that it is done for many octets at once.
            let is_plain = label
                .iter()
                .fold(true, |is_plain, &octet| is_plain & needs_no_escape(octet));
            match is_plain {
                true => text.extend_from_slice(label),
                false => escape(label, |octets| text.extend_from_slice(octets)),
            }
            text.push(b'.');
        }
        text.make_ascii_lowercase();
        if text.is_empty() {
            text.push(b'.');
        }
        // Only ASCII was pushed above.
        Self(Arc::from(str::from_utf8(&text).expect("an escaped name is ASCII")))
    }

    /// The root, `.`.
    pub fn root() -> Self {
        Self(Arc::from("."))
    }

    /// The name with its trailing dot.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels, rightmost (the top-level domain) first; none for the root.
    #[inline]
    pub fn labels_from_the_right(&self) -> LabelsFromTheRight<'_> {
        // The text ends with a dot.
        LabelsFromTheRight(self.0.split_at(self.0.len() - 1).0)
    }

    /// Whether a star may stand for each of its labels.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.0.bytes().fold(true, |is_plain, octet| {
            is_plain & (is_label_octet(octet) || octet == b'.')
        })
    }

    /// Whether this name is `zone` or lies below it.
    #[inline]
    pub fn is_within(&self, zone: &Name) -> bool {
        if &*zone.0 == "." {
            return true;
        }
        match self.0.strip_suffix(&*zone.0) {
            Some(rest) => rest.is_empty() || rest.ends_with('.'),
            None => false,
        }
    }
}

/// What is left of a name to its left, without the dot.
///
/// Labels are short: looking at each octet is cheaper than what `rsplit` does to find the next dot.
#[derive(Debug, Clone)]
pub struct LabelsFromTheRight<'a>(&'a str);

impl<'a> Iterator for LabelsFromTheRight<'a> {
    type Item = &'a str;

    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (rest, label) = match self.0.bytes().rposition(|octet| octet == b'.') {
            Some(dot) => (&self.0[..dot], &self.0[dot + 1..]),
            None => ("", self.0),
        };
        self.0 = rest;
        Some(label)
    }
}

impl fmt::Display for Name {
    /// Without the trailing dot, as people write names; the root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_suffix('.') {
            Some("") | None => f.write_str("."),
            Some(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a star may stand for this octet of a folded name: the `C` of docs/policies.md, in lower
/// case.
#[inline]
pub(crate) fn is_label_octet(octet: u8) -> bool {
    matches!(octet, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_')
}

/// Whether a policy name may hold this character.
fn is_written_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Refuses an empty label and one of more than 63 octets. `octets` is what `written` stands for.
pub(crate) fn check_label(written: &str, octets: usize) -> Result<(), NameError> {
    match octets {
        0 => Err(NameError::EmptyLabel),
        1..=MAX_LABEL_OCTETS => Ok(()),
        _ => Err(NameError::LabelTooLong(written.to_owned())),
    }
}

/// Whether an octet of a wire label stands for itself in the text.
fn needs_no_escape(octet: u8) -> bool {
    octet.is_ascii_graphic() && octet != b'.' && octet != b'\\'
}

/// Writes a label in presentation form.
fn escape(label: &[u8], mut write: impl FnMut(&[u8])) {
    for &octet in label {
        if needs_no_escape(octet) {
            write(&[octet]);
        } else {
            write(&[b'\\', b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10]);
        }
    }
}

/// The octets of a label in presentation form.
fn unescape(label: &str) -> Result<Vec<u8>, NameError> {
    let mut octets = Vec::with_capacity(label.len());
    let mut rest = label.chars();
    while let Some(c) = rest.next() {
        if c == '\\' {
            let digits = rest.as_str().get(..3).ok_or(NameError::Character('\\'))?;
            octets.push(three_digits(digits).ok_or(NameError::Character('\\'))?);
            rest = rest.as_str()[3..].chars();
        } else if c.is_ascii_graphic() {
            octets.push(c as u8);
        } else {
            return Err(NameError::Character(c));
        }
    }
    Ok(octets)
}

fn three_digits(digits: &str) -> Option<u8> {
    digits
        .bytes()
        .all(|b| b.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[test]
    fn case_and_trailing_dot_do_not_matter() {
        assert_eq!(name("Www.Example.COM"), name("www.example.com."));
        assert_eq!(name("WWW.example.com").as_str(), "www.example.com.");
        assert_eq!(name("www.example.com.").to_string(), "www.example.com");
    }

    #[test]
    fn the_root_is_a_dot() {
        assert_eq!(name("."), Name::root());
        assert_eq!(Name::root().to_string(), ".");
        assert_eq!(Name::root().labels_from_the_right().count(), 0);
        assert_eq!(Name::from_wire_labels([]), Name::root());
    }

    #[test]
    fn what_is_not_a_name_is_refused_with_the_reason() {
        let refused = |text: &str| Name::parse(text).unwrap_err();
        assert_eq!(refused(""), NameError::EmptyLabel);
        assert_eq!(refused(".."), NameError::EmptyLabel);
        assert_eq!(refused(".a"), NameError::EmptyLabel);
        assert_eq!(refused("a..b"), NameError::EmptyLabel);
        assert_eq!(refused("a.."), NameError::EmptyLabel);
        assert_eq!(refused("a b"), NameError::Character(' '));
        assert_eq!(refused("*.a"), NameError::Character('*'));
        assert_eq!(refused("é.example"), NameError::Character('é'));
        assert_eq!(refused("a\\.b"), NameError::Character('\\'));
        let label = "a".repeat(64);
        assert_eq!(refused(&label), NameError::LabelTooLong(label.clone()));
    }

    #[test]
    fn a_name_has_at_most_255_characters_besides_its_dot() {
        let longest = format!("{}{}", "a.".repeat(127), "b");
        assert_eq!(longest.len(), 255);
        assert!(Name::parse(&longest).is_ok());
        assert!(Name::parse(&format!("{longest}.")).is_ok());
        let longer = format!("{}{}", "a.".repeat(127), "bb");
        assert_eq!(Name::parse(&longer), Err(NameError::TooLong(256)));
    }

    #[test]
    fn wire_labels_are_folded_and_what_is_not_printable_is_escaped() {
        let labels: [&[u8]; 3] = [b"A.b\\c d", b"\x00\xff*", b"Example"];
        let name = Name::from_wire_labels(labels);
        assert_eq!(name.as_str(), "a\\046b\\092c\\032d.\\000\\255*.example.");
        assert_eq!(
            name.labels_from_the_right().collect::<Vec<_>>(),
            ["example", "\\000\\255*", "a\\046b\\092c\\032d"]
        );
    }

    #[test]
    fn a_name_is_within_its_zone_at_label_borders_only() {
        assert!(name("a.example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&name("example.com")));
        assert!(name("example.com").is_within(&Name::root()));
        assert!(Name::root().is_within(&Name::root()));
        assert!(!name("xexample.com").is_within(&name("example.com")));
        assert!(!name("com").is_within(&name("example.com")));
        assert!(!Name::root().is_within(&name("com")));
        let dotted: [&[u8]; 2] = [b"a.example", b"com"];
        assert!(!Name::from_wire_labels(dotted).is_within(&name("example.com")));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for text in ["a\\", "\\25", "\\2555x\\", "\\256", "\\+12", "\\é12", "a b", "a..b", ""] {
            assert!(Name::from_presentation(text).is_err(), "{text}");
        }
        let too_long = "a.".repeat(128);
        assert!(Name::from_presentation(&too_long).is_err());
    }

    proptest! {
        #[test]
        fn presentation_form_reads_back(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..10)) {
            let name = Name::from_wire_labels(labels.iter().map(Vec::as_slice));
            prop_assert_eq!(Name::from_presentation(name.as_str()).unwrap(), name);
        }

        #[test]
        fn labels_survive_escaping_one_to_one(labels in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..10)) {
            let name = Name::from_wire_labels(labels.iter().map(Vec::as_slice));
            prop_assert_eq!(name.labels_from_the_right().count(), labels.len());
            let mut read: Vec<Vec<u8>> = name.labels_from_the_right().map(|l| unescape(l).unwrap()).collect();
            read.reverse();
            let folded: Vec<Vec<u8>> = labels.iter().map(|l| l.to_ascii_lowercase()).collect();
            prop_assert_eq!(read, folded);
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC*|[a\\\\0-9.*]{0,300}") {
            let _ = Name::parse(&text);
            let _ = Name::from_presentation(&text);
        }
    }
}
