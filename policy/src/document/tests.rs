use proptest::prelude::*;
use serde::Deserialize;

use super::*;

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  namespace: n\n";

fn codes(diagnostics: &[Diagnostic]) -> Vec<(&'static str, u32)> {
    diagnostics
        .iter()
        .map(|d| (d.code, d.position.map_or(0, |p| p.line)))
        .collect()
}

fn at(document: &Document, path: &str) -> (u32, u32) {
    let position = document.position(path).unwrap();
    (position.line, position.column)
}

#[test]
fn documents_know_who_they_are_and_where_their_fields_stood() {
    let text = "# first\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    namegate.io/mode: audit\nspec:\n  list:\n  - x: 1\n    y: 2\n  - [p, q]\n";
    let (documents, diagnostics) = parse(text);
    assert_eq!(diagnostics, []);
    let [document] = documents.as_slice() else {
        panic!("{documents:?}")
    };
    assert_eq!((document.api_version.as_str(), document.kind.as_str()), ("v1", "Pod"));
    assert_eq!((document.namespace.as_str(), document.name.as_str()), ("", "a"));
    assert_eq!(at(document, ""), (3, 1));
    assert_eq!(at(document, "spec.list[0].y"), (12, 8), "the value, not the key");
    assert_eq!(
        at(document, "spec.list"),
        (10, 3),
        "the key of what runs over many lines"
    );
    assert_eq!(at(document, "spec.list[1][1]"), (13, 9));
    assert_eq!(at(document, "metadata.annotations.namegate.io/mode"), (8, 23));
    assert_eq!(
        at(document, "spec.list[0].absent.deeper"),
        (11, 5),
        "the nearest known parent"
    );
}

/// The stretches of the text at which values and keys stand.
fn stretches<'t>(text: &'t str, paths: &[&str]) -> Vec<(&'t str, &'t str)> {
    let (documents, diagnostics) = parse(text);
    assert_eq!(diagnostics, []);
    let document = documents.last().unwrap();
    let stretch = |at: Option<Position>| {
        let at = at.unwrap();
        &text[at.offset as usize..at.end() as usize]
    };
    let both = |path: &&str| (stretch(document.position(path)), stretch(document.key_position(path)));
    paths.iter().map(both).collect()
}

#[test]
fn positions_are_the_bytes_of_a_value_or_of_its_key() {
    let text = format!(
        "{POD}---\n# ä, €: more bytes than characters\n{POD}spec:\n  quoted: \"ä b\"\n  plain: zwei €\n  flow: {{a: [1, 2]}}\n  list:\n  - x: ü\n  - [3]\n  empty:\n"
    );
    for text in [text.clone(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
        let paths = [
            "spec.quoted",
            "spec.plain",
            "spec.flow",
            "spec.flow.a[1]",
            "spec.list",
            "spec.list[0]",
            "spec.list[0].x",
            "spec.list[1]",
            "spec.empty",
            "metadata.annotations",
        ];
        let expected = [
            ("\"ä b\"", "quoted"),
            ("zwei €", "plain"),
            ("{a: [1, 2]}", "flow"),
            ("2", "2"),
            ("list", "list"),
            ("x", "x"),
            ("ü", "x"),
            ("[3]", "[3]"),
            ("empty", "empty"),
            ("metadata", "metadata"),
        ];
        assert_eq!(stretches(&text, &paths), expected, "{text:?}");
    }
}

#[test]
fn good_documents_survive_beside_bad_ones() {
    let text = format!("{POD}---\nfoo: [\n---\n{POD}---\n# nothing\n---\n- 1\n---\nkind: Pod\n---\n{POD}");
    let (documents, diagnostics) = parse(&text);
    assert_eq!(documents.len(), 3);
    let codes: Vec<_> = diagnostics.iter().map(|d| d.code).collect();
    assert_eq!(codes, ["not-yaml", "not-an-object", "missing-field"]);
    assert_eq!(at(&documents[2], "kind"), (22, 7));
}

#[test]
fn directives_belong_to_the_document_that_follows() {
    let (documents, diagnostics) = parse(&format!("%YAML 1.2\n---\n{POD}"));
    assert_eq!((documents.len(), diagnostics), (1, vec![]));
}

#[test]
fn lists_are_taken_apart_and_items_of_typed_lists_take_their_kind_from_it() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- apiVersion: v1\n  kind: PodList\n  items:\n  - metadata:\n      name: b\n  - 7\n";
    let (documents, diagnostics) = parse(text);
    let names: Vec<_> = documents.iter().map(|d| (d.kind.as_str(), d.name.as_str())).collect();
    assert_eq!(names, [("Pod", "a"), ("Pod", "b")]);
    assert_eq!(at(&documents[1], "metadata.name"), (11, 13));
    assert_eq!(codes(&diagnostics), [("not-an-object", 12)]);
}

#[test]
fn duplicate_keys_refuse_their_document() {
    let (documents, diagnostics) = parse("kind: Pod\nkind: Pod\nmetadata:\n  name: a\n  name: a\n");
    assert!(documents.is_empty());
    assert_eq!(codes(&diagnostics), [("duplicate-key", 2), ("duplicate-key", 5)]);
}

#[test]
fn merge_keys_bring_in_what_is_not_written_itself() {
    let text = format!(
        "{POD}a: &a {{k: 1, l: 2}}\nb: &b {{l: 3, m: 4}}\nc:\n  <<: *a\n  k: 5\nd: {{<<: [*a, *b], n: 6}}\ne: {{<<: *a}}\n"
    );
    let (documents, diagnostics) = parse(&text);
    assert_eq!(codes(&diagnostics), []);
    let value = &documents[0].value;
    assert_eq!(value["c"], serde_json::json!({"k": 5, "l": 2}));
    assert_eq!(value["d"], serde_json::json!({"k": 1, "l": 2, "m": 4, "n": 6}));
    assert_eq!(value["e"], value["a"]);
    // What is merged stands where it was written.
    assert_eq!(documents[0].position("c.l"), documents[0].position("a.l"));
    for (wrong, code) in [
        ("<<: 5", "not-yaml"),
        ("<<: [{a: 1}, 5]", "not-yaml"),
        ("<<: {a: 1}\n  <<: {b: 2}", "duplicate-key"),
    ] {
        let (documents, diagnostics) = parse(&format!("{POD}a:\n  {wrong}\n"));
        assert!(documents.is_empty(), "{wrong}");
        assert_eq!(diagnostics[0].code, code, "{wrong}");
    }
}

#[test]
fn scalars_follow_the_core_schema_of_yaml_1_2() {
    let (documents, _) = parse(&format!(
        "{POD}x: [yes, on, true, ~, 0o10, 0x1F, 1.5, '1', 12e3, 1.2.3.4, .inf, !!str 5]\n"
    ));
    let expected = serde_json::json!([
        "yes", "on", true, null, 8, 31, 1.5, "1", 12000.0, "1.2.3.4", ".inf", "5"
    ]);
    assert_eq!(documents[0].value["x"], expected);
}

#[test]
fn tabs_are_named_with_their_line() {
    let (_, diagnostics) = parse("apiVersion: v1\nkind: Pod\nmetadata:\n\tname: a\n");
    assert_eq!(codes(&diagnostics), [("not-yaml", 4)], "{diagnostics:?}");
}

#[test]
fn alias_bombs_stop_at_the_budget_and_the_documents_before_survive() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let inner = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{inner}]\n");
    }
    let (documents, diagnostics) = parse(&format!("{POD}---\n{bomb}---\n{POD}"));
    assert_eq!(documents.len(), 1);
    assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), ["too-large"]);
}

#[test]
fn aliases_stand_for_what_they_point_to() {
    let (documents, diagnostics) = parse(&format!("{POD}a: &x {{k: v}}\nb: *x\nc: &r [*r]\n"));
    assert_eq!((documents.len(), codes(&diagnostics)), (0, vec![("not-yaml", 8)]));
    let (documents, _) = parse(&format!("{POD}a: &x {{k: v}}\nb: *x\n"));
    assert_eq!(documents[0].value["b"]["k"], "v");
}

#[test]
fn findings_about_one_text_are_bounded_and_its_good_documents_all_survive() {
    let (documents, diagnostics) = parse(&format!("{}{POD}", "- 1\n---\n".repeat(1000)));
    assert_eq!(documents.len(), 1);
    assert_eq!(diagnostics.len(), MAX_FINDINGS + 1);
    assert_eq!(diagnostics.last().unwrap().reason, "800 more findings are not shown");
}

#[test]
fn depth_and_length_are_limited() {
    let (_, diagnostics) = parse(&format!("a: {}", "[".repeat(100)));
    assert_eq!(diagnostics[0].code, "too-deep");
    let deep: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert_eq!(parse(&deep).1[0].code, "too-deep");
    assert_eq!(parse(&" ".repeat(MAX_TEXT + 1)).1[0].code, "too-large");
}

#[test]
fn reading_a_type_names_the_field_and_line_that_does_not_fit() {
    #[derive(Debug, Deserialize)]
    struct Outer {
        #[serde(rename = "spec")]
        _spec: Vec<Inner>,
    }
    #[derive(Debug, Deserialize)]
    struct Inner {
        #[serde(rename = "n")]
        _n: u8,
    }
    let (documents, _) = parse(&format!("{POD}spec:\n- n: 1\n- n: many\n"));
    let diagnostic = documents[0].read::<Outer>().unwrap_err();
    assert_eq!(diagnostic.path, "spec[1].n");
    let at = diagnostic.position.unwrap();
    assert_eq!((at.line, at.column), (8, 6));
}

#[test]
fn an_object_from_no_file_has_no_positions() {
    let document =
        Document::from_value(serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}));
    assert_eq!(document.unwrap().position("kind"), None);
    let diagnostic = Document::from_value(serde_json::json!({"kind": "Pod"})).unwrap_err();
    assert_eq!(
        (diagnostic.code, diagnostic.path.as_str()),
        ("missing-field", "apiVersion")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn parse_never_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn parse_never_panics_on_what_looks_like_yaml(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "a", "kind", ":", ": ", "\n", "\n  ", "- ", "[", "]", "{", "}", ",", "&a ", "*a", "!!int ", "|\n", ">-\n", "\"", "'", "#", "\t",
                "---\n", "...\n", "%YAML 1.2\n", "? ", "\r\n", "\u{feff}", "ä", "\\x", "1", "~", "<<", "apiVersion: v1\nkind: List\nitems:\n",
            ]),
            0..60,
        )
    ) {
        let text = pieces.concat();
        let (documents, diagnostics) = parse(&text);
        for at in diagnostics.iter().filter_map(|it| it.position) {
            prop_assert!(text.get(at.offset as usize..at.end() as usize).is_some(), "{at:?}");
        }
        for document in documents {
            for path in ["", "a", "a[1].b..[x]", "apiVersion", "kind"] {
                for at in [document.position(path), document.key_position(path)].into_iter().flatten() {
                    prop_assert!(text.get(at.offset as usize..at.end() as usize).is_some(), "{at:?}");
                }
            }
        }
    }
}
