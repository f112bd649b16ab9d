//! Circles of files: files that import each other, directly or by way of others.
//!
//! A module and what is below it are one family: an arrow between them counts for no circle.

use std::collections::BTreeSet;
use std::fmt::Write;

use petgraph::algo::tarjan_scc;
use petgraph::graph::DiGraph;

use super::modules::{FileImports, ModuleTree};

/// The circles of one crate, each as a text that lists its arrows.
pub(crate) fn find(crate_name: &str, tree: &ModuleTree) -> Vec<String> {
    let imports = tree.imports();
    let paths: Vec<&[String]> = tree.files().iter().map(|file| file.module_path.as_slice()).collect();
    circles(&paths, &imports)
        .iter()
        .map(|circle| describe(crate_name, circle, tree, &imports))
        .collect()
}

/// Sets of at least two files of which each reaches every other, in a fixed order.
fn circles(paths: &[&[String]], imports: &[FileImports]) -> Vec<BTreeSet<usize>> {
    let mut graph = DiGraph::new();
    let nodes: Vec<_> = (0..paths.len()).map(|file| graph.add_node(file)).collect();
    for (file, imports) in imports.iter().enumerate() {
        for other in imports.keys().filter(|other| !is_family(paths[file], paths[**other])) {
            graph.add_edge(nodes[file], nodes[*other], ());
        }
    }
    let mut circles: Vec<BTreeSet<usize>> = tarjan_scc(&graph)
        .into_iter()
        .filter(|component| component.len() > 1)
        .map(|component| component.into_iter().map(|node| graph[node]).collect())
        .collect();
    circles.sort();
    circles
}

/// Whether one of these modules is above the other.
fn is_family(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

fn describe(crate_name: &str, circle: &BTreeSet<usize>, tree: &ModuleTree, imports: &[FileImports]) -> String {
    let name = |file: usize| tree.files()[file].path.display().to_string();
    let mut text = format!("{crate_name}: {} files", circle.len());
    for file in circle {
        let module = &tree.files()[*file].module_path;
        let arrows = imports[*file]
            .iter()
            .filter(|(other, _)| circle.contains(other) && !is_family(module, &tree.files()[**other].module_path));
        for (other, names) in arrows {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            // Writing to a string does not fail.
            let _ = write!(text, "\n  {} -> {}: {}", name(*file), name(*other), names.join(", "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn circles_of(files: &[&str], arrows: &[(usize, usize)]) -> Vec<Vec<usize>> {
        let paths: Vec<Vec<String>> = files
            .iter()
            .map(|path| path.split_terminator("::").map(str::to_owned).collect())
            .collect();
        let paths: Vec<&[String]> = paths.iter().map(Vec::as_slice).collect();
        let mut imports = vec![FileImports::new(); files.len()];
        for (from, to) in arrows {
            imports[*from].entry(*to).or_default().insert("Name".to_owned());
        }
        circles(&paths, &imports)
            .into_iter()
            .map(|circle| circle.into_iter().collect())
            .collect()
    }

    #[test]
    fn a_parent_and_its_children_are_no_circle() {
        assert!(circles_of(&["", "a", "b"], &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2)]).is_empty());
    }

    #[test]
    fn children_that_know_each_other_are_a_circle() {
        assert_eq!(circles_of(&["", "a", "b"], &[(0, 1), (1, 0), (1, 2), (2, 1)]), [[1, 2]]);
    }

    #[test]
    fn a_child_in_a_circle_with_another_family_is_found() {
        assert_eq!(
            circles_of(&["", "a", "a::child", "b"], &[(2, 1), (1, 3), (3, 2), (2, 3)]),
            [[2, 3]]
        );
    }

    #[test]
    fn an_arrow_without_a_way_back_is_no_circle() {
        assert!(circles_of(&["", "a", "b", "c"], &[(1, 2), (2, 3), (1, 3)]).is_empty());
    }
}
