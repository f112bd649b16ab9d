//! A pod, its node and the outside in network namespaces, with the ruleset that redirects:
//!
//! ```text
//! pod 10.71.0.2, fd71::2 ── 10.71.0.1 node 198.51.100.1 ── 198.51.100.7, fd98::7 outside
//! ```
//!
//! What the pod sends to ports 80 and 443 of the outside is redirected to the proxy on the node.
//! The proxy dials from the pod's own address and port, in a conntrack zone of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use l7_proxy::{
    BackendVerdict, ClientHello, ConnectionVerdict, DialOptions, DialTime, HelloVerdict, Inspection, Judge, L7Server,
    L7ServerConfig, PassageEvent, PassageLimits, Refusal, RequestHead, RequestVerdict, Termination, Unreadable,
};
use netns::Namespace;

pub(crate) const OUTSIDE: [&str; 2] = ["198.51.100.7", "fd98::7"];
/// What packets of the proxy to servers carry.
const MARK: u32 = 0x20000;

pub(crate) struct Lab {
    pub(crate) pod: Namespace,
    pub(crate) node: Namespace,
    pub(crate) outside: Namespace,
}

impl Lab {
    /// `None` where namespaces cannot be made; the test then says so and passes.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: kernel tests need root and network namespaces");
            return None;
        }
        let lab = Self {
            pod: Namespace::new().unwrap(),
            node: Namespace::new().unwrap(),
            outside: Namespace::new().unwrap(),
        };
        for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            lab.node.set_sysctl(key, "1").unwrap();
        }
        lab.node.connect("pod", &lab.pod, "eth0").unwrap();
        lab.node.connect("up", &lab.outside, "eth0").unwrap();
        lab.ip(&lab.node, "addr add 10.71.0.1/24 dev pod");
        lab.ip(&lab.node, "addr add fd71::1/64 dev pod nodad");
        lab.ip(&lab.node, "addr add 198.51.100.1/24 dev up");
        lab.ip(&lab.node, "addr add fd98::1/64 dev up nodad");
        lab.ip(&lab.pod, "addr add 10.71.0.2/24 dev eth0");
        lab.ip(&lab.pod, "addr add fd71::2/64 dev eth0 nodad");
        lab.ip(&lab.outside, "addr add 198.51.100.7/24 dev eth0");
        lab.ip(&lab.outside, "addr add fd98::7/64 dev eth0 nodad");
        lab.ip(&lab.pod, "route add default via 10.71.0.1");
        lab.ip(&lab.pod, "-6 route add default via fd71::1");
        lab.ip(&lab.outside, "route add default via 198.51.100.1");
        lab.ip(&lab.outside, "-6 route add default via fd98::1");
        for family in ["", "-6 "] {
            lab.ip(
                &lab.node,
                &format!("{family}rule add fwmark 0x40000/0x40000 lookup 177"),
            );
            lab.ip(&lab.node, &format!("{family}route add local default dev lo table 177"));
        }
        Some(lab)
    }

    fn ip(&self, namespace: &Namespace, arguments: &str) {
        let output = namespace.command("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    /// Redirects to these listeners of the node.
    pub(crate) fn redirect_to(&self, addresses: &[SocketAddr]) {
        let [v4, v6] = addresses else {
            panic!("one for each family")
        };
        let ruleset = format!(
            "add table inet l7
             delete table inet l7
             table inet l7 {{
                 chain to_servers {{ type filter hook output priority -301;
                     meta mark & {MARK:#x} == {MARK:#x} ct original zone set 77; }}
                 chain to_proxy {{ type nat hook prerouting priority -105;
                     iifname pod tcp dport {{ 80, 443 }} meta nfproto ipv4 dnat ip to {v4};
                     iifname pod tcp dport {{ 80, 443 }} meta nfproto ipv6 dnat ip6 to {v6}; }}
                 chain from_servers {{ type filter hook prerouting priority -150;
                     ct direction reply ct original zone 77 meta mark set meta mark | 0x40000; }}
             }}"
        );
        let mut nft = self
            .node
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        nft.stdin.take().unwrap().write_all(ruleset.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "{ruleset}");
    }

    /// Starts a proxy on the node, and redirects to it.
    pub(crate) fn proxy(&self, judge: &Arc<LabJudge>) -> L7Server {
        self.proxy_with(judge, PassageLimits::default())
    }

    pub(crate) fn proxy_with(&self, judge: &Arc<LabJudge>, limits: PassageLimits) -> L7Server {
        let config = L7ServerConfig {
            addresses: vec!["10.71.0.1:0".parse().unwrap(), "[fd71::1]:0".parse().unwrap()],
            workers: 2,
            dial: DialOptions {
                mark: Some(MARK),
                keeps_source: true,
            },
            limits,
        };
        let server = self
            .node
            .run(|| L7Server::start(Arc::clone(judge), config))
            .unwrap()
            .unwrap();
        self.redirect_to(server.addresses());
        server
    }

    /// Serves each connection to the outside's port with a thread of its own.
    pub(crate) fn serve(&self, port: u16, serve: impl Fn(TcpStream) + Send + Sync + Clone + 'static) {
        for address in OUTSIDE {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            let listener = self.outside.run(|| TcpListener::bind(address)).unwrap().unwrap();
            let serve = serve.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let serve = serve.clone();
                    thread::spawn(move || serve(stream));
                }
            });
        }
    }

    /// Connects from the pod.
    pub(crate) fn connect(&self, address: &str, port: u16) -> std::io::Result<TcpStream> {
        let address = SocketAddr::new(address.parse::<IpAddr>().unwrap(), port);
        let limit = patience::scaled(Duration::from_secs(10));
        let stream = self.pod.run(|| TcpStream::connect_timeout(&address, limit)).unwrap()?;
        stream.set_read_timeout(Some(limit))?;
        Ok(stream)
    }

    /// Runs a program in the pod to its end.
    pub(crate) fn in_pod(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command: Command = self.pod.command(program);
        command.args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// What curl got: the body, and behind it the status.
    pub(crate) fn curl(&self, arguments: &[&str]) -> String {
        let output = self.in_pod(
            "curl",
            &[&["-sS", "--max-time", "30", "-w", " %{http_code}"], arguments].concat(),
        );
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// An origin of HTTP: says who asks and for what, keeps connections, and reads bodies.
pub(crate) fn http_origin(stream: TcpStream) {
    let peer = stream.peer_addr().unwrap();
    serve_http(stream, peer);
}

/// The same over anything that can be read and written.
pub(crate) fn serve_http(mut stream: impl Read + Write, peer: SocketAddr) {
    let mut came = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = came.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            if !read_more(&mut stream, &mut came) {
                return;
            }
        };
        let text = String::from_utf8_lossy(&came[..head]).into_owned();
        came.drain(..head);
        if text.contains("100-continue") && stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_err() {
            return;
        }
        let length = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
            .unwrap_or(0_usize);
        let mut body = 0;
        if text.to_ascii_lowercase().contains("transfer-encoding: chunked") {
            while !came.ends_with(b"0\r\n\r\n") {
                if !read_more(&mut stream, &mut came) {
                    return;
                }
            }
            body = came.len();
            came.clear();
        }
        while body < length {
            let taken = came.len().min(length - body);
            came.drain(..taken);
            body += taken;
            if body < length && !read_more(&mut stream, &mut came) {
                return;
            }
        }
        if text.to_ascii_lowercase().contains("upgrade: websocket") {
            let granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            if stream.write_all(granted.as_bytes()).is_ok() {
                echo(stream);
            }
            return;
        }
        let line = text.lines().next().unwrap_or_default();
        let said = match line.contains("/allowed/large") {
            true => "x".repeat(20_000_000),
            false => format!("{line} from {peer} with {body}"),
        };
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
        if stream.write_all(response.as_bytes()).is_err() {
            return;
        }
    }
}

/// Sends back what comes, and ends when the client does.
pub(crate) fn echo(mut stream: impl Read + Write) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn read_more(stream: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 65536];
    match stream.read(&mut buffer) {
        Ok(count @ 1..) => {
            into.extend_from_slice(&buffer[..count]);
            true
        }
        _ => false,
    }
}

/// Port 443 speaks TLS, port 80 HTTP. What is called `allowed` is allowed, and of
/// `requests.example` each request that is.
#[derive(Default)]
pub(crate) struct LabJudge {
    pub(crate) events: Mutex<Vec<String>>,
    pub(crate) generation: std::sync::atomic::AtomicU64,
    pub(crate) refuses_all: std::sync::atomic::AtomicBool,
    pub(crate) termination: Option<Termination>,
}

pub(crate) struct LabJudged(());

impl LabJudge {
    fn note(&self, what: String) {
        self.events.lock().unwrap().push(what);
    }

    /// Waits until something was noted that contains this.
    pub(crate) fn noted(&self, what: &str) {
        let found = patience::wait(Duration::from_secs(10), Duration::from_millis(5), || {
            self.events.lock().unwrap().iter().any(|event| event.contains(what))
        });
        assert!(found.is_some(), "{what} not in {:?}", self.events.lock().unwrap());
    }

    fn allows_still(&self) -> Result<LabJudged, Refusal> {
        match self.refuses_all.load(std::sync::atomic::Ordering::Relaxed) {
            true => Err(Refusal::Destination),
            false => Ok(LabJudged(())),
        }
    }
}

impl Judge for LabJudge {
    type Connection = SocketAddr;
    type Judged = LabJudged;

    fn connection(&self, source: SocketAddr, asked: SocketAddr) -> ConnectionVerdict<SocketAddr, LabJudged> {
        self.note(format!("{source} asks for {asked}"));
        ConnectionVerdict::Inspect {
            connection: source,
            inspection: match asked.port() {
                443 => Inspection::Hello,
                _ => Inspection::Http,
            },
            dial: DialTime::WhenAllowed,
        }
    }

    fn dialled(&self, _connection: &mut SocketAddr) -> Result<BackendVerdict<LabJudged>, Refusal> {
        Ok(BackendVerdict::Inspect(Inspection::Http))
    }

    fn hello(&self, _connection: &mut SocketAddr, hello: &ClientHello) -> Result<HelloVerdict<LabJudged>, Refusal> {
        match &hello.server_name {
            Some(name) if name.as_str() == "allowed.example." => self.allows_still().map(HelloVerdict::Pass),
            Some(name) if name.as_str() == "requests.example." => match &self.termination {
                Some(termination) => Ok(HelloVerdict::Terminate(termination.clone())),
                None => Err(Refusal::Name),
            },
            Some(_) => Err(Refusal::Name),
            None => Err(Refusal::NoName),
        }
    }

    fn request(&self, _connection: &mut SocketAddr, request: &RequestHead<'_>) -> RequestVerdict<LabJudged> {
        match request.path().starts_with("/allowed") {
            true => RequestVerdict::Forward {
                judged: LabJudged(()),
                edits: Vec::new(),
            },
            false => RequestVerdict::Deny(Refusal::Request),
        }
    }

    fn unreadable(&self, _connection: &mut SocketAddr, why: Unreadable) -> Result<LabJudged, Refusal> {
        self.note(format!("{why:?}"));
        Err(why.into())
    }

    fn generation(&self) -> u64 {
        self.generation.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn judge_again(&self, _connection: &mut SocketAddr) -> Result<LabJudged, Refusal> {
        self.allows_still()
    }

    fn observe(&self, _connection: Option<&mut SocketAddr>, event: PassageEvent<'_>) {
        self.note(format!("{event:?}"));
    }
}
