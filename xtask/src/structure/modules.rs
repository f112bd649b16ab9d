//! The modules of one crate, read from its root file, and which file each path leads to.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::{Item, ItemMod};

use super::error::{StructureError, read};
use super::paths::{Import, NamedPaths};
use super::source;

/// A crate's modules without its tests.
pub(crate) struct ModuleTree {
    modules: Vec<Module>,
    files: Vec<SourceFile>,
}

/// One file of a crate, and the module that it is.
pub(crate) struct SourceFile {
    /// From the root of the workspace.
    pub(crate) path: PathBuf,
    /// The names of modules from the crate's root to here.
    pub(crate) module_path: Vec<String>,
    /// How many lines are no test code.
    pub(crate) source_lines: usize,
}

/// A type that an item defines.
pub(crate) struct TypeDefinition {
    pub(crate) name: String,
    pub(crate) file: PathBuf,
    pub(crate) line: usize,
}

/// The names that a file takes from others, by file.
pub(crate) type FileImports = BTreeMap<usize, BTreeSet<String>>;

type ModuleId = usize;
type FileId = usize;

struct Module {
    file: FileId,
    parent: Option<ModuleId>,
    /// One name may stand for a module and for an item.
    names: HashMap<String, Vec<Binding>>,
    globs: Vec<Vec<String>>,
    types: Vec<(String, usize)>,
    paths: Vec<Vec<String>>,
}

#[derive(Clone)]
enum Binding {
    Item,
    Module(ModuleId),
    Import(Vec<String>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Item(FileId),
    Module(ModuleId),
}

impl ModuleTree {
    /// Reads the modules from a crate's root file on.
    pub(crate) fn read(workspace: &Path, root: &Path) -> Result<Self, StructureError> {
        let mut tree = Self {
            modules: Vec::new(),
            files: Vec::new(),
        };
        let directory = root.parent().unwrap_or(workspace).to_owned();
        tree.read_file(workspace, root, directory, Vec::new(), None)?;
        Ok(tree)
    }

    pub(crate) fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The types of each module. Two definitions in one module are alternatives of one type.
    pub(crate) fn types(&self) -> Vec<TypeDefinition> {
        let mut types = Vec::new();
        for module in &self.modules {
            let mut seen = BTreeSet::new();
            for (name, line) in &module.types {
                if seen.insert(name) {
                    types.push(TypeDefinition {
                        name: name.clone(),
                        file: self.files[module.file].path.clone(),
                        line: *line,
                    });
                }
            }
        }
        types
    }

    /// For each file, in the order of [`files`](Self::files), what it takes from which other file.
    pub(crate) fn imports(&self) -> Vec<FileImports> {
        let mut imports = vec![FileImports::new(); self.files.len()];
        for (id, module) in self.modules.iter().enumerate() {
            for path in &module.paths {
                let Some(target) = self.resolve(id, path, &mut BTreeSet::new()) else {
                    continue;
                };
                let file = match target {
                    Target::Item(file) => file,
                    Target::Module(module) => self.modules[module].file,
                };
                if file != module.file {
                    imports[module.file]
                        .entry(file)
                        .or_default()
                        .extend(item_name(path).cloned());
                }
            }
        }
        imports
    }

    fn read_file(
        &mut self,
        workspace: &Path,
        path: &Path,
        children: PathBuf,
        module_path: Vec<String>,
        parent: Option<ModuleId>,
    ) -> Result<ModuleId, StructureError> {
        let text = read(path)?;
        let parsed = syn::parse_file(&text).map_err(|error| StructureError::Parse {
            path: path.to_owned(),
            error,
        })?;
        let file = self.files.len();
        self.files.push(SourceFile {
            path: path.strip_prefix(workspace).unwrap_or(path).to_owned(),
            module_path: module_path.clone(),
            source_lines: text.lines().count(),
        });
        let place = Place {
            workspace,
            file,
            path,
            children,
            module_path,
        };
        self.read_module(&place, &parsed.items, parent)
    }

    fn read_module(
        &mut self,
        place: &Place<'_>,
        items: &[Item],
        parent: Option<ModuleId>,
    ) -> Result<ModuleId, StructureError> {
        let id = self.modules.len();
        self.modules.push(Module {
            file: place.file,
            parent,
            names: HashMap::new(),
            globs: Vec::new(),
            types: Vec::new(),
            paths: Vec::new(),
        });
        for item in items {
            if source::is_test(source::attributes(item)) {
                let span = item.span();
                self.files[place.file].source_lines -= span.end().line - span.start().line + 1;
            } else if let Item::Mod(module) = item {
                let child = self.read_child(place, module, id)?;
                self.bind(id, module.ident.to_string(), Binding::Module(child));
            } else {
                self.read_item(id, item);
            }
        }
        Ok(id)
    }

    fn read_child(
        &mut self,
        place: &Place<'_>,
        module: &ItemMod,
        parent: ModuleId,
    ) -> Result<ModuleId, StructureError> {
        let name = module.ident.to_string();
        let mut module_path = place.module_path.clone();
        module_path.push(name.clone());
        let directory = place.children.join(&name);
        if let Some((_, items)) = &module.content {
            let inside = Place {
                children: directory,
                module_path,
                ..*place
            };
            return self.read_module(&inside, items, Some(parent));
        }
        let beside = match source::path_attribute(&module.attrs) {
            Some(named) => place.path.with_file_name(named),
            None => place.children.join(format!("{name}.rs")),
        };
        let file = [beside, directory.join("mod.rs")]
            .into_iter()
            .find(|file| file.exists())
            .ok_or_else(|| StructureError::NoModuleFile {
                path: place.path.to_owned(),
                name,
            })?;
        self.read_file(place.workspace, &file, directory, module_path, Some(parent))
    }

    fn read_item(&mut self, id: ModuleId, item: &Item) {
        let defined = match item {
            Item::Struct(item) => Some((&item.ident, true)),
            Item::Enum(item) => Some((&item.ident, true)),
            Item::Union(item) => Some((&item.ident, true)),
            Item::Trait(item) => Some((&item.ident, true)),
            Item::Type(item) => Some((&item.ident, true)),
            Item::Fn(item) => Some((&item.sig.ident, false)),
            Item::Const(item) => Some((&item.ident, false)),
            Item::Static(item) => Some((&item.ident, false)),
            Item::Macro(item) => item.ident.as_ref().map(|name| (name, false)),
            _ => None,
        };
        if let Some((name, is_type)) = defined {
            if is_type {
                let line = name.span().start().line;
                self.modules[id].types.push((name.to_string(), line));
            }
            self.bind(id, name.to_string(), Binding::Item);
        }
        let named = NamedPaths::of(item);
        for Import { path, name } in named.imports {
            match name {
                Some(name) => self.bind(id, name, Binding::Import(path.clone())),
                None => self.modules[id].globs.push(path.clone()),
            }
            self.modules[id].paths.push(path);
        }
        self.modules[id].paths.extend(named.mentions);
    }

    fn bind(&mut self, id: ModuleId, name: String, binding: Binding) {
        self.modules[id].names.entry(name).or_default().push(binding);
    }

    /// The file or module that a path means in a module; `None` if that is another crate's.
    ///
    /// A re-export is followed to the file that defines the item, so that it cannot hide an arrow.
    fn resolve(&self, from: ModuleId, path: &[String], visited: &mut Visited) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        match first.as_str() {
            "crate" => self.walk(0, rest, visited),
            "self" => self.walk(from, rest, visited),
            "super" => {
                let mut module = self.modules[from].parent?;
                let mut rest = rest;
                while let Some((_, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
                    module = self.modules[module].parent?;
                    rest = after;
                }
                self.walk(module, rest, visited)
            }
            _ => self.walk_named(from, path, visited),
        }
    }

    /// What a path from inside a module means. A name that is not found is the module's own, made
    /// by a macro.
    fn walk(&self, module: ModuleId, path: &[String], visited: &mut Visited) -> Option<Target> {
        if path.is_empty() {
            return Some(Target::Module(module));
        }
        self.walk_named(module, path, visited)
            .or(Some(Target::Item(self.modules[module].file)))
    }

    fn walk_named(&self, module: ModuleId, path: &[String], visited: &mut Visited) -> Option<Target> {
        let (name, rest) = path.split_first()?;
        if !visited.insert((module, name.clone())) {
            return None;
        }
        let found = self.named(module, name, !rest.is_empty(), visited)?;
        match found {
            Target::Module(inner) => self.walk(inner, rest, visited),
            // What follows is a variant, a constant or a function of the type.
            Target::Item(_) => Some(found),
        }
    }

    /// What one name means in a module. Where more follows, a module comes before an item.
    fn named(&self, id: ModuleId, name: &str, more_follows: bool, visited: &mut Visited) -> Option<Target> {
        let module = &self.modules[id];
        let mut found: Vec<Target> = Vec::new();
        for binding in module.names.get(name).into_iter().flatten() {
            match binding {
                Binding::Item => found.push(Target::Item(module.file)),
                Binding::Module(inner) => found.push(Target::Module(*inner)),
                Binding::Import(path) => found.extend(self.resolve(id, path, visited)),
            }
        }
        let is_module = |target: &Target| matches!(target, Target::Module(_));
        let preferred = found.iter().find(|target| is_module(target) == more_follows);
        if let Some(target) = preferred.or(found.first()) {
            return Some(*target);
        }
        module
            .globs
            .iter()
            .find_map(|glob| match self.resolve(id, glob, visited)? {
                Target::Module(inner) if inner != id => self.named_publicly(inner, name, more_follows, visited),
                _ => None,
            })
    }

    fn named_publicly(&self, id: ModuleId, name: &str, more_follows: bool, visited: &mut Visited) -> Option<Target> {
        if !visited.insert((id, name.to_owned())) {
            return None;
        }
        self.named(id, name, more_follows, visited)
    }
}

/// What a path names: its type or constant rather than what follows it, else its last part.
fn item_name(path: &[String]) -> Option<&String> {
    path.iter()
        .find(|part| part.starts_with(char::is_uppercase))
        .or(path.last())
}

/// Names that are being resolved, so that imports in a circle end.
type Visited = BTreeSet<(ModuleId, String)>;

/// Where a module stands.
struct Place<'a> {
    workspace: &'a Path,
    file: FileId,
    path: &'a Path,
    /// The directory of its children's files.
    children: PathBuf,
    module_path: Vec<String>,
}
