//! What a command reached and what was refused to it: `--learn`, the lines at the end, the report.

use std::fs;
use std::process::Command;

use super::outside::OutsideServer;
use super::{Host, stderr, stdout};

/// Makes a wheel, and serves an index of it on one address and the wheel on another.
const SERVER: &str = r#"
import http.server, io, threading, zipfile
wheel = io.BytesIO()
with zipfile.ZipFile(wheel, "w") as archive:
    archive.writestr("six.py", "")
    info = "six-1.0.dist-info/"
    archive.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: six\nVersion: 1.0\n")
    archive.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    archive.writestr(info + "RECORD", "")
page = b'<a href="http://files.example/six-1.0-py3-none-any.whl">six-1.0-py3-none-any.whl</a>'
def serve(address, path, body, kind):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == path
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body) if found else 0))
            self.end_headers()
            self.wfile.write(body if found else b"")
    server = http.server.ThreadingHTTPServer((address, 80), Handler)
    threading.Thread(target=server.serve_forever).start()
serve("203.0.112.80", "/simple/six/", page, "text/html")
serve("203.0.112.81", "/six-1.0-py3-none-any.whl", wheel.getvalue(), "application/octet-stream")
print("ready", flush=True)
"#;

fn package_index(host: &Host) -> OutsideServer {
    host.lab
        .resolver()
        .set(&[
            "index.example 60 A 203.0.112.80",
            "files.example 60 A 203.0.112.81",
            "other.example 60 A 198.51.100.2",
        ])
        .unwrap();
    OutsideServer::start(host, SERVER)
}

const DOWNLOAD: &str = "python3 -m pip --isolated download --quiet --no-deps --no-cache-dir --disable-pip-version-check \
     --retries 0 --timeout 5 --index-url http://index.example/simple \
     --trusted-host index.example --trusted-host files.example --dest out six && ls out";

fn has_pip() -> bool {
    Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output()
        .is_ok_and(|output| output.status.success())
}

#[test]
fn a_policy_that_was_learned_in_one_run_is_enough_for_the_next_and_opens_nothing_else() {
    if !has_pip() {
        eprintln!("skipped: pip is missing");
        return;
    }
    let host = Host::new();
    let _index = package_index(&host);
    let learned = host.exec(&["--learn", "p.yaml"], DOWNLOAD);
    assert_eq!(stdout(&learned), "six-1.0-py3-none-any.whl\n", "{learned:?}");
    assert!(stderr(&learned).contains("p.yaml"), "{learned:?}");
    let policy = fs::read_to_string(host.folder.path().join("p.yaml")).unwrap();
    for part in [
        "matchName: \"index.example\"",
        "matchName: \"files.example\"",
        "{port: \"80\", protocol: TCP}",
    ] {
        assert!(policy.contains(part), "{part} is missing in\n{policy}");
    }
    assert!(
        !policy.contains("INCOMPLETE") && !policy.contains("matchPattern"),
        "{policy}"
    );

    fs::remove_dir_all(host.folder.path().join("out")).unwrap();
    let script = format!(
        "{DOWNLOAD}
        curl -sS --max-time 5 http://other.example/ || echo other: $?
        curl -sS --max-time 5 http://198.51.100.2/ || echo address: $?
        curl -sS --max-time 5 http://203.0.112.80:81/ || echo port: $?"
    );
    let enforced = host.exec(&["--policy", "p.yaml"], &script);
    assert_eq!(
        stdout(&enforced).lines().collect::<Vec<_>>(),
        ["six-1.0-py3-none-any.whl", "other: 6", "address: 7", "port: 7"],
        "{enforced:?}\n{policy}"
    );
}

#[test]
fn addresses_without_a_name_are_learned_and_stay_closed() {
    let host = Host::new();
    let script = "curl -sS --max-time 5 http://198.51.100.2/; curl -sS --max-time 5 http://allowed.example/";
    let learned = host.exec(&["--learn", "p.yaml"], script);
    assert_eq!(
        stdout(&learned),
        "hello from 198.51.100.2\nhello from 198.51.100.1\n",
        "{learned:?}"
    );
    let policy = fs::read_to_string(host.folder.path().join("p.yaml")).unwrap();
    assert!(policy.contains("# - toCIDR: [\"198.51.100.2/32\"]"), "{policy}");
    let enforced = host.exec(
        &["--policy", "p.yaml"],
        "curl -sS --max-time 5 http://198.51.100.2/ || echo $?",
    );
    assert_eq!(stdout(&enforced), "7\n", "{enforced:?}");
}

#[test]
fn what_is_refused_is_said_at_the_end_with_the_flag_that_would_allow_it() {
    let host = Host::new();
    let script = "curl -sS --max-time 5 http://other.example/
        curl -sS --max-time 5 http://198.51.100.2:81/
        exit 3";
    let output = host.exec(&["--allow", "allowed.example", "--report", "report.json"], script);
    assert_eq!(output.status.code(), Some(3));
    let said = stderr(&output);
    for flag in ["--allow other.example", "--allow 198.51.100.2:81"] {
        let of_flag: Vec<_> = said.lines().filter(|line| line.ends_with(flag)).collect();
        assert_eq!(of_flag.len(), 1, "{flag} in {said}");
        assert!(of_flag[0].starts_with("namegate: refused: "), "{said}");
    }
    let report = fs::read_to_string(host.folder.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["names"][0]["name"], "other.example");
    assert_eq!(report["addresses"][0]["address"], "198.51.100.2");

    let quiet = host.exec(&["-q"], script);
    assert!(!stderr(&quiet).contains("refused:"), "{quiet:?}");
    let nothing = host.exec(
        &["--allow", "allowed.example"],
        "curl -sS --max-time 5 http://allowed.example/",
    );
    assert!(!stderr(&nothing).contains("refused"), "{nothing:?}");
    host.assert_untouched();
}

#[test]
fn the_command_can_read_what_was_refused_while_it_runs() {
    let host = Host::new();
    let script = "curl -sS --max-time 5 http://other.example/ 2>/dev/null
        for attempt in $(seq 200); do
            grep -q -e '--allow other.example' \"$NAMEGATE_REPORT\" && echo told && break
            sleep 0.05
        done
        runuser -u nobody -- cat \"$NAMEGATE_REPORT\" | grep -c 'other.example'";
    let output = host.exec(&["-q"], script);
    let text = stdout(&output);
    assert_eq!(text.lines().next(), Some("told"), "{output:?}");
    assert!(
        text.lines().nth(1).is_some_and(|count| count != "0"),
        "others may read it: {output:?}"
    );
}

#[test]
fn ports_networks_files_and_denials_can_be_given() {
    let host = Host::new();
    let list = host.file(
        "allow.txt",
        "# names\ncdn.allowed.example:80  # files\n198.51.100.2:80\n",
    );
    let script = "
        curl -sS --max-time 5 http://allowed.example/
        curl -sS --max-time 5 http://allowed.example:8080/ || echo port: $?
        curl -sS --max-time 5 http://cdn.allowed.example/ || echo cdn: $?
        curl -sS --max-time 5 http://198.51.100.2/";
    let flags = ["--allow", "allowed.example:80", "--allow-file", &list];
    let output = host.exec(&flags, script);
    assert_eq!(
        stdout(&output).lines().collect::<Vec<_>>(),
        [
            "hello from 198.51.100.1",
            "port: 7",
            "hello from 198.51.100.3",
            "hello from 198.51.100.2"
        ],
        "{output:?}"
    );
    let denied = host.exec(&[&flags[..], &["--deny", "cdn.allowed.example"]].concat(), script);
    assert_eq!(stdout(&denied).lines().nth(2), Some("cdn: 6"), "{denied:?}");

    let wrong = host.file("wrong.txt", "a.example\nb..c\n");
    let output = host.exec(&["--allow-file", &wrong], "echo ran");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    assert!(stderr(&output).contains("wrong.txt:2: b..c"), "{output:?}");
}

#[test]
fn a_policy_file_may_hold_other_objects_and_is_read_again_when_it_changes() {
    let host = Host::new();
    let policy = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: beside}}\n---\n\
             apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p}}\n\
             spec:\n  endpointSelector: {{}}\n  egress:\n  - toFQDNs: [{{matchName: {name}}}]\n"
        )
    };
    let file = host.file("policy.yaml", &policy("allowed.example"));
    fs::write(host.folder.path().join("next.yaml"), policy("other.example")).unwrap();
    let script = "
        curl -sS --max-time 5 http://allowed.example/
        curl -sS --max-time 5 http://other.example/ 2>/dev/null || echo other: $?
        mv next.yaml policy.yaml
        for attempt in $(seq 300); do
            curl -sS --max-time 5 http://other.example/ 2>/dev/null && break
            sleep 0.1
        done
        curl -sS --max-time 5 http://allowed.example/ 2>/dev/null || echo allowed: $?";
    let output = host.exec(&["-q", "--policy", &file], script);
    assert_eq!(
        stdout(&output).lines().collect::<Vec<_>>(),
        [
            "hello from 198.51.100.1",
            "other: 6",
            "hello from 198.51.100.2",
            "allowed: 6"
        ],
        "{output:?}"
    );
}
