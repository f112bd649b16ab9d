//! Which Pods were answered which names, and the other way round.

use std::collections::{BTreeMap, BTreeSet};

use api::{AnsweredNameRow, NameRow};
use maud::{Markup, html};

use crate::layout::{PageFrame, cell, choice, field, lines};

/// So many rows are shown; the rest are counted.
const SHOWN: usize = 500;

/// What of the names is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamesFilter {
    /// Part of a name, a Pod or an address.
    pub text: String,
    /// Whether Pods come first.
    pub by_pod: bool,
}

/// What is known of a name.
#[derive(Debug, Default)]
struct NameFacts<'a> {
    pods: BTreeSet<&'a str>,
    addresses: BTreeSet<String>,
    policies: BTreeSet<&'a str>,
}

/// The page, of what Pods were answered and of the leases.
pub fn page(frame: PageFrame<'_>, filter: &NamesFilter, answered: &[AnsweredNameRow], leases: &[NameRow]) -> String {
    let by = if filter.by_pod { "pods" } else { "names" };
    let table = match filter.by_pod {
        true => by_pod(filter, answered),
        false => by_name(filter, answered, leases),
    };
    let content = html! {
        form.filter method="get" action="/web/names" {
            (field("q", "Contains", &filter.text, "example.com, shop/web or 192.0.2."))
            (choice("by", "First", by, &["names", "pods"]))
            button type="submit" { "Filter" }
        }
        p.quiet { "Names that Pods were answered since the agent started, whether or not a policy speaks of them." }
        (table)
    };
    frame.page("/web/names", &content)
}

fn by_name(filter: &NamesFilter, answered: &[AnsweredNameRow], leases: &[NameRow]) -> Markup {
    let mut names: BTreeMap<&str, NameFacts<'_>> = BTreeMap::new();
    for row in answered {
        let known = names.entry(&row.name).or_default();
        known.pods.insert(&row.pod);
        known.addresses.extend(row.addresses.iter().map(ToString::to_string));
    }
    for lease in leases {
        let known = names.entry(&lease.name).or_default();
        let left = humantime::format_duration(std::time::Duration::from_secs(lease.lease_left_ms / 1_000));
        known.addresses.remove(&lease.address.to_string());
        known.addresses.insert(format!("{} (open, {left} left)", lease.address));
        known.policies.extend(lease.policies.iter().map(String::as_str));
    }
    let is_meant = |name: &str, known: &NameFacts<'_>| {
        let is_part = |text: &str| text.contains(&filter.text);
        is_part(name) || known.pods.iter().any(|pod| is_part(pod)) || known.addresses.iter().any(|it| is_part(it))
    };
    let meant: Vec<_> = names.iter().filter(|(name, known)| is_meant(name, known)).collect();
    html! {
        (overflow(meant.len()))
        table {
            thead { tr { th { "Name" } th { "Pods" } th { "Addresses" } th { "Opened by" } } }
            tbody {
                @for (name, known) in meant.iter().take(SHOWN) {
                    tr {
                        (cell("Name", &html! { (name) }))
                        (cell("Pods", &lines(&known.pods)))
                        (cell("Addresses", &lines(&known.addresses)))
                        (cell("Opened by", &lines(&known.policies)))
                    }
                }
            }
        }
    }
}

fn by_pod(filter: &NamesFilter, answered: &[AnsweredNameRow]) -> Markup {
    let mut pods: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in answered {
        pods.entry(&row.pod).or_default().insert(&row.name);
    }
    let is_meant = |pod: &str, names: &BTreeSet<&str>| {
        pod.contains(&filter.text) || names.iter().any(|name| name.contains(&filter.text))
    };
    let meant: Vec<_> = pods.iter().filter(|(pod, names)| is_meant(pod, names)).collect();
    html! {
        (overflow(meant.len()))
        table {
            thead { tr { th { "Pod" } th { "Names" } } }
            tbody {
                @for (pod, names) in meant.iter().take(SHOWN) {
                    tr { (cell("Pod", &html! { (pod) })) (cell("Names", &lines(*names))) }
                }
            }
        }
    }
}

fn overflow(count: usize) -> Markup {
    html! {
        @if count > SHOWN { p.bad { (SHOWN) " of " (count) " are shown: filter for the rest." } }
        @if count == 0 { p { "None." } }
    }
}

#[cfg(test)]
mod tests {
    use api::examples;

    use super::*;

    fn shown(text: &str, by_pod: bool) -> String {
        let answered = |pod: &str, name: &str| AnsweredNameRow {
            pod: pod.into(),
            name: name.into(),
            addresses: vec![[192, 0, 2, 1].into()],
        };
        let answered = [
            answered("shop/web", "a.example"),
            answered("shop/api", "a.example"),
            answered("shop/api", "c.test"),
        ];
        let filter = NamesFilter {
            text: text.into(),
            by_pod,
        };
        let status = examples::status(None);
        page(PageFrame { status: &status }, &filter, &answered, &examples::names())
    }

    #[test]
    fn a_name_has_its_pods_addresses_and_policies() {
        let text = shown("a.example", false);
        for part in [
            "<div>shop/api</div><div>shop/web</div>",
            "192.0.2.1 (open, 1m 1s left)",
            "shop/api",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
        assert!(!text.contains("c.test"), "{text}");
    }

    #[test]
    fn a_pod_has_its_names() {
        let text = shown("shop/api", true);
        assert!(text.contains("<div>a.example</div><div>c.test</div>"), "{text}");
        assert!(!text.contains(">shop/web<"), "{text}");
        assert!(shown("nobody", true).contains("None."));
    }
}
