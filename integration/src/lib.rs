//! End-to-end scenarios: a lab (see [`lab`]) and a real agent process in it.
//!
//! The scenarios themselves are in `tests/`. They need root, `nft` and `ip`; `./test` at the top
//! installs what is missing.

pub mod administrator;
pub mod browser;
mod built;
pub mod cluster;
pub mod cluster_role;
pub mod container;
pub mod control_plane;
pub mod kube_proxy;
pub mod node;
pub mod suites;

use std::fmt::Display;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use api::NameRow;
use hickory_proto::rr::RecordType;
use lab::client::{ConnectAttempt, DnsReply, LookupTransport};
use lab::process::{AgentProcess, Installation, PATIENCE, is_root, succeed};
use lab::{Lab, Pod, RESOLVER, RESOLVER6, Topology, dns};

/// A lab with an agent on its node. Everything panics with what went wrong, since it is only used
/// by tests.
///
/// When it is dropped, the test fails if an agent has logged at ERROR without
/// [`expect_errors`](Scenario::expect_errors).
#[derive(Debug)]
pub struct Scenario {
    agent: Option<AgentProcess>,
    installation: Installation,
    lab: Lab,
    flags: Vec<String>,
    expected_errors: Vec<String>,
    /// The lines that ended agents have logged at ERROR.
    past_errors: Vec<String>,
    /// All lines that ended agents have logged.
    past_log: Vec<String>,
}

/// The options of a [`Scenario`].
#[derive(Debug)]
pub struct ScenarioBuilder {
    binary: String,
    pods: u8,
    topology: Topology,
    flags: Vec<String>,
    upstreams: Vec<String>,
    objects: Vec<(String, String)>,
    records: Vec<String>,
}

impl ScenarioBuilder {
    /// Two routed pods, `shop/pod0` and `shop/pod1`, and the lab's resolver as upstream over both
    /// families.
    pub fn new(binary: &str) -> Self {
        Self {
            binary: binary.to_owned(),
            pods: 2,
            topology: Topology::Routed,
            flags: Vec::new(),
            upstreams: vec![RESOLVER.to_string(), RESOLVER6.to_string()],
            objects: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Sets the number of pods.
    pub fn pods(mut self, pods: u8) -> Self {
        self.pods = pods;
        self
    }

    /// Sets how pods reach the node.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Sets the upstreams, in place of the lab's resolver.
    pub fn upstreams(mut self, upstreams: &[&str]) -> Self {
        self.upstreams = upstreams.iter().map(ToString::to_string).collect();
        self
    }

    /// Adds flags of `namegate agent`, separated by spaces.
    pub fn flags(mut self, flags: &str) -> Self {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    /// Adds a file to the directory of objects.
    pub fn object(mut self, file: &str, text: impl Into<String>) -> Self {
        self.objects.push((file.to_owned(), text.into()));
        self
    }

    /// Lets pod `index` reach these names, over TCP and UDP on every port that the internet serves.
    pub fn allow(self, index: usize, names: &[&str]) -> Self {
        let file = format!("allow-pod{index}.yaml");
        self.object(&file, allow(index, names))
    }

    /// Adds records to the resolver.
    pub fn records(mut self, lines: &[&str]) -> Self {
        self.records.extend(lines.iter().map(ToString::to_string));
        self
    }

    /// Builds the lab, without starting an agent.
    pub fn build(self) -> Scenario {
        assert!(
            is_root(),
            "the scenarios need root: run ./test, or cargo test under sudo"
        );
        let lab = Lab::builder()
            .pods(self.pods)
            .topology(self.topology)
            .build()
            .unwrap_or_else(fail("the lab"));
        let installation = Installation::new(&self.binary, lab.node()).unwrap_or_else(fail("the agent's directories"));
        let records: Vec<&str> = self.records.iter().map(String::as_str).collect();
        lab.resolver().set(&records).unwrap_or_else(fail("the records"));
        let mut flags = self.flags;
        for upstream in self.upstreams {
            flags.extend(["--upstream".to_owned(), upstream]);
        }
        let scenario = Scenario {
            agent: None,
            installation,
            lab,
            flags,
            expected_errors: Vec::new(),
            past_errors: Vec::new(),
            past_log: Vec::new(),
        };
        let pods: Vec<String> = (0..)
            .zip(scenario.lab.pods())
            .map(|(index, pod)| manifest(index, pod))
            .collect();
        scenario.write("pods.yaml", &pods.join("---\n"));
        for (file, text) in &self.objects {
            scenario.write(file, text);
        }
        scenario
    }

    /// Builds the lab, starts an agent, and waits until it is ready.
    pub fn start(self) -> Scenario {
        let mut scenario = self.build();
        scenario.start();
        scenario
    }
}

impl Scenario {
    /// Starts an agent, and waits until it is ready.
    pub fn start(&mut self) {
        assert!(self.agent.is_none(), "an agent is running already");
        self.start_unready();
        let agent = self.agent.as_mut().expect("it was started");
        agent.wait_ready().unwrap_or_else(fail("waiting for the agent"));
    }

    /// Starts an agent beside the one that runs, waits until it is ready, and ends the old one by
    /// SIGTERM: an upgrade.
    pub fn upgrade(&mut self) {
        let old = self.agent.take();
        self.flags.push("--take-over".to_owned());
        self.start();
        self.flags.pop();
        let new = std::mem::replace(&mut self.agent, old);
        self.terminate();
        self.agent = new;
    }

    /// From now on agents that are started run this script in place of a program.
    pub fn replace_program(&mut self, program: &str, script: &str) {
        let stands_in = self.installation.replace_program(program, script);
        stands_in.unwrap_or_else(fail("a script in place of a program"));
    }

    /// Starts an agent that may not be ready soon.
    pub fn start_unready(&mut self) {
        let agent = self.installation.start(&self.flags);
        self.agent = Some(agent.unwrap_or_else(fail("starting the agent")));
    }

    /// From now on agents take their objects from a cluster, in which they are on the node of this
    /// name.
    pub fn watch_cluster(&mut self, kubeconfig: &Path, node: &str) {
        self.installation.watch_cluster(kubeconfig, node);
    }

    /// From now on agents have these flags too, separated by spaces.
    pub fn add_flags(&mut self, flags: &str) {
        self.flags.extend(flags.split_whitespace().map(str::to_owned));
    }

    /// Kills the agent as `kill -9` does, and waits for its end.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().expect("an agent is running");
        agent.kill().unwrap_or_else(fail("kill -9"));
        self.past_errors.extend(agent.errors());
        self.past_log.extend(agent.log());
    }

    /// SIGTERM, and the agent's end with exit code 0.
    pub fn terminate(&mut self) {
        let mut agent = self.agent.take().expect("an agent is running");
        let status = agent.terminate().unwrap_or_else(fail("SIGTERM"));
        assert!(
            status.success(),
            "after SIGTERM the agent ended with {status}\n{}",
            agent.log().join("\n")
        );
        self.past_errors.extend(agent.errors());
        self.past_log.extend(agent.log());
    }

    /// The running agent.
    pub fn agent(&self) -> &AgentProcess {
        self.agent.as_ref().expect("an agent is running")
    }

    /// Starts an agent beside the one that runs, on the same directories. It may not get ready.
    pub fn start_second(&self) -> AgentProcess {
        let agent = self.installation.start(&self.flags);
        agent.unwrap_or_else(fail("starting a second agent"))
    }

    /// Starts an agent in a time namespace of its own (`unshare --time`), and waits until it is
    /// ready. `offsets` says how its clocks differ from the kernel's, for example
    /// `--boottime 86400`.
    pub fn start_in_time(&mut self, offsets: &str) {
        assert!(self.agent.is_none(), "an agent is running already");
        let agent = self.installation.start_in_time(offsets, &self.flags);
        let agent = self.agent.insert(agent.unwrap_or_else(fail("starting the agent")));
        agent.wait_ready().unwrap_or_else(fail("waiting for the agent"));
    }

    /// What the agents have logged so far: those that ended, then the one that runs.
    pub fn log(&self) -> Vec<String> {
        let running = self.agent.as_ref().map(AgentProcess::log).unwrap_or_default();
        self.past_log.iter().cloned().chain(running).collect()
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> io::Result<String> {
        Ok(self.agent().http("/metrics")?.1)
    }

    /// The lab that the agent runs in.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// Pod `index`.
    pub fn pod(&self, index: usize) -> &Pod {
        self.lab.pod(index)
    }

    /// The agent's directories and verbs.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Lines at ERROR that contain `text` are part of the scenario.
    pub fn expect_errors(&mut self, text: &str) {
        self.expected_errors.push(text.to_owned());
    }

    /// Writes an object file.
    pub fn write(&self, file: &str, text: &str) {
        self.installation.write_object(file, text).unwrap_or_else(fail(file));
    }

    /// Removes an object file.
    pub fn remove(&self, file: &str) {
        self.installation.remove_object(file).unwrap_or_else(fail(file));
    }

    /// Replaces what [`ScenarioBuilder::allow`] wrote.
    pub fn allow(&self, index: usize, names: &[&str]) {
        self.write(&format!("allow-pod{index}.yaml"), &allow(index, names));
    }

    /// Replaces record sets of the resolver.
    pub fn set(&self, lines: &[&str]) {
        self.lab.resolver().set(lines).unwrap_or_else(fail("the records"));
    }

    /// Asks the resolver for a name, over UDP and IPv4.
    pub fn ask(&self, pod: usize, name: &str, kind: RecordType) -> DnsReply {
        self.try_ask(pod, name, kind).unwrap_or_else(fail(name))
    }

    /// As [`ask`](Scenario::ask), where no answer is an answer too.
    pub fn try_ask(&self, pod: usize, name: &str, kind: RecordType) -> io::Result<DnsReply> {
        self.pod(pod).resolve(dns(RESOLVER), name, kind, LookupTransport::Udp)
    }

    /// Resolves `name` over IPv4, and gives its first address.
    pub fn learn(&self, pod: usize, name: &str) -> IpAddr {
        let reply = self.ask(pod, name, RecordType::A);
        reply
            .address()
            .unwrap_or_else(|| panic!("{name} has no address: {:?}", reply.message))
    }

    /// Waits until what was learned about `name` would survive a crash: the agent saves its ledger
    /// every half second or so.
    pub fn wait_saved(&self, name: &str) {
        self.wait_until("the ledger is on disk", || {
            self.installation
                .has_saved(name)
                .unwrap_or_else(fail("the state directory"))
        });
    }

    /// Waits until an object in force that speaks of `text` would survive a crash as a last good
    /// version.
    pub fn wait_kept(&self, text: &str) {
        self.wait_until("the objects in force are on disk", || {
            self.installation
                .has_kept(text)
                .unwrap_or_else(fail("the state directory"))
        });
    }

    /// The states that `namegate status` reports for a file: its own, if something is to be said of
    /// it, and its objects'.
    pub fn states(&self, file: &str) -> Vec<String> {
        let status = self.installation.status().unwrap_or_else(fail("namegate status"));
        let rows = status
            .reports
            .into_iter()
            .filter(|row| row.file.as_deref().is_some_and(|path| path.ends_with(file)));
        rows.map(|row| row.state).collect()
    }

    /// Tries to connect from a pod to port 443.
    pub fn connect(&self, pod: usize, to: impl Into<IpAddr>) -> ConnectAttempt {
        self.pod(pod).connect(to, 443).unwrap_or_else(fail("connecting"))
    }

    /// Waits until `condition` holds. It is tried again and again until [`PATIENCE`] is over.
    pub fn wait_until(&self, what: &str, condition: impl FnMut() -> bool) -> Duration {
        wait_until(what, condition)
    }

    /// The live leases of a name.
    pub fn leases(&self, name: &str) -> Vec<NameRow> {
        let rows = self.installation.names().unwrap_or_else(fail("namegate names"));
        rows.into_iter().filter(|row| row.name == name).collect()
    }

    /// Feeds a script to `nft` on the node.
    pub fn nft(&self, script: &str) -> String {
        let mut command = self.lab.node().command("nft");
        let output = succeed(command.arg(script)).unwrap_or_else(fail("nft"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs a shell script on the node, and gives what it prints.
    pub fn shell(&self, script: &str) -> String {
        let mut command = self.lab.node().command("sh");
        let output = succeed(command.args(["-ec", script])).unwrap_or_else(fail("sh"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// `namegate cleanup`, which must succeed.
    pub fn cleanup(&self) {
        let output = self.installation.cleanup().unwrap_or_else(fail("namegate cleanup"));
        assert!(output.status.success(), "namegate cleanup: {output:?}");
    }

    /// A command in a pod, with the lab's resolver in a `resolv.conf` of its own (`search` may be
    /// empty) and no other source of names.
    pub fn pod_command(&self, pod: usize, nameserver: &str, search: &str, program: &str) -> Command {
        let resolv = self.installation.scratch("resolv.conf");
        let nsswitch = self.installation.scratch("nsswitch.conf");
        let mut text = format!("nameserver {nameserver}\n");
        if !search.is_empty() {
            text.push_str(&format!("search {search}\noptions ndots:5\n"));
        }
        std::fs::write(&resolv, text).unwrap_or_else(fail("resolv.conf"));
        std::fs::write(&nsswitch, "hosts: dns\n").unwrap_or_else(fail("nsswitch.conf"));
        // Private mounts: the host's files stay what they are.
        let mut command = self.pod(pod).namespace().command("unshare");
        let script = r#"mount --bind "$1" /etc/resolv.conf; mount --bind "$2" /etc/nsswitch.conf; shift 2; exec "$@""#;
        command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
        command.arg(resolv).arg(nsswitch).arg(program);
        command
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let running = self.agent.as_ref().map(AgentProcess::errors).unwrap_or_default();
        let expected = |line: &String| self.expected_errors.iter().any(|text| line.contains(text));
        let errors: Vec<String> = self
            .past_errors
            .drain(..)
            .chain(running)
            .filter(|line| !expected(line))
            .collect();
        if thread::panicking() {
            if let Some(agent) = &self.agent {
                eprintln!("the agent's log:\n{}", agent.log().join("\n"));
            }
        } else {
            assert!(errors.is_empty(), "the agent logged at ERROR:\n{}", errors.join("\n"));
        }
    }
}

/// Waits until `condition` holds. Returns how long it took.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) -> Duration {
    patience::wait(PATIENCE, Duration::from_millis(10), condition)
        .unwrap_or_else(|| panic!("waited in vain until {what}"))
}

/// Sets a flag when it is dropped, so that client threads end also when the test fails: a thread
/// scope waits for its threads.
#[derive(Debug)]
pub struct SetOnDrop<'a>(pub &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A CiliumNetworkPolicy with which pod `index` may reach these names. A name with a star is a
/// pattern.
pub fn allow(index: usize, names: &[&str]) -> String {
    let selector = |name: &&str| {
        let kind = if name.contains('*') {
            "matchPattern"
        } else {
            "matchName"
        };
        format!("    - {kind}: '{name}'\n")
    };
    let names: String = names.iter().map(selector).collect();
    policy(
        &format!("allow-pod{index}"),
        index,
        &format!(
            "  egress:\n  - toFQDNs:\n{names}    toPorts:\n    - ports: [{{port: '443'}}, {{port: '9'}}, {{port: '4000'}}]\n"
        ),
    )
}

/// A CiliumNetworkPolicy in namespace `shop` with which every pod may reach the names of these
/// `toFQDNs` selectors on one TCP port.
pub fn fqdn_policy(name: &str, selectors: &str, port: u16) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{}}\n  egress:\n  - toFQDNs: [{selectors}]\n    toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]\n"
    )
}

/// A CiliumNetworkPolicy in namespace `shop` for pod `index`; `rules` is the YAML of `egress` and
/// `egressDeny`, indented by two.
pub fn policy(name: &str, index: usize, rules: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: pod{index}}}}}\n{rules}"
    )
}

/// Parses an address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is not an address"))
}

fn manifest(index: usize, pod: &Pod) -> String {
    let (v4, v6): (Ipv4Addr, Ipv6Addr) = (pod.address4(), pod.address6());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod{index}, namespace: shop, labels: {{app: pod{index}}}}}\nspec: {{containers: [{{name: main, image: none}}]}}\n\
         status: {{podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}\n"
    )
}

fn fail<T, E: Display>(what: &str) -> impl FnOnce(E) -> T {
    let what = what.to_owned();
    move |error| panic!("{what}: {error}")
}
