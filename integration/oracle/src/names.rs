//! What `matchName`, `matchPattern` and `domainNames` match.

/// Whether a `matchName` matches a name.
pub(crate) fn is_name(written: &str, name: &str) -> bool {
    plain(written) == plain(name)
}

/// Whether a `matchPattern` matches a name.
pub(crate) fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (plain(pattern), plain(name));
    if pattern.chars().all(|c| c == '*') {
        return true;
    }
    if let Some((first, rest)) = pattern.split_once('.')
        && first.len() >= 2
        && first.chars().all(|c| c == '*')
    {
        // One or more whole labels more than what `rest` matches.
        let labels: Vec<&str> = name.split('.').collect();
        return (1..labels.len()).any(|more| {
            let whole = labels[..more].iter().all(|label| glob("*", label));
            whole && glob(rest, &labels[more..].join("."))
        });
    }
    glob(&pattern, &name)
}

/// An entry of `domainNames`.
pub(crate) fn is_domain(written: &str, name: &str) -> bool {
    let (written, name) = (plain(written), plain(name));
    match written.strip_prefix("*.") {
        Some(apex) => name
            .strip_suffix(apex)
            .is_some_and(|more| more.len() > 1 && more.ends_with('.')),
        None => written == name,
    }
}

fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A star stands for any number of characters of a label.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.chars().next() {
        None => text.is_empty(),
        Some('*') => {
            let of_label = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let longest = text.find(|c| !of_label(c)).unwrap_or(text.len());
            (0..=longest).any(|length| glob(&pattern[1..], &text[length..]))
        }
        Some(c) => text.starts_with(c) && glob(&pattern[c.len_utf8()..], &text[c.len_utf8()..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, yes, no) in [
            (
                "*.example.com",
                &["a.example.com"][..],
                &["example.com", "a.b.example.com"][..],
            ),
            (
                "**.example.com",
                &["a.example.com", "a.b.example.com"],
                &["example.com", "xexample.com"],
            ),
            ("*example.com", &["example.com", "myexample.com"], &["www.example.com"]),
            (
                "api-*.example.com",
                &["api-.example.com", "api-eu.example.com"],
                &["api-a.b.example.com"],
            ),
            ("a.**.example", &["a.b.example"], &["a.b.c.example"]),
            ("*", &["a", "a.b", ""], &[]),
            ("**.", &["a", "a.b.c"], &[]),
        ] {
            for name in yes {
                assert!(matches_pattern(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches_pattern(pattern, name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn domain_names_match_as_documented() {
        for name in ["www.kubernetes.io", "latest.blog.kubernetes.io"] {
            assert!(is_domain("*.kubernetes.io", name), "{name}");
        }
        for name in ["kubernetes.io", "wikipedia.org", "my-kubernetes.io"] {
            assert!(!is_domain("*.kubernetes.io", name), "{name}");
        }
        assert!(is_domain("kubernetes.io", "Kubernetes.io."));
        assert!(!is_domain("kubernetes.io", "www.kubernetes.io"));
    }
}
