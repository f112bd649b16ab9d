//! Every path that a piece of code names, whether it is imported, written out or inside a macro.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemUse, Macro, Meta, Path, UseTree, VisRestricted};

use super::source;

/// The paths of some code.
#[derive(Default)]
pub(crate) struct NamedPaths {
    /// What `use` brings into scope.
    pub(crate) imports: Vec<Import>,
    /// Paths in expressions, types, patterns and macros.
    pub(crate) mentions: Vec<Vec<String>>,
}

/// One leaf of a `use`.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// The name that it gets. `None` is a glob.
    pub(crate) name: Option<String>,
}

impl NamedPaths {
    /// Reads the paths of one item, without those of test code in it.
    pub(crate) fn of(item: &Item) -> Self {
        let mut paths = Self::default();
        paths.visit_item(item);
        paths
    }

    fn import(&mut self, tree: &UseTree, before: &mut Vec<String>) {
        match tree {
            UseTree::Path(part) => {
                before.push(part.ident.to_string());
                self.import(&part.tree, before);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before);
                }
            }
            UseTree::Glob(_) => self.imports.push(Import {
                path: before.clone(),
                name: None,
            }),
            UseTree::Name(name) => self.import_as(before, &name.ident.to_string(), None),
            UseTree::Rename(rename) => {
                self.import_as(before, &rename.ident.to_string(), Some(rename.rename.to_string()));
            }
        }
    }

    fn import_as(&mut self, before: &[String], last: &str, name: Option<String>) {
        let mut path = before.to_vec();
        // `use a::b::{self}` names `b`.
        if last != "self" || path.is_empty() {
            path.push(last.to_owned());
        }
        let name = name.or_else(|| path.last().cloned());
        self.imports.push(Import { path, name });
    }

    /// Macros are not parsed: every run of `name::name` in their tokens counts as a path.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.mention(std::mem::take(&mut path));
                    }
                    path.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.mention(std::mem::take(&mut path));
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.mention(path);
    }

    fn mention(&mut self, path: Vec<String>) {
        if !path.is_empty() {
            self.mentions.push(path);
        }
    }
}

impl<'ast> Visit<'ast> for NamedPaths {
    fn visit_item(&mut self, item: &'ast Item) {
        // A module has its own scope: whoever reads it collects its paths.
        if !source::is_test(source::attributes(item)) && !matches!(item, Item::Mod(_)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        if !source::is_test(source::impl_attributes(item)) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        // `use ::name` is another crate.
        if item.leading_colon.is_none() {
            self.import(&item.tree, &mut Vec::new());
        }
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.mention(names);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
        }
    }

    /// `pub(in crate::…)` says who may look, not what is used.
    fn visit_vis_restricted(&mut self, _: &'ast VisRestricted) {}
}
