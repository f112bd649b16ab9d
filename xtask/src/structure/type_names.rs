//! Type names that stand for more than one type in the workspace.

use std::collections::BTreeMap;

use super::layers::is_tool;
use super::modules::{ModuleTree, TypeDefinition};
use super::workspace::WorkspaceCrate;

/// Names that may stand for several types, and why.
const EXEMPT: &[(&str, &str)] = &[
    ("Args", "each verb of a program has its arguments, beside its code"),
    (
        "Error",
        "a file with one error names it so, and callers say `module::Error`",
    ),
    ("Err", "the same, where `Error` is taken"),
];

/// Each name that is defined more than once, with its places. Test code does not count.
pub(crate) fn doubled(trees: &[(&WorkspaceCrate, ModuleTree)]) -> Vec<String> {
    let mut definitions: BTreeMap<String, Vec<TypeDefinition>> = BTreeMap::new();
    for (_, tree) in trees.iter().filter(|(member, _)| is_product(&member.directory)) {
        for definition in tree.types() {
            definitions.entry(definition.name.clone()).or_default().push(definition);
        }
    }
    definitions
        .into_iter()
        .filter(|(name, places)| places.len() > 1 && !EXEMPT.iter().any(|(exempt, _)| exempt == name))
        .map(|(name, places)| {
            let places: Vec<String> = places
                .iter()
                .map(|place| format!("{}:{}", place.file.display(), place.line))
                .collect();
            format!("{name}: {}", places.join(", "))
        })
        .collect()
}

/// Whether a crate's names count. The demo is a tool and no test.
fn is_product(directory: &str) -> bool {
    !is_tool(directory) || directory == "demo"
}
