//! The objects of a cluster of any size: the same numbers make the same objects.
//!
//! Each object is a function of its number, so that whoever measures a change makes the object
//! that was there, and the one that comes in its place, out of the same number.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::{Value, json};

/// The name of the node whose agent is measured.
pub(crate) const THIS_NODE: &str = "node-0";
/// Pods of one node: what the kubelet allows by default.
pub(crate) const PODS_OF_NODE: usize = 110;

/// How many objects of each kind there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClusterShape {
    pub(crate) namespaces: usize,
    /// Kinds of workload in each namespace. Pods of one differ in their addresses alone.
    pub(crate) apps: usize,
    pub(crate) pods: usize,
    pub(crate) services: usize,
    /// Most of them speak of pods.
    pub(crate) policies: usize,
}

impl ClusterShape {
    /// Objects in such an order that what others refer to comes first.
    pub(crate) fn objects(&self) -> impl Iterator<Item = Value> {
        let nodes = (0..self.nodes()).map(|number| self.node(number));
        let namespaces = (0..self.namespaces).map(|number| self.namespace(number));
        let services = (0..self.services).map(|number| self.service(number));
        let policies = (0..self.policies).map(|number| self.policy(number));
        let pods = (0..self.pods).map(|number| self.pod(number));
        nodes.chain(namespaces).chain(services).chain(policies).chain(pods)
    }

    /// Writes the pods into so many files of `directory`, and everything else into one for each
    /// kind.
    pub(crate) fn write(&self, directory: &Path, pod_files: usize) -> io::Result<()> {
        let pods_of_file = self.pods.div_ceil(pod_files.max(1)).max(1);
        for number in 0..self.pods.div_ceil(pods_of_file) {
            self.write_pods(directory, number, pods_of_file, |_, pod| pod)?;
        }
        let others = [
            ("nodes", self.nodes(), Self::node as fn(&Self, usize) -> Value),
            ("namespaces", self.namespaces, Self::namespace),
            ("services", self.services, Self::service),
            ("policies", self.policies, Self::policy),
        ];
        for (name, count, object) in others {
            // A file of more than four megabytes is not read.
            for (part, first) in (0..count).step_by(1_000).enumerate() {
                let objects = (first..count.min(first + 1_000)).map(|number| object(self, number));
                write_file(&directory.join(format!("{name}-{part}.yaml")), objects)?;
            }
        }
        Ok(())
    }

    /// Writes one file of pods again, each as `edit` makes it out of its number and what it was.
    pub(crate) fn write_pods(
        &self,
        directory: &Path,
        file: usize,
        pods_of_file: usize,
        edit: impl Fn(usize, Value) -> Value,
    ) -> io::Result<()> {
        let first = file * pods_of_file;
        let pods = first..self.pods.min(first + pods_of_file);
        let pods = pods.map(|number| edit(number, self.pod(number)));
        write_file(&directory.join(format!("pods-{file}.yaml")), pods)
    }

    pub(crate) fn nodes(&self) -> usize {
        self.pods.div_ceil(PODS_OF_NODE)
    }

    pub(crate) fn node(&self, number: usize) -> Value {
        let (high, low) = (number / 256, number % 256);
        let range = format!("10.{high}.{low}.0/24");
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("node-{number}"), "labels": {"topology.kubernetes.io/zone": format!("z{}", number % 3)}},
            "spec": {"podCIDR": range, "podCIDRs": [range]},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.16.{high}.{low}")}]},
        })
    }

    pub(crate) fn namespace(&self, number: usize) -> Value {
        let name = namespace_name(number);
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": format!("team-{}", number % 7)}},
        })
    }

    /// Pods go round the namespaces, and then the apps.
    pub(crate) fn pod(&self, number: usize) -> Value {
        let (namespace, app) = self.place(number);
        let node = number / PODS_OF_NODE;
        let address = format!("10.{}.{}.{}", node / 256, node % 256, 2 + number % PODS_OF_NODE);
        let hash = format!("{:08x}", 2_654_435_761_u64.wrapping_mul(app as u64 + 1) & 0xffff_ffff);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": format!("{}-{hash}-{number:05}", app_name(app)), "namespace": namespace_name(namespace),
                "labels": {"app": app_name(app), "tier": tier_of(app), "version": "v1", "pod-template-hash": hash},
            },
            "spec": {
                "nodeName": format!("node-{node}"), "serviceAccountName": app_name(app),
                "containers": [{
                    "name": "main", "image": "registry.example/app:1",
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}, {"name": "metrics", "containerPort": 9090}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                }],
            },
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    }

    /// A service is about one app, whose pods listen on another port than it does.
    pub(crate) fn service(&self, number: usize) -> Value {
        let (namespace, app) = self.place(number);
        let target = if number.is_multiple_of(2) {
            json!("http")
        } else {
            json!(8080)
        };
        let address = format!("172.20.{}.{}", number / 250, 1 + number % 250);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("svc-{number}"), "namespace": namespace_name(namespace), "labels": {"app": app_name(app)}},
            "spec": {
                "clusterIP": address, "clusterIPs": [address], "selector": {"app": app_name(app)},
                "ports": [{"name": "http", "port": 80, "targetPort": target}],
            },
        })
    }

    /// Policies of every kind. Some of them hold a mistake that `namegate check` has a finding for.
    pub(crate) fn policy(&self, number: usize) -> Value {
        let (namespace, app) = self.place(number);
        let (next, after) = ((app + 1) % self.apps.max(1), (app + 2) % self.apps.max(1));
        let elsewhere = namespace_name((namespace + 1) % self.namespaces.max(1));
        let labels = |app: usize| json!({"matchLabels": {"app": app_name(app)}});
        let metadata = json!({"name": format!("p-{number}"), "namespace": namespace_name(namespace)});
        if number % 100 == 99 {
            return json!({
                "apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy",
                "metadata": {"name": format!("c-{number}")},
                "spec": {
                    "tier": if number % 200 == 99 { "Admin" } else { "Baseline" }, "priority": number / 100 % 20,
                    "subject": {"namespaces": {"matchLabels": {"team": format!("team-{}", number / 100 % 7)}}},
                    "egress": [
                        {"name": "to-a-team", "action": "Accept", "to": [{"namespaces": {"matchLabels": {"team": format!("team-{}", number / 100 % 5)}}}]},
                        {"name": "away", "action": "Deny", "to": [{"networks": [format!("198.51.100.{}/32", number % 256)]}]},
                    ],
                },
            });
        }
        match number % 4 {
            0 => json!({
                "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata,
                "spec": {"podSelector": labels(app), "policyTypes": ["Egress"], "egress": [
                    {"to": [{"podSelector": labels(next)}], "ports": [{"port": "http", "protocol": "TCP"}]},
                    {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": elsewhere}}, "podSelector": labels(after)}],
                     "ports": [{"port": 8080, "protocol": "TCP"}]},
                ]},
            }),
            1 => json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata,
                "spec": {"endpointSelector": labels(app), "egress": [
                    {"toEndpoints": [{"matchLabels": {"app": app_name(next)}, "matchExpressions": [{"key": "tier", "operator": "In", "values": [tier_of(next), "cache"]}]}],
                     // Port 80 is the service's, and not the pods'.
                     "toPorts": [{"ports": [{"port": if number % 40 == 1 { "80" } else { "8080" }, "protocol": "TCP"}]}]},
                    {"toFQDNs": [{"matchName": format!("api-{}.example.com", number % 50)}, {"matchPattern": format!("*.cdn-{}.example.com", number % 9)}],
                     "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]},
                ]},
            }),
            2 => json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata,
                "spec": {"endpointSelector": labels(app), "egress": [
                    {"toServices": [{"k8sService": {"serviceName": format!("svc-{}", number % self.services.max(1)), "namespace": namespace_name(self.place(number % self.services.max(1)).0)}}]},
                    {"toCIDRSet": [if number % 40 == 2 { json!({"cidr": "10.0.0.0/8", "except": ["10.255.0.0/16"]}) } else { json!({"cidr": "192.0.2.0/24", "except": ["192.0.2.7/32"]}) }],
                     "toPorts": [{"ports": [{"port": "30000", "endPort": 32767, "protocol": "TCP"}]}]},
                ]},
            }),
            _ => json!({
                "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata,
                "spec": {"endpointSelector": labels(app), "egress": [
                    // A label that is misspelt, or the port of nobody.
                    {"toEndpoints": [{"matchLabels": {"app": if number % 40 == 3 { format!("{}x", app_name(next)) } else { app_name(next) }}}],
                     "toPorts": [{"ports": [{"port": if number % 40 == 7 { "htp" } else { "http" }, "protocol": "TCP"}]}]},
                    {"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}}],
                     "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "**.example.com"}]}}]},
                ]},
            }),
        }
    }

    /// Namespaces of which a NetworkPolicy decides who of the same namespace is a peer: no policy
    /// of tier Admin accepts all of them before.
    pub(crate) fn with_peers(&self) -> Vec<usize> {
        let is_one = |namespace: &usize| namespace.is_multiple_of(4) && [1, 3, 5, 6].contains(&(namespace % 7));
        (0..self.namespaces.min(PODS_OF_NODE)).filter(is_one).collect()
    }

    /// The namespace and the app of the object with this number.
    fn place(&self, number: usize) -> (usize, usize) {
        let namespaces = self.namespaces.max(1);
        (number % namespaces, number / namespaces % self.apps.max(1))
    }
}

pub(crate) fn namespace_name(number: usize) -> String {
    format!("team-space-{number}")
}

pub(crate) fn app_name(app: usize) -> String {
    format!("app-{app}")
}

fn tier_of(app: usize) -> &'static str {
    ["front", "middle", "back"][app % 3]
}

fn write_file(path: &Path, objects: impl Iterator<Item = Value>) -> io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(path)?);
    for object in objects {
        let text = serde_saphyr::to_string(&object).map_err(io::Error::other)?;
        write!(file, "---\n{text}")?;
    }
    file.flush()
}
