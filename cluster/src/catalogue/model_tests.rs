//! A catalogue that looks at what changed, held against a plain model that looks at everything.

use proptest::prelude::*;

use super::*;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
enum ModelFile {
    NotYaml,
    Empty,
    /// Pods by name, each with its version; `None`: it is refused.
    Pods(Vec<(String, Option<u8>)>),
}

/// The versions in force by name, each with its file.
type ModelState = BTreeMap<String, (String, u8)>;

type ModelFiles = BTreeMap<String, ModelFile>;

impl ModelFile {
    fn text(&self) -> String {
        let pod = |(name, version): &(String, Option<u8>)| {
            let status = match version {
                Some(version) => format!("labels: {{v: '{version}'}}}}"),
                None => "labels: {}}\nstatus: {podIP: nowhere}".into(),
            };
            format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, {status}\n")
        };
        match self {
            Self::NotYaml => "kind: [\n".into(),
            Self::Empty => String::new(),
            Self::Pods(pods) => "# pods\n".to_owned() + &pods.iter().map(pod).collect::<String>(),
        }
    }

    fn pods(&self) -> &[(String, Option<u8>)] {
        match self {
            Self::Pods(pods) => pods,
            Self::NotYaml | Self::Empty => &[],
        }
    }
}

fn next(before: &ModelState, files: &ModelFiles) -> ModelState {
    let mut now = ModelState::new();
    let mut defined = BTreeSet::new();
    for (path, file) in files {
        for (name, version) in file.pods() {
            if defined.insert(name.clone())
                && let Some(version) = version.or(before.get(name).map(|(_, version)| *version))
            {
                now.insert(name.clone(), (path.clone(), version));
            }
        }
    }
    for (name, (path, version)) in before {
        let is_doubtful = matches!(files.get(path), Some(ModelFile::NotYaml | ModelFile::Empty));
        if is_doubtful && !defined.contains(name) {
            now.insert(name.clone(), (path.clone(), *version));
        }
    }
    now
}

fn model_file() -> impl Strategy<Value = ModelFile> {
    let pod = ("[abc]", proptest::option::weighted(0.8, 0..3_u8));
    prop_oneof![
        6 => proptest::collection::vec(pod, 0..4).prop_map(ModelFile::Pods),
        1 => Just(ModelFile::NotYaml),
        1 => Just(ModelFile::Empty),
    ]
}

/// A file is written or removed.
fn edit() -> impl Strategy<Value = (String, Option<ModelFile>)> {
    ("[xyz]", proptest::option::weighted(0.8, model_file()))
}

fn apply(state: &mut BTreeMap<String, u8>, update: Option<Update>) {
    for change in update.into_iter().flat_map(|update| update.changes) {
        match change {
            ObjectChange::Apply(Object::Pod(pod)) => {
                let version = pod.template.labels["v"].parse().unwrap();
                state.insert(pod.name.to_string(), version);
            }
            ObjectChange::Delete(ObjectKey::Pod(_, name)) => drop(state.remove(&name)),
            other => panic!("{other:?}"),
        }
    }
}

/// Looks at the files, of which those that are the same are not read.
fn look(catalogue: &mut Catalogue, files: &ModelFiles) -> Option<Update> {
    let look = |(path, file): (&String, &ModelFile)| {
        let path = PathBuf::from(path);
        let content = Ok(file.text());
        let known = catalogue.files.get(&path).and_then(|file| file.content.as_ref());
        let look = match known == Some(&ContentId::of(&content)) {
            true => FileLook::Unchanged,
            false => FileLook::Read { content, stamp: None },
        };
        (path, look)
    };
    let looks = files.iter().map(look).collect();
    catalogue.scan_looks(looks, Vec::new(), &mut |_, _, _| ())
}

proptest! {
    #[test]
    fn it_is_in_force_what_a_look_at_everything_says(
        history in proptest::collection::vec(proptest::collection::vec(edit(), 1..3), 1..8),
        reads_all in any::<bool>(),
    ) {
        let mut catalogue = Catalogue { saves_objects: true, ..Catalogue::default() };
        let (mut files, mut model, mut told) = (ModelFiles::new(), ModelState::new(), BTreeMap::new());
        for edits in history {
            for (path, file) in edits {
                match file {
                    Some(file) => drop(files.insert(path, file)),
                    None => drop(files.remove(&path)),
                }
            }
            model = next(&model, &files);
            if reads_all {
                let contents = files.iter().map(|(path, file)| (path.into(), Ok(file.text())));
                apply(&mut told, catalogue.scan(contents.collect()));
            } else {
                apply(&mut told, look(&mut catalogue, &files));
                // What did not count when it was read is read again at once.
                apply(&mut told, look(&mut catalogue, &files));
            }
            let expected: BTreeMap<_, _> = model.iter().map(|(name, (_, version))| (name.clone(), *version)).collect();
            prop_assert_eq!(&told, &expected, "{:?}", files);
            prop_assert_eq!(catalogue.len(), expected.len());
            // All that was saved is what is in force.
            let saved = catalogue.saves.kept().map(|(file, kept)| {
                let document = serde_json::to_value(kept).unwrap();
                let version = document["metadata"]["labels"]["v"].as_str().unwrap().parse().unwrap();
                let name = document["metadata"]["name"].as_str().unwrap().to_owned();
                (name, (file.display().to_string(), version))
            });
            prop_assert_eq!(saved.collect::<ModelState>(), model.clone());
        }
    }
}
