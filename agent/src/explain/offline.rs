//! Explains from a directory of objects, as the agent would from the same objects, without an
//! agent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use api::{ExplainAnswer, ExplainVerdict};
use cluster::catalogue::{Catalogue, FileContent};
use cluster::index::Cluster;
use cluster::{ReportState, tree};
use names::Name;
use policy::address::ZoneMap;
use policy::endpoint::EndpointId;
use policy::{Endpoint, Policy};
use settings::{DEFAULT_CLUSTER_DNS, DEFAULT_CLUSTER_DOMAIN};
use thiserror::Error;

use super::{ExplainRequest, ExplainScene, ExplainTarget, NodeKnowledge, Sender, answer, refused_remark};

/// Why nothing can be explained from a directory.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// The directory cannot be read.
    #[error("cannot read the directory {}: {error}", directory.display())]
    Objects {
        /// The directory as it was named.
        directory: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No object is such a pod.
    #[error("there is no pod {pod} with an address of its own{}", nearly.as_ref().map_or_else(String::new, |nearly| format!("; did you mean {nearly}?")))]
    NoPod {
        /// The pod that was asked about.
        pod: EndpointId,
        /// A pod with a similar name.
        nearly: Option<String>,
    },
}

/// Answers `request` by the objects below `directory`. `node` is the node that the pod runs on that
/// connects, or the one that is connected to where no pod connects; by default the one in its
/// `spec.nodeName`.
pub fn answer_offline(
    directory: &Path,
    node: Option<&str>,
    request: &ExplainRequest,
) -> Result<ExplainAnswer, OfflineError> {
    let contents = tree::read_tree(directory, &mut |_| {}).map_err(|error| OfflineError::Objects {
        directory: directory.to_owned(),
        error,
    })?;
    answer_from(contents, node, request)
}

fn answer_from(
    contents: BTreeMap<PathBuf, FileContent>,
    node: Option<&str>,
    request: &ExplainRequest,
) -> Result<ExplainAnswer, OfflineError> {
    // The first scan always gives an update.
    let update = Catalogue::default().scan(contents).unwrap_or_default();
    let refused = update
        .reports
        .iter()
        .filter(|report| report.is_policy() && report.state == ReportState::Rejected);
    let refused: Vec<String> = refused.map(|report| refused_remark(&report.object)).collect();
    let mut cluster = Cluster::new("");
    update.changes.into_iter().for_each(|change| cluster.apply(change));
    let no_pod = |pod: &EndpointId| OfflineError::NoPod {
        pod: pod.clone(),
        nearly: cluster.nearly(pod),
    };
    let named = [request.from.pod(), request.to.pod()].into_iter().flatten();
    let named = named.map(|pod| cluster.endpoint(pod).ok_or_else(|| no_pod(pod)));
    let named = named.collect::<Result<Vec<(Endpoint, Option<String>)>, _>>()?;
    let own_node = named.first().and_then(|(_, node)| node.clone());
    let pods: Vec<Endpoint> = named.into_iter().map(|(endpoint, _)| endpoint).collect();
    let node = node.map(str::to_owned).or(own_node).unwrap_or_default();
    let inventory = cluster.inventory_from(&node);
    let from = Sender::of(&request.from, &pods, &inventory).map_err(no_pod)?;
    let own = inventory
        .nodes
        .values()
        .filter(|node| node.is_this)
        .flat_map(|node| node.addresses.clone());
    let zones = ZoneMap::new(own, cluster.networks().iter().copied());
    let policies: Vec<&Policy> = cluster.policies().iter().map(|policy| &**policy).collect();
    let scene = ExplainScene {
        from: &from,
        policies: &policies,
        inventory: &inventory,
        announced: request.announced.as_ref(),
    };
    // Resolvers that an agent's settings name are not known here.
    let (namespace, name) = DEFAULT_CLUSTER_DNS;
    let resolvers = cluster.dns_services(&[(namespace.to_owned(), name.to_owned())]);
    let resolvers: BTreeSet<SocketAddr> = resolvers.into_iter().collect();
    let cluster_domain = Name::parse(DEFAULT_CLUSTER_DOMAIN).unwrap_or_else(|_| Name::root());
    let known = NodeKnowledge {
        ledger: None,
        counts: &|_| true,
        places: &zones,
        cluster_domains: std::slice::from_ref(&cluster_domain),
        resolvers: &resolvers,
        pods: &pods,
        own_node_passes: true,
        seen: None,
    };
    let mut answered = answer(request, scene, known);
    if let ExplainTarget::Address(address) = &request.to
        && answered.verdict == ExplainVerdict::Denied
        && request.traffic.is_some_and(|(_, port)| port == 53)
    {
        answered.remarks.push(format!(
            "if {address} is an upstream of the agent, or a policy's DNS rule names it, lookups to it are answered whatever rules say"
        ));
    }
    answered.remarks.extend(refused);
    Ok(answered)
}

#[cfg(test)]
mod tests {
    use api::TrafficDirection;

    use crate::explain::{ExplainSource, traffic};

    use super::*;

    const OBJECTS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
status: {podIPs: [{ip: 10.0.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
status: {podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.96.0.5, selector: {app: db}}
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.10, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
    ports: [{port: 5432}]
";

    fn explained(from: &str, to: &str, port: u16) -> Result<ExplainAnswer, OfflineError> {
        let contents = BTreeMap::from([("objects.yaml".into(), Ok(OBJECTS.to_owned()))]);
        let request = ExplainRequest {
            from: ExplainSource::parse(from),
            to: ExplainTarget::parse(to).unwrap(),
            traffic: traffic(Some(port), None).unwrap(),
            announced: None,
        };
        answer_from(contents, None, &request)
    }

    #[test]
    fn a_service_is_explained_by_its_backends_whichever_way_it_is_named() {
        for to in ["10.0.0.2", "10.96.0.5", "db.shop.svc.cluster.local"] {
            assert_eq!(
                explained("shop/web", to, 5432).unwrap().verdict,
                ExplainVerdict::Allowed,
                "{to}"
            );
            assert_eq!(
                explained("shop/web", to, 80).unwrap().verdict,
                ExplainVerdict::Denied,
                "{to}"
            );
        }
        let told = explained("shop/web", "10.96.0.5", 5432).unwrap();
        assert!(told.remarks[0].contains("10.96.0.5 is the Service shop/db"), "{told:?}");
    }

    #[test]
    fn a_pod_reaches_itself_and_the_resolver_whatever_rules_say_and_other_pods_by_their_names() {
        for own in ["10.0.0.1", "127.0.0.1", "shop/web"] {
            assert_eq!(
                explained("shop/web", own, 80).unwrap().verdict,
                ExplainVerdict::Allowed,
                "{own}"
            );
        }
        assert_eq!(
            explained("shop/web", "10.96.0.10", 53).unwrap().verdict,
            ExplainVerdict::Allowed
        );
        assert_eq!(
            explained("shop/web", "10.96.0.10", 54).unwrap().verdict,
            ExplainVerdict::Denied
        );
        let other = explained("shop/web", "192.0.2.53", 53).unwrap();
        assert_eq!(other.verdict, ExplainVerdict::Denied);
        assert!(other.remarks[0].contains("upstream"), "{other:?}");
        assert_eq!(
            explained("shop/web", "shop/db", 5432).unwrap().verdict,
            ExplainVerdict::Allowed
        );
        let told = explained("shop/web", "shop/db", 80).unwrap();
        assert_eq!((told.verdict, told.to.as_str()), (ExplainVerdict::Denied, "shop/db"));
        let error = explained("shop/web", "shop/bd", 80).unwrap_err().to_string();
        assert!(error.contains("did you mean shop/db?"), "{error}");
        assert!(ExplainTarget::parse("10.0.0.0/8").unwrap_err().contains("one address"));
    }

    /// A guest of another node, the node of `db`, and who may connect to `db`.
    const INGRESS: &str = "---
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: shop, labels: {app: guest}}
spec: {nodeName: other, containers: []}
status: {podIPs: [{ip: 10.0.0.3}]}
---
apiVersion: v1
kind: Node
metadata: {name: here}
status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}
---
apiVersion: v1
kind: Node
metadata: {name: other}
status: {addresses: [{type: InternalIP, address: 10.9.0.2}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: web}}]
  - fromCIDR: [203.0.113.0/24]
    toPorts: [{ports: [{port: '5432', protocol: TCP}]}]
";

    #[test]
    fn both_ends_decide_and_the_first_denial_is_told() {
        let objects = format!("{OBJECTS}{INGRESS}").replace(
            "labels: {app: db}}\nstatus",
            "labels: {app: db}}\nspec: {nodeName: here, containers: []}\nstatus",
        );
        let explained = |from: &str, to: &str, port: u16| {
            let contents = BTreeMap::from([("objects.yaml".into(), Ok(objects.clone()))]);
            let request = ExplainRequest {
                from: ExplainSource::parse(from),
                to: ExplainTarget::parse(to).unwrap(),
                traffic: traffic(Some(port), None).unwrap(),
                announced: None,
            };
            answer_from(contents, None, &request).unwrap()
        };
        let (allowed, denied) = (ExplainVerdict::Allowed, ExplainVerdict::Denied);
        let (egress, ingress) = (Some(TrafficDirection::Egress), Some(TrafficDirection::Ingress));
        for (from, to, port, verdict, direction, each) in [
            ("shop/web", "shop/db", 5432, allowed, egress, vec![allowed, allowed]),
            ("shop/web", "shop/db", 80, denied, egress, vec![denied, allowed]),
            ("shop/guest", "shop/db", 80, denied, ingress, vec![allowed, denied]),
            ("shop/db", "shop/guest", 80, allowed, egress, vec![allowed, allowed]),
            // An address that is a pod's is that pod.
            ("10.0.0.3", "10.0.0.2", 80, denied, ingress, vec![allowed, denied]),
            (
                "shop/guest",
                "db.shop.svc.cluster.local",
                80,
                denied,
                ingress,
                vec![allowed, denied],
            ),
            ("203.0.113.9", "shop/db", 5432, allowed, ingress, vec![allowed]),
            ("203.0.113.9", "shop/db", 80, denied, ingress, vec![denied]),
            ("10.9.0.1", "shop/db", 80, allowed, ingress, vec![allowed]),
            ("10.9.0.2", "shop/db", 80, denied, ingress, vec![denied]),
            ("shop/db", "10.0.0.2", 80, allowed, None, vec![]),
            ("203.0.113.9", "198.51.100.1", 80, allowed, None, vec![]),
        ] {
            let told = explained(from, to, port);
            let part = &told.parts[0];
            let decisions: Vec<_> = part.decisions.iter().map(|decision| decision.verdict).collect();
            assert_eq!(
                (told.verdict, part.direction, decisions),
                (verdict, direction, each),
                "{from} to {to}, {port}: {told:?}"
            );
        }
        let told = explained("10.9.0.1", "shop/db", 80);
        assert!(told.parts[0].reason.contains("own node"), "{told:?}");
        assert!(told.remarks[0].contains("NodePort"), "{told:?}");
        let told = explained("shop/guest", "shop/db", 80);
        let part = &told.parts[0];
        assert_eq!(part.policy.as_deref(), Some("shop/db"));
        assert!(
            part.nearest[0].contains("would match if the source's pod had app=web"),
            "{part:?}"
        );
    }

    #[test]
    fn a_pod_that_is_not_there_cannot_be_explained() {
        let error = explained("shop/wed", "192.0.2.1", 80).unwrap_err().to_string();
        assert!(error.contains("did you mean shop/web?"), "{error}");
    }
}
