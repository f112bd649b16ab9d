//! The lab, and the agent on its node.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use lab::client::{self, LookupTransport};
use lab::{NODE4, NODE6};
use namegate_integration::{Scenario, ScenarioBuilder};
use oracle::generate::{Case, Site};
use oracle::{Probe, Sender, Traffic, is_refused};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::packet::{self, Token};
use crate::witness::Witness;

/// The agent's own listener, where names are asked on nobody's behalf.
const LISTEN: &str = "10.53.0.1:5300";
const LISTEN_PORT: Token = 5300;

/// How long an allowed packet may take; only a failure takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Interception takes lookups elsewhere.
const DNS: u16 = 53;

/// The lab, and the agent on its node.
pub(crate) struct Node {
    scenario: Scenario,
    pods: Vec<Vec<IpAddr>>,
    /// By pod, family and protocol.
    senders: BTreeMap<(usize, bool, u8), Socket>,
    /// Where whoever is no pod sends whole packets from, IPv4 first.
    strangers: [Socket; 2],
    /// Those of pods, each with its addresses.
    pod_witnesses: Vec<Witness>,
    outside: Witness,
    inside: Witness,
    case: u32,
    next: Token,
    arrived: BTreeSet<Token>,
}

impl Node {
    pub(crate) fn start() -> Self {
        let plan = ScenarioBuilder::new(env!("CARGO_BIN_EXE_namegate-under-test")).pods(3);
        let scenario = plan
            .flags(&format!("--node here --listen {LISTEN} --dns-questions any"))
            .build();
        scenario.remove("pods.yaml");
        // Every other address is somewhere outside.
        scenario.shell("ip route add default via 192.0.2.2; ip -6 route add default via fd00:192::2");
        // Packets carry no checksums.
        scenario
            .lab()
            .node()
            .set_sysctl("netfilter/nf_conntrack_checksum", "0")
            .unwrap();
        let internet = scenario.lab().internet().namespace();
        for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            internet.set_sysctl(forwarding, "0").unwrap();
        }
        let mut scenario = scenario;
        // Of policies that are refused.
        scenario.expect_errors("world.yaml");
        scenario.start();
        let lab = scenario.lab();
        let mut senders = BTreeMap::new();
        for (index, pod) in lab.pods().iter().enumerate() {
            for (v4, domain) in [(true, Domain::IPV4), (false, Domain::IPV6)] {
                for protocol in packet::protocols(v4) {
                    let open = || Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))));
                    senders.insert((index, v4, protocol), pod.namespace().run(open).unwrap().unwrap());
                }
            }
        }
        // Raw sockets of this protocol take packets with their headers (raw(7)).
        let whole = Protocol::from(libc::IPPROTO_RAW);
        let strangers = [Domain::IPV4, Domain::IPV6].map(|domain| {
            let open = || Socket::new(domain, Type::RAW, Some(whole));
            lab.internet().namespace().run(open).unwrap().unwrap()
        });
        Self {
            strangers,
            pods: lab
                .pods()
                .iter()
                .map(|pod| vec![pod.address4().into(), pod.address6().into()])
                .collect(),
            pod_witnesses: lab
                .pods()
                .iter()
                .map(|pod| Witness::on_the_wire(pod.namespace()).unwrap())
                .collect(),
            outside: Witness::on_the_wire(lab.internet().namespace()).unwrap(),
            inside: Witness::behind_the_filters(lab.node()).unwrap(),
            senders,
            scenario,
            case: 0,
            next: 1024,
            arrived: BTreeSet::new(),
        }
    }

    pub(crate) fn site(&self) -> Site {
        Site {
            node: "here".into(),
            host: vec![NODE4.into(), NODE6.into()],
            pods: self.pods.clone(),
            probes: 24,
        }
    }

    /// Gives the agent the objects of a case, waits until they are in force, and lets it learn what
    /// names resolve to.
    pub(crate) fn enter(&mut self, case: Case) -> Case {
        self.case += 1;
        let mut case = case.in_zone(&format!("case{}.test", self.case));
        // Policies have names of their own in each case: one that is refused must not find an
        // earlier version of itself.
        for policy in case.world.objects.iter_mut().filter(|object| is_policy(object)) {
            let name = policy["metadata"]["name"].as_str().unwrap_or_default();
            policy["metadata"]["name"] = format!("case{}-{name}", self.case).into();
        }
        let refused = case
            .world
            .objects
            .iter()
            .filter(|object| is_policy(object) && is_refused(object));
        let refused: BTreeSet<&str> = refused
            .filter_map(|object| object["metadata"]["name"].as_str())
            .collect();
        let records: Vec<String> = case
            .world
            .names
            .iter()
            .flat_map(|(name, addresses)| addresses.iter().map(move |it| record(name, *it)))
            .collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        self.scenario.set(&records);
        let marker = format!("case{}", self.case);
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": marker, "namespace": "marker"},
            "spec": {"containers": []},
            "status": {"podIPs": [{"ip": "10.1.0.250"}]},
        });
        self.scenario.write(
            "world.yaml",
            &format!("{}---\n{}", case.world.yaml(), oracle::world::yaml(&pod)),
        );
        let wanted = format!("marker/{marker}");
        self.scenario.wait_until("the objects are in force", || {
            let status = self.scenario.installation().status().unwrap();
            // Those of the case before may still be shown.
            let own = format!("case{}-", self.case);
            let is_meant = |object: &str| {
                let name = object.rsplit(['/', ' ']).next().unwrap_or_default();
                !name.starts_with(&own) || refused.contains(name)
            };
            assert!(
                status
                    .reports
                    .iter()
                    .all(|row| row.state != "rejected" || is_meant(&row.object)),
                "{:#?}\n{}",
                status.reports,
                case.world.yaml()
            );
            assert_eq!(status.install_error, None, "{}", case.world.yaml());
            status.endpoints.iter().any(|row| row.endpoint == wanted)
        });
        for (name, addresses) in &case.world.names {
            for kind in [RecordType::A, RecordType::AAAA] {
                if addresses
                    .iter()
                    .any(|address| address.is_ipv4() == (kind == RecordType::A))
                {
                    self.learn(name, kind);
                }
            }
        }
        case
    }

    fn learn(&self, name: &str, kind: RecordType) {
        let server: SocketAddr = LISTEN.parse().unwrap();
        let ask = || client::resolve(server, name, kind, LookupTransport::Udp);
        let reply = self.scenario.lab().node().run(ask).unwrap().unwrap();
        assert_eq!(reply.code(), ResponseCode::NoError, "{name}");
    }

    /// Whether what becomes of a packet can be seen.
    pub(crate) fn can_be_told(&self, probe: &Probe) -> bool {
        let to_itself = match &probe.from {
            Sender::Pod(..) => index(probe).is_some_and(|index| self.pods[index].contains(&probe.to)),
            // It comes from outside, where neither the node's nor its pods' addresses are.
            Sender::Address(source) => {
                self.pods.iter().flatten().any(|pod| pod == source) || self.site().host.contains(source)
            }
        };
        let is_lookup = matches!(probe.traffic, Traffic::Port(_, DNS));
        // Without ports or numbers, what one pod sends to another is an answer to whatever that
        // sent before.
        let is_answer = probe.traffic == Traffic::Other && self.pods.iter().flatten().any(|pod| *pod == probe.to);
        !to_itself && !is_lookup && !is_answer
    }

    pub(crate) fn send(&mut self, probe: &Probe) -> Token {
        // Replies of the resolver that cases are learned from carry this number in the same place.
        if self.next == LISTEN_PORT {
            self.next += 1;
        }
        let token = self.next;
        self.next = self.next.checked_add(1).expect("there are no more numbers for packets");
        let (sender, bytes) = match &probe.from {
            Sender::Pod(..) => {
                let index = index(probe).expect("it is a pod of the lab");
                let key = (index, probe.to.is_ipv4(), packet::protocol(probe));
                (&self.senders[&key], packet::payload(probe, token))
            }
            Sender::Address(source) => {
                let family = usize::from(probe.to.is_ipv6());
                (&self.strangers[family], packet::packet(*source, probe, token))
            }
        };
        let to = SockAddr::from(SocketAddr::new(probe.to, 0));
        // What was refused before may be reported here, of this socket's earlier packets; then it
        // is sent again.
        if let Err(error) = sender.send_to(&bytes, &to) {
            assert!(is_report(&error), "{probe}: {error}");
            sender.send_to(&bytes, &to).unwrap();
        }
        token
    }

    /// The packets that have arrived, when these have, or patience ended.
    pub(crate) fn wait_for(&mut self, expected: &BTreeSet<Token>) -> BTreeSet<Token> {
        let started = Instant::now();
        loop {
            self.look();
            if expected.is_subset(&self.arrived) || started.elapsed() > patience::scaled(PATIENCE) {
                return self.arrived.clone();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Every packet that has arrived.
    pub(crate) fn arrived(&mut self) -> BTreeSet<Token> {
        self.look();
        self.arrived.clone()
    }

    fn look(&mut self) {
        // Answers have the number elsewhere. What strangers send to pods leaves by the same wire.
        let is_for_pod = |to: IpAddr| self.pods.iter().flatten().any(|pod| *pod == to);
        let outside = self.outside.seen().into_iter();
        let outside = outside.filter(|seen| !seen.to.is_some_and(is_for_pod));
        self.arrived.extend(outside.map(|seen| seen.token));
        self.arrived
            .extend(self.inside.seen().into_iter().map(|seen| seen.token));
        for (witness, addresses) in self.pod_witnesses.iter().zip(&self.pods) {
            // On its own wire a pod's packets are seen as well.
            let received = witness
                .seen()
                .into_iter()
                .filter(|seen| seen.to.is_some_and(|to| addresses.contains(&to)));
            self.arrived.extend(received.map(|seen| seen.token));
        }
    }
}

fn is_policy(object: &Value) -> bool {
    object["kind"].as_str().is_some_and(|kind| kind.ends_with("Policy"))
}

fn record(name: &str, address: IpAddr) -> String {
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    format!("{name} 3600 {kind} {address}")
}

/// Which pod of the lab sends it.
fn index(probe: &Probe) -> Option<usize> {
    match &probe.from {
        Sender::Pod(_, name) => name.trim_start_matches("here").parse().ok(),
        Sender::Address(_) => None,
    }
}

fn is_report(error: &io::Error) -> bool {
    [
        libc::ECONNREFUSED,
        libc::EHOSTUNREACH,
        libc::EACCES,
        libc::ENETUNREACH,
        libc::EPROTO,
    ]
    .contains(&error.raw_os_error().unwrap_or_default())
}
