//! `namegate exec` as its users run it, on the lab's node. Needs root and `nft`, `curl`, `dig`.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

#[path = "exec/confinement.rs"]
mod confinement;
#[path = "exec/learn.rs"]
mod learn;
#[path = "exec/outside.rs"]
mod outside;
#[path = "exec/requests.rs"]
mod requests;
#[path = "exec/terminal.rs"]
mod terminal;

use lab::{Lab, RESOLVER};
use netns::{LinkAddress, Namespace};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn an_allowed_name_is_reached_and_nothing_else_is() {
    let host = Host::new();
    let script = "
        curl -sS --max-time 5 http://allowed.example/
        curl -sS --max-time 5 http://cdn.allowed.example/
        curl -sS --max-time 5 http://other.example/ || echo other: $?
        curl -sS --max-time 5 http://198.51.100.2/ || echo address: $?";
    let output = host.exec(&["--allow", "allowed.example", "--allow", "*.allowed.example"], script);
    let text = stdout(&output);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "hello from 198.51.100.1",
            "hello from 198.51.100.3",
            // 6: the name cannot be resolved; 7: cannot connect.
            "other: 6",
            "address: 7",
        ],
        "{output:?}"
    );
    assert_eq!(host.lab.resolver().asked("other.example"), 0, "nobody was asked");
    host.assert_untouched();
}

#[test]
fn a_denied_lookup_says_why() {
    let host = Host::new();
    let output = host.exec(&["--allow", "allowed.example"], "dig other.example");
    let text = stdout(&output);
    assert!(text.contains("status: NXDOMAIN"), "{text}");
    assert!(text.contains("EDE: 15"), "{text}");
}

#[test]
fn without_an_allowance_everything_is_closed_the_host_too() {
    let host = Host::new();
    let addresses = host.lab.node().addresses().unwrap();
    let uplink = |address: &&LinkAddress| address.link == "internet" && address.address.addr().is_ipv4();
    let node = addresses.iter().find(uplink).unwrap().address.addr();
    let _listener = host
        .lab
        .node()
        .run(|| std::net::TcpListener::bind("0.0.0.0:8080").unwrap())
        .unwrap();
    let script = format!(
        "curl -sS --max-time 5 http://allowed.example/ || echo name: $?
         gateway=$(sed -n 's/nameserver //p' /etc/resolv.conf | head -1)
         for host in {node} $gateway; do curl -sS --max-time 5 http://$host:8080/ || echo host: $?; done"
    );
    let output = host.exec(&[], &script);
    assert_eq!(stdout(&output), "name: 6\nhost: 7\nhost: 7\n", "{output:?}");
}

#[test]
fn policies_of_files_apply_as_they_are_written() {
    let host = Host::new();
    let policy = "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: checkout}}
  egress:
  - toFQDNs: [{matchName: allowed.example}]
    toPorts: [{ports: [{port: '80', protocol: TCP}]}]
";
    let file = host.file("policy.yaml", policy);
    let script = "
        curl -sS --max-time 5 http://allowed.example/
        curl -sS --max-time 5 http://allowed.example:8080/ || echo port: $?";
    let output = host.exec(&["--policy", &file, "--label", "app=checkout"], script);
    assert_eq!(stdout(&output), "hello from 198.51.100.1\nport: 7\n", "{output:?}");

    let output = host.exec(&["--policy", &file], "curl -sS --max-time 5 http://allowed.example/");
    assert_eq!(output.status.code(), Some(6), "it does not select the sandbox");
    assert!(stderr(&output).contains("does not select"), "{output:?}");
}

#[test]
fn a_policy_that_is_wrong_ends_it_before_anything_is_made() {
    let host = Host::new();
    let file = host.file(
        "policy.yaml",
        "
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchName: '*.example'}]
",
    );
    let output = host.exec(&["--policy", &file], "echo ran");
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(2), ""));
    assert!(stderr(&output).contains("policy.yaml:8:"), "{output:?}");

    let output = host.exec(&["--policy", "no-such-file.yaml"], "echo ran");
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no-such-file.yaml"), "{output:?}");
}

#[test]
fn ipv6_works_where_the_host_has_it() {
    let host = Host::new();
    let node = host.lab.node();
    let routes = node.routes().unwrap();
    let internet = "2001:db8::/32".parse().unwrap();
    let route = routes.into_iter().find(|route| route.destination == internet).unwrap();
    node.add_route("::/0".parse().unwrap(), route.via, &route.link.unwrap())
        .unwrap();
    let output = host.exec(
        &["--allow", "six.example"],
        "curl -sS --max-time 5 http://six.example/; curl -sS --max-time 5 'http://[2001:db8:7::8]/' || echo other: $?",
    );
    assert_eq!(stdout(&output), "hello from 2001:db8:7::7\nother: 7\n", "{output:?}");
}

#[test]
fn a_name_opens_nothing_in_the_hosts_own_network_unless_it_is_told_to() {
    let host = Host::new();
    let lan = Namespace::new().unwrap();
    host.lab.node().connect("lan", &lan, "eth0").unwrap();
    host.lab
        .node()
        .add_address("lan", "192.168.77.1/24".parse().unwrap())
        .unwrap();
    lan.add_address("eth0", "192.168.77.2/24".parse().unwrap()).unwrap();
    lan.add_route("0.0.0.0/0".parse().unwrap(), "192.168.77.1".parse().ok(), "eth0")
        .unwrap();
    let listener = lan
        .run(|| std::net::TcpListener::bind("192.168.77.2:80").unwrap())
        .unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let answer = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nprinter"[..].to_vec();
            connection.unwrap().write_all(&answer).unwrap();
        }
    });
    host.lab.resolver().set(&["printer.example 60 A 192.168.77.2"]).unwrap();
    let fetch = |flags: &[&str]| {
        let flags = [&["--allow", "printer.example"], flags].concat();
        host.exec(&flags, "curl -sS --max-time 5 http://printer.example/")
    };
    let closed = fetch(&[]);
    assert_eq!(closed.status.code(), Some(7), "it resolves, and is refused: {closed:?}");
    assert!(stderr(&closed).contains("private address"), "{closed:?}");
    assert!(stderr(&closed).contains("--allow-rebind"), "{closed:?}");
    for flags in [["--allow-rebind", "192.168.77.0/24"], ["--private-addresses", "allow"]] {
        assert_eq!(stdout(&fetch(&flags)), "print", "{flags:?}");
    }
}

#[test]
fn exit_codes_are_the_commands_or_a_shells() {
    let host = Host::new();
    assert_eq!(host.exec(&[], "exit 7").status.code(), Some(7));
    assert_eq!(host.exec(&[], "kill -TERM $$").status.code(), Some(128 + 15));
    let output = host.command(&["--", "no-such-command"]).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(
        stderr(&output).contains("no-such-command: command not found"),
        "{output:?}"
    );
    host.assert_untouched();
}

#[test]
fn without_privileges_it_says_what_to_do() {
    let output = Command::new("setpriv")
        .args([
            "--bounding-set=-all",
            "--inh-caps=-all",
            env!("CARGO_BIN_EXE_namegate"),
            "exec",
            "--",
            "true",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("sudo namegate exec"), "{output:?}");
}

#[test]
fn a_signal_ends_the_command_and_all_is_cleaned_up() {
    let host = Host::new();
    let script = "trap 'exit 9' TERM; echo ready; while :; do :; done";
    let mut process = host.start_ready(&[], script);
    kill_process(Pid::from_child(&process), Signal::TERM).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(9));
    host.assert_untouched();
}

#[test]
fn after_sigkill_the_command_is_gone_and_the_guard_cleans_up() {
    let host = Host::new();
    let process = host.start_ready(&["--allow", "allowed.example"], "echo ready; exec sleep 1000");
    kill_and_wait(process);
    while !host.is_untouched() {
        std::thread::yield_now();
    }
}

#[test]
fn two_run_side_by_side() {
    let host = Host::new();
    let mut first = host
        .command(&[
            "--allow",
            "allowed.example",
            "--",
            "sh",
            "-c",
            "echo ready; read line; curl -sS --max-time 5 http://allowed.example/",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    first_line(first.stdout.as_mut().unwrap());
    let second = host.exec(
        &["--allow", "other.example"],
        "curl -sS --max-time 5 http://other.example/",
    );
    assert_eq!(stdout(&second), "hello from 198.51.100.2\n");
    // Its input ends, and it goes on.
    drop(first.stdin.take());
    let first = first.wait_with_output().unwrap();
    assert_eq!(stdout(&first), "hello from 198.51.100.1\n");
    host.assert_untouched();
}

/// The lab's node as the host, forwarding nothing of its own, with names on the internet.
struct Host {
    lab: Lab,
    links: Vec<String>,
    /// Addresses and rules of routing.
    routing: String,
    folder: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let lab = Lab::builder().pods(0).build().unwrap();
        lab.resolver()
            .set(&[
                "allowed.example 60 A 198.51.100.1",
                "other.example 60 A 198.51.100.2",
                "cdn.allowed.example 60 A 198.51.100.3",
                "six.example 60 AAAA 2001:db8:7::7",
            ])
            .unwrap();
        lab.node().set_sysctl("ipv4/conf/all/forwarding", "0").unwrap();
        Self {
            links: lab.node().links().unwrap(),
            routing: routing(lab.node()),
            folder: tempfile::tempdir().unwrap(),
            lab,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.node().command(env!("CARGO_BIN_EXE_namegate"));
        command
            .arg("exec")
            .args(["--upstream", &RESOLVER.to_string()])
            .args(arguments);
        // A proxy of the machine's environment is for another network.
        command.env_remove("http_proxy").env_remove("all_proxy");
        command.current_dir(&self.folder);
        command
    }

    fn exec(&self, flags: &[&str], script: &str) -> Output {
        self.command(&[flags, &["--", "sh", "-c", script]].concat())
            .output()
            .unwrap()
    }

    /// Starts `namegate exec`, and waits until the script has printed "ready".
    fn start_ready(&self, flags: &[&str], script: &str) -> Child {
        let mut process = self
            .command(&[flags, &["--", "sh", "-c", script]].concat())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        first_line(process.stdout.as_mut().unwrap());
        process
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path: &Path = &self.folder.path().join(name);
        fs::write(path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn is_untouched(&self) -> bool {
        let node = self.lab.node();
        let tables = node.command("nft").args(["list", "tables"]).output().unwrap();
        assert!(tables.status.success());
        let forwarding = self.links.iter().any(|link| {
            let value = node.sysctl(&format!("ipv4/conf/{link}/forwarding")).unwrap();
            value != "0"
        });
        tables.stdout.is_empty() && node.links().unwrap() == self.links && routing(node) == self.routing && !forwarding
    }

    fn assert_untouched(&self) {
        assert_eq!(routing(self.lab.node()), self.routing);
        assert!(self.is_untouched());
    }
}

/// The addresses of `lo`, and the rules of routing.
fn routing(node: &Namespace) -> String {
    let shown = ["-o address show dev lo", "-4 rule", "-6 rule"].map(|arguments| {
        let output = node.command("ip").args(arguments.split(' ')).output().unwrap();
        stdout(&output)
    });
    shown.concat()
}

/// Kills `namegate exec` by SIGKILL, and waits for the end of everything that it has started: the
/// pipe ends with its last holder.
fn kill_and_wait(mut process: Child) {
    let mut output = process.stdout.take().unwrap();
    kill_process(Pid::from_child(&process), Signal::KILL).unwrap();
    process.wait().unwrap();
    output.read_to_end(&mut Vec::new()).unwrap();
}

fn first_line(output: &mut impl Read) {
    // Of one byte, so that nothing behind the line is taken.
    let mut line = String::new();
    BufReader::with_capacity(1, output).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
