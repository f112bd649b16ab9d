//! The nodes that are compared.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Stdio;

use lab::process::{AgentProcess, Installation};
use lab::{Lab, dns};
use namegate_integration::kube_proxy::{self, KubeProxyMode, ServiceTranslation};

use crate::agents::{Server, binary};
use crate::zone::{FAR_UPSTREAM, Zone};

use super::ends::PORT;

/// Pods that are governed. One of them is really there.
const PODS: u8 = 100;
/// Entries of `toFQDNs`.
const SELECTORS: u32 = 1_000;
/// Addresses that a pod has learned, each of which is connected to.
const ADDRESSES: u32 = 50_000;
/// Names are asked that many addresses at a time.
const ADDRESSES_OF_A_NAME: usize = 5;
/// The lab's internet is there on the whole of 198.18.0.0/15.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// Services of the cluster, for kube-proxy.
const SERVICES: [ServiceTranslation; 2] = [
    ServiceTranslation {
        name: "kube-system/kube-dns/dns",
        protocol: "udp",
        service: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)), 53),
        backend: SocketAddr::new(FAR_UPSTREAM, 53),
    },
    ServiceTranslation {
        name: "shop/web/http",
        protocol: "tcp",
        service: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 7, 7)), 80),
        backend: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), 8080),
    },
];

/// A lab, and what its node has.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    _agent: Option<(AgentProcess, Installation)>,
}

/// Every learned address.
pub(crate) fn addresses() -> Vec<Ipv4Addr> {
    let first = FIRST.to_bits();
    (first..first + ADDRESSES).map(Ipv4Addr::from_bits).collect()
}

impl Site {
    /// Nothing but routes: no rules, no connection tracking.
    pub(crate) fn forwarding() -> Self {
        let lab = Lab::builder().pods(1).build().unwrap();
        Self { lab, _agent: None }
    }

    /// With connection tracking and the rules of kube-proxy.
    pub(crate) fn kube_proxy() -> Self {
        let site = Self::forwarding();
        kube_proxy::install(site.lab.node(), KubeProxyMode::Nftables, &SERVICES);
        site
    }

    /// With Namegate beside it, every pod governed, and every address learned by a lookup.
    pub(crate) fn governed(interception: &str) -> Self {
        let site = Self::kube_proxy();
        let zone = zone();
        let conf = zone.file("nsd-far.conf");
        let _nsd = Server::start(
            site.lab.resolver_namespace(),
            "nsd",
            &["-d", "-c", conf.to_str().unwrap()],
        )
        .expect("nsd is installed");
        let installation = Installation::new(binary(), site.lab.node()).unwrap();
        installation.write_object("pods.yaml", &pods(&site.lab)).unwrap();
        installation.write_object("policy.yaml", &policy()).unwrap();
        let upstream = FAR_UPSTREAM.to_string();
        let flags = ["--upstream", &upstream, "--intercept", interception];
        let mut agent = installation
            .start(flags.into_iter().chain(["--set-capacity", "131072"]))
            .unwrap();
        agent.wait_ready().unwrap();
        learn(&site.lab, &zone);
        // An answer is released when its elements are in the kernel: one for TCP, one for UDP.
        assert_eq!(agent.metric("namegate_ledger_addresses").unwrap(), f64::from(ADDRESSES));
        assert_eq!(agent.metric("namegate_set_elements").unwrap(), f64::from(2 * ADDRESSES));
        Self {
            _agent: Some((agent, installation)),
            ..site
        }
    }
}

/// The names in their order, spread over the selectors.
fn zone() -> Zone {
    let addresses = addresses();
    let names = addresses.chunks(ADDRESSES_OF_A_NAME).zip(0..);
    Zone::of(names.map(|(addresses, number)| (format!("n{number}.s{}.connect", number % SELECTORS), addresses)))
}

fn learn(lab: &Lab, zone: &Zone) {
    let mut dnsperf = lab.pod(0).namespace().command("dnsperf");
    dnsperf.args(["-s", &dns(FAR_UPSTREAM).ip().to_string(), "-n", "1", "-q", "20", "-d"]);
    let output = dnsperf.arg(zone.known()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "dnsperf: {output:?}");
}

fn pods(lab: &Lab) -> String {
    let first = lab.pod(0).address4().to_bits();
    let mut text = String::new();
    for number in 0..u32::from(PODS) {
        let address = Ipv4Addr::from_bits(first + number);
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: pod{number}, namespace: shop}}\n\
             spec: {{containers: [{{name: main, image: none}}]}}\nstatus: {{podIP: {address}, podIPs: [{{ip: {address}}}]}}"
        )
        .unwrap();
    }
    text
}

fn policy() -> String {
    let mut text = String::from(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: connect, namespace: shop}\nspec:\n  endpointSelector: {}\n  egress:\n  \
         - toPorts: [{ports: [",
    );
    write!(
        text,
        "{{port: '{PORT}', protocol: TCP}}, {{port: '{PORT}', protocol: UDP}}]}}]\n    toFQDNs:\n"
    )
    .unwrap();
    for number in 0..SELECTORS {
        writeln!(text, "    - matchPattern: '*.s{number}.connect.bench.test'").unwrap();
    }
    text
}
