//! Names that stand together.

use std::collections::BTreeSet;

use names::Pattern;

use crate::extensions::LeaseTerms;
use crate::ports::PortSet;

/// The most patterns with stars of one spec that are groups by themselves.
const ALONE: usize = 2;

/// Names that the rules of one spec let through alike. All programs that the spec governs have this
/// group, whatever other names they speak of, so what is learned for it can be kept once for all of
/// them.
///
/// Many specs may have a wildcard in common and list it beside names of their own. So patterns with
/// stars, which have the most addresses, are groups of their own ([`split`](Self::split)).
///
/// A group says nothing that rules do not say: of each of its patterns there is a rule in the same
/// tier that lets every connection through, with the same lease terms, for its ports at least.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameGroup {
    /// Whether it stands in tier Admin; else in tier Network.
    pub is_admin: bool,
    /// The names; not empty.
    pub patterns: BTreeSet<Pattern>,
    /// How long the addresses of the names stay.
    pub lease: LeaseTerms,
    /// The ports that are let through; not empty.
    pub ports: PortSet,
}

impl NameGroup {
    /// Whether some of its patterns match many names.
    pub(crate) fn has_stars(&self) -> bool {
        self.patterns.iter().any(has_stars)
    }

    /// The names of a spec on the same ports, as groups: plain names together; patterns with stars
    /// each by itself where they are few, and together otherwise, because a packet pays for each.
    pub(crate) fn split(self) -> Vec<Self> {
        let (with_stars, plain): (BTreeSet<_>, BTreeSet<_>) = self.patterns.iter().cloned().partition(has_stars);
        let alone = with_stars.len() <= ALONE;
        let with_stars = match alone {
            true => with_stars
                .into_iter()
                .map(|pattern| BTreeSet::from([pattern]))
                .collect(),
            false => vec![with_stars],
        };
        let parts = with_stars.into_iter().chain([plain]);
        let groups = parts.filter(|patterns| !patterns.is_empty()).map(|patterns| Self {
            patterns,
            ports: self.ports.clone(),
            ..self
        });
        groups.collect()
    }

    /// The groups in order, of those that differ in ports alone only one.
    pub(crate) fn merged(mut groups: Vec<Self>) -> Vec<Self> {
        groups.sort_unstable();
        groups.dedup_by(|next, kept| {
            let same = (next.is_admin, &next.patterns, next.lease) == (kept.is_admin, &kept.patterns, kept.lease);
            if same {
                kept.ports = kept.ports.union(&next.ports);
            }
            same
        });
        groups
    }
}

fn has_stars(pattern: &Pattern) -> bool {
    pattern.as_str().contains('*')
}
