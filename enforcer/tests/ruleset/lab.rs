//! Network namespaces that play two pods, their node and the outside, joined by veth pairs:
//!
//! ```text
//! pod   10.66.0.2 ─┐
//!                   node 10.66.x.1, 10.77.0.1 ── 10.77.0.2 outside, with more addresses on its lo
//! other 10.66.1.2 ─┘
//! ```
//!
//! and the same with fd66::/fd77::. Everything is gone when the lab is dropped.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use enforcer::ruleset::ExistingObjects;
use enforcer::{DesiredState, Element, Enforcer, InstallError, Renewal};
use nftables::schema::Nftables;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Socket, Type};

/// An upper bound for what should happen at once; only a failing test waits for it.
fn patience() -> Duration {
    patience::scaled(Duration::from_secs(10))
}

/// The addresses of the outside. All of them answer on the ports of [`Lab::serve_outside`].
pub(crate) const OUTSIDE: [&str; 6] = ["10.77.0.2", "10.88.0.1", "10.88.0.2", "fd77::2", "fd88::1", "fd88::2"];
/// The pod that programs govern.
pub(crate) const POD_V4: &str = "10.66.0.2";
/// Its other address.
pub(crate) const POD_V6: &str = "fd66:0:0:0::2";
/// The other pod.
pub(crate) const OTHER_V4: &str = "10.66.1.2";
/// Its other address.
pub(crate) const OTHER_V6: &str = "fd66:0:0:1::2";
/// The node, as the pod sees it.
pub(crate) const NODE_V4: &str = "10.66.0.1";

pub(crate) struct Lab {
    pub(crate) pod: Namespace,
    pub(crate) other: Namespace,
    pub(crate) node: Namespace,
    pub(crate) outside: Namespace,
}

pub(crate) struct Namespace {
    name: String,
}

impl Lab {
    /// `None` where namespaces cannot be made; the test then says so and passes.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || run("ip", &["netns", "list"], "").is_err() {
            eprintln!("skipped: kernel tests need root and network namespaces");
            return None;
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let make = |role: &str| Namespace::new(format!("ngr{}x{number}{role}", std::process::id()));
        let lab = Self {
            pod: make("p"),
            other: make("o"),
            node: make("n"),
            outside: make("w"),
        };
        lab.node.sysctl("net.ipv4.ip_forward=1");
        lab.node.sysctl("net.ipv6.conf.all.forwarding=1");
        lab.join(&lab.pod, "pod", "10.66.0", "fd66:0:0:0");
        lab.join(&lab.other, "other", "10.66.1", "fd66:0:0:1");
        lab.join(&lab.outside, "outside", "10.77.0", "fd77:0:0:0");
        for outside in OUTSIDE {
            if !outside.contains("77") {
                lab.outside.add_address(outside);
            }
        }
        for (route, via) in [("10.88.0.0/16", "10.77.0.2"), ("fd88::/64", "fd77::2")] {
            lab.node.ip(&["route", "add", route, "via", via]);
        }
        Some(lab)
    }

    fn join(&self, with: &Namespace, device: &str, v4: &str, v6: &str) {
        let node = &self.node;
        node.ip(&[
            "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", &with.name,
        ]);
        for (namespace, device, host) in [(node, device, 1), (with, "eth0", 2)] {
            namespace.ip(&["addr", "add", &format!("{v4}.{host}/24"), "dev", device]);
            namespace.ip(&["addr", "add", &format!("{v6}::{host}/64"), "dev", device, "nodad"]);
            namespace.ip(&["link", "set", device, "up"]);
        }
        with.ip(&["route", "add", "default", "via", &format!("{v4}.1")]);
        with.ip(&["route", "add", "default", "via", &format!("{v6}::1")]);
    }

    /// Makes the node's table what is desired, as an agent does that then goes.
    pub(crate) fn install(&self, desired: &DesiredState, learned: &[(Element, Duration)]) {
        let end = |lease| clock::now() + lease;
        let learned = learned.iter().map(|(element, lease)| (*element, end(*lease))).collect();
        self.with_enforcer(
            || Enforcer::start_with("namegate", Renewal::Refresh),
            async |enforcer| {
                enforcer.install(desired.clone(), move || learned).await.unwrap();
            },
        );
    }

    /// Starts a writer on the node for as long as `work` takes. Then it goes as that of an agent
    /// does: its heartbeat ends.
    pub(crate) fn with_enforcer<T: Send>(
        &self,
        start: impl FnOnce() -> Result<Enforcer, InstallError> + Send,
        work: impl AsyncFnOnce(&Enforcer) -> T + Send,
    ) -> T {
        self.node.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let enforcer = start().unwrap();
                let outcome = work(&enforcer).await;
                enforcer.shut_down().await;
                outcome
            })
        })
    }

    /// Applies a document on the node.
    pub(crate) fn apply(&self, document: &Nftables<'_>) {
        let text = serde_json::to_string(document).unwrap();
        if let Err(error) = self.node.run("nft", &["-j", "-f", "-"], &text) {
            panic!("nft refused the document: {error}");
        }
    }

    /// Runs one nft command on the node.
    pub(crate) fn nft(&self, command: &str) -> String {
        self.node
            .run("nft", &["-f", "-"], command)
            .unwrap_or_else(|error| panic!("nft {command}: {error}"))
    }

    /// What stands in the table.
    pub(crate) fn existing(&self) -> ExistingObjects {
        let Ok(listing) = self.node.run("nft", &["-j", "list", "table", "inet", "namegate"], "") else {
            return ExistingObjects::default();
        };
        let listing: serde_json::Value = serde_json::from_str(&listing).unwrap();
        let names = |kinds: &[&str]| -> BTreeSet<String> {
            let objects = listing["nftables"].as_array().unwrap();
            let of_kind = objects
                .iter()
                .filter_map(|object| kinds.iter().find_map(|kind| object.get(kind)));
            of_kind
                .map(|object| object["name"].as_str().unwrap().to_owned())
                .collect()
        };
        ExistingObjects {
            table: true,
            chains: names(&["chain"]),
            sets: names(&["set", "map"]),
        }
    }

    /// Echoes TCP and UDP on these ports of every outside address.
    pub(crate) fn serve_outside(&self, ports: &[u16]) {
        for address in OUTSIDE {
            for port in ports {
                self.outside.echo(SocketAddr::new(ip(address), *port), "outside");
            }
        }
    }

    /// How many packets passed that audited policies would refuse.
    pub(crate) fn audited(&self) -> u64 {
        packets_of(&self.nft("list counters table inet namegate"), "audited")
    }

    /// How many packets the named counter has counted, for both families.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        packets_of(&self.nft("list counters table inet namegate"), name)
    }

    /// How many packets were refused.
    pub(crate) fn refused(&self) -> u64 {
        let listing = self.nft("list counters table inet namegate");
        packets_of(&listing, "refused")
    }
}

impl Namespace {
    fn new(name: String) -> Self {
        run("ip", &["netns", "add", &name], "").unwrap();
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// Runs something on a thread of its own inside the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program inside.
    pub(crate) fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
        let inside = ["netns", "exec", &self.name, program];
        run("ip", &[&inside, arguments].concat(), input)
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> String {
        run("ip", &[&["-n", &self.name], arguments].concat(), "").unwrap()
    }

    pub(crate) fn sysctl(&self, setting: &str) {
        self.run("sysctl", &["-qw", setting], "").unwrap();
    }

    pub(crate) fn add_address(&self, address: &str) {
        let length = if address.contains(':') { 128 } else { 32 };
        self.ip(&["addr", "add", &format!("{address}/{length}"), "dev", "lo", "nodad"]);
    }

    /// Echoes TCP and UDP at this address until the process ends, each answer with `tag` before it.
    pub(crate) fn echo(&self, at: SocketAddr, tag: &'static str) {
        let (tcp, udp) = self.enter(|| (TcpListener::bind(at).unwrap(), UdpSocket::bind(at).unwrap()));
        echo_tcp(tcp, tag);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&tagged(tag, &buffer[..length]), from);
            }
        });
    }

    /// Opens a TCP connection.
    pub(crate) fn connect(&self, address: &str, port: u16) -> io::Result<TcpStream> {
        self.enter(|| TcpStream::connect_timeout(&SocketAddr::new(ip(address), port), patience()))
    }

    /// Says something over TCP and returns the answer.
    pub(crate) fn ask_tcp(&self, address: &str, port: u16, text: &str) -> io::Result<String> {
        say(&mut self.connect(address, port)?, text)
    }

    /// Says something over UDP and returns the answer, which must come from the address asked: the
    /// socket is connected. What gets neither an answer nor an error is said again each second, as
    /// clients do: the kernel may lose a datagram while it looks for a neighbour.
    pub(crate) fn ask_udp(&self, address: &str, port: u16, text: &str) -> io::Result<String> {
        let to = SocketAddr::new(ip(address), port);
        self.enter(|| {
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(to)?;
            let begun = Instant::now();
            let mut buffer = [0; 512];
            loop {
                socket.send(text.as_bytes())?;
                match socket.recv(&mut buffer) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < patience() => {}
                    Err(error) => return Err(error),
                    Ok(length) => return Ok(String::from_utf8_lossy(&buffer[..length]).into_owned()),
                }
            }
        })
    }

    /// ICMP echoes, one a second, until an answer or an error comes back.
    pub(crate) fn ping(&self, address: &str) -> io::Result<()> {
        // Echo sockets are for members of these groups only.
        self.sysctl("net.ipv4.ping_group_range=0 0");
        let to = SocketAddr::new(ip(address), 0);
        let (protocol, echo_request) = match to {
            SocketAddr::V4(_) => (socket2::Protocol::ICMPV4, 8),
            SocketAddr::V6(_) => (socket2::Protocol::ICMPV6, 128),
        };
        self.enter(|| {
            let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(protocol))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.connect(&to.into())?;
            let begun = Instant::now();
            loop {
                // The kernel fills in the checksum and the identifier.
                socket.send(&[echo_request, 0, 0, 0, 0, 0, 0, 1])?;
                match (&socket).read(&mut [0; 512]) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock && begun.elapsed() < patience() => {}
                    outcome => return outcome.map(|_| ()),
                }
            }
        })
    }

    /// How an attempt to connect ends.
    pub(crate) fn tries(&self, address: &str, port: u16) -> Outcome {
        match self.connect(address, port) {
            Ok(_) => Outcome::Connected,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Outcome::Refused,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }
}

/// How an attempt to connect ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Connected,
    Refused,
    Failed(String),
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run("ip", &["netns", "del", &self.name], "");
    }
}

/// Accepts for ever and answers every read with its tag and what was read.
pub(crate) fn echo_tcp(listener: TcpListener, tag: &'static str) {
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            std::thread::spawn(move || {
                let mut buffer = [0; 512];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&tagged(tag, &buffer[..length])).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// One exchange on a connection.
pub(crate) fn say(stream: &mut TcpStream, text: &str) -> io::Result<String> {
    stream.set_read_timeout(Some(patience()))?;
    stream.write_all(text.as_bytes())?;
    let mut buffer = [0; 512];
    let length = stream.read(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

pub(crate) fn tagged(tag: &str, said: &[u8]) -> Vec<u8> {
    [tag.as_bytes(), b": ", said].concat()
}

/// The sum of the counters whose names begin so.
fn packets_of(listing: &str, name: &str) -> u64 {
    let counters = listing
        .split("counter ")
        .skip(1)
        .filter(|counter| counter.starts_with(name));
    let packets = counters.map(|counter| counter.split("packets ").nth(1).unwrap());
    packets
        .map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    // The program may end without reading its input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
