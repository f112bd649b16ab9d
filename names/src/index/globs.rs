//! The labels with stars below one node of the index.

use smallvec::SmallVec;

use crate::pattern::{Glob, contains_in_order};

use super::NodeId;
use super::label_hash::LabelMap;

/// Globs in buckets by their literal prefix, then by their literal suffix.
///
/// A lookup asks once for each *length* of prefix that occurs (63 at most), and below each prefix
/// that matches once for each length of suffix. The number of globs does not matter.
#[derive(Debug, Clone, Default)]
pub(super) struct Globs {
    by_prefix: ByLength<ByLength<Bucket>>,
}

/// A map for each length of text.
type ByLength<V> = SmallVec<[(usize, LabelMap<V>); 0]>;

/// Globs that differ only between the first star and the last, and the node that each leads to.
type Bucket = SmallVec<[(Box<str>, NodeId); 1]>;

impl Globs {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    /// The node that `glob` leads to. A new glob leads to `fresh`.
    pub(super) fn get_or_insert(&mut self, glob: Glob<'_>, fresh: NodeId) -> NodeId {
        let by_suffix = entry(&mut self.by_prefix, glob.prefix);
        let bucket = entry(by_suffix, glob.suffix);
        match bucket.iter().find(|(middle, _)| **middle == *glob.middle) {
            Some(&(_, known)) => known,
            None => {
                bucket.push((glob.middle.into(), fresh));
                fresh
            }
        }
    }

    /// Calls `follow` with the node of each glob that matches the plain label, until it returns
    /// true.
    pub(super) fn any_match(&self, label: &str, mut follow: impl FnMut(NodeId) -> bool) -> bool {
        for (prefix_len, by_prefix) in &self.by_prefix {
            let Some((prefix, rest)) = label.split_at_checked(*prefix_len) else {
                continue;
            };
            let Some(by_suffix) = by_prefix.get(prefix) else {
                continue;
            };
            for (suffix_len, by_suffix) in by_suffix {
                let Some(border) = rest.len().checked_sub(*suffix_len) else {
                    continue;
                };
                let Some((inner, suffix)) = rest.split_at_checked(border) else {
                    continue;
                };
                let Some(bucket) = by_suffix.get(suffix) else { continue };
                for (middle, next) in bucket {
                    if contains_in_order(inner, middle) && follow(*next) {
                        return true;
                    }
                }
            }
        }
        false
    }
}

fn entry<'a, V: Default>(maps: &'a mut ByLength<V>, text: &str) -> &'a mut V {
    let position = match maps.iter().position(|(len, _)| *len == text.len()) {
        Some(position) => position,
        None => {
            maps.push((text.len(), LabelMap::default()));
            maps.len() - 1
        }
    };
    maps[position].1.entry(text.into()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_globs_share_few_lengths_and_no_bucket() {
        let mut globs = Globs::default();
        for i in 0..5_000 {
            let (prefix, suffix) = (format!("pre{i}-"), format!("-{i}"));
            let glob = Glob {
                prefix: &prefix,
                middle: "",
                suffix: &suffix,
            };
            assert_eq!(globs.get_or_insert(glob, i), i);
            assert_eq!(globs.get_or_insert(glob, i + 1), i, "known already");
        }
        assert_eq!(globs.by_prefix.len(), 4, "one for each number of digits");
        let buckets = globs
            .by_prefix
            .iter()
            .flat_map(|(_, by_prefix)| by_prefix.values())
            .flatten()
            .flat_map(|(_, by_suffix)| by_suffix.values());
        assert!(buckets.clone().all(|bucket| bucket.len() == 1));
        assert_eq!(buckets.count(), 5_000);
    }
}
