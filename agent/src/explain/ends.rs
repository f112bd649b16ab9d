//! The two ends of a connection, as a person names them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use names::Name;
use policy::explain::KnownAnnouncement;
use policy::inventory::{IndexedPod, Inventory};
use policy::{Endpoint, EndpointId, Protocol, endpoint};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The source.
    pub from: ExplainSource,
    /// The destination.
    pub to: ExplainTarget,
    /// Port, or type of ICMP message; `None`: any.
    pub traffic: Option<(Protocol, u16)>,
    /// What the connection announces.
    pub announced: Option<KnownAnnouncement>,
}

/// A source, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainSource {
    /// A Pod.
    Pod(EndpointId),
    /// An address: a Pod's, or any other from which a Pod may be connected to.
    Address(IpAddr),
}

/// A destination, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainTarget {
    /// A name, with the addresses that its leases hold.
    Name(Name),
    /// An address, with the names that hold it.
    Address(IpAddr),
    /// A Pod, with all its addresses.
    Pod(EndpointId),
}

/// Who opens a connection.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The Pod; `None` for an address that is no Pod's, about whose egress nothing can be said.
    pub endpoint: Option<Endpoint>,
    /// Where its packets come from.
    pub addresses: BTreeSet<IpAddr>,
}

impl Sender {
    /// Whom a person has named. Of the Pods only those are known by their names that are among
    /// `pods`; the error is one that is not.
    pub fn of<'a>(named: &'a ExplainSource, pods: &[Endpoint], inventory: &Inventory) -> Result<Self, &'a EndpointId> {
        match named {
            ExplainSource::Pod(id) => {
                let endpoint = pods.iter().find(|pod| pod.id == *id).ok_or(id)?;
                Ok(Self {
                    addresses: endpoint.addresses.clone(),
                    endpoint: Some(endpoint.clone()),
                })
            }
            ExplainSource::Address(address) => Ok(Self {
                endpoint: endpoint_at(*address, pods, inventory),
                addresses: BTreeSet::from([*address]),
            }),
        }
    }

    /// Where packets to an address of the same family come from.
    pub(super) fn towards(&self, address: IpAddr) -> Option<IpAddr> {
        let mut addresses = self.addresses.iter().copied();
        addresses.find(|own| own.is_ipv4() == address.is_ipv4())
    }
}

/// The Pod of the own cluster that has an address: one of `pods`, or one of which only the
/// inventory knows.
pub(super) fn endpoint_at(address: IpAddr, pods: &[Endpoint], inventory: &Inventory) -> Option<Endpoint> {
    let known = pods.iter().find(|pod| pod.addresses.contains(&address));
    let of_inventory = |pod: IndexedPod<'_>| Endpoint {
        id: EndpointId {
            namespace: pod.labels().get(endpoint::keys::NAMESPACE).cloned().unwrap_or_default(),
            // An inventory has no names.
            name: address.to_string(),
        },
        labels: pod.labels().clone(),
        addresses: pod.addresses().iter().copied().collect(),
        ports: pod.ports().to_vec(),
    };
    known
        .cloned()
        .or_else(|| inventory.own_pods_at(address).next().map(of_inventory))
}

impl ExplainSource {
    /// The Pod that is named.
    pub(super) fn pod(&self) -> Option<&EndpointId> {
        match self {
            ExplainSource::Pod(pod) => Some(pod),
            ExplainSource::Address(_) => None,
        }
    }

    /// Reads an address, or a Pod as `NAMESPACE/NAME` or `NAME`.
    pub fn parse(text: &str) -> Self {
        match text.parse() {
            Ok(address) => Self::Address(address),
            Err(_) => {
                // Every text is some endpoint's id; one that no Pod has is reported by the answer.
                let Ok(pod) = text.parse();
                Self::Pod(pod)
            }
        }
    }
}

impl fmt::Display for ExplainSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExplainSource::Pod(pod) => pod.fmt(f),
            ExplainSource::Address(address) => address.fmt(f),
        }
    }
}

impl ExplainTarget {
    /// The Pod that is named.
    pub(super) fn pod(&self) -> Option<&EndpointId> {
        match self {
            ExplainTarget::Pod(pod) => Some(pod),
            ExplainTarget::Name(_) | ExplainTarget::Address(_) => None,
        }
    }

    /// Reads an address, `NAMESPACE/NAME` of a pod, or a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some((namespace, name)) = text.split_once('/') {
            return match namespace.contains(['.', ':']) {
                true => Err(format!("{text:?} is a prefix; write one address of it")),
                false => Ok(Self::Pod(EndpointId {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })),
            };
        }
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => Name::parse(text)
                .map(Self::Name)
                .map_err(|error| format!("{text:?} is neither an address nor a name: {error}")),
        }
    }
}

impl fmt::Display for ExplainTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExplainTarget::Name(name) => name.fmt(f),
            ExplainTarget::Address(address) => address.fmt(f),
            ExplainTarget::Pod(pod) => pod.fmt(f),
        }
    }
}

/// Reads `--port` and `--protocol`.
pub fn traffic(port: Option<u16>, protocol: Option<&str>) -> Result<Option<(Protocol, u16)>, String> {
    let protocol = match protocol.map(str::to_ascii_lowercase).as_deref() {
        None => None,
        Some("tcp") => Some(Protocol::Tcp),
        Some("udp") => Some(Protocol::Udp),
        Some("sctp") => Some(Protocol::Sctp),
        Some("icmp") => Some(Protocol::Icmp),
        Some("icmpv6") => Some(Protocol::Icmpv6),
        Some(other) => return Err(format!("{other:?} is not one of tcp, udp, sctp, icmp and icmpv6")),
    };
    match (port, protocol) {
        (None, None) => Ok(None),
        // An echo request, as `ping` sends it.
        (None, Some(Protocol::Icmp)) => Ok(Some((Protocol::Icmp, 8))),
        (None, Some(Protocol::Icmpv6)) => Ok(Some((Protocol::Icmpv6, 128))),
        (None, Some(protocol)) => Err(format!("which port of {protocol}? Say it with --port")),
        (Some(port), protocol) => Ok(Some((protocol.unwrap_or(Protocol::Tcp), port))),
    }
}

/// Reads `--sni`, `--method`, `--path` and `--host`.
pub fn announced(sni: Option<&str>, request: [Option<&str>; 3]) -> Result<Option<KnownAnnouncement>, String> {
    let [method, path, host] = request;
    let sni = sni.map(|sni| Name::parse(sni).map_err(|error| format!("{sni:?} is not a name: {error}")));
    let sni = sni.transpose()?;
    let method_and_path = || {
        let method = method.unwrap_or("GET").to_owned();
        (method, path.unwrap_or("/").to_owned())
    };
    match (sni, method.or(path).or(host)) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) if host.is_some() => Err(
            "a request within TLS is for the host that the connection names: --sni and --host do not go together"
                .into(),
        ),
        (Some(server_name), Some(_)) => {
            let (method, path) = method_and_path();
            Ok(Some(KnownAnnouncement::Secured {
                server_name,
                method,
                path,
            }))
        }
        (Some(server_name), None) => Ok(Some(KnownAnnouncement::Tls(server_name))),
        (None, Some(_)) => {
            let (method, path) = method_and_path();
            Ok(Some(KnownAnnouncement::Http {
                method,
                path,
                host: host.unwrap_or_default().to_owned(),
            }))
        }
    }
}
