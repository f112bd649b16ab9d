//! The regular expressions of `rules.http`.
//!
//! # The flavour
//! The syntax of RE2, of ASCII, matched against the whole value: what Cilium hands to Envoy. Here
//! the crate `regex` matches, on octets and with Unicode switched off, and never backtracks either.
//! Where both engines read one text differently the expression is refused, with what to write
//! instead; so nobody's policy means here what it does not mean there.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ast::parse::ParserBuilder;
use regex_syntax::ast::{
    self, AssertionKind, Ast, ClassSetBinaryOp, ClassSetItem, Flag, FlagsItemKind, GroupKind, RepetitionKind,
    RepetitionRange, Span, Visitor,
};
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Hir, HirKind};
use thiserror::Error;

/// The longest expression, in characters.
const LONGEST: usize = 4096;
/// How many octets a compiled expression may take. The first that suffices is what it
/// [takes](HttpExpression::size).
const SIZES: [usize; 4] = [1 << 12, 1 << 15, 1 << 18, 1 << 20];
/// The largest compiled expression, in octets.
const LARGEST: usize = SIZES[SIZES.len() - 1];
/// The highest count of a repetition in RE2.
const MOST_REPEATED: u32 = 1000;
/// How deep groups may lie in each other.
const DEEPEST: u32 = 100;

/// An expression that a whole value must match. Two are equal where their texts are.
#[derive(Clone)]
pub struct HttpExpression {
    text: Arc<str>,
    form: Form,
    size: usize,
}

/// What matches.
#[derive(Clone)]
enum Form {
    /// Exactly these octets. Most methods and paths are such.
    Literal(Arc<[u8]>),
    Regex(Regex),
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct HttpExpressionError {
    /// What is wrong, as a part of a sentence.
    pub reason: String,
    /// What to write instead, where that is known.
    pub suggestion: Option<&'static str>,
}

impl HttpExpression {
    /// Reads and compiles an expression. What takes more than a bounded size is refused.
    pub fn compile(text: &str) -> Result<Self, HttpExpressionError> {
        let refused = |reason: String| HttpExpressionError {
            reason,
            suggestion: None,
        };
        if text.len() > LONGEST {
            return Err(refused(format!(
                "it has {} characters, and at most {LONGEST} are allowed",
                text.len()
            )));
        }
        let parsed = ParserBuilder::new().nest_limit(DEEPEST).build().parse(text);
        let parsed = parsed.map_err(|error| unparsable(&error))?;
        ast::visit(&parsed, Differences { text })?;
        // Only a text that is an expression by itself may stand between the anchors.
        let mut builder = RegexBuilder::new(&format!(r"\A(?:{text})\z"));
        builder.unicode(false);
        let mut sizes = SIZES.into_iter().map(|size| (size, builder.size_limit(size).build()));
        let is_too_large = |error: &regex::Error| matches!(error, regex::Error::CompiledTooBig(_));
        let compiled = sizes.find(|(_, compiled)| !compiled.as_ref().is_err_and(is_too_large));
        let Some((size, compiled)) = compiled else {
            return Err(refused(format!("it takes more than {LARGEST} octets when compiled")));
        };
        let regex = compiled.map_err(|error| refused(last_line(&error.to_string())))?;
        let (form, size) = match hir(text).map(Hir::into_kind) {
            Some(HirKind::Literal(literal)) => (Form::Literal(literal.0.as_ref().into()), text.len()),
            _ => (Form::Regex(regex), size),
        };
        Ok(Self {
            text: text.into(),
            form,
            size,
        })
    }

    /// Whether the whole value matches.
    pub fn matches(&self, value: &[u8]) -> bool {
        match &self.form {
            Form::Literal(literal) => **literal == *value,
            Form::Regex(regex) => regex.is_match(value),
        }
    }

    /// The only value that matches, where there is one.
    pub fn as_literal(&self) -> Option<&[u8]> {
        match &self.form {
            Form::Literal(literal) => Some(literal),
            Form::Regex(_) => None,
        }
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// An upper bound of the octets that it takes when compiled.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether no value that begins with `octet` can match: certain where true.
    pub(crate) fn never_begins_with(&self, octet: u8) -> bool {
        let Some(hir) = hir(&self.text) else { return false };
        let prefixes = Extractor::new().extract(&hir);
        prefixes.literals().is_some_and(|literals| {
            literals
                .iter()
                .all(|literal| literal.as_bytes().first().is_some_and(|first| *first != octet))
        })
    }

    /// Whether it begins or ends with an anchor, which says nothing: the whole value is matched.
    pub(crate) fn is_anchored(&self) -> bool {
        let ends = self.text.strip_suffix('$');
        let is_escaped = |before: &str| before.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1;
        self.text.starts_with('^') || ends.is_some_and(|before| !is_escaped(before))
    }
}

fn hir(text: &str) -> Option<Hir> {
    regex_syntax::ParserBuilder::new()
        .nest_limit(DEEPEST)
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text)
        .ok()
}

fn unparsable(error: &ast::Error) -> HttpExpressionError {
    use ast::ErrorKind;
    let suggestion = match error.kind() {
        ErrorKind::UnsupportedLookAround => Some("list what is allowed: entries add up"),
        ErrorKind::UnsupportedBackreference => Some("list the alternatives with `|`"),
        ErrorKind::RepetitionMissing => Some("write `.*` for any characters, and `\\*` for a star"),
        ErrorKind::RepetitionCountUnclosed
        | ErrorKind::RepetitionCountDecimalEmpty
        | ErrorKind::RepetitionCountInvalid => Some("write `\\{` for a brace"),
        ErrorKind::EscapeUnrecognized => Some("write the character itself, or `[…]` around it"),
        _ => None,
    };
    HttpExpressionError {
        reason: format!("{} (at character {})", error.kind(), error.span().start.column),
        suggestion,
    }
}

/// Errors of `regex` draw the expression before they say what is wrong.
fn last_line(error: &str) -> String {
    let last = error.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").to_owned()
}

/// Finds what RE2 and the crate `regex` read differently.
struct Differences<'t> {
    text: &'t str,
}

impl Differences<'_> {
    fn found(&self, span: &Span, what: &str, suggestion: &'static str) -> Result<(), HttpExpressionError> {
        let written = self.text.get(span.start.offset..span.end.offset).unwrap_or_default();
        Err(HttpExpressionError {
            reason: format!("`{written}` {what}"),
            suggestion: Some(suggestion),
        })
    }

    fn literal(&self, literal: &ast::Literal) -> Result<(), HttpExpressionError> {
        use ast::{HexLiteralKind, LiteralKind};
        match literal.kind {
            _ if !literal.c.is_ascii() => self.found(
                &literal.span,
                "is not ASCII, and requests are compared octet by octet",
                "write the octets as requests carry them, such as `%C3%BC`",
            ),
            LiteralKind::HexFixed(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong)
            | LiteralKind::HexBrace(HexLiteralKind::UnicodeShort | HexLiteralKind::UnicodeLong) => {
                self.found(&literal.span, "is unknown to RE2", "write `\\x` and two digits")
            }
            _ => Ok(()),
        }
    }

    fn flags(&self, flags: &ast::Flags) -> Result<(), HttpExpressionError> {
        let unknown = flags.items.iter().find(|item| {
            matches!(
                item.kind,
                FlagsItemKind::Flag(Flag::IgnoreWhitespace | Flag::Unicode | Flag::CRLF)
            )
        });
        match unknown {
            Some(item) => self.found(
                &item.span,
                "is a flag that RE2 does not have",
                "use `i`, `s`, `m` and `U` only",
            ),
            None => Ok(()),
        }
    }
}

impl Visitor for Differences<'_> {
    type Output = ();
    type Err = HttpExpressionError;

    fn finish(self) -> Result<(), HttpExpressionError> {
        Ok(())
    }

    fn visit_pre(&mut self, node: &Ast) -> Result<(), HttpExpressionError> {
        match node {
            Ast::Literal(literal) => self.literal(literal),
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => match &group.kind {
                GroupKind::NonCapturing(flags) => self.flags(flags),
                _ => Ok(()),
            },
            Ast::ClassUnicode(class) => self.found(
                &class.span,
                "speaks of Unicode, and requests are compared octet by octet",
                "write a class of ASCII, such as `[A-Za-z]`",
            ),
            Ast::Assertion(assertion) => match assertion.kind {
                AssertionKind::StartLine
                | AssertionKind::EndLine
                | AssertionKind::StartText
                | AssertionKind::EndText
                | AssertionKind::WordBoundary
                | AssertionKind::NotWordBoundary => Ok(()),
                _ => self.found(&assertion.span, "is unknown to RE2", "write `\\b`"),
            },
            Ast::Repetition(repetition) => {
                let highest = match &repetition.op.kind {
                    RepetitionKind::Range(RepetitionRange::Exactly(count) | RepetitionRange::AtLeast(count)) => *count,
                    RepetitionKind::Range(RepetitionRange::Bounded(_, most)) => *most,
                    RepetitionKind::ZeroOrOne | RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 0,
                };
                if highest > MOST_REPEATED {
                    let what = "repeats more than 1000 times, which RE2 refuses";
                    return self.found(&repetition.op.span, what, "write a lower count, or `*`");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), HttpExpressionError> {
        match item {
            ClassSetItem::Bracketed(nested) => self.found(
                &nested.span,
                "begins with a bracket within brackets, which RE2 takes for itself and others for a class",
                "write `\\[` for a bracket",
            ),
            ClassSetItem::Unicode(class) => self.found(
                &class.span,
                "speaks of Unicode, and requests are compared octet by octet",
                "write ranges of ASCII",
            ),
            ClassSetItem::Literal(literal) => self.literal(literal),
            ClassSetItem::Range(range) => {
                self.literal(&range.start)?;
                self.literal(&range.end)
            }
            _ => Ok(()),
        }
    }

    fn visit_class_set_binary_op_pre(&mut self, op: &ClassSetBinaryOp) -> Result<(), HttpExpressionError> {
        self.found(
            &op.span,
            "has `&&`, `--` or `~~` within brackets, which RE2 takes for the characters and others for operators",
            "put a backslash before each of the two characters",
        )
    }
}

impl PartialEq for HttpExpression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for HttpExpression {}

impl Hash for HttpExpression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl PartialOrd for HttpExpression {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HttpExpression {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Debug for HttpExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for HttpExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, value: &str) -> bool {
        HttpExpression::compile(expression).unwrap().matches(value.as_bytes())
    }

    #[test]
    fn an_expression_matches_the_whole_value() {
        assert!(matches("/users", "/users"));
        assert!(!matches("/users", "/users/1") && !matches("/users", "/a/users") && !matches("/users", "/users?x=1"));
        assert!(matches("GET|HEAD", "HEAD") && !matches("GET|HEAD", "GETX") && !matches("GET|HEAD", "XHEAD"));
        assert!(matches("/a.*", "/a/b?c=d") && !matches("/a.*", "/b/a"));
        assert!(matches("^/a$", "/a"));
        assert!(!matches("GET", "get") && matches("(?i)get", "GET"));
        assert!(matches("/[^/]+/x", "/\u{fc}/x"), "any octets but the slash");
        assert!(!matches("/a(?m:$)", "/a\nb"), "a flag does not reach the anchors");
    }

    #[test]
    fn a_text_that_closes_the_anchors_is_refused() {
        for text in ["a)|(b", "a)(?:b", ")", "("] {
            assert!(HttpExpression::compile(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_two_engines_read_differently_is_refused_with_a_hint() {
        for text in [
            "[a[b]]",
            "[a&&b]",
            "[a--b]",
            "[a~~b]",
            r"\pL",
            r"[\p{Greek}]",
            r"(?x)a b",
            "(?u)a",
            "(?-u:a)",
            "ü",
            "[ü]",
            r"\u00fc",
            r"\u{61}",
            r"\b{start}a",
            "a{1001}",
            "a{0,2000}",
            "[ -\u{fc}]",
            "(?R)a",
        ] {
            let error = HttpExpression::compile(text).unwrap_err();
            assert!(error.suggestion.is_some(), "{text}: {error}");
        }
        for text in ["(?=a)", r"(a)\1", "*", "a{", r"\Q.\E", r"\C"] {
            let error = HttpExpression::compile(text).unwrap_err();
            assert!(error.suggestion.is_some(), "{text}: {error}");
        }
    }

    #[test]
    fn what_both_read_alike_is_taken() {
        for text in [
            "",
            ".*",
            "[[:alpha:]]+",
            "[]a]",
            "[^]a]",
            "[a-]",
            r"[\[a]",
            r"\d+",
            r"/a\.b",
            "(?i)a",
            "(?s:.)",
            "(?P<n>a)",
            r"\x41",
            r"a\b",
            "a{2,5}",
            "(a|b|)",
            r"\Aa\z",
            r"/\{id\}",
            r"[&]",
            r"\/",
        ] {
            assert!(HttpExpression::compile(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(HttpExpression::compile(&"a".repeat(LONGEST + 1)).is_err());
        let large = HttpExpression::compile("(([a-z]{1000}){1000}){1000}").unwrap_err();
        assert!(large.reason.contains("compiled"), "{large}");
        let size = |text| HttpExpression::compile(text).unwrap().size();
        assert_eq!((size("/users"), size("/users/[0-9]+")), (6, SIZES[0]));
        assert!(size("([a-z]{100}x){20}") > SIZES[1]);
        assert!(HttpExpression::compile(&format!("{}a{}", "(".repeat(200), ")".repeat(200))).is_err());
    }

    #[test]
    fn first_octets_and_anchors_are_seen() {
        let of = |text| HttpExpression::compile(text).unwrap();
        for (text, never) in [
            ("users", true),
            ("/users", false),
            (".*", false),
            ("^users", true),
            ("(a|/b)", false),
            ("", false),
            ("(a|b).*", true),
        ] {
            assert_eq!(of(text).never_begins_with(b'/'), never, "{text}");
        }
        for (text, anchored) in [
            ("^/a", true),
            ("/a$", true),
            (r"/a\$", false),
            (r"/a\\$", true),
            ("/a", false),
        ] {
            assert_eq!(of(text).is_anchored(), anchored, "{text}");
        }
        assert_eq!(of(r"/a\.b").as_literal(), Some(&b"/a.b"[..]));
        assert_eq!(of("/a.b").as_literal(), None);
    }
}
