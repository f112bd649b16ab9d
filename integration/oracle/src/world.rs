//! The objects, and which names resolve to what.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::json::{list, text, texts};
use crate::labels::{self, Labels};
use crate::probe::Protocol;

/// All that a verdict depends on.
#[derive(Debug, Clone)]
pub struct World {
    /// Pods, Namespaces, Services, EndpointSlices, Nodes, CiliumCIDRGroups and policies, as a
    /// cluster holds them.
    pub objects: Vec<Value>,
    /// The name of the node whose pods are governed.
    pub node: String,
    /// Names that were looked up, and the addresses that they resolve to.
    pub names: BTreeMap<String, BTreeSet<IpAddr>>,
}

impl World {
    /// The objects as a stream of YAML documents.
    pub fn yaml(&self) -> String {
        self.objects.iter().map(yaml).collect::<Vec<_>>().join("---\n")
    }

    /// The objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |object| text(object, "kind") == Some(kind))
    }

    /// The pods that have addresses of their own.
    pub(crate) fn pods(&self) -> impl Iterator<Item = Pod<'_>> {
        let pods = self.of_kind("Pod").map(|object| Pod { world: self, object });
        pods.filter(|pod| pod.object["spec"]["hostNetwork"] != true)
    }

    /// The pod that has an address.
    pub(crate) fn pod_at(&self, address: IpAddr) -> Option<Pod<'_>> {
        self.pods().find(|pod| pod.addresses().contains(&address))
    }

    /// The labels of a namespace. Each has its name as a label, as the API server sees to it.
    pub(crate) fn namespace_labels(&self, name: &str) -> Labels {
        let object = self
            .of_kind("Namespace")
            .find(|object| text(&object["metadata"], "name") == Some(name));
        let mut labels = object.map(labels::of).unwrap_or_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        labels
    }

    /// Whether an address is this node's.
    pub fn is_host(&self, address: IpAddr) -> bool {
        self.nodes()
            .any(|node| node.is_this() && node.addresses().contains(&address))
    }

    /// Whether an address belongs to the cluster: to a pod, a node or a service, or to what nodes
    /// give pods addresses from.
    pub fn is_inside(&self, address: IpAddr) -> bool {
        self.pod_at(address).is_some()
            || self.nodes().any(|node| {
                node.addresses().contains(&address) || node.pod_cidrs().iter().any(|cidr| cidr.contains(&address))
            })
            || self
                .of_kind("Service")
                .any(|service| cluster_ips(service).contains(&address))
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        self.of_kind("Node").map(|object| Node { world: self, object })
    }

    /// The addresses behind a service: those of its EndpointSlices, and of the pods that its
    /// selector selects.
    pub(crate) fn backends(&self, service: &Value) -> BTreeSet<IpAddr> {
        let (namespace, name) = (namespace_of(service), name_of(service));
        let slices = self.of_kind("EndpointSlice").filter(|slice| {
            namespace_of(slice) == namespace
                && labels::of(slice).get("kubernetes.io/service-name").map(String::as_str) == Some(name)
        });
        let endpoints = slices.flat_map(|slice| list(slice, "endpoints"));
        let mut backends: BTreeSet<IpAddr> = endpoints
            .flat_map(|endpoint| texts(endpoint, "addresses"))
            .map(address)
            .collect();
        if let Some(selector) = service["spec"]["selector"]
            .as_object()
            .filter(|selector| !selector.is_empty())
        {
            let selected = self.pods().filter(|pod| {
                let labels = pod.labels();
                let has = |(key, value): (&String, &Value)| labels.get(key).map(String::as_str) == value.as_str();
                pod.namespace() == namespace && selector.iter().all(has)
            });
            backends.extend(selected.flat_map(|pod| pod.addresses()));
        }
        backends
    }

    /// The names that an address was learned for. An address of the cluster never is.
    pub(crate) fn names_of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        let taught = !self.is_inside(address) && !self.is_host(address);
        self.names
            .iter()
            .filter(move |(_, addresses)| taught && addresses.contains(&address))
            .map(|(name, _)| name.as_str())
    }
}

/// An object, as a person would write it.
pub fn yaml(object: &Value) -> String {
    let mut text = serde_saphyr::to_string(object).expect("every JSON value can be written as YAML");
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[derive(Clone, Copy)]
pub(crate) struct Pod<'a> {
    world: &'a World,
    object: &'a Value,
}

impl<'a> Pod<'a> {
    pub(crate) fn namespace(self) -> &'a str {
        namespace_of(self.object)
    }

    pub(crate) fn name(self) -> &'a str {
        name_of(self.object)
    }

    pub(crate) fn labels(self) -> Labels {
        labels::of(self.object)
    }

    pub(crate) fn namespace_labels(self) -> Labels {
        self.world.namespace_labels(self.namespace())
    }

    /// The node that it runs on.
    pub(crate) fn node(self) -> &'a str {
        text(&self.object["spec"], "nodeName").unwrap_or_default()
    }

    pub(crate) fn service_account(self) -> &'a str {
        text(&self.object["spec"], "serviceAccountName").unwrap_or("default")
    }

    pub(crate) fn addresses(self) -> BTreeSet<IpAddr> {
        let listed = list(&self.object["status"], "podIPs").iter();
        listed.filter_map(|ip| text(ip, "ip")).map(address).collect()
    }

    /// Whether a container calls this port by this name.
    pub(crate) fn names_port(self, name: &str, protocol: Protocol, port: u16) -> bool {
        let spec = &self.object["spec"];
        let containers = list(spec, "initContainers").iter().chain(list(spec, "containers"));
        let mut ports = containers.flat_map(|container| list(container, "ports"));
        ports.any(|known| {
            text(known, "name") == Some(name)
                && text(known, "protocol").unwrap_or("TCP") == protocol.as_str()
                && known["containerPort"] == port
        })
    }
}

pub(crate) struct Node<'a> {
    world: &'a World,
    object: &'a Value,
}

impl Node<'_> {
    pub(crate) fn is_this(&self) -> bool {
        name_of(self.object) == self.world.node
    }

    pub(crate) fn labels(&self) -> Labels {
        labels::of(self.object)
    }

    pub(crate) fn addresses(&self) -> BTreeSet<IpAddr> {
        let listed = list(&self.object["status"], "addresses").iter();
        listed
            .filter_map(|entry| text(entry, "address")?.parse().ok())
            .collect()
    }

    fn pod_cidrs(&self) -> Vec<IpNet> {
        texts(&self.object["spec"], "podCIDRs").map(prefix).collect()
    }
}

/// The addresses of a service itself.
pub(crate) fn cluster_ips(service: &Value) -> BTreeSet<IpAddr> {
    texts(&service["spec"], "clusterIPs")
        .filter_map(|ip| ip.parse().ok())
        .collect()
}

pub(crate) fn name_of(object: &Value) -> &str {
    text(&object["metadata"], "name").unwrap_or_default()
}

pub(crate) fn namespace_of(object: &Value) -> &str {
    text(&object["metadata"], "namespace").unwrap_or("default")
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text} is no address"))
}

/// A prefix or a single address.
pub(crate) fn prefix(text: &str) -> IpNet {
    match text.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => text.parse().unwrap_or_else(|_| panic!("{text} is no prefix")),
    }
}
