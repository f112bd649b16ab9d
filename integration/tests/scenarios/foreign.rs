//! Other people's resolvers and clients: NSD, unbound, dig, curl.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::LookupTransport;
use lab::process::find_program;
use lab::{BAD_RESOLVER, RESOLVER, dns};
use namegate_integration::{Scenario, ip, wait_until};

use super::plan;

/// A child process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nsd_serves_as_upstream() {
    let Some(nsd) = installed("nsd", "nsd") else { return };
    let scenario = governed_with_upstream();
    let zone = scenario.installation().scratch("example.zone");
    std::fs::write(&zone, ZONE).unwrap();
    let directory = zone.parent().unwrap().display();
    let config = format!(
        "server:\n  ip-address: {BAD_RESOLVER}\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  zonesdir: \"{directory}\"\n  \
         database: \"\"\n  zonelistfile: \"{directory}/zone.list\"\n  xfrdfile: \"{directory}/xfrd.state\"\n  xfrdir: \"{directory}\"\n\
         remote-control:\n  control-enable: no\nzone:\n  name: example\n  zonefile: example.zone\n"
    );
    serve_and_check(scenario, &nsd, &config);
}

#[test]
fn unbound_serves_as_upstream() {
    let Some(unbound) = installed("unbound", "unbound") else {
        return;
    };
    let scenario = governed_with_upstream();
    let zone = scenario.installation().scratch("example.zone");
    std::fs::write(&zone, ZONE).unwrap();
    let config = format!(
        "server:\n  interface: {BAD_RESOLVER}\n  access-control: 10.0.0.0/8 allow\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  do-daemonize: no\n  module-config: iterator\n\
         remote-control:\n  control-enable: no\nauth-zone:\n  name: example\n  zonefile: \"{}\"\n  for-downstream: no\n  for-upstream: yes\n",
        zone.display()
    );
    serve_and_check(scenario, &unbound, &config);
}

#[test]
fn dig_and_curl_see_what_pods_should_see() {
    let (Some(_), Some(_)) = (installed("dig", "bind9-dnsutils"), installed("curl", "curl")) else {
        return;
    };
    let scenario = plan()
        .allow(0, &["api.example"])
        .records(&["api.example 60 A 198.51.100.7", "other.example 60 A 198.51.100.8"])
        .start();
    let server = RESOLVER.to_string();
    let run = |program: &str, arguments: &[&str]| {
        let output = scenario
            .pod_command(0, &server, "", program)
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    };
    for transport in ["+notcp", "+tcp"] {
        let at = format!("@{server}");
        let (_, text) = run("dig", &[&at, transport, "api.example"]);
        assert!(
            text.contains("status: NOERROR") && text.contains("198.51.100.7"),
            "{text}"
        );
        assert!(text.contains(&format!("SERVER: {server}#53")), "{text}");
        let (_, text) = run("dig", &[&at, transport, "other.example"]);
        assert!(
            text.contains("status: NXDOMAIN") && text.contains("EDE: 15 (Blocked)"),
            "{text}"
        );
    }
    let curl = |name: &str| {
        run(
            "curl",
            &["-sS", "-4", "--max-time", "5", &format!("http://{name}:443/")],
        )
    };
    assert_eq!(curl("api.example"), (Some(0), "hello from 198.51.100.7\n".into()));
    assert_eq!(curl("other.example").0, Some(6), "curl: could not resolve host");
    assert_eq!(curl("198.51.100.8").0, Some(7), "curl: failed to connect");
}

const ZONE: &str = "$ORIGIN example.\n$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 5\n@ NS ns\nns A 10.53.0.77\n\
    api A 198.51.100.7\nwww CNAME api\nwide AAAA 2001:db8:7::7\n";

fn governed_with_upstream() -> Scenario {
    plan()
        .upstreams(&[&BAD_RESOLVER.to_string()])
        .allow(0, &["api.example", "www.example", "wide.example", "none.example"])
        .start()
}

fn serve_and_check(scenario: Scenario, server: &Path, config: &str) {
    let file = scenario.installation().scratch("server.conf");
    std::fs::write(&file, config).unwrap();
    let namespace = scenario.lab().resolver_namespace();
    let mut command = namespace.command(server);
    command
        .arg("-d")
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _running = Running(command.spawn().unwrap());
    // The pod that nobody governs asks the server itself.
    wait_until("the server answers", || {
        ask(&scenario, 1, "api.example").is_ok_and(|code| code == ResponseCode::NoError)
    });

    let at = |name, kind| {
        scenario
            .pod(0)
            .resolve(dns(BAD_RESOLVER), name, kind, LookupTransport::Udp)
            .unwrap()
    };
    assert_eq!(at("api.example", RecordType::A).addresses(), [ip("198.51.100.7")]);
    assert_eq!(at("www.example", RecordType::A).aliases(), ["api.example."]);
    assert_eq!(at("wide.example", RecordType::AAAA).addresses(), [ip("2001:db8:7::7")]);
    assert_eq!(at("none.example", RecordType::A).code(), ResponseCode::NXDomain);
    assert!(scenario.connect(0, ip("198.51.100.7")).is_connected());
    assert!(scenario.connect(0, ip("2001:db8:7::7")).is_connected());
    assert!(scenario.connect(0, ip("198.51.100.8")).is_refused());
}

fn ask(scenario: &Scenario, pod: usize, name: &str) -> io::Result<ResponseCode> {
    let reply = scenario
        .pod(pod)
        .resolve(dns(BAD_RESOLVER), name, RecordType::A, LookupTransport::Udp)?;
    Ok(reply.code())
}

fn installed(program: &str, package: &str) -> Option<PathBuf> {
    let found = find_program(program);
    if found.is_none() {
        eprintln!("skipped: {program} is not installed (package {package})");
    }
    found
}
