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
use policy::explain::ExplainContext;
use policy::{Direction, Policy};
use settings::{DEFAULT_CLUSTER_DNS, DEFAULT_CLUSTER_DOMAIN};
use thiserror::Error;

use super::{ExplainRequest, ExplainTarget, NodeKnowledge, answer, refused_remark};

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

/// Answers `request` for the pod `from` by the objects below `directory`. `node` is the node that
/// the pod runs on; by default the one in its `spec.nodeName`.
pub fn answer_offline(
    directory: &Path,
    node: Option<&str>,
    from: &EndpointId,
    request: &ExplainRequest,
) -> Result<ExplainAnswer, OfflineError> {
    let contents = tree::read_tree(directory, &mut |_| {}).map_err(|error| OfflineError::Objects {
        directory: directory.to_owned(),
        error,
    })?;
    answer_from(contents, node, from, request)
}

fn answer_from(
    contents: BTreeMap<PathBuf, FileContent>,
    node: Option<&str>,
    pod: &EndpointId,
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
    let endpoint = |pod: &EndpointId| {
        cluster.endpoint(pod).ok_or_else(|| OfflineError::NoPod {
            pod: pod.clone(),
            nearly: cluster.nearly(pod),
        })
    };
    let (from, own_node) = endpoint(pod)?;
    let pods = match &request.to {
        ExplainTarget::Pod(to) => vec![endpoint(to)?.0],
        ExplainTarget::Name(_) | ExplainTarget::Address(_) => Vec::new(),
    };
    let node = node.map(str::to_owned).or(own_node).unwrap_or_default();
    let inventory = cluster.inventory_from(&node);
    let own = inventory
        .nodes
        .values()
        .filter(|node| node.is_this)
        .flat_map(|node| node.addresses.clone());
    let zones = ZoneMap::new(own, cluster.networks().iter().copied());
    let policies: Vec<&Policy> = cluster.policies().iter().map(|policy| &**policy).collect();
    let context = ExplainContext {
        endpoint: &from,
        policies: &policies,
        inventory: &inventory,
        direction: Direction::Egress,
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
        cluster_domain: &cluster_domain,
        resolvers: &resolvers,
        pods: &pods,
        seen: None,
    };
    let mut answered = answer(request, context, known);
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
    use crate::explain::traffic;

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
            to: ExplainTarget::parse(to).unwrap(),
            traffic: traffic(Some(port), None).unwrap(),
        };
        answer_from(contents, None, &from.parse().unwrap(), &request)
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

    #[test]
    fn a_pod_that_is_not_there_cannot_be_explained() {
        let error = explained("shop/wed", "192.0.2.1", 80).unwrap_err().to_string();
        assert!(error.contains("did you mean shop/web?"), "{error}");
    }
}
