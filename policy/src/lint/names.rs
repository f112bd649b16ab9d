//! Names that a policy allows, denies, or lets be asked.

use names::{Name, NameIndex, Pattern};

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Tier;
use crate::shape::DocumentNode;

use super::context::{LintContext, LintedSpec};
use super::written_names::{WrittenName, WrittenNames};

/// Findings about the names of one spec by itself.
pub(super) fn of_one(spec: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) {
    let names = WrittenNames::of(spec);
    for path in &names.empty {
        report
            .warning(
                "empty-fqdn-selector",
                path,
                "an entry without `matchName` and `matchPattern` matches nothing",
            )
            .suggest("write `matchPattern: \"*\"` to match every name");
    }
    names.all().for_each(|written| inner_double_star(written, report));
    let allowed = index(&names.allowed);
    let questions = index(&names.questions);
    let denied = index(&names.denied);
    for written in &names.allowed {
        asked_but_not_matched(written, &names.questions, &allowed, report);
        if names.has_dns_rules {
            not_asked(written, &questions, "the DNS rules of this policy do", report);
        }
        denied_too(written, &denied, "", report);
        unexpected_extent(written, report);
        address_as_name(written, report);
    }
}

/// Findings about names of one spec that another, which selects the same Pods, hides or denies.
/// What [`of_one`] finds is not repeated.
pub(super) fn of_many(context: &LintContext<'_>, reports: &mut [DiagnosticReport<'_>]) {
    for (index_of, linted) in context.specs.iter().enumerate() {
        if linted.names.allowed.is_empty() {
            continue;
        }
        let report = &mut reports[linted.policy];
        let groups = context.groups_with(index_of);
        let mut is_hidden = vec![false; linted.names.allowed.len()];
        let mut is_denied = is_hidden.clone();
        for group in groups {
            let others = group
                .into_iter()
                .filter(|other| !std::ptr::eq(*other, linted) && !other.is_audited);
            let others: Vec<&LintedSpec<'_>> = others.collect();
            not_asked_by(linted, &others, &mut is_hidden, report);
            if linted.spec.tier == Tier::Network {
                denied_by(linted, &others, &mut is_denied, report);
            }
        }
    }
}

fn not_asked_by(
    linted: &LintedSpec<'_>,
    others: &[&LintedSpec<'_>],
    is_reported: &mut [bool],
    report: &mut DiagnosticReport<'_>,
) {
    let Some(first) = others.iter().find(|other| other.names.has_dns_rules) else {
        return;
    };
    if linted.names.has_dns_rules {
        return;
    }
    let questions = index(others.iter().flat_map(|other| &other.names.questions));
    let whose = format!("the DNS rules of {}, which is about the same Pods, do", first.label());
    for (written, is_reported) in linted.names.allowed.iter().zip(is_reported) {
        if !*is_reported {
            *is_reported = not_asked(written, &questions, &whose, report);
        }
    }
}

fn denied_by(
    linted: &LintedSpec<'_>,
    others: &[&LintedSpec<'_>],
    is_reported: &mut [bool],
    report: &mut DiagnosticReport<'_>,
) {
    for other in others.iter().filter(|other| !other.names.denied.is_empty()) {
        let denied = index(&other.names.denied);
        let whose = format!(" of {}", other.label());
        for (written, is_reported) in linted.names.allowed.iter().zip(&mut *is_reported) {
            if !*is_reported {
                *is_reported = denied_too(written, &denied, &whose, report);
            }
        }
    }
}

fn index<'w, 'a: 'w>(written: impl IntoIterator<Item = &'w WrittenName<'a>>) -> NameIndex<&'w str> {
    let mut index = NameIndex::default();
    for written in written {
        index.insert(&written.pattern, written.path.as_str());
    }
    index
}

fn inner_double_star(written: &WrittenName<'_>, report: &mut DiagnosticReport<'_>) {
    if has_inner_double_star(written.text) {
        let reason = format!(
            "in {} the stars that do not lead as `**.` stand for a single star: part of one label",
            quoted(written.text)
        );
        report
            .warning("mid-double-star", &written.path, reason)
            .suggest("write one star there, or `**.` at the start for any number of labels");
    }
}

/// Whether two stars stand in a row anywhere but as a leading `**.`. They mean a single star there.
pub(super) fn has_inner_double_star(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    let without_lead = text.trim_start_matches('*');
    let leads = without_lead.is_empty() || without_lead.starts_with('.');
    if leads {
        without_lead.contains("**")
    } else {
        text.contains("**")
    }
}

/// Warns of a pattern that does not match a name at or below its domain which the DNS rules let be
/// asked. `*.example.com` matches neither `example.com` nor names with more labels; without such a
/// DNS rule, this is taken for what was meant.
fn asked_but_not_matched(
    written: &WrittenName<'_>,
    questions: &[WrittenName<'_>],
    allowed: &NameIndex<&str>,
    report: &mut DiagnosticReport<'_>,
) {
    let text = written.pattern.as_str();
    let is_deep = text.starts_with("**.");
    let Some(apex) = text.strip_prefix("**.").or_else(|| text.strip_prefix("*.")) else {
        return;
    };
    let Ok(apex) = Name::parse(apex) else { return };
    let depth = apex.labels_from_the_right().count();
    if depth < 2 {
        return;
    }
    for asked in questions {
        let asked = match asked.pattern.as_str().strip_prefix("**.") {
            // The DNS rule lets every name below the domain be asked. A name with two more labels
            // shows whether all of them are matched.
            Some(below) if below == apex.as_str() => Name::parse(&format!("any.label.{below}")).ok(),
            _ if asked.text.contains('*') => None,
            _ => Name::parse(asked.text).ok(),
        };
        let Some(name) = asked.filter(|name| name.is_within(&apex) && !allowed.any_match(name)) else {
            continue;
        };
        let before = written.before.replace("Pattern", "Name");
        if name == apex {
            report
                .warning(
                    "pattern-without-apex",
                    &written.path,
                    format!("it does not match {name} itself, which the DNS rules of this policy let be asked"),
                )
                .suggest(format!("add `- {before}{name}` if that is meant too"));
        } else if !is_deep {
            report
                .warning(
                    "pattern-too-shallow",
                    &written.path,
                    format!("it stands for one label more than {apex}, and the DNS rules of this policy let names of more be asked"),
                )
                .suggest(format!("write `**.{apex}` for any number of labels"));
        }
        return;
    }
}

/// Top-level domains in which the public cannot register names: reserved ones, and those of private
/// networks.
const PRIVATE_DOMAINS: [&str; 12] = [
    "arpa",
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "test",
];

/// Warns of an address that is written where a name belongs.
fn address_as_name(written: &WrittenName<'_>, report: &mut DiagnosticReport<'_>) {
    if written.text.trim_end_matches('.').parse::<std::net::IpAddr>().is_ok() {
        report
            .warning(
                "address-as-name",
                &written.path,
                "it is an address, and nobody looks an address up: it opens nothing",
            )
            .suggest(match written.before.is_empty() {
                true => "write `networks`",
                false => "write `toCIDR`",
            });
    }
}

/// Warns of a name that is allowed and may not be asked. Returns whether it did.
fn not_asked(
    written: &WrittenName<'_>,
    questions: &NameIndex<&str>,
    whose: &str,
    report: &mut DiagnosticReport<'_>,
) -> bool {
    let Some(name) = example(&written.pattern).filter(|name| !questions.any_match(name)) else {
        return false;
    };
    let reason = format!("{whose} not let {name} be asked, so the selector learns no address for it");
    let field = match written.pattern.as_str().contains('*') {
        true => "matchPattern",
        false => "matchName",
    };
    report
        .warning("dns-rule-hides-fqdn", &written.path, reason)
        .suggest(format!(
            "add `- {field}: {:?}` to `rules.dns`",
            written.pattern.to_string()
        ));
    true
}

/// Warns of a name that is allowed and denied. Returns whether it did.
fn denied_too(
    written: &WrittenName<'_>,
    denied: &NameIndex<&str>,
    whose: &str,
    report: &mut DiagnosticReport<'_>,
) -> bool {
    let Some(name) = example(&written.pattern) else {
        return false;
    };
    let mut by: Option<&str> = None;
    denied.each_match(&name, |path| {
        by = Some(by.map_or(*path, |first| first.min(*path)));
    });
    let Some(by) = by else { return false };
    report
        .warning(
            "deny-meets-allow",
            &written.path,
            format!("{name} is denied by {by}{whose}, and deny wins"),
        )
        .suggest("take it out of one of the two");
    true
}

/// The public top-level domain whose every name a pattern matches, if it does.
pub(super) fn top_level_domain(pattern: &str) -> Option<&str> {
    let (first, last) = pattern.trim_end_matches('.').split_once('.')?;
    let is_public = matches!(first, "*" | "**") && !last.contains(['*', '.']) && !PRIVATE_DOMAINS.contains(&last);
    is_public.then_some(last)
}

/// Warns of patterns that open more than they seem to, or nothing.
fn unexpected_extent(written: &WrittenName<'_>, report: &mut DiagnosticReport<'_>) {
    let text = written.pattern.as_str();
    let first = text.split('.').next().unwrap_or_default();
    let labels: Vec<&str> = text.trim_end_matches('.').split('.').collect();
    if let Some(last) = top_level_domain(text) {
        report
            .warning(
                "pattern-of-everybody",
                &written.path,
                format!("it opens every name below {last}, which anybody may register"),
            )
            .suggest("name the domains that are meant");
    } else if labels.len() == 2 && first.starts_with('*') && !first.trim_start_matches('*').is_empty() {
        let rest = text.trim_start_matches('*').trim_end_matches('.');
        report
            .warning(
                "pattern-without-dot",
                &written.path,
                format!("it matches evil{rest} too, which anybody may register"),
            )
            .suggest(format!("write `*.{rest}`, and `{rest}` if that is meant too"));
    }
    if written.pattern.is_every_name() {
        report
            .warning(
                "pattern-matches-all",
                &written.path,
                "it matches every name: whatever is looked up is opened",
            )
            .suggest("name the domains, or write `toEntities: [world]`");
    } else if text.ends_with(".cluster.local.") {
        let instead = match written.before.is_empty() {
            true => "write `pods` or `namespaces`",
            false => "write `toServices` or `toEndpoints`",
        };
        report
            .warning(
                "cluster-name",
                &written.path,
                "addresses of pods and services are never opened by a name",
            )
            .suggest(instead);
    }
}

/// A name that a pattern matches; for `**.`, one that `*.` would not match.
fn example(pattern: &Pattern) -> Option<Name> {
    const LABEL: &str = "any-label";
    let text = match pattern.as_str() {
        "*." => format!("{LABEL}.{LABEL}"),
        text => match text.strip_prefix("**.") {
            Some(rest) => format!("{LABEL}.{LABEL}.{}", rest.replace('*', LABEL)),
            None => text.replace('*', LABEL),
        },
    };
    Name::parse(&text).ok().filter(|name| pattern.matches(name))
}
