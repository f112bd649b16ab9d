//! The names in a spec, as they are written.

use names::Pattern;

use crate::shape::DocumentNode;

/// The names in a spec, by what is said of them.
#[derive(Default)]
pub(super) struct WrittenNames<'a> {
    /// Entries of `toFQDNs` under `egress`, and of `domainNames`.
    pub(super) allowed: Vec<WrittenName<'a>>,
    /// Entries of `toFQDNs` under `egressDeny`.
    pub(super) denied: Vec<WrittenName<'a>>,
    /// Entries of `rules.dns`: what may be asked.
    pub(super) questions: Vec<WrittenName<'a>>,
    /// Whether there is any `rules.dns`, empty ones included.
    pub(super) has_dns_rules: bool,
    /// The paths of entries that hold neither `matchName` nor `matchPattern`.
    pub(super) empty: Vec<String>,
}

/// One name or pattern.
pub(super) struct WrittenName<'a> {
    pub(super) path: String,
    pub(super) text: &'a str,
    pub(super) pattern: Pattern,
    /// The text before it in its list entry: `matchName: `, `matchPattern: ` or nothing.
    /// Suggestions repeat it.
    pub(super) before: &'static str,
}

impl<'a> WrittenNames<'a> {
    pub(super) fn of(spec: &DocumentNode<'a>) -> Self {
        let mut names = Self::default();
        for rule in spec.list("egress") {
            let entries = rule.list("toFQDNs");
            read_entries(&entries, &mut names.allowed, &mut names.empty);
            for entry in rule.list("toPorts") {
                if let Some(dns) = entry.get("rules").and_then(|rules| rules.get("dns")) {
                    names.has_dns_rules = true;
                    let entries: Vec<_> = dns.items().collect();
                    read_entries(&entries, &mut names.questions, &mut names.empty);
                }
            }
            for peer in rule.list("to") {
                names
                    .allowed
                    .extend(peer.list("domainNames").iter().filter_map(domain_name));
            }
        }
        for rule in spec.list("egressDeny") {
            read_entries(&rule.list("toFQDNs"), &mut names.denied, &mut names.empty);
        }
        names
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &WrittenName<'a>> {
        self.allowed.iter().chain(&self.denied).chain(&self.questions)
    }
}

fn read_entries<'a>(entries: &[DocumentNode<'a>], written: &mut Vec<WrittenName<'a>>, empty: &mut Vec<String>) {
    for entry in entries {
        let read = |field, before, read: fn(&str) -> Result<Pattern, _>| {
            let text = entry.text(field)?;
            Some(WrittenName {
                path: format!("{}.{field}", entry.path),
                text,
                pattern: read(text).ok()?,
                before,
            })
        };
        let name = read("matchName", "matchName: ", Pattern::name);
        let pattern = read("matchPattern", "matchPattern: ", Pattern::pattern);
        if name.is_none() && pattern.is_none() {
            empty.push(entry.path.clone());
        }
        written.extend(name.into_iter().chain(pattern));
    }
}

/// In a ClusterNetworkPolicy, `*.` stands for any number of labels.
fn domain_name<'a>(entry: &DocumentNode<'a>) -> Option<WrittenName<'a>> {
    let text = entry.value.as_str()?;
    let pattern = match text.strip_prefix("*.") {
        Some(name) => Pattern::pattern(&format!("**.{name}")),
        None => Pattern::name(text),
    };
    Some(WrittenName {
        path: entry.path.clone(),
        text,
        pattern: pattern.ok()?,
        before: "",
    })
}
