//! Where the nodes of a document stand in its text.

use std::collections::BTreeMap;

use crate::diagnostic::Position;

/// The positions of a node and of everything below it: a tree of the same form as the value.
///
/// The position of a node that runs over many lines, as most mappings and lists in block style do,
/// has no length.
///
/// It is a tree because a map from whole paths would be quadratic in the depth of hostile text.
#[derive(Debug, Clone)]
pub(super) struct NodePositions {
    at: Position,
    children: Children,
}

#[derive(Debug, Clone)]
enum Children {
    None,
    Items(Vec<NodePositions>),
    /// By key: the position of the key, and the value.
    Fields(BTreeMap<String, (Position, NodePositions)>),
}

impl NodePositions {
    pub(super) fn scalar(at: Position) -> Self {
        Self {
            at,
            children: Children::None,
        }
    }

    pub(super) fn items(at: Position, items: Vec<NodePositions>) -> Self {
        Self {
            at,
            children: Children::Items(items),
        }
    }

    pub(super) fn fields(at: Position, fields: BTreeMap<String, (Position, NodePositions)>) -> Self {
        Self {
            at,
            children: Children::Fields(fields),
        }
    }

    /// The position of the value at `path`, or of its key where the value has no length. A path
    /// that is not there has the position of its nearest parent.
    pub(super) fn find(&self, path: &str) -> Position {
        let (key, node) = self.walk(path);
        match key {
            Some(key) if node.at.is_empty() => key,
            _ => node.first(),
        }
    }

    /// The position of the key at `path`; for an item of a list, that of the item.
    pub(super) fn find_key(&self, path: &str) -> Position {
        let (key, node) = self.walk(path);
        key.unwrap_or_else(|| node.first())
    }

    /// The node at `path` or its nearest parent, with the position of its key if it is a field.
    fn walk(&self, path: &str) -> (Option<Position>, &NodePositions) {
        let mut at = (None, self);
        let mut rest = path;
        while !rest.is_empty() {
            let step = match &at.1.children {
                Children::None => None,
                Children::Items(items) => index(rest).and_then(|(n, rest)| items.get(n).map(|item| (None, item, rest))),
                Children::Fields(fields) => {
                    keys(rest).find_map(|(key, rest)| fields.get(key).map(|(at, value)| (Some(*at), value, rest)))
                }
            };
            let Some((key, node, left)) = step else { break };
            (at, rest) = ((key, node), left);
        }
        at
    }

    /// Its own position if that has a length, and otherwise that of the first node below it that
    /// has one.
    fn first(&self) -> Position {
        let first = match &self.children {
            _ if !self.at.is_empty() => None,
            Children::None => None,
            Children::Items(items) => items.first().map(NodePositions::first),
            Children::Fields(fields) => fields.values().map(|(key, _)| *key).min_by_key(|key| key.offset),
        };
        first.unwrap_or(self.at)
    }

    /// The fields of a mapping.
    pub(super) fn into_fields(self) -> BTreeMap<String, (Position, NodePositions)> {
        match self.children {
            Children::Fields(fields) => fields,
            Children::None | Children::Items(_) => BTreeMap::new(),
        }
    }

    /// The items of a list.
    pub(super) fn into_items(self) -> Vec<NodePositions> {
        match self.children {
            Children::Items(items) => items,
            Children::None | Children::Fields(_) => Vec::new(),
        }
    }

    /// Takes the items of the list under `key` out.
    pub(super) fn take_items(&mut self, key: &str) -> Vec<NodePositions> {
        match &mut self.children {
            Children::Fields(fields) => match fields.remove(key) {
                Some((
                    _,
                    NodePositions {
                        children: Children::Items(items),
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

/// The keys that `path` may begin with, longest first, each with the rest of the path. There are
/// several because keys may hold dots (`metadata.annotations.namegate.io/mode`).
fn keys(path: &str) -> impl Iterator<Item = (&str, &str)> {
    // Our own annotations have fewer dots. The bound keeps hostile keys cheap.
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
