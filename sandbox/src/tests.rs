//! The pieces of a run against the real kernel, in namespaces that play the host and the internet.
//! Needs root and `nft`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Cursor;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};

use netns::Namespace;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

use crate::child::{self, SpawnError};
use crate::firewall;
use crate::network_plan::{HostNetwork, NetworkPlan};
use crate::network_setup::forwarding_sysctl;
use crate::sandbox_id::SandboxIdClaim;
use crate::signals::Signals;
use crate::undo::{self, Undo};
use crate::{TROUBLE, crash_guard};

#[test]
fn a_sandbox_reaches_the_internet_as_the_host_and_leaves_nothing_behind() {
    let world = World::new();
    let (plan, sandbox) = world.sandbox(1);
    assert_eq!(plan.forwarding, BTreeSet::from(["uplink".to_owned()]));

    let listener = world
        .internet
        .run(|| TcpListener::bind("192.0.2.1:0").unwrap())
        .unwrap();
    let address = listener.local_addr().unwrap();
    sandbox.run(|| TcpStream::connect(address).unwrap()).unwrap();
    let (_, from) = listener.accept().unwrap();
    assert_eq!(from.ip().to_string(), "192.0.2.2", "masqueraded");

    world.on_host(|| assert_eq!(Undo::of(&plan).perform(), [""; 0]));
    world.assert_untouched();
    world.on_host(|| assert_eq!(Undo::of(&plan).perform(), [""; 0], "once more harms nothing"));
}

#[test]
fn a_sandbox_has_ipv6_where_the_host_forwards_it() {
    let world = World::new();
    for (namespace, link, last) in [(&world.host, "uplink", 2), (&world.internet, "eth0", 1)] {
        namespace
            .add_address(link, format!("2001:db8::{last}/64").parse().unwrap())
            .unwrap();
    }
    let gateway = "2001:db8::1".parse().unwrap();
    world
        .host
        .add_route("::/0".parse().unwrap(), Some(gateway), "uplink")
        .unwrap();
    let (plan, sandbox) = world.sandbox(1);
    assert_eq!(plan.v6, None);
    assert_eq!(sandbox.sysctl("ipv6/conf/eth0/disable_ipv6").unwrap(), "1");

    world.host.set_sysctl("ipv6/conf/all/forwarding", "1").unwrap();
    let (plan, sandbox) = world.sandbox(2);
    assert!(plan.v6.is_some());
    let server = world
        .internet
        .run(|| UdpSocket::bind("[2001:db8::1]:0").unwrap())
        .unwrap();
    let client = sandbox.run(|| UdpSocket::bind("[::]:0").unwrap()).unwrap();
    client.send_to(b"six", server.local_addr().unwrap()).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip().to_string(), "2001:db8::2", "masqueraded");
}

#[test]
fn packets_with_another_source_than_the_sandboxs_are_dropped() {
    let world = World::new();
    let (plan, sandbox) = world.sandbox(1);
    let gateway = plan.v4.gateway.addr();
    let server = world.host.run(|| UdpSocket::bind((gateway, 0)).unwrap()).unwrap();
    sandbox.add_address("eth0", "203.0.113.1/32".parse().unwrap()).unwrap();
    let to = server.local_addr().unwrap();
    sandbox
        .run(|| {
            let spoofed = UdpSocket::bind("203.0.113.1:0").unwrap();
            spoofed.send_to(b"spoofed", to).unwrap();
            let honest = UdpSocket::bind((plan.v4.sandbox.addr(), 0)).unwrap();
            honest.send_to(b"honest", to).unwrap();
        })
        .unwrap();
    assert_eq!(first_datagram(&server), "honest");
}

#[test]
fn nobody_outside_can_begin_a_conversation_with_the_sandbox() {
    let world = World::new();
    let (plan, sandbox) = world.sandbox(1);
    let inside = sandbox
        .run(|| UdpSocket::bind((plan.v4.sandbox.addr(), 0)).unwrap())
        .unwrap();
    let outside = world.internet.run(|| UdpSocket::bind("192.0.2.1:0").unwrap()).unwrap();
    let host = "192.0.2.2".parse().unwrap();
    world
        .internet
        .add_route(plan.v4.sandbox.trunc(), Some(host), "eth0")
        .unwrap();
    outside.send_to(b"intruder", inside.local_addr().unwrap()).unwrap();

    inside.send_to(b"question", outside.local_addr().unwrap()).unwrap();
    let (_, asker) = outside.recv_from(&mut [0; 16]).unwrap();
    outside.send_to(b"answer", asker).unwrap();
    assert_eq!(first_datagram(&inside), "answer");
}

#[test]
fn a_host_that_did_not_forward_forwards_for_the_sandbox_alone() {
    let world = World::new();
    let lan = Namespace::new().unwrap();
    world.host.connect("lan", &lan, "eth0").unwrap();
    world
        .host
        .add_address("lan", "198.51.100.1/24".parse().unwrap())
        .unwrap();
    lan.add_address("eth0", "198.51.100.2/24".parse().unwrap()).unwrap();
    let host = "192.0.2.2".parse().unwrap();
    let lan_network = "198.51.100.0/24".parse().unwrap();
    world.internet.add_route(lan_network, Some(host), "eth0").unwrap();
    let (plan, _sandbox) = world.sandbox(1);
    assert_eq!(plan.forwarding, BTreeSet::from(["lan".to_owned(), "uplink".to_owned()]));

    let server = lan.run(|| UdpSocket::bind("198.51.100.2:0").unwrap()).unwrap();
    let to = server.local_addr().unwrap();
    for (namespace, text) in [(&world.internet, "forwarded"), (&world.host, "from the host itself")] {
        let client = namespace.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        client.send_to(text.as_bytes(), to).unwrap();
    }
    assert_eq!(first_datagram(&server), "from the host itself");
}

#[test]
fn of_two_sandboxes_the_last_switches_forwarding_off() {
    let world = World::new();
    let (first, _one) = world.sandbox(1);
    let (second, _two) = world.sandbox(2);
    assert_ne!(first.v4, second.v4);
    assert_eq!(second.forwarding, first.forwarding, "on, but only because of the first");

    world.on_host(|| assert_eq!(Undo::of(&first).perform(), [""; 0]));
    assert_eq!(world.host.sysctl(&forwarding_sysctl("uplink")).unwrap(), "1");
    world.on_host(|| assert_eq!(Undo::of(&second).perform(), [""; 0]));
    world.assert_untouched();
}

#[test]
fn a_sweep_removes_what_dead_runs_left_and_spares_the_living() {
    let world = World::new();
    let (_dead, _) = world.sandbox(1);
    let (living, _) = world.sandbox(2);
    world.on_host(|| {
        let claim = SandboxIdClaim::take(2).unwrap().unwrap();
        assert!(SandboxIdClaim::take(2).unwrap().is_none(), "it is held");
        assert_eq!(undo::sweep().unwrap(), [""; 0]);
        assert_eq!(firewall::sandboxes().unwrap(), BTreeSet::from([2]));
        drop(claim);
        assert_eq!(undo::sweep().unwrap(), [""; 0]);
        assert_eq!(firewall::sandboxes().unwrap(), BTreeSet::new());
    });
    assert_eq!(living.forwarding, BTreeSet::from(["uplink".to_owned()]));
    world.assert_untouched();
}

#[test]
fn the_guard_undoes_what_was_not_reported_done() {
    let world = World::new();
    let (plan, _sandbox) = world.sandbox(1);
    let undo = serde_json::to_string(&Undo::of(&plan)).unwrap();
    let watch = |text: String| crash_guard::watch(Cursor::new(text)).unwrap();
    world.on_host(|| {
        assert_eq!(watch(String::new()), [""; 0], "it died before anything was done");
        assert_eq!(watch(format!("{undo}\ndone\n")), [""; 0]);
        assert_eq!(
            firewall::sandboxes().unwrap(),
            BTreeSet::from([1]),
            "it was said to be done"
        );
        assert_eq!(watch(format!("{undo}\ndo")), [""; 0]);
    });
    world.assert_untouched();
}

#[test]
fn only_chains_of_others_that_drop_are_told() {
    let world = World::new();
    let (_plan, _sandbox) = world.sandbox(1);
    world.on_host(|| {
        assert_eq!(firewall::foreign_chains_that_drop().unwrap(), [""; 0]);
        for rule in [
            "add table ip filter",
            "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
            "add chain ip filter OUTPUT { type filter hook output priority 0; policy drop; }",
            "add chain ip filter INPUT { type filter hook input priority 0; policy accept; }",
        ] {
            assert!(std::process::Command::new("nft").arg(rule).status().unwrap().success());
        }
        assert_eq!(firewall::foreign_chains_that_drop().unwrap(), ["ip filter FORWARD"]);
    });
}

#[test]
fn the_command_sees_its_network_its_resolver_and_its_exit_code_is_kept() {
    let network = Namespace::new().unwrap();
    network.connect("inside", &network, "other").unwrap();
    assert_eq!(run(&network, "grep -q inside: /proc/net/dev"), 0);
    assert_eq!(
        run(&network, "test \"$(cat /etc/resolv.conf)\" = 'nameserver 192.0.2.53'"),
        0
    );
    assert_eq!(run(&network, "exit 7"), 7);
    assert_eq!(run(&network, "kill -KILL $$"), 128 + 9);
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap();
    assert!(!resolv_conf.contains("192.0.2.53"), "outside it is as it was");
}

#[test]
fn the_command_cannot_leave_the_sandbox_or_change_the_hosts_network() {
    let network = Namespace::new().unwrap();
    let me = std::process::id();
    assert_ne!(run(&network, &format!("nsenter --net=/proc/{me}/ns/net true")), 0);
    let memory = format!("cat /proc/{me}/environ");
    assert_ne!(run(&network, &memory), 0, "no tracing of processes outside");
    assert_ne!(run(&network, "ip link set lo down"), 0);
    assert_ne!(run(&network, "umount /etc/resolv.conf"), 0);
    assert_eq!(run(&network, "grep -q '^NoNewPrivs:.1$' /proc/self/status"), 0);
    // CAP_SYS_ADMIN is bit 21, CAP_NET_ADMIN bit 12; CAP_CHOWN, bit 0, stays.
    let bounding = "$((0x$(sed -n 's/^CapBnd:.//p' /proc/self/status)))";
    assert_eq!(
        run(&network, &format!("test $(( {bounding} & (1<<21 | 1<<12) )) = 0")),
        0
    );
    assert_eq!(run(&network, &format!("test $(( {bounding} & 1 )) = 1")), 0);
}

#[test]
fn a_command_that_cannot_run_gives_the_codes_of_a_shell() {
    let network = Namespace::new().unwrap();
    let start =
        |command: &str| runtime().block_on(async { child::start(&[command.into()], &variable(), &network, &[], &[]) });
    let error = start("no-such-command-anywhere").unwrap_err();
    assert!(matches!(error, SpawnError::NotFound(_)));
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        (127, "no-such-command-anywhere: command not found")
    );

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = start(file.path().to_str().unwrap()).unwrap_err();
    assert_eq!(error.code(), 126, "{error}");
    assert_eq!(start("/").unwrap_err().code(), 126);
    assert_eq!(
        SpawnError::ResolvConf(std::io::ErrorKind::NotFound.into()).code(),
        TROUBLE
    );
}

#[test]
fn a_signal_goes_on_to_the_command_and_the_command_decides() {
    let network = Namespace::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready");
    runtime().block_on(async {
        let mut signals = Signals::take().unwrap();
        let script = format!("trap 'exit 9' TERM; : > {}; while :; do :; done", ready.display());
        let child = child::start(&shell(&script), &variable(), &network, &[], &[]).unwrap();
        wait_for_file(&ready).await;
        kill_process(getpid(), Signal::TERM).unwrap();
        let status = child::wait(child, &mut signals).await.unwrap();
        assert_eq!(child::exit_code(status), 9);
    });
}

#[test]
fn the_command_dies_with_the_thread_that_started_it() {
    let network = Namespace::new().unwrap();
    let pid = std::thread::spawn(move || {
        let child = runtime().block_on(async {
            child::start(&["sleep".into(), "1000".into()], &variable(), &network, &[], &[]).unwrap()
        });
        let pid = child.id().unwrap();
        // Dropped, it would be waited for in the background.
        std::mem::forget(child);
        pid
    })
    .join()
    .unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    let (_, status) = waitpid(pid, WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.terminating_signal(), Some(Signal::KILL.as_raw()));
}

/// A host that does not forward, with an uplink to the internet, 192.0.2.2 → 192.0.2.1.
struct World {
    host: Namespace,
    internet: Namespace,
}

impl World {
    fn new() -> Self {
        let (host, internet) = (Namespace::new().unwrap(), Namespace::new().unwrap());
        host.set_sysctl("ipv4/conf/all/forwarding", "0").unwrap();
        host.connect("uplink", &internet, "eth0").unwrap();
        host.add_address("uplink", "192.0.2.2/24".parse().unwrap()).unwrap();
        internet.add_address("eth0", "192.0.2.1/24".parse().unwrap()).unwrap();
        let gateway = "192.0.2.1".parse().unwrap();
        host.add_route("0.0.0.0/0".parse().unwrap(), Some(gateway), "uplink")
            .unwrap();
        Self { host, internet }
    }

    fn sandbox(&self, id: u32) -> (NetworkPlan, Namespace) {
        self.on_host(|| {
            let plan = NetworkPlan::choose(id, &HostNetwork::read(&self.host).unwrap()).unwrap();
            let sandbox = plan.build(&self.host).unwrap();
            (plan, sandbox)
        })
    }

    fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.host.run(work).unwrap()
    }

    fn assert_untouched(&self) {
        assert_eq!(self.host.links().unwrap(), ["lo", "uplink"]);
        assert_eq!(self.host.sysctl(&forwarding_sysctl("uplink")).unwrap(), "0");
        self.on_host(|| assert_eq!(firewall::sandboxes().unwrap(), BTreeSet::new()));
    }
}

fn run(network: &Namespace, script: &str) -> u8 {
    runtime().block_on(async {
        let resolver = "192.0.2.53".parse().unwrap();
        // Not `child::wait`, which would hand on the signal that another test of this process
        // sends.
        let mut child = child::start(&shell(script), &variable(), network, &[resolver], &[]).unwrap();
        child::exit_code(child.wait().await.unwrap())
    })
}

/// A variable of the command, which no test looks at.
fn variable() -> [(&'static str, PathBuf); 1] {
    [("NAMEGATE_TEST", "/".into())]
}

fn shell(script: &str) -> [OsString; 3] {
    ["sh", "-c", script].map(OsString::from)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

async fn wait_for_file(path: &Path) {
    while !path.exists() {
        tokio::task::yield_now().await;
    }
}

fn first_datagram(socket: &UdpSocket) -> String {
    let mut buffer = [0; 64];
    let (length, _) = socket.recv_from(&mut buffer).unwrap();
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}
