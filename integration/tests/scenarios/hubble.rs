//! The stock hubble CLI against the agent's observer API.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;

use hickory_proto::rr::RecordType;
use namegate_integration::{Scenario, ip};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

use super::plan;

/// The CLI, built when it is first asked for; `None` where there is no Go.
fn cli() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/build");
    let output = Command::new(script)
        .arg("hubble")
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    if output.status.code() == Some(3) {
        return None;
    }
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap().trim().into())
}

/// How the CLI reaches the agent.
struct HubbleClient {
    binary: PathBuf,
    connection: Vec<String>,
}

impl HubbleClient {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        // Its own configuration is not this test's.
        command.env("HOME", "/nonexistent").env_remove("HUBBLE_SERVER");
        command.args(arguments).args(&self.connection);
        command
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "hubble {arguments:?}: {}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The flows that it is told.
    fn flows(&self, arguments: &[&str]) -> Vec<Value> {
        let text = self.run(&[&["observe", "--output", "jsonpb", "--last", "1000"], arguments].concat());
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .map(|line| line["flow"].clone())
            .filter(|flow| !flow.is_null())
            .collect()
    }
}

fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// Ends what follows, also when the test fails.
struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_stock_cli_shows_flows_denials_audits_and_lookups_with_policy_and_reason() {
    let Some(binary) = cli() else {
        return;
    };
    let audited = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\n\
         metadata: {name: audited, namespace: shop, annotations: {namegate.io/mode: audit}}\n\
         spec:\n  endpointSelector: {matchLabels: {app: pod1}}\n  egress:\n  - {}\n";
    let mut scenario = plan()
        .allow(0, &["a.example"])
        .object("audited.yaml", audited)
        .records(&["a.example 60 A 198.51.100.1"])
        .build();
    let socket = scenario.installation().scratch("hubble.sock");
    scenario.add_flags(&format!("--hubble unix:{}", socket.display()));
    scenario.start();
    let hubble = HubbleClient {
        binary,
        connection: vec!["--server".into(), format!("unix://{}", socket.display())],
    };
    scenario.wait_until("packets are recorded", || {
        scenario.installation().status().unwrap().records.on
    });

    assert!(hubble.run(&["status"]).contains(": Ok"), "{}", hubble.run(&["status"]));
    let nodes = hubble.run(&["list", "nodes"]);
    assert!(nodes.contains("default/") && nodes.contains("Connected"), "{nodes}");

    let follow = hubble
        .command(&["observe", "--follow", "--output", "compact", "--protocol", "dns"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut follow = Follower(follow);
    let lines = BufReader::new(follow.0.stdout.take().unwrap()).lines();
    let (sender, followed) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));

    // Allowed lookups are recorded while somebody follows.
    let mut told = Vec::new();
    scenario.wait_until("the answer is followed", || {
        assert_eq!(scenario.learn(0, "a.example"), ip("198.51.100.1"));
        told.extend(followed.try_iter());
        let is_answer = |line: &String| line.contains("shop/pod0") && line.contains("DNS Answer \"198.51.100.1\"");
        told.iter().any(is_answer)
    });
    scenario.ask(0, "other.example", RecordType::A);
    assert!(scenario.connect(0, ip("198.51.100.2")).is_refused());
    assert!(scenario.connect(1, ip("198.51.100.9")).is_connected());
    scenario.wait_until("the refused question is followed", || {
        told.extend(followed.try_iter());
        let is_refused = |line: &String| line.contains("DROPPED") && line.contains("no toFQDNs selector");
        told.iter().any(is_refused)
    });
    scenario.wait_until("both flows are told", || {
        hubble
            .flows(&["--type", "policy-verdict", "--to-ip", "198.51.100.0/24"])
            .len()
            >= 2
    });

    let denied = hubble.flows(&["--verdict", "DROPPED", "--from-pod", "shop/pod0"]);
    assert_eq!(denied.len(), 2, "{denied:?}");
    for flow in &denied {
        assert_eq!(flow["egress_denied_by"][0]["name"], "allow-pod0", "{flow}");
        assert_eq!(flow["egress_denied_by"][0]["kind"], "CiliumNetworkPolicy", "{flow}");
        assert_eq!(flow["drop_reason_desc"], "POLICY_DENIED", "{flow}");
        assert_eq!(flow["source"]["namespace"], "shop", "{flow}");
    }
    let query = hubble.flows(&["--verdict", "DROPPED", "--protocol", "dns"]);
    assert_eq!(query[0]["l7"]["dns"]["query"], "other.example.", "{query:?}");
    let audits = hubble.flows(&["--verdict", "AUDIT"]);
    assert!(!audits.is_empty());
    assert!(
        audits
            .iter()
            .all(|flow| flow["egress_denied_by"][0]["name"] == "audited"),
        "{audits:?}"
    );
    assert_eq!(hubble.flows(&["--namespace", "elsewhere"]), [Value::Null; 0]);
    assert_eq!(hubble.flows(&["--from-label", "app=pod0", "--port", "443"]).len(), 1);

    let printed = hubble.run(&[
        "observe",
        "--print-policy-names",
        "--output",
        "compact",
        "--type",
        "policy-verdict",
    ]);
    for part in [
        "shop/pod0",
        "EGRESS DENIED BY allow-pod0 (CiliumNetworkPolicy)",
        "AUDITED BY audited (CiliumNetworkPolicy)",
    ] {
        assert!(printed.contains(part), "{part} is missing in\n{printed}");
    }
    let namespaces = hubble.run(&["list", "namespaces"]);
    assert!(namespaces.contains("shop"), "{namespaces}");

    // What is not known here is an error, and no list of everything.
    let output = hubble
        .command(&["observe", "--from-service", "shop/db"])
        .output()
        .unwrap();
    assert!(
        !output.status.success() && said(&output).contains("services"),
        "{}",
        said(&output)
    );
}

/// The files of an authority, and of a certificate that it has issued.
fn issue(directory: &Path, name: &str) -> [String; 3] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["hubble.example".to_owned()])
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let write = |kind: &str, text: String| {
        let path = directory.join(format!("{name}-{kind}.pem"));
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    [
        write("ca", authority.pem()),
        write("cert", certificate.pem()),
        write("key", key.serialize_pem()),
    ]
}

#[test]
fn a_port_is_for_clients_with_a_certificate_alone() {
    let Some(binary) = cli() else {
        return;
    };
    let mut scenario = plan().allow(0, &["a.example"]).build();
    let directory = scenario.installation().scratch("tls");
    fs::create_dir_all(&directory).unwrap();
    let [server_ca, server_cert, server_key] = issue(&directory, "server");
    let [client_ca, client_cert, client_key] = issue(&directory, "client");
    scenario.add_flags(&format!(
        "--hubble 127.0.0.1:4244 --hubble-tls-cert {server_cert} --hubble-tls-key {server_key} \
         --hubble-tls-client-ca {client_ca}"
    ));
    scenario.start();
    let ask = |scenario: &Scenario, certificate: &[&str]| {
        let hubble = HubbleClient {
            binary: binary.clone(),
            connection: Vec::new(),
        };
        let inner = hubble.command(&["status"]);
        let mut command = scenario.lab().node().command(inner.get_program());
        command.args(inner.get_args()).env("HOME", "/nonexistent");
        command.args([
            "--server",
            "tls://127.0.0.1:4244",
            "--tls-server-name",
            "hubble.example",
        ]);
        command.args(["--tls-ca-cert-files", &server_ca]).args(certificate);
        command.output().unwrap()
    };
    let own = [
        "--tls-client-cert-file",
        &client_cert,
        "--tls-client-key-file",
        &client_key,
    ];
    let answered = ask(&scenario, &own);
    assert!(answered.status.success(), "{}", said(&answered));
    let stranger = [
        "--tls-client-cert-file",
        &server_cert,
        "--tls-client-key-file",
        &server_key,
    ];
    assert!(!ask(&scenario, &stranger).status.success());
    assert!(!ask(&scenario, &[]).status.success());
}
