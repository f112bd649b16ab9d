//! A node with a pod, NSD, and Namegate in front of it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};

use lab::process::{AgentProcess, Installation, PATIENCE, find_program};
use lab::{Lab, NODE4, dns};
use namegate_integration::{fqdn_policy, wait_until};
use netns::Namespace;

use crate::zone::{FAR_UPSTREAM, UPSTREAM, Zone};

/// How lookups reach the agent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Listening,
    Tproxy,
    Dnat,
    Cached,
    /// As `Listening`, with so many workers.
    Workers(u32),
    /// No agent, and so no policy in the way to the peers.
    Bare,
}

pub(crate) struct Node {
    pub(crate) lab: Lab,
    agent: Option<AgentProcess>,
    _installation: Installation,
    nsd: Option<Server>,
    server: SocketAddr,
}

/// What the pods may reach, as patterns of Cilium.
pub(crate) const ALLOWED: &str = "*.known.bench.test,**.new.bench.test";

/// The same as `toFQDNs` selectors.
fn selectors() -> String {
    let selector = |pattern| format!("{{matchPattern: '{pattern}'}}");
    ALLOWED.split(',').map(selector).collect::<Vec<_>>().join(", ")
}

/// Another build to compare with, or the one of this tree.
pub(crate) fn binary() -> String {
    std::env::var("NAMEGATE_BINARY").unwrap_or(env!("CARGO_BIN_EXE_namegate-under-test").into())
}

impl Node {
    pub(crate) fn start(kind: Kind, zone: &Zone) -> Self {
        let lab = Lab::builder().pods(1).build().unwrap();
        lab.node()
            .add_address("lo", format!("{UPSTREAM}/32").parse().unwrap())
            .unwrap();
        let far = matches!(kind, Kind::Tproxy | Kind::Dnat);
        let (namespace, conf, upstream) = match far {
            true => (lab.resolver_namespace(), "nsd-far.conf", FAR_UPSTREAM),
            false => (lab.node(), "nsd.conf", UPSTREAM),
        };
        let nsd = Server::start(namespace, "nsd", &["-d", "-c", zone.file(conf).to_str().unwrap()]);
        let installation = Installation::new(binary(), lab.node()).unwrap();
        let pod = lab.pod(0);
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod0, namespace: shop, labels: {{app: pod0}}}}\nspec: {{containers: [{{name: main, image: none}}]}}\n\
             status: {{podIP: {v4}, podIPs: [{{ip: {v4}}}]}}\n",
            v4 = pod.address4()
        );
        installation.write_object("pod.yaml", &manifest).unwrap();
        installation
            .write_object("policy.yaml", &fqdn_policy("bench", &selectors(), 443))
            .unwrap();
        let listen = SocketAddr::new(IpAddr::V4(NODE4), 5300);
        let mut flags = vec![
            "--upstream".to_owned(),
            upstream.to_string(),
            "--set-capacity".into(),
            "2097152".into(),
        ];
        let server = match kind {
            Kind::Dnat => {
                flags.extend(["--intercept".into(), "dnat".into()]);
                dns(upstream)
            }
            Kind::Tproxy => {
                flags.extend(["--intercept".into(), "tproxy".into()]);
                dns(upstream)
            }
            Kind::Listening | Kind::Cached | Kind::Workers(_) | Kind::Bare => {
                flags.extend([
                    "--intercept".into(),
                    "off".into(),
                    "--listen".into(),
                    listen.to_string(),
                ]);
                match kind {
                    Kind::Cached => flags.extend(["--dns-cache".into(), "100000".into()]),
                    Kind::Workers(workers) => flags.extend(["--workers".into(), workers.to_string()]),
                    _ => {}
                }
                listen
            }
        };
        let agent = (kind != Kind::Bare).then(|| {
            let mut agent = installation.start(&flags).unwrap();
            agent.wait_ready().unwrap();
            agent
        });
        let node = Self {
            lab,
            agent,
            _installation: installation,
            nsd,
            server,
        };
        if kind != Kind::Bare {
            node.wait_answers(server, "n1.known.bench.test");
        }
        node
    }

    pub(crate) fn server(&self) -> SocketAddr {
        self.server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.agent.as_ref().expect("it has an agent").pid()
    }

    /// Ends NSD, and puts something else in its place.
    pub(crate) fn replace_upstream(&mut self, bind: impl FnOnce() -> UdpSocket + Send) -> UdpSocket {
        self.nsd = None;
        self.lab.node().run(bind).unwrap()
    }

    pub(crate) fn wait_answers(&self, server: SocketAddr, name: &str) {
        use hickory_proto::rr::RecordType;
        use lab::client::LookupTransport;
        wait_until("the server answers", || {
            let reply = self
                .lab
                .pod(0)
                .resolve(server, name, RecordType::A, LookupTransport::Udp);
            reply.is_ok_and(|reply| reply.address().is_some())
        });
    }
}

/// A server in the foreground, ended when it is dropped.
pub(crate) struct Server(Child);

impl Server {
    /// `None` when the program is not installed.
    pub(crate) fn start(namespace: &Namespace, program: &str, arguments: &[&str]) -> Option<Self> {
        let mut command = namespace.command(find_program(program)?);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Some(Self(command.spawn().unwrap()))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first: NSD's children end with their parent only then.
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let begun = std::time::Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.0.kill();
    }
}
