//! Selectors of labels, as Kubernetes writes them: `app=web,tier in (a, b),!old`.

/// A selector: all of its requirements must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LabelRequirements(Vec<LabelRequirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelRequirement {
    /// The key; with a source (`k8s:app`) only labels of that source have it.
    key: String,
    test: ValueTest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ValueTest {
    Exists,
    Absent,
    In(Vec<String>),
    /// As in Kubernetes, a label that is not there is not in the list either.
    NotIn(Vec<String>),
}

impl LabelRequirements {
    /// Reads a selector.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parts = split_outside_parentheses(text);
        let read = parts.iter().map(|part| LabelRequirement::parse(part.trim()));
        let requirements = read.collect::<Option<Vec<_>>>();
        requirements
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no selector of labels, as in `app=web,tier in (a,b)`"))
    }

    /// Whether labels, as `SOURCE:KEY=VALUE`, fulfil it.
    pub(crate) fn matches(&self, labels: &[String]) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels))
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_u32, 0, Vec::new());
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

impl LabelRequirement {
    fn parse(text: &str) -> Option<Self> {
        let of = |key: &str, test| {
            let key = key.trim();
            let is_key = !key.is_empty() && !key.contains([' ', '=', '!', '(', ')']);
            is_key.then(|| Self {
                key: key.to_owned(),
                test,
            })
        };
        if let Some((key, value)) = text.split_once("!=") {
            return of(key, ValueTest::NotIn(vec![value.trim().to_owned()]));
        }
        if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
            return of(key, ValueTest::In(vec![value.trim().to_owned()]));
        }
        if let Some(list) = text.strip_suffix(')') {
            let (head, list) = list.split_once('(')?;
            let values: Vec<String> = list.split(',').map(|value| value.trim().to_owned()).collect();
            return match head.split_whitespace().collect::<Vec<_>>().as_slice() {
                [key, "in"] => of(key, ValueTest::In(values)),
                [key, "notin"] => of(key, ValueTest::NotIn(values)),
                _ => None,
            };
        }
        match text.strip_prefix('!') {
            Some(key) => of(key, ValueTest::Absent),
            None => of(text, ValueTest::Exists),
        }
    }

    fn holds(&self, labels: &[String]) -> bool {
        let value = labels.iter().find_map(|label| {
            let (key, value) = label.split_once('=').unwrap_or((label, ""));
            let own = key.split_once(':').map_or(key, |(_, own)| own);
            (self.key == key || self.key == own || self.key.strip_prefix("any:") == Some(own)).then_some(value)
        });
        match (&self.test, value) {
            (ValueTest::Exists, value) => value.is_some(),
            (ValueTest::Absent, value) => value.is_none(),
            (ValueTest::In(values), value) => value.is_some_and(|value| values.iter().any(|it| it == value)),
            (ValueTest::NotIn(values), value) => value.is_none_or(|value| values.iter().all(|it| it != value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements_hold_together() {
        let labels = [
            "k8s:app=web".to_owned(),
            "k8s:tier=a".to_owned(),
            "reserved:world".to_owned(),
        ];
        for (selector, holds) in [
            ("app=web", true),
            ("app == web,tier in (a, b)", true),
            ("app=web,tier notin (a,b)", false),
            ("k8s:app=web", true),
            ("any:app=web", true),
            ("container:app=web", false),
            ("app!=web", false),
            ("other!=web", true),
            ("reserved:world", true),
            ("!app", false),
            ("!other,app", true),
        ] {
            assert_eq!(
                LabelRequirements::parse(selector).unwrap().matches(&labels),
                holds,
                "{selector}"
            );
        }
        for broken in ["", "app=web,", "a b", "app of (a)", "=web"] {
            assert!(LabelRequirements::parse(broken).is_err(), "{broken}");
        }
    }
}
