//! The peers, on the same node, asking the same NSD.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};

use lab::NODE4;

use crate::agents::{ALLOWED, Node, Server};
use crate::zone::{UPSTREAM, Zone};

pub(crate) struct Peer {
    pub(crate) server: SocketAddr,
    process: Server,
}

impl Peer {
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }
}

/// The work of the peer that most is compared with: dnsdist, which forwards every query.
pub(crate) const FORWARDING: &str = "dnsdist forwarding";

/// The works of those that are built here, from their Go modules, and what builds them.
pub(crate) const BUILT: [(&str, &str); 2] = [
    ("CoreDNS forwarding", "coredns"),
    ("Cilium's DNS proxy", "cilium-dns-proxy"),
];

/// Those that are installed or can be built, by the work that they do, where that is wanted.
pub(crate) fn start(node: &Node, zone: &Zone, wants: impl Fn(&str) -> bool) -> BTreeMap<&'static str, Peer> {
    let mut peers = BTreeMap::new();
    let mut start = |work, port: u16, program: &str, arguments: &[&str]| {
        if !wants(work) {
            return;
        }
        let Some(process) = Server::start(node.lab.node(), program, arguments) else {
            eprintln!("{program} is not installed; without it the row {work:?} is left out");
            return;
        };
        let server = SocketAddr::new(IpAddr::V4(NODE4), port);
        node.wait_answers(server, "n1.known.bench.test");
        peers.insert(work, Peer { server, process });
    };
    let write = |name: &str, text: String| {
        let file = zone.file(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };

    let dnsdist = |port, more: &str| {
        format!(
            "setLocal('{NODE4}:{port}')\naddACL('0.0.0.0/0')\nsetSecurityPollSuffix('')\nsetMaxUDPOutstanding(65535)\n\
             newServer({{address='{UPSTREAM}', checkName='n1.known.bench.test.', sockets=1}})\n{more}"
        )
    };
    let forwarding = write("dnsdist.conf", dnsdist(5301, ""));
    start(
        FORWARDING,
        5301,
        "dnsdist",
        &["--supervised", "--disable-syslog", "-C", &forwarding],
    );
    let cache = "pc = newPacketCache(100000)\ngetPool(''):setCache(pc)\n";
    let caching = write("dnsdist-cache.conf", dnsdist(5302, cache));
    start(
        "dnsdist cache",
        5302,
        "dnsdist",
        &["--supervised", "--disable-syslog", "-C", &caching],
    );

    let unbound = write(
        "unbound.conf",
        format!(
            "server:\n  interface: {NODE4}@5303\n  access-control: 0.0.0.0/0 allow\n  do-daemonize: no\n  use-syslog: no\n  verbosity: 0\n  username: \"\"\n  chroot: \"\"\n  \
             directory: \"{}\"\n  pidfile: \"\"\n  num-threads: 1\n  module-config: \"iterator\"\n  msg-cache-size: 64m\n  rrset-cache-size: 128m\n  \
             local-zone: \"test.\" nodefault\n\
             remote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: {UPSTREAM}\n",
            zone.path().display()
        ),
    );
    start("unbound cache", 5303, "unbound", &["-d", "-c", &unbound]);

    if wants("dnsmasq --nftset") && lab::process::find_program("dnsmasq").is_some() {
        let mut nft = node.lab.node().command("nft");
        nft.arg("add table inet peer; add set inet peer learned { type ipv4_addr; timeout 1h; size 2097152; }");
        lab::process::succeed(&mut nft).unwrap();
    }
    start(
        "dnsmasq --nftset",
        5304,
        "dnsmasq",
        &[
            "-k",
            "-C",
            "/dev/null",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
            "--cache-size=0",
            "--dns-forward-max=10000",
            "--pid-file",
            &format!("--listen-address={NODE4}"),
            "--port=5304",
            &format!("--server={UPSTREAM}"),
            "--nftset=/bench.test/4#inet#peer#learned",
        ],
    );

    let corefile = write(
        "Corefile",
        format!(".:5305 {{\n  bind {NODE4}\n  forward . {UPSTREAM}\n}}\n"),
    );
    let [(coredns_work, coredns), (cilium_work, cilium)] = BUILT;
    if let Some(program) = built(coredns_work, coredns, &wants) {
        start(coredns_work, 5305, &program, &["-conf", &corefile]);
    }
    if let Some(program) = built(cilium_work, cilium, &wants) {
        let (listen, upstream) = (format!("{NODE4}:5306"), format!("{UPSTREAM}:53"));
        let flags = ["-listen", &listen, "-upstream", &upstream, "-allow", ALLOWED];
        start(cilium_work, 5306, &program, &flags);
    }
    peers
}

/// The path of a peer, built when that was not done before; `None` where it is not wanted, or where
/// it cannot be built, which is said.
fn built(work: &str, name: &str, wants: impl Fn(&str) -> bool) -> Option<String> {
    if !wants(work) {
        return None;
    }
    // With sudo, `./bench` has built it before: root may not find Go.
    let variable = format!("NAMEGATE_PEER_{}", name.to_uppercase().replace('-', "_"));
    let program = match std::env::var(variable) {
        Ok(program) => program,
        Err(_) => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/build");
            let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output();
            String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
        }
    };
    if program.is_empty() {
        eprintln!("without {name} the row {work:?} is left out");
        return None;
    }
    Some(program)
}
