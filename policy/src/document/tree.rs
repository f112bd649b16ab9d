//! Where the nodes of a document stood.

use std::collections::BTreeMap;

use crate::diagnostic::Position;

/// The positions of a node and of everything below it: a tree of the same form as the value.
///
/// That of a node which runs over many lines, as mappings and lists in block style nearly always
/// do, has no length.
///
/// A map from whole paths would be simpler, and quadratic in the depth of hostile text.
#[derive(Debug, Clone)]
pub(super) struct Spots {
    at: Position,
    below: Below,
}

#[derive(Debug, Clone)]
enum Below {
    Nothing,
    Items(Vec<Spots>),
    /// By key: where the key stood, and the value.
    Fields(BTreeMap<String, (Position, Spots)>),
}

impl Spots {
    pub(super) fn scalar(at: Position) -> Self {
        Self {
            at,
            below: Below::Nothing,
        }
    }

    pub(super) fn items(at: Position, items: Vec<Spots>) -> Self {
        Self {
            at,
            below: Below::Items(items),
        }
    }

    pub(super) fn fields(at: Position, fields: BTreeMap<String, (Position, Spots)>) -> Self {
        Self {
            at,
            below: Below::Fields(fields),
        }
    }

    /// The position of the value at `path`, or of its key where the value has no length; of its
    /// nearest known parent where there is none.
    pub(super) fn find(&self, path: &str) -> Position {
        let (key, node) = self.walk(path);
        match key {
            Some(key) if node.at.is_empty() => key,
            _ => node.first(),
        }
    }

    /// The position of the key at `path`. An item of a list has none, and is found itself.
    pub(super) fn find_key(&self, path: &str) -> Position {
        let (key, node) = self.walk(path);
        key.unwrap_or_else(|| node.first())
    }

    /// The node at `path` or its nearest known parent, and its key if it is a field.
    fn walk(&self, path: &str) -> (Option<Position>, &Spots) {
        let mut at = (None, self);
        let mut rest = path;
        while !rest.is_empty() {
            let step = match &at.1.below {
                Below::Nothing => None,
                Below::Items(items) => index(rest).and_then(|(n, rest)| items.get(n).map(|item| (None, item, rest))),
                Below::Fields(fields) => {
                    keys(rest).find_map(|(key, rest)| fields.get(key).map(|(at, value)| (Some(*at), value, rest)))
                }
            };
            let Some((key, node, left)) = step else { break };
            (at, rest) = ((key, node), left);
        }
        at
    }

    /// Itself, or the first of what is below it that has a length.
    fn first(&self) -> Position {
        let below = match &self.below {
            _ if !self.at.is_empty() => None,
            Below::Nothing => None,
            Below::Items(items) => items.first().map(Spots::first),
            Below::Fields(fields) => fields.values().map(|(key, _)| *key).min_by_key(|key| key.offset),
        };
        below.unwrap_or(self.at)
    }

    /// The fields of a mapping.
    pub(super) fn into_fields(self) -> BTreeMap<String, (Position, Spots)> {
        match self.below {
            Below::Fields(fields) => fields,
            Below::Nothing | Below::Items(_) => BTreeMap::new(),
        }
    }

    /// The items of a list.
    pub(super) fn into_items(self) -> Vec<Spots> {
        match self.below {
            Below::Items(items) => items,
            Below::Nothing | Below::Fields(_) => Vec::new(),
        }
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

/// The keys that `path` may begin with, longest first, each with what follows: keys hold dots
/// themselves (`metadata.annotations.namegate.io/mode`).
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
