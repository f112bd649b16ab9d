//! `namegate check` and the command line, as users meet them: the binary itself, its output and its
//! exit codes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const GOOD: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: api}}
  egress:
  - toFQDNs: [{matchName: api.example.com}]
    toPorts: [{ports: [{port: '443', protocol: TCP}]}]
";

const BAD: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs:
    - matchPattern: 'a..example.com'
";

const OTHER_POLICY: &str = "\
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: closed}
spec: {selector: all()}
";

const NETWORK_POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: tenants}
spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}
";

fn namegate(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_namegate"));
    command.current_dir(directory).args(arguments).env_remove("RUST_LOG");
    command
}

/// Writes files and checks them; returns exit code and stdout.
fn check(files: &[(&str, &str)], arguments: &[&str]) -> (i32, String) {
    let dir = TempDir::new().unwrap();
    for (path, text) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    said(
        &namegate(dir.path(), &[&["check"], arguments].concat())
            .output()
            .unwrap(),
    )
}

fn said(output: &Output) -> (i32, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(text(&output.stderr), "");
    (output.status.code().unwrap(), text(&output.stdout))
}

#[test]
fn a_good_policy_passes_with_a_summary() {
    let (code, text) = check(&[("a.yaml", GOOD)], &["a.yaml"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with("1 file read: 1 object, 1 of them policies; 0 errors, 0 warnings, 0 not enforced\n"),
        "{text}"
    );
}

#[test]
fn what_is_no_object_in_a_repository_is_passed_over() {
    let files = [
        ("repo/policy.yaml", GOOD),
        (
            "repo/kustomization.yaml",
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [policy.yaml]\n",
        ),
        ("repo/chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 0.1.0\n"),
        ("repo/chart/values.yaml", "image: {tag: x}\n---\n- a\n- list\n"),
        (
            "repo/chart/templates/p.yaml",
            "{{- if .Values.policy }}\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {{ .Release.Name }}\n{{- end }}\n",
        ),
    ];
    let (code, text) = check(&files, &["--strict", "repo"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.ends_with("0 not enforced; 5 passed over that are no objects\n"),
        "{text}"
    );
    // What is named is meant, and what is no YAML and no template is wrong.
    assert_eq!(check(&files, &["repo/chart/values.yaml"]).0, 1);
    assert_eq!(check(&[("repo/a.yaml", "a: [\n")], &["repo"]).0, 1);
    // Half of an object is one.
    assert_eq!(
        check(
            &[("repo/a.yaml", "kind: NetworkPolicy\nmetadata: {name: x}\n")],
            &["repo"]
        )
        .0,
        1
    );
}

#[test]
fn an_error_names_file_line_field_and_shows_the_line() {
    let (code, text) = check(&[("policies/a.yaml", BAD)], &["policies"]);
    assert_eq!(code, 1);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("policies/a.yaml:8:"), "{text}");
    assert!(
        lines[0].contains(": error[bad-pattern] spec.egress[0].toFQDNs[0].matchPattern: "),
        "{text}"
    );
    assert_eq!(lines[1], "  8 |     - matchPattern: 'a..example.com'");
    assert_eq!(lines[2], "    |                     ^^^^^^^^^^^^^^^^");
}

/// Many kinds of mistakes: text, types, keys, values, what is not enforced, and lints by themselves
/// and together.
const BROKEN: &str = "\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector:
    matchLabels: {app: web, port: 80}
  egress:
  - toFQDNs:
    - matchPatern: '*.example.com'
    - matchName: a..example.com
    toPorts:
    - ports: [{port: 443, protocol: TPC}]
  - toCIDR: [10.0.0.0/33]
    toEntities: [word]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: names, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: wbe}}
  egress:
  - toFQDNs: [{matchPattern: '*.example.com'}]
  - toFQDNs: [{matchName: a.example.com}]
  ingress: [{fromEndpoints: [{}], toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{method: GET}]}}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
kind: [
";

#[test]
fn all_that_is_wrong_with_a_file_is_said_at_once_errors_first() {
    let (code, text) = check(&[("broken.yaml", BROKEN)], &["broken.yaml"]);
    assert_eq!(code, 1);
    insta::assert_snapshot!(text);
}

#[test]
fn every_example_of_a_lint_triggers_it() {
    let page = include_str!("../../docs/lints.md");
    let sections: Vec<&str> = page.split("\n## `").skip(1).collect();
    assert!(sections.len() >= 20);
    for section in sections {
        let code = section.split('`').next().unwrap();
        let example = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
        let (exit, text) = check(&[("a.yaml", example)], &["-o", "json", "a.yaml"]);
        let reports: serde_json::Value = serde_json::from_str(&text).unwrap();
        let found = reports.as_array().unwrap().iter();
        let found: Vec<&str> = found
            .flat_map(|report| report["diagnostics"].as_array().unwrap())
            // Rules about requests and TLS names are linted, and not enforced yet.
            .filter(|it| it["severity"] != "unenforced")
            .map(|it| it["code"].as_str().unwrap())
            .collect();
        assert!(found.contains(&code), "{code}: {text}");
        assert!(
            exit == 0 && found.iter().all(|it| *it == code),
            "{code} alone: {found:?}"
        );
    }
}

#[test]
fn policies_of_different_files_are_held_against_each_other() {
    let denial = GOOD
        .replace("name: api,", "name: deny,")
        .replace("egress:", "egressDeny:");
    let (code, text) = check(&[("a.yaml", GOOD), ("b/b.yaml", &denial)], &["a.yaml", "b"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("a.yaml:7:"), "{text}");
    assert!(
        text.contains("[deny-meets-allow]") && text.contains("CiliumNetworkPolicy shop/deny"),
        "{text}"
    );
}

#[test]
fn a_long_line_is_not_printed_whole() {
    let long = format!("{GOOD}  x: [{}]\n", "1, ".repeat(300_000));
    let (code, text) = check(&[("a.yaml", &long)], &["a.yaml"]);
    assert_eq!(code, 1);
    assert!(text.len() < 1_000, "{}", text.len());
}

#[test]
fn policies_of_kinds_that_are_not_understood_are_errors() {
    let (code, text) = check(&[("a.yaml", OTHER_POLICY)], &["a.yaml"]);
    assert_eq!(code, 1);
    assert!(text.contains("a.yaml:2:"), "{text}");
    assert!(text.contains("is not understood"), "{text}");
    assert!(text.contains("\n  help: "), "{text}");
}

#[test]
fn policies_of_kubernetes_own_kinds_pass() {
    let (code, text) = check(&[("a.yaml", NETWORK_POLICY)], &["--strict", "a.yaml"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 objects, 2 of them policies"), "{text}");
}

#[test]
fn warnings_fail_only_a_strict_check() {
    // The same object twice: the second does not count.
    let files = [("a.yaml", GOOD), ("b.yaml", GOOD)];
    let (code, text) = check(&files, &["."]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("b.yaml: warning[duplicate-object] CiliumNetworkPolicy shop/api: "),
        "{text}"
    );
    assert_eq!(check(&files, &["--strict", "."]).0, 1);
}

#[test]
fn json_holds_a_report_for_each_object() {
    let (code, text) = check(
        &[("a.yaml", BAD), ("b.yaml", OTHER_POLICY)],
        &["-o", "json", "a.yaml", "b.yaml"],
    );
    assert_eq!(code, 1);
    let reports: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 2);
    assert_eq!(reports[0]["object"], "CiliumNetworkPolicy shop/api");
    assert_eq!(reports[0]["state"], "rejected");
    assert_eq!(reports[0]["diagnostics"][0]["position"]["line"], 8);
    assert_eq!(reports[1]["diagnostics"][0]["code"], "not-enforced");
}

#[test]
fn what_is_not_yaml_is_an_error_and_other_kinds_are_counted() {
    let (code, text) = check(&[("a.yaml", "a: [\n")], &["a.yaml"]);
    assert_eq!(code, 1);
    assert!(text.starts_with("a.yaml:"), "{text}");
    let other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n";
    let (code, text) = check(&[("a.yaml", other)], &["a.yaml"]);
    assert_eq!(code, 0);
    assert!(text.contains("1 of other kinds ignored"), "{text}");
}

#[test]
fn standard_input_is_read_for_a_dash() {
    let dir = TempDir::new().unwrap();
    let mut child = namegate(dir.path(), &["check", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(BAD.as_bytes()).unwrap();
    let (code, text) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 1);
    assert!(text.starts_with("<stdin>:8:"), "{text}");
}

#[test]
fn what_cannot_be_done_exits_with_2_and_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    for (arguments, part) in [
        (&["check", "absent.yaml"][..], "cannot read absent.yaml"),
        (&["check"], "PATH"),
        (&["nonsense"], "nonsense"),
        (&["agent"], "--objects DIR"),
        (&["agent", "--grace", "30"], "--grace"),
        (&["agent", "--objects", "absent", "--upstream", "192.0.2.1"], "absent"),
        (&["status", "--run-dir", "."], "namegate agent --objects DIR"),
        (&["names", "--run-dir", "."], "namegate agent --objects DIR"),
    ] {
        let output = namegate(dir.path(), arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
        assert_eq!(output.stdout, b"");
    }
}

#[test]
fn version_and_help_go_to_stdout_with_0() {
    let dir = TempDir::new().unwrap();
    let (code, text) = said(&namegate(dir.path(), &["--version"]).output().unwrap());
    // With the commit, where it was built in a clone.
    let version = format!("namegate {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (code, text.trim_end().split(" (").next()),
        (0, Some(version.as_str())),
        "{text}"
    );
    for verb in ["agent", "check", "names", "status", "cleanup", "exec"] {
        let (code, text) = said(&namegate(dir.path(), &[verb, "--help"]).output().unwrap());
        assert_eq!(code, 0);
        assert!(text.contains("Example"), "{text}");
    }
}

#[test]
fn what_files_say_does_not_reach_the_terminal_as_control_characters() {
    let hostile = GOOD.replace("spec:", "spec:\n  \"\\e[2J\": 1");
    let (code, text) = check(&[("a.yaml", &hostile)], &["a.yaml"]);
    assert_eq!(code, 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
