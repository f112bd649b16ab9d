//! Name patterns: what `matchName` and `matchPattern` mean (semantics.md, "Names and patterns").

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::name::{MAX_NAME_CHARS, Name, NameError, check_label, is_label_octet};

/// One validated `matchName` or `matchPattern`.
///
/// Two patterns are equal when they match the same names by construction (`A.example.` and
/// `a.example`), so a pattern may serve as the identity of a selector.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pattern {
    /// The canonical text: lower case, trailing dot, no two stars in a row except in a leading `**.`, and `*.` for
    /// what matches every name. Its labels are read as [`Part`]s wherever they are needed.
    text: Arc<str>,
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PatternError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// A character that no pattern may hold.
    #[error("the character {0:?} is not one of a-z, 0-9, '-', '_', '.' and '*'")]
    Character(char),
    /// The text breaks a rule that names follow too.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Pattern {
    /// A `matchName`: exactly this name. The root is not one.
    pub fn name(text: &str) -> Result<Self, PatternError> {
        match text {
            "" => Err(PatternError::Empty),
            "." => Err(NameError::EmptyLabel.into()),
            _ => Ok(Self {
                text: Arc::from(Name::parse(text)?.as_str()),
            }),
        }
    }

    /// A `matchPattern`, with stars.
    #[expect(
        clippy::self_named_constructors,
        reason = "named, like `name`, after the field that is read"
    )]
    pub fn pattern(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if let Some(stranger) = text.chars().find(|&c| !is_pattern_char(c)) {
            return Err(PatternError::Character(stranger));
        }
        let body = text.strip_suffix('.').unwrap_or(text);
        if body.len() > MAX_NAME_CHARS {
            return Err(NameError::TooLong(body.len()).into());
        }
        if is_all_stars(body) {
            return Ok(Self {
                text: Arc::from(EVERY_NAME),
            });
        }
        let mut canonical = String::with_capacity(body.len() + 1);
        for (position, label) in body.split('.').enumerate() {
            if position == 0 && is_all_stars(label) && label.len() > 1 {
                canonical.push_str(ONE_OR_MORE_LABELS);
            } else {
                push_canonical_label(&mut canonical, label)?;
            }
            canonical.push('.');
        }
        Ok(Self {
            text: Arc::from(canonical),
        })
    }

    /// Whether the pattern matches `name`. Cost: the length of the name, times the stars inside a label.
    ///
    /// [`NameIndex`](crate::NameIndex) answers the same for many patterns at once.
    pub fn matches(&self, name: &Name) -> bool {
        if self.is_every_name() {
            return true;
        }
        let mut labels = name.labels_from_the_right();
        for part in self.parts_from_the_right() {
            let matches = match (part, labels.next()) {
                (Part::OneOrMore, Some(next)) => return is_plain_label(next) && labels.all(is_plain_label),
                (Part::Exact(text), Some(label)) => label == text,
                (Part::One, Some(label)) => is_plain_label(label),
                (Part::Glob(glob), Some(label)) => is_plain_label(label) && glob.matches(label),
                (_, None) => false,
            };
            if !matches {
                return false;
            }
        }
        labels.next().is_none()
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it matches every name, the root and names with unusual octets too.
    pub(crate) fn is_every_name(&self) -> bool {
        *self.text == *EVERY_NAME
    }

    /// The labels as conditions, rightmost first. Meaningless for [`is_every_name`](Self::is_every_name).
    pub(crate) fn parts_from_the_right(&self) -> impl Iterator<Item = Part<'_>> {
        self.text.trim_end_matches('.').rsplit('.').map(Part::read)
    }
}

impl fmt::Display for Pattern {
    /// Without the trailing dot, as people write patterns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.strip_suffix('.').unwrap_or(&self.text))
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const EVERY_NAME: &str = "*.";
const ONE_OR_MORE_LABELS: &str = "**";

/// What one label of a pattern asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// One label: this one.
    Exact(&'a str),
    /// One plain label, whichever.
    One,
    /// One or more plain labels; only ever the leftmost part.
    OneOrMore,
    /// One plain label that fits.
    Glob(Glob<'a>),
}

impl<'a> Part<'a> {
    /// Reads a label of a canonical text.
    fn read(label: &'a str) -> Self {
        match (label, label.find('*'), label.rfind('*')) {
            ("*", ..) => Part::One,
            (ONE_OR_MORE_LABELS, ..) => Part::OneOrMore,
            (_, Some(first), Some(last)) => Part::Glob(Glob {
                prefix: &label[..first],
                middle: label.get(first + 1..last).unwrap_or(""),
                suffix: &label[last + 1..],
            }),
            _ => Part::Exact(label),
        }
    }
}

/// A label with stars and other characters: `prefix*suffix`, or `prefix*middle*suffix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Glob<'a> {
    /// What stands before the first star.
    pub(crate) prefix: &'a str,
    /// What stands between the first star and the last, stars included; empty when there is one star.
    pub(crate) middle: &'a str,
    /// What stands after the last star.
    pub(crate) suffix: &'a str,
}

impl Glob<'_> {
    /// Whether it fits a plain label.
    fn matches(&self, label: &str) -> bool {
        label
            .strip_prefix(self.prefix)
            .and_then(|rest| rest.strip_suffix(self.suffix))
            .is_some_and(|inner| contains_in_order(inner, self.middle))
    }
}

/// Whether the pieces between the stars of `middle` occur in `text` in their order, without overlap.
pub(crate) fn contains_in_order(text: &str, middle: &str) -> bool {
    let mut rest = text;
    middle.split('*').all(|piece| match rest.find(piece) {
        // Taking the first occurrence leaves the most room for the pieces after it.
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Whether a star may stand for this label of a name.
pub(crate) fn is_plain_label(label: &str) -> bool {
    label.bytes().all(is_label_octet)
}

fn is_pattern_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*')
}

fn is_all_stars(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| c == b'*')
}

/// Folds case and makes one star of a run. Stars can stand for nothing, so they do not count for the length, except that
/// a label of stars alone is not empty.
fn push_canonical_label(canonical: &mut String, label: &str) -> Result<(), NameError> {
    if !is_all_stars(label) {
        let stars = label.bytes().filter(|&c| c == b'*').count();
        check_label(label, label.len() - stars)?;
    }
    let mut after_star = false;
    for c in label.chars() {
        if c != '*' || !after_star {
            canonical.push(c.to_ascii_lowercase());
        }
        after_star = c == '*';
    }
    Ok(())
}

/// Random patterns and names over a tiny alphabet, so that they often meet.
#[cfg(test)]
pub(crate) mod samples {
    use proptest::prelude::*;

    use crate::name::Name;

    pub(crate) fn written_pattern() -> impl Strategy<Value = String> {
        let label = prop_oneof![
            4 => "[abA-]{1,3}",
            3 => "[ab*]{1,5}",
            2 => Just("*".to_owned()),
            1 => Just("**".to_owned()),
        ];
        (prop::collection::vec(label, 1..5), any::<bool>())
            .prop_map(|(labels, dot)| labels.join(".") + if dot { "." } else { "" })
    }

    pub(crate) fn asked_name() -> impl Strategy<Value = Name> {
        let label = prop_oneof![
            8 => "[abA-]{1,4}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 1..3),
        ];
        prop::collection::vec(label, 0..6).prop_map(|labels| Name::from_wire_labels(labels.iter().map(Vec::as_slice)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::samples::{asked_name, written_pattern};
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::pattern(text).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    #[track_caller]
    fn check(pattern: &Pattern, matching: &[&str], other: &[&str]) {
        for text in matching {
            assert!(pattern.matches(&name(text)), "{pattern} should match {text}");
        }
        for text in other {
            assert!(!pattern.matches(&name(text)), "{pattern} should not match {text}");
        }
    }

    #[test]
    fn a_match_name_is_one_name_in_any_case_with_or_without_the_dot() {
        for written in ["a.example", "A.Example."] {
            check(
                &Pattern::name(written).unwrap(),
                &["a.example", "A.EXAMPLE", "a.example."],
                &["x.a.example", "example", "b.example", "aa.example", "."],
            );
        }
    }

    #[test]
    fn a_leading_star_and_dot_is_exactly_one_more_label() {
        check(
            &pattern("*.example.com"),
            &["a.example.com", "A-_9.example.com."],
            &["example.com", "a.b.example.com", "aexample.com", "com", "."],
        );
    }

    #[test]
    fn two_or_more_leading_stars_and_a_dot_are_one_or_more_whole_labels() {
        for written in ["**.example.com", "***.example.com.", "*****.EXAMPLE.com"] {
            check(
                &pattern(written),
                &["a.example.com", "a.b.example.com", "x.a.b.example.com"],
                &["example.com", "xexample.com", "com", "."],
            );
        }
    }

    #[test]
    fn a_leading_star_without_a_dot_stands_for_characters_of_the_first_label() {
        for written in ["*example.com", "**example.com", "***example.com"] {
            check(
                &pattern(written),
                &["example.com", "myexample.com", "-example.com"],
                &["www.example.com", "www.myexample.com", "com"],
            );
        }
    }

    #[test]
    fn a_star_inside_a_label_is_any_number_of_label_characters_and_never_a_dot() {
        check(
            &pattern("api-*.example.com"),
            &["api-.example.com", "api-a.example.com", "api-a-b_9.example.com"],
            &["api-a.b.example.com", "api.example.com", "x-api-a.example.com", "api-a"],
        );
    }

    #[test]
    fn stars_that_do_not_lead_are_as_one_star() {
        for written in ["a.**.example", "a.*.example", "a.***.example"] {
            check(
                &pattern(written),
                &["a.b.example"],
                &["a.b.c.example", "a.example", "b.b.example"],
            );
        }
        check(
            &pattern("*.**.example"),
            &["a.b.example"],
            &["b.example", "a.b.c.example"],
        );
        check(&pattern("a**b"), &["ab", "axb"], &["a.b", "b"]);
    }

    #[test]
    fn stars_alone_are_every_name_and_the_root() {
        let odd: [&[u8]; 2] = [b"a b\x00.", b"example"];
        for written in ["*", "**", "*.", "**.", "***"] {
            check(
                &pattern(written),
                &[".", "com", "a.b.c.example", "9", "_tcp.example"],
                &[],
            );
            assert!(pattern(written).matches(&Name::from_wire_labels(odd)));
            assert_eq!(pattern(written).to_string(), "*");
        }
    }

    #[test]
    fn several_stars_in_a_label_find_their_pieces_in_order() {
        check(
            &pattern("a*b*c.example"),
            &["abc.example", "axbyc.example", "abbcc.example", "abcbc.example"],
            &["acb.example", "ab.example", "ac.example", "abcd.example"],
        );
        check(&pattern("*aba*ba"), &["ababa", "xabayba"], &["aba", "abba"]);
        // Prefix and suffix may not share characters.
        check(&pattern("ab*ba"), &["abba", "abxba"], &["aba"]);
    }

    #[test]
    fn one_or_more_labels_go_with_other_stars() {
        check(
            &pattern("**.api-*.example"),
            &["x.api-1.example", "x.y.api-.example"],
            &["api-1.example", "x.example"],
        );
        check(&pattern("**.*"), &["a.b", "a.b.c"], &["a", "."]);
        check(&pattern("*.*"), &["a.b"], &["a", "a.b.c", "."]);
    }

    #[test]
    fn a_star_never_stands_for_octets_that_no_host_name_has() {
        for odd in [b"a b".as_slice(), b"*", b"a.b", b"\xc3\xa9", b"a\\b", b"a!"] {
            let labels = [b"x".as_slice(), odd, b"example"];
            let inner = Name::from_wire_labels(labels);
            let outer = Name::from_wire_labels(labels[1..].iter().copied());
            assert!(!pattern("**.example").matches(&inner), "{inner}");
            assert!(!pattern("*.*.example").matches(&inner), "{inner}");
            assert!(!pattern("*.example").matches(&outer), "{outer}");
            assert!(!pattern("**.example").matches(&outer), "{outer}");
            assert!(!pattern("a*.example").matches(&outer), "{outer}");
        }
    }

    #[test]
    fn patterns_that_mean_the_same_are_equal() {
        assert_eq!(pattern("A.Example."), Pattern::name("a.example").unwrap());
        assert_eq!(pattern("***.example"), pattern("**.example."));
        assert_eq!(pattern("**example"), pattern("*example"));
        assert_eq!(pattern("a.**.example"), pattern("a.*.example"));
        assert_eq!(pattern("**."), pattern("*"));
        assert_ne!(pattern("**.example"), pattern("*.example"));
        assert_eq!(pattern("***.X*****y.Example").as_str(), "**.x*y.example.");
        assert_eq!(pattern("**.Example.").to_string(), "**.example");
    }

    #[test]
    fn what_is_not_a_pattern_is_refused_with_the_reason() {
        let refused = |text: &str| Pattern::pattern(text).unwrap_err();
        assert_eq!(refused(""), PatternError::Empty);
        for text in [".", "..", ".a", "a..b", "*..", ".*", "a.*..b", "**..example"] {
            assert_eq!(refused(text), PatternError::Name(NameError::EmptyLabel), "{text}");
        }
        for (text, stranger) in [
            ("a b", ' '),
            ("a?.example", '?'),
            ("[a-z].x", '['),
            ("é", 'é'),
            (" a", ' '),
        ] {
            assert_eq!(refused(text), PatternError::Character(stranger));
        }
        let label = format!("*{}", "a".repeat(64));
        assert_eq!(refused(&label), PatternError::Name(NameError::LabelTooLong(label)));
        assert!(Pattern::pattern(&format!("*{}", "a".repeat(63))).is_ok());
    }

    #[test]
    fn what_is_not_a_name_is_refused_as_match_name() {
        assert_eq!(Pattern::name(""), Err(PatternError::Empty));
        assert_eq!(Pattern::name("."), Err(PatternError::Name(NameError::EmptyLabel)));
        assert_eq!(Pattern::name("*.a"), Err(PatternError::Name(NameError::Character('*'))));
    }

    #[test]
    fn a_pattern_has_at_most_255_characters_besides_its_dot() {
        let longest = format!("*.{}bc", "a.".repeat(125)) + "d";
        assert_eq!(longest.len(), 255);
        assert!(Pattern::pattern(&longest).is_ok());
        assert!(Pattern::pattern(&format!("{longest}.")).is_ok());
        assert_eq!(
            Pattern::pattern(&format!("{longest}e")),
            Err(PatternError::Name(NameError::TooLong(256)))
        );
        assert_eq!(
            Pattern::pattern(&"*".repeat(256)),
            Err(PatternError::Name(NameError::TooLong(256)))
        );
    }

    /// The pattern as a regular expression over the presentation form, from the text as written and from
    /// the table of semantics.md, sharing nothing with the code above.
    fn oracle(written: &str) -> Regex {
        const C: &str = "[-a-zA-Z0-9_]";
        let body = written.strip_suffix('.').unwrap_or(written);
        if body.chars().all(|c| c == '*') {
            return Regex::new("(?s)^.*$").unwrap();
        }
        let leading = body.len() - body.trim_start_matches('*').len();
        let (mut expression, rest) = match body[leading..].strip_prefix('.') {
            Some(rest) if leading >= 2 => (format!(r"(?:{C}+\.)+"), rest),
            Some(rest) if leading == 1 => (format!(r"{C}+\."), rest),
            _ => (String::new(), body),
        };
        for c in rest.chars() {
            match c {
                '*' => expression += &format!("{C}*"),
                '.' => expression += r"\.",
                c => expression.push(c),
            }
        }
        Regex::new(&format!(r"(?i)^{expression}\.$")).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn matching_agrees_with_a_regular_expression(written in written_pattern(), name in asked_name()) {
            let expression = oracle(&written);
            prop_assert_eq!(pattern(&written).matches(&name), expression.is_match(name.as_str()), "{} {}", written, name);
        }

        #[test]
        fn a_canonical_text_is_a_pattern_of_the_same_meaning(written in written_pattern(), name in asked_name()) {
            let first = pattern(&written);
            let again = pattern(first.as_str());
            prop_assert_eq!(again.matches(&name), first.matches(&name));
            prop_assert_eq!(again, first);
        }

        #[test]
        fn reading_any_text_never_panics(text in "\\PC*|[a*.-]{0,300}") {
            let _ = Pattern::pattern(&text);
            let _ = Pattern::name(&text);
        }
    }
}
