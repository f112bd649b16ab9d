//! Where the nodes of a document stood.

use std::collections::BTreeMap;

use crate::diagnostic::Position;

/// The positions of a node and of everything below it: a tree of the same form as the value.
///
/// A map from whole paths would be simpler, and quadratic in the depth of hostile text.
#[derive(Debug, Clone)]
pub(super) struct Spots {
    at: Spot,
    below: Below,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    line: u32,
    column: u32,
}

#[derive(Debug, Clone)]
enum Below {
    Nothing,
    Items(Vec<Spots>),
    /// By key: where the key stood, and the value.
    Fields(BTreeMap<String, (Spot, Spots)>),
}

impl Spot {
    /// Both one-based. Text is shorter than 4 GiB, so saturation never shows.
    pub(super) fn new(line: usize, column: usize) -> Self {
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            line: narrow(line),
            column: narrow(column),
        }
    }

    pub(super) fn position(self) -> Position {
        Position {
            line: self.line as usize,
            column: self.column as usize,
        }
    }
}

impl Spots {
    pub(super) fn scalar(at: Spot) -> Self {
        Self {
            at,
            below: Below::Nothing,
        }
    }

    pub(super) fn items(at: Spot, items: Vec<Spots>) -> Self {
        Self {
            at,
            below: Below::Items(items),
        }
    }

    pub(super) fn fields(at: Spot, fields: BTreeMap<String, (Spot, Spots)>) -> Self {
        Self {
            at,
            below: Below::Fields(fields),
        }
    }

    /// The position of the field at `path`, or of its nearest known parent.
    pub(super) fn find(&self, path: &str) -> Position {
        let mut node = self;
        let mut at = self.at;
        let mut rest = path;
        while !rest.is_empty() {
            let step = match &node.below {
                Below::Nothing => None,
                Below::Items(items) => index(rest).and_then(|(n, rest)| items.get(n).map(|item| (item.at, item, rest))),
                Below::Fields(fields) => {
                    keys(rest).find_map(|(key, rest)| fields.get(key).map(|(at, value)| (*at, value, rest)))
                }
            };
            let Some(step) = step else { break };
            (at, node, rest) = step;
        }
        at.position()
    }

    /// Takes the items of the list under `key` out.
    pub(super) fn take_items(&mut self, key: &str) -> Vec<Spots> {
        match &mut self.below {
            Below::Fields(fields) => match fields.remove(key) {
                Some((
                    _,
                    Spots {
                        below: Below::Items(items),
                        ..
                    },
                )) => items,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        }
    }
}

/// `[3].rest` → 3 and `.rest`.
fn index(path: &str) -> Option<(usize, &str)> {
    let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((number.parse().ok()?, rest))
}

/// The keys that `path` may begin with, longest first, each with what follows: keys hold dots themselves
/// (`metadata.annotations.namegate.io/mode`).
fn keys(path: &str) -> impl Iterator<Item = (&str, &str)> {
    // No key of an annotation that we name has more; the bound keeps hostile keys cheap.
    const MAX_BORDERS: usize = 16;
    let path = path.strip_prefix('.').unwrap_or(path);
    let mut ends: Vec<usize> = path
        .match_indices(['.', '['])
        .map(|(at, _)| at)
        .take(MAX_BORDERS)
        .collect();
    if ends.len() < MAX_BORDERS {
        ends.push(path.len());
    }
    ends.into_iter().rev().map(|end| path.split_at(end))
}
