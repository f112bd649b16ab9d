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

/// The pattern as a regular expression over the presentation form, from the text as written and
/// from the table of docs/policies.md, sharing nothing with the code above.
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
