//! Builds the network namespaces of the lab, and the links and routes between them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;
use ipnet::IpNet;
use netns::Namespace;

use super::address::{self, INTERNET, INTERNET_NETS, NODE_TO_INTERNET, NODE_TO_RESOLVER, NODE4, NODE6};
use super::client::{self, ConnectAttempt, DnsReply, LookupTransport};
use super::hostile::{HostileReply, HostileResponder};
use super::internet::Internet;
use super::resolver::Resolver;
use super::{LabError, SettingUp};

/// A node, its pods, a resolver and an internet.
#[derive(Debug)]
pub struct Lab {
    // Fields are dropped in this order: the servers end before their namespaces.
    resolver: Resolver,
    internet: Internet,
    resolver_namespace: Namespace,
    pods: Vec<Pod>,
    node: Namespace,
}

/// The options of a [`Lab`].
#[derive(Debug, Clone)]
pub struct LabBuilder {
    pods: u8,
    topology: Topology,
}

/// How pods reach their node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// One routed veth for each pod, as kindnet and Calico do.
    Routed,
    /// All pods on one bridge, as flannel and Docker do.
    Bridged,
}

/// A pod: a namespace with an address of each family.
#[derive(Debug, Clone)]
pub struct Pod {
    namespace: Namespace,
    address4: Ipv4Addr,
    address6: Ipv6Addr,
}

impl Lab {
    /// By default a lab has two routed pods.
    pub fn builder() -> LabBuilder {
        LabBuilder {
            pods: 2,
            topology: Topology::Routed,
        }
    }

    /// The node's namespace, in which the agent runs.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The pod with this index, from 0.
    ///
    /// # Panics
    /// When the lab has no such pod.
    pub fn pod(&self, index: usize) -> &Pod {
        &self.pods[index]
    }

    /// The pods by their index.
    pub fn pods(&self) -> &[Pod] {
        &self.pods
    }

    /// The resolver, whose records can be changed while it runs.
    pub fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    /// The resolver's namespace, for other servers there.
    pub fn resolver_namespace(&self) -> &Namespace {
        &self.resolver_namespace
    }

    /// The internet, which also takes UDP echo servers.
    pub fn internet(&self) -> &Internet {
        &self.internet
    }

    /// A responder in the resolver's namespace that answers UDP queries to `address` as `respond`
    /// says.
    pub fn hostile(
        &self,
        address: SocketAddr,
        respond: impl FnMut(&Message) -> Vec<HostileReply> + Send + 'static,
    ) -> io::Result<HostileResponder> {
        HostileResponder::start(&self.resolver_namespace, address, respond)
    }
}

impl LabBuilder {
    /// Sets the number of pods, at most 200.
    pub fn pods(mut self, pods: u8) -> Self {
        self.pods = pods.min(200);
        self
    }

    /// Sets how pods reach the node.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Builds the lab. Needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN).
    pub fn build(self) -> Result<Lab, LabError> {
        let node = new_node().setting_up("the node")?;
        let pods = self.build_pods(&node).setting_up("the pods")?;
        let resolver_namespace = new_resolver(&node).setting_up("the resolver's namespace")?;
        let internet = new_internet(&node).setting_up("the internet's namespace")?;
        let resolver = Resolver::start(&resolver_namespace, &address::SERVED).setting_up("the resolver")?;
        let internet = Internet::start(internet).setting_up("the internet")?;
        Ok(Lab {
            resolver,
            internet,
            resolver_namespace,
            pods,
            node,
        })
    }

    fn build_pods(&self, node: &Namespace) -> io::Result<Vec<Pod>> {
        let pods = (0..self.pods)
            .map(|index| self.build_pod(node, index))
            .collect::<io::Result<Vec<_>>>()?;
        if self.topology == Topology::Bridged {
            let ports: Vec<String> = (0..self.pods).map(veth).collect();
            node.add_bridge("cni0", &ports.iter().map(String::as_str).collect::<Vec<_>>())?;
            node.add_address("cni0", net(NODE4, 24)?)?;
            node.add_address("cni0", net(NODE6, 64)?)?;
        }
        Ok(pods)
    }

    fn build_pod(&self, node: &Namespace, index: u8) -> io::Result<Pod> {
        let (address4, address6) = address::pod(index);
        let namespace = new_namespace()?;
        let link = veth(index);
        node.connect(&link, &namespace, "eth0")?;
        let gateways = [IpAddr::V4(NODE4), IpAddr::V6(NODE6)];
        for (address, gateway) in [IpAddr::V4(address4), IpAddr::V6(address6)].into_iter().zip(gateways) {
            match self.topology {
                Topology::Routed => {
                    node.add_address(&link, IpNet::from(gateway))?;
                    node.add_route(IpNet::from(address), None, &link)?;
                    namespace.add_address("eth0", IpNet::from(address))?;
                    namespace.add_route(IpNet::from(gateway), None, "eth0")?;
                }
                Topology::Bridged => {
                    let length = if address.is_ipv4() { 24 } else { 64 };
                    namespace.add_address("eth0", net(address, length)?)?;
                }
            }
            namespace.add_route(default_route(gateway), Some(gateway), "eth0")?;
        }
        Ok(Pod {
            namespace,
            address4,
            address6,
        })
    }
}

impl Pod {
    /// The pod's network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The pod's IPv4 address.
    pub fn address4(&self) -> Ipv4Addr {
        self.address4
    }

    /// The pod's IPv6 address.
    pub fn address6(&self) -> Ipv6Addr {
        self.address6
    }

    /// [`client::resolve`] in the pod.
    pub fn resolve(
        &self,
        server: SocketAddr,
        name: &str,
        kind: RecordType,
        over: LookupTransport,
    ) -> io::Result<DnsReply> {
        self.namespace.run(|| client::resolve(server, name, kind, over))?
    }

    /// [`client::connect`] in the pod.
    pub fn connect(&self, to: impl Into<IpAddr>, port: u16) -> io::Result<ConnectAttempt> {
        let to = SocketAddr::new(to.into(), port);
        self.namespace.run(|| client::connect(to))?
    }

    /// [`client::http_get`] in the pod.
    pub fn http_get(&self, to: impl Into<IpAddr>, port: u16, host: &str) -> io::Result<String> {
        let to = SocketAddr::new(to.into(), port);
        self.namespace.run(|| client::http_get(to, host))?
    }

    /// [`client::ping`] in the pod.
    pub fn ping(&self, to: Ipv4Addr) -> io::Result<bool> {
        self.namespace.run(|| client::ping(to))?
    }

    /// [`client::exchange_udp`] in the pod.
    pub fn exchange_udp(&self, to: SocketAddr, payload: &[u8]) -> io::Result<Vec<u8>> {
        self.namespace.run(|| client::exchange_udp(to, payload))?
    }
}

/// A namespace without duplicate address detection. A node cannot ask for a neighbour before its
/// IPv6 link-local address is valid, so the first packets of a lab would wait two seconds.
fn new_namespace() -> io::Result<Namespace> {
    let namespace = Namespace::new()?;
    namespace.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
    Ok(namespace)
}

fn new_node() -> io::Result<Namespace> {
    let node = new_namespace()?;
    for (key, value) in [
        ("ipv4/ip_forward", "1"),
        ("ipv6/conf/all/forwarding", "1"),
        // Refusals are ICMP errors. Tests that cause many at once must see every one.
        ("ipv4/icmp_ratelimit", "0"),
        ("ipv6/icmp/ratelimit", "0"),
    ] {
        node.set_sysctl(key, value)?;
    }
    Ok(node)
}

fn new_resolver(node: &Namespace) -> io::Result<Namespace> {
    let resolver = new_namespace()?;
    node.connect("resolver", &resolver, "eth0")?;
    for address in NODE_TO_RESOLVER {
        node.add_address("resolver", parse(address)?)?;
    }
    for address in address::SERVED.into_iter().chain(address::UNSERVED) {
        let length = if address.is_ipv4() { 24 } else { 64 };
        resolver.add_address("eth0", net(address, length)?)?;
    }
    for node in NODE_TO_RESOLVER {
        let gateway = parse(node)?.addr();
        resolver.add_route(default_route(gateway), Some(gateway), "eth0")?;
    }
    Ok(resolver)
}

fn new_internet(node: &Namespace) -> io::Result<Namespace> {
    let internet = new_namespace()?;
    node.connect("internet", &internet, "eth0")?;
    for (ours, theirs) in NODE_TO_INTERNET.into_iter().zip(INTERNET) {
        node.add_address("internet", parse(ours)?)?;
        internet.add_address("eth0", parse(theirs)?)?;
        let gateway = parse(ours)?.addr();
        internet.add_route(default_route(gateway), Some(gateway), "eth0")?;
    }
    for range in INTERNET_NETS {
        let range = parse(range)?;
        let via = parse(INTERNET[usize::from(range.addr().is_ipv6())])?.addr();
        node.add_route(range, Some(via), "internet")?;
        internet.add_local_range(range)?;
    }
    Ok(internet)
}

fn veth(index: u8) -> String {
    format!("pod{index}")
}

fn default_route(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(Default::default()),
        IpAddr::V6(_) => IpNet::V6(Default::default()),
    }
}

fn net(address: impl Into<IpAddr>, length: u8) -> io::Result<IpNet> {
    IpNet::new(address.into(), length).map_err(io::Error::other)
}

fn parse(net: &str) -> io::Result<IpNet> {
    net.parse().map_err(io::Error::other)
}
