//! `namegate check` and the command line, as users meet them: the binary itself, its output and its exit codes.

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
fn an_error_names_file_line_field_and_shows_the_line() {
    let (code, text) = check(&[("policies/a.yaml", BAD)], &["policies"]);
    assert_eq!(code, 1);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("policies/a.yaml:8:"), "{text}");
    assert!(
        lines[0].contains(": error: spec.egress[0].toFQDNs[0].matchPattern: "),
        "{text}"
    );
    assert_eq!(lines[1], "  8 |     - matchPattern: 'a..example.com'");
    assert_eq!(lines[2], "    |       ^");
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
        text.contains("b.yaml: warning: CiliumNetworkPolicy shop/api: "),
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
    assert_eq!((code, text), (0, format!("namegate {}\n", env!("CARGO_PKG_VERSION"))));
    for verb in ["agent", "check", "names", "status", "cleanup", "exec", "demo"] {
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
