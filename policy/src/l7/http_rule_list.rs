//! The entries of one `rules.http`, which add up.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex::bytes::{RegexSet, RegexSetBuilder};

use super::header_condition::{HeaderChange, HeaderNote};
use super::http_request::HttpRequest;
use super::http_rule::HttpRule;

/// How many entries [`Display`](fmt::Display) lists.
const SHOWN: usize = 4;

/// The entries, compiled so that a request is not held against each of them: those with a literal
/// path are found by it, and the other paths are tried together.
///
/// Two lists are equal where their entries are. A clone shares everything.
#[derive(Clone)]
pub struct HttpRuleList {
    rules: Arc<[HttpRule]>,
    index: Arc<PathIndex>,
}

/// A request that entries allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedRequest<'r> {
    /// The first entry that matches, by its position.
    pub entry: usize,
    /// What is to be done to its headers, by all entries that match.
    pub changes: Vec<HeaderChange<'r>>,
    /// What is to be recorded of its headers.
    pub notes: Vec<HeaderNote<'r>>,
}

/// The positions of entries, by what they say of the path.
struct PathIndex {
    literal: HashMap<Box<[u8]>, Vec<usize>>,
    /// The entries with other paths, as in `expressions`.
    others: Vec<usize>,
    /// `None` where they are too large together. Each is tried by itself then.
    expressions: Option<RegexSet>,
    any: Vec<usize>,
    /// Whether some entry has conditions that are evaluated although another matches.
    acts: bool,
}

impl HttpRuleList {
    /// Compiles the entries. Takes time and memory in proportion to their number.
    pub fn new(rules: Vec<HttpRule>) -> Self {
        let mut literal: HashMap<Box<[u8]>, Vec<usize>> = HashMap::new();
        let (mut others, mut any) = (Vec::new(), Vec::new());
        for (position, rule) in rules.iter().enumerate() {
            match rule.path.as_ref().map(|path| path.as_literal()) {
                Some(Some(path)) => literal.entry(path.into()).or_default().push(position),
                Some(None) => others.push(position),
                None => any.push(position),
            }
        }
        let texts = others.iter().filter_map(|position| rules[*position].path.as_ref());
        let texts: Vec<String> = texts.map(|path| format!(r"\A(?:{path})\z")).collect();
        // Each of them was compiled by itself within a bound.
        let expressions = RegexSetBuilder::new(&texts).unicode(false).build().ok();
        Self {
            index: Arc::new(PathIndex {
                literal,
                others,
                expressions,
                any,
                acts: rules.iter().any(|rule| !rule.header_matches.is_empty()),
            }),
            rules: rules.into(),
        }
    }

    /// The entries, as they are written.
    pub fn rules(&self) -> &[HttpRule] {
        &self.rules
    }

    /// Decides a request; `None` where no entry matches. Every entry that matches counts, so that
    /// what one does to headers does not depend on the others.
    pub fn decide(&self, request: &HttpRequest<'_>) -> Option<AllowedRequest<'_>> {
        let mut allowed: Option<AllowedRequest<'_>> = None;
        let (mut changes, mut notes) = (Vec::new(), Vec::new());
        let mut candidates = self.with_path(request.path);
        if self.index.acts {
            // What entries do, they do in their order.
            candidates.sort_unstable();
        }
        for entry in candidates {
            let rule = &self.rules[entry];
            if !rule.matches_beside_path(request) || !rule.apply_header_matches(request, &mut changes, &mut notes) {
                continue;
            }
            let first = allowed.as_ref().map_or(entry, |allowed| allowed.entry.min(entry));
            allowed = Some(AllowedRequest {
                entry: first,
                changes: Vec::new(),
                notes: Vec::new(),
            });
            if !self.index.acts {
                break;
            }
        }
        allowed.map(|allowed| AllowedRequest {
            changes,
            notes,
            ..allowed
        })
    }

    /// The entries whose paths match.
    fn with_path(&self, path: &[u8]) -> Vec<usize> {
        let index = &*self.index;
        let mut found: Vec<usize> = index.literal.get(path).cloned().unwrap_or_default();
        match &index.expressions {
            _ if index.others.is_empty() => {}
            Some(expressions) => found.extend(expressions.matches(path).into_iter().map(|nth| index.others[nth])),
            None => {
                let matches = |position: &&usize| {
                    let path_of_rule = self.rules[**position].path.as_ref();
                    path_of_rule.is_some_and(|expression| expression.matches(path))
                };
                found.extend(index.others.iter().filter(matches));
            }
        }
        found.extend_from_slice(&index.any);
        found
    }
}

impl PartialEq for HttpRuleList {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for HttpRuleList {}

impl Hash for HttpRuleList {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rules.hash(state);
    }
}

impl PartialOrd for HttpRuleList {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for HttpRuleList {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rules.cmp(&other.rules)
    }
}

impl fmt::Debug for HttpRuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rules.fmt(f)
    }
}

impl fmt::Display for HttpRuleList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.rules.iter().take(SHOWN).map(HttpRule::to_string);
        f.write_str(&shown.collect::<Vec<_>>().join(" or "))?;
        match self.rules.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " or {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::l7::{HeaderCondition, HeaderMatch, HeaderMismatch, HeaderNoteKind, HttpExpression};

    fn expression(text: &str) -> Option<HttpExpression> {
        (!text.is_empty()).then(|| HttpExpression::compile(text).unwrap())
    }

    fn rule(method: &str, path: &str, host: &str) -> HttpRule {
        HttpRule {
            method: expression(method),
            path: expression(path),
            host: expression(host),
            ..HttpRule::default()
        }
    }

    fn request<'a>(method: &'a str, path: &'a str, headers: &'a [(&'a str, &'a [u8])]) -> HttpRequest<'a> {
        HttpRequest {
            method: method.as_bytes(),
            path: path.as_bytes(),
            host: b"api.example:8080",
            headers,
        }
    }

    fn matching(name: &str, value: Option<&str>, mismatch: Option<HeaderMismatch>) -> HttpRule {
        HttpRule {
            header_matches: vec![HeaderMatch {
                name: name.into(),
                value: value.map(str::to_owned),
                mismatch,
            }],
            ..HttpRule::default()
        }
    }

    #[test]
    fn entries_add_up_and_fields_of_one_do_not() {
        let list = HttpRuleList::new(vec![
            rule("GET", "/users", ""),
            rule("POST|PUT", "/orders/[0-9]+", ""),
            rule("DELETE", "", r"api\.example:8080"),
        ]);
        let entry = |method, path| list.decide(&request(method, path, &[])).map(|allowed| allowed.entry);
        assert_eq!(entry("GET", "/users"), Some(0));
        assert_eq!(entry("PUT", "/orders/7"), Some(1));
        assert_eq!(entry("DELETE", "/x"), Some(2));
        for (method, path) in [
            ("HEAD", "/users"),
            ("GET", "/users?all"),
            ("GET", "/orders/7"),
            ("POST", "/orders/"),
        ] {
            assert_eq!(entry(method, path), None, "{method} {path}");
        }
        let every = HttpRuleList::new(vec![HttpRule::default()]);
        assert!(every.decide(&request("X", "*", &[])).is_some());
        assert!(HttpRuleList::new(Vec::new()).decide(&request("X", "*", &[])).is_none());
    }

    #[test]
    fn headers_are_there_or_have_exactly_a_value() {
        let with = |value: Option<&str>| {
            HttpRuleList::new(vec![HttpRule {
                headers: vec![HeaderCondition {
                    name: "x-token".into(),
                    value: value.map(str::to_owned),
                }],
                ..HttpRule::default()
            }])
        };
        let one: &[(&str, &[u8])] = &[("X-Token", b"a")];
        let two: &[(&str, &[u8])] = &[("X-Token", b"a"), ("accept", b"*/*"), ("x-token", b"b")];
        let passes = |list: &HttpRuleList, headers| list.decide(&request("GET", "/", headers)).is_some();
        assert!(passes(&with(None), one) && !passes(&with(None), &[]));
        assert!(passes(&with(Some("a")), one) && !passes(&with(Some("a")), two) && passes(&with(Some("a,b")), two));
    }

    #[test]
    fn each_action_on_a_mismatch_does_what_it_says() {
        let wrong: &[(&str, &[u8])] = &[("X-Key", b"other")];
        let right: &[(&str, &[u8])] = &[("X-Key", b"k")];
        let decided = |mismatch, headers| {
            let list = HttpRuleList::new(vec![matching("x-key", Some("k"), mismatch)]);
            let request = request("GET", "/", headers);
            list.decide(&request)
                .map(|allowed| (format!("{:?}", allowed.changes), allowed.notes.len()))
        };
        let nothing = Some(("[]".to_owned(), 0));
        assert_eq!(decided(None, wrong), None);
        assert_eq!(decided(None, &[]), None);
        for mismatch in [None, Some(HeaderMismatch::Add), Some(HeaderMismatch::Delete)] {
            assert_eq!(decided(mismatch, right), nothing);
        }
        assert_eq!(decided(Some(HeaderMismatch::Log), wrong), Some(("[]".to_owned(), 1)));
        let add = r#"[Add { name: "x-key", value: "k" }]"#.to_owned();
        assert_eq!(decided(Some(HeaderMismatch::Add), &[]), Some((add.clone(), 1)));
        assert_eq!(decided(Some(HeaderMismatch::Add), wrong), Some((add, 1)));
        let delete = r#"[Delete { name: "x-key" }]"#.to_owned();
        assert_eq!(decided(Some(HeaderMismatch::Delete), wrong), Some((delete, 1)));
        assert_eq!(decided(Some(HeaderMismatch::Delete), &[]), nothing);
        let replace = r#"[Replace { name: "x-key", value: "k" }]"#.to_owned();
        assert_eq!(
            decided(Some(HeaderMismatch::Replace), wrong),
            Some((replace.clone(), 2))
        );
        assert_eq!(decided(Some(HeaderMismatch::Replace), &[]), Some((replace, 1)));
    }

    #[test]
    fn all_entries_that_match_act_and_no_others() {
        let mut denied = matching("x-a", Some("1"), Some(HeaderMismatch::Add));
        denied.header_matches.push(HeaderMatch {
            name: "x-never".into(),
            value: None,
            mismatch: None,
        });
        let list = HttpRuleList::new(vec![
            denied,
            matching("x-b", Some("2"), Some(HeaderMismatch::Add)),
            HttpRule {
                method: expression("POST"),
                ..matching("x-c", Some("3"), Some(HeaderMismatch::Add))
            },
            matching("x-d", None, Some(HeaderMismatch::Log)),
        ]);
        let request = request("GET", "/", &[]);
        let allowed = list.decide(&request).unwrap();
        assert_eq!(allowed.entry, 1);
        assert_eq!(
            allowed.changes,
            [HeaderChange::Add {
                name: "x-b",
                value: "2"
            }]
        );
        let missing = |name| HeaderNote {
            name,
            kind: HeaderNoteKind::Missing,
        };
        assert_eq!(allowed.notes, [missing("x-b"), missing("x-d")]);
    }

    proptest! {
        /// The index finds what a look at each entry finds.
        #[test]
        fn the_list_decides_as_its_entries(
            entries in prop::collection::vec(
                (prop::sample::select(vec!["", "GET", "GET|POST"]), prop::sample::select(vec!["", "/a", "/a.*", "/b", "(/a|/b)"])),
                0..8,
            ),
            method in prop::sample::select(vec!["GET", "POST"]),
            path in prop::sample::select(vec!["/a", "/ab", "/b", "/c"]),
        ) {
            let rules: Vec<HttpRule> = entries.iter().map(|(method, path)| rule(method, path, "")).collect();
            let request = request(method, path, &[]);
            let expected = rules.iter().any(|rule| {
                rule.matches_beside_path(&request)
                    && rule.path.as_ref().is_none_or(|expression| expression.matches(request.path))
            });
            prop_assert_eq!(HttpRuleList::new(rules).decide(&request).is_some(), expected);
        }
    }
}
