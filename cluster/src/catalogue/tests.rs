use std::sync::LazyLock;
use std::time::Duration;

use super::*;

/// A pod that is told apart by one label.
fn pod(name: &str, version: &str) -> String {
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{v: '{version}'}}}}\n")
}

const BAD_POD: &str = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: a}\nstatus: {podIP: nowhere}\n";
const NOT_YAML: &str = "kind: [\n";

/// Scans files given as (path, text) and shows the update as words, for example `+a=1 -b` and
/// `a:accepted`.
fn scan(catalogue: &mut Catalogue, files: &[(&str, &str)]) -> Option<(String, String)> {
    let contents = files
        .iter()
        .map(|(path, text)| (PathBuf::from(path), Ok((*text).to_owned())))
        .collect();
    catalogue.scan(contents).map(words)
}

fn words(update: Update) -> (String, String) {
    let name = |text: &str| text.rsplit('/').next().unwrap().to_owned();
    let changes = update.changes.iter().map(|change| match change {
        ObjectChange::Apply(Object::Pod(pod)) => format!(
            "+{}={}",
            pod.name,
            pod.template.labels.get("v").map_or("", String::as_str)
        ),
        ObjectChange::Apply(Object::Policy(policy)) => {
            let open = policy.specs.iter().any(|spec| spec.rules().next().is_some());
            format!("+{}={}", policy.id.name, if open { "written" } else { "closed" })
        }
        ObjectChange::Apply(other) => panic!("{other:?}"),
        ObjectChange::Delete(key) => format!("-{}", name(&key.to_string())),
    });
    let reports = update
        .reports
        .iter()
        .map(|it| format!("{}:{}", name(&it.object), it.state.as_str()));
    (
        changes.collect::<Vec<_>>().join(" "),
        reports.collect::<Vec<_>>().join(" "),
    )
}

fn said(changes: &str, reports: &str) -> Option<(String, String)> {
    Some((changes.into(), reports.into()))
}

#[test]
fn the_first_update_comes_even_when_there_is_nothing() {
    let mut catalogue = Catalogue::default();
    assert_eq!(scan(&mut catalogue, &[]), said("", ""));
    assert_eq!(scan(&mut catalogue, &[]), None);
}

#[test]
fn objects_come_change_and_go_with_their_files() {
    let mut catalogue = Catalogue::default();
    let (a1, a2, b) = (pod("a", "1"), pod("a", "2"), pod("b", "1"));
    let both = a1.clone() + &b;
    assert_eq!(
        scan(&mut catalogue, &[("x", &both)]),
        said("+a=1 +b=1", "a:accepted b:accepted")
    );
    assert_eq!(scan(&mut catalogue, &[("x", &both)]), None);
    assert_eq!(
        scan(&mut catalogue, &[("x", &a2), ("y", &b)]),
        said("+a=2", "a:accepted b:accepted")
    );
    assert_eq!(scan(&mut catalogue, &[("y", &b)]), said("-a", "b:accepted"));
    // A comment only: meant, not broken.
    assert_eq!(scan(&mut catalogue, &[("y", "# none\n")]), said("-b", ""));
}

#[test]
fn a_file_that_is_not_yaml_keeps_all_that_it_held() {
    let mut catalogue = Catalogue::default();
    let (a, b, c) = (pod("a", "1"), pod("b", "1"), pod("c", "1"));
    scan(&mut catalogue, &[("x", &(a.clone() + &b)), ("y", &c)]);
    assert_eq!(
        scan(&mut catalogue, &[("x", NOT_YAML)]),
        said("-c", ":kept-last-good a:kept-last-good b:kept-last-good")
    );
    // Repaired, with one object fewer: now that is known.
    assert_eq!(scan(&mut catalogue, &[("x", &b)]), said("-a", "b:accepted"));
    let mut fresh = Catalogue::default();
    assert_eq!(scan(&mut fresh, &[("x", NOT_YAML)]), said("", ":rejected"));
}

#[test]
fn a_document_that_cannot_be_told_keeps_what_is_missing_and_takes_what_is_there() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &(pod("a", "1") + &pod("b", "1")))]);
    // `b` lost its name.
    let text = pod("a", "2") + "---\napiVersion: v1\nkind: Pod\nmetadata: {}\n";
    assert_eq!(
        scan(&mut catalogue, &[("x", &text)]),
        said("+a=2", ":kept-last-good b:kept-last-good a:accepted")
    );
}

#[test]
fn an_object_moved_out_of_a_broken_file_is_taken_where_it_is_defined() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &pod("a", "1"))]);
    assert_eq!(
        scan(&mut catalogue, &[("x", NOT_YAML), ("y", &pod("a", "2"))]),
        said("+a=2", ":rejected a:accepted")
    );
}

#[test]
fn an_object_that_is_refused_keeps_its_own_last_good_version() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &(pod("a", "1") + &pod("b", "1")))]);
    let text = BAD_POD.to_owned() + &pod("b", "2");
    assert_eq!(
        scan(&mut catalogue, &[("x", &text)]),
        said("+b=2", "a:kept-last-good b:accepted")
    );
    // Still kept when the file moves, and forgotten when it is gone.
    assert_eq!(scan(&mut catalogue, &[("z", BAD_POD)]), said("-b", "a:kept-last-good"));
    assert_eq!(scan(&mut catalogue, &[]), said("-a", ""));
    assert_eq!(scan(&mut catalogue, &[("x", BAD_POD)]), said("", "a:rejected"));
}

#[test]
fn of_two_definitions_the_first_path_counts_and_the_other_is_reported() {
    let mut catalogue = Catalogue::default();
    let files = [("x", pod("a", "1")), ("y", pod("a", "2"))];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    assert_eq!(scan(&mut catalogue, &files), said("+a=1", "a:accepted a:rejected"));
    assert!(catalogue.reports[1].diagnostics[0].reason.contains("in x"));
    // A mistake in the first does not put the second in force.
    assert_eq!(
        scan(&mut catalogue, &[("x", BAD_POD), ("y", &pod("a", "2"))]),
        said("", "a:kept-last-good a:rejected")
    );
    // When the first is gone, the second is the first.
    assert_eq!(scan(&mut catalogue, &files[1..]), said("+a=2", "a:accepted"));
    let twice = pod("b", "1") + &pod("b", "2");
    assert_eq!(
        scan(&mut Catalogue::default(), &[("x", &twice)]),
        said("+b=1", "b:accepted b:rejected")
    );
}

#[test]
fn a_file_that_cannot_be_read_or_was_emptied_keeps_what_it_held() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &pod("a", "1"))]);
    let kept = said("", ":kept-last-good a:kept-last-good");
    assert_eq!(scan(&mut catalogue, &[("x", "")]), kept);
    let unreadable = BTreeMap::from([(PathBuf::from("x"), Err("permission denied".into()))]);
    assert_eq!(catalogue.scan(unreadable).map(words), kept);
    assert!(catalogue.reports[0].diagnostics[0].reason.contains("permission denied"));
    assert_eq!(scan(&mut catalogue, &[("x", &pod("a", "1"))]), said("", "a:accepted"));
    // A new file of no bytes held nothing.
    assert_eq!(scan(&mut Catalogue::default(), &[("x", "")]), said("", ""));
}

#[test]
fn a_missing_directory_keeps_everything_and_is_reported_once() {
    let mut catalogue = Catalogue::default();
    let a = pod("a", "1");
    scan(&mut catalogue, &[("d/x", &a)]);
    let gone = |catalogue: &mut Catalogue| catalogue.unreadable(Path::new("d"), "it is gone".into()).map(words);
    assert_eq!(gone(&mut catalogue), said("", ":kept-last-good a:accepted"));
    assert_eq!(gone(&mut catalogue), None);
    assert_eq!(scan(&mut catalogue, &[("d/x", &a)]), said("", "a:accepted"));
}

#[test]
fn deletions_stand_before_what_is_applied() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &pod("b", "1"))]);
    assert_eq!(
        scan(&mut catalogue, &[("x", &pod("a", "1"))]),
        said("-b +a=1", "a:accepted")
    );
}

fn policy(name: &str, selector: &str, allowed: &str) -> String {
    format!(
        "---\napiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}}}\n\
         spec: {{{selector}, egress: [{{toFQDNs: [{{matchName: '{allowed}'}}]}}]}}\n"
    )
}

const EVERY_POD: &str = "endpointSelector: {}";

fn codes(catalogue: &Catalogue) -> Vec<&str> {
    let findings = catalogue.reports.iter().flat_map(|it| &it.diagnostics);
    findings.map(|it| it.code).collect()
}

#[test]
fn a_refused_policy_without_a_good_version_is_closed_until_it_is_mended() {
    let mut catalogue = Catalogue::default();
    let bad = policy("p", EVERY_POD, "two words");
    assert_eq!(scan(&mut catalogue, &[("x", &bad)]), said("+p=closed", "p:rejected"));
    assert_eq!(codes(&catalogue), ["bad-name", "closed-until-mended"]);
    // Another mistake, or a file that is no YAML any more, does not make a good version of what
    // stands in.
    let worse = bad.clone() + "status: [\n";
    assert_eq!(scan(&mut catalogue, &[("x", &worse)]), said("", ":rejected p:rejected"));
    assert_eq!(codes(&catalogue), ["not-yaml", "closed-until-mended"]);
    assert_eq!(scan(&mut catalogue, &[("x", &bad)]), said("", "p:rejected"));
    let good = policy("p", EVERY_POD, "a.example");
    assert_eq!(scan(&mut catalogue, &[("x", &good)]), said("+p=written", "p:accepted"));
    // From now on there is a good version.
    assert_eq!(scan(&mut catalogue, &[("x", &bad)]), said("", "p:kept-last-good"));
    assert_eq!(codes(&catalogue), ["bad-name"]);
    assert_eq!(scan(&mut catalogue, &[]), said("-p", ""));
}

#[test]
fn what_stands_in_is_gone_with_its_document() {
    let mut catalogue = Catalogue::default();
    scan(&mut catalogue, &[("x", &policy("p", EVERY_POD, "two words"))]);
    assert_eq!(scan(&mut catalogue, &[("x", "# none\n")]), said("-p", ""));
}

#[test]
fn a_policy_whose_selector_cannot_be_told_is_reported_as_open() {
    let mut catalogue = Catalogue::default();
    let bad = policy("p", "endpointSelector: {matchLabel: {app: web}}", "two words");
    assert_eq!(scan(&mut catalogue, &[("x", &bad)]), said("", "p:rejected"));
    assert!(codes(&catalogue).contains(&"cannot-close"), "{:?}", catalogue.reports);
}

/// A catalogue that tells what is to be saved.
fn saving() -> Catalogue {
    Catalogue {
        saves_objects: true,
        ..Catalogue::default()
    }
}

/// What was saved until now.
fn saved(catalogue: &Catalogue) -> Vec<LastGood> {
    let saved = catalogue.saves.kept().map(|(file, kept)| LastGood {
        file: file.clone(),
        document: serde_json::to_string(kept).unwrap().into(),
    });
    saved.collect()
}

/// A catalogue in a later process.
fn restarted(catalogue: &Catalogue) -> Catalogue {
    Catalogue::remembering(saved(catalogue))
}

#[test]
fn a_restart_keeps_the_last_good_versions_of_broken_files_and_tells_all_of_them() {
    let mut before = saving();
    let (a, b, p) = (pod("a", "1"), pod("b", "1"), policy("p", EVERY_POD, "a.example"));
    scan(&mut before, &[("x", &(a.clone() + &b)), ("y", &p)]);
    // One object broke before the restart, the other file during it.
    scan(&mut before, &[("x", &(BAD_POD.to_owned() + &pod("b", "2"))), ("y", &p)]);
    let bad = policy("p", EVERY_POD, "two words");
    assert_eq!(
        scan(&mut restarted(&before), &[("x", NOT_YAML), ("y", &bad)]),
        said(
            "+a=1 +b=2 +p=written",
            ":kept-last-good a:kept-last-good b:kept-last-good p:kept-last-good"
        )
    );
    // An empty file too.
    assert_eq!(
        scan(&mut restarted(&before), &[("y", "")]),
        said("+p=written", ":kept-last-good p:kept-last-good")
    );
}

#[test]
fn a_restart_believes_the_files_where_they_can_be_read() {
    let mut before = saving();
    let (a, b) = (pod("a", "1"), pod("b", "1"));
    scan(&mut before, &[("x", &a), ("y", &b)]);
    let mut after = restarted(&before);
    assert_eq!(scan(&mut after, &[("x", &pod("a", "2"))]), said("+a=2", "a:accepted"));
    assert_eq!(scan(&mut after, &[]), said("-a", ""));
    assert_eq!(scan(&mut restarted(&before), &[]), said("", ""));
}

#[test]
fn a_stand_in_and_what_is_no_object_are_not_remembered() {
    let mut before = saving();
    let bad = policy("p", EVERY_POD, "two words");
    scan(&mut before, &[("x", &bad)]);
    assert_eq!(saved(&before), []);
    for document in [
        "",
        "[]",
        "{}",
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"status":{"podIP":"x"}}"#,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
    ] {
        let kept = LastGood {
            file: "x".into(),
            document: document.into(),
        };
        assert!(Catalogue::remembering([kept]).recall().is_empty(), "{document}");
    }
}

/// As [`scan`], of files that may be being written, so long after the first look.
fn scan_with_confirmation(
    catalogue: &mut Catalogue,
    after: Duration,
    files: &[(&str, &str)],
) -> Option<(String, String)> {
    static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    let looks = files.iter().map(|(path, text)| {
        let content = Ok((*text).to_owned());
        (PathBuf::from(path), FileLook::Read { content, stamp: None })
    });
    let context = ScanContext {
        at: *BEGIN + after,
        is_same: true,
    };
    catalogue.scan_with_confirmation(looks.collect(), context).map(words)
}

#[test]
fn a_file_that_ends_early_is_looked_at_twice() {
    let (one, two) = (policy("p", EVERY_POD, "a.example"), policy("q", EVERY_POD, "b.example"));
    let both = one.clone() + &two;
    let changed = policy("p", EVERY_POD, "other.example");
    let cut = &both[..both.len() - 20];
    // Cut between two documents, within one, and after a document that was changed.
    for now in [one.as_str(), cut, &changed] {
        let mut catalogue = Catalogue::default();
        scan_with_confirmation(&mut catalogue, Duration::ZERO, &[("x", &both)]);
        assert_eq!(
            scan_with_confirmation(&mut catalogue, Duration::ZERO, &[("x", now)]),
            said("", ":kept-last-good p:accepted q:accepted"),
            "{now}"
        );
        assert_eq!(codes(&catalogue), ["ends-early"]);
        // Written to its end.
        assert_eq!(
            scan_with_confirmation(&mut catalogue, CONFIRMATION / 2, &[("x", &both)]),
            said("", "p:accepted q:accepted")
        );
        assert_eq!(catalogue.confirm_at(), None);
    }
    let mut catalogue = Catalogue::default();
    scan_with_confirmation(&mut catalogue, Duration::ZERO, &[("x", &both)]);
    scan_with_confirmation(&mut catalogue, Duration::ZERO, &[("x", &one)]);
    assert_eq!(
        scan_with_confirmation(&mut catalogue, CONFIRMATION / 2, &[("x", &one)]),
        None
    );
    assert_eq!(
        scan_with_confirmation(&mut catalogue, CONFIRMATION, &[("x", &one)]),
        said("-q", "p:accepted")
    );
    // Any other edit is in force at once.
    assert_eq!(
        scan_with_confirmation(&mut catalogue, CONFIRMATION, &[("x", &changed)]),
        said("+p=written", "p:accepted")
    );
}

#[test]
fn policies_that_go_by_the_heap_are_looked_at_twice_and_a_single_one_is_not() {
    let files: Vec<(String, String)> = (0..5)
        .map(|n| (format!("{n}"), policy(&format!("p{n}"), EVERY_POD, "a.example")))
        .collect();
    let some = |count: usize| -> Vec<(&str, &str)> {
        files[..count]
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .collect()
    };
    let mut catalogue = Catalogue::default();
    scan_with_confirmation(&mut catalogue, Duration::ZERO, &some(5));
    let gone = |update: Option<(String, String)>| update.map(|(changes, _)| changes);
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, Duration::ZERO, &some(4))),
        Some("-p4".into())
    );
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, Duration::ZERO, &some(1))),
        Some(String::new())
    );
    assert_eq!(codes(&catalogue), ["vanished"; 3]);
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, CONFIRMATION / 2, &some(4))),
        Some(String::new()),
        "they are back"
    );
    scan_with_confirmation(&mut catalogue, CONFIRMATION, &some(1));
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, CONFIRMATION * 2, &some(1))),
        Some("-p1 -p2 -p3".into()),
        "it was meant"
    );
    // The last file of all.
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, CONFIRMATION * 2, &[])),
        Some(String::new())
    );
    assert_eq!(
        gone(scan_with_confirmation(&mut catalogue, CONFIRMATION * 3, &[])),
        Some("-p0".into())
    );
    // What moves to another file is not lost.
    let mut catalogue = Catalogue::default();
    scan_with_confirmation(&mut catalogue, Duration::ZERO, &some(4));
    let together: String = some(4).iter().map(|(_, text)| *text).collect();
    assert_eq!(
        gone(scan_with_confirmation(
            &mut catalogue,
            Duration::ZERO,
            &[("all", &together)]
        )),
        Some(String::new())
    );
    assert_eq!(catalogue.confirm_at(), None);
}

#[test]
fn a_start_without_files_keeps_what_was_in_force_until_there_is_one() {
    let mut before = saving();
    scan(&mut before, &[("x", &policy("p", EVERY_POD, "a.example"))]);
    let mut after = restarted(&before);
    assert_eq!(
        scan_with_confirmation(&mut after, Duration::ZERO, &[]),
        said("+p=written", ":kept-last-good")
    );
    assert_eq!(scan_with_confirmation(&mut after, CONFIRMATION * 2, &[]), None);
    assert_eq!(
        scan_with_confirmation(&mut after, CONFIRMATION * 2, &[("x", "# none\n")]),
        said("-p", "")
    );
}
