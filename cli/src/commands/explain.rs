//! `namegate explain`: why a pod may reach a destination, or why not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent::explain::{ExplainRequest, ExplainTarget, NodeKnowledge, answer, refused_remark, traffic};
use api::ask;
use api::{ApiClient, ExplainAnswer, ExplainQuestion, ExplainVerdict};
use cluster::catalogue::Catalogue;
use cluster::index::Cluster;
use cluster::{ReportState, tree};
use names::Name;
use policy::address::Places;
use policy::explain::Scene;
use policy::{EndpointId, Policy};
use settings::{DEFAULT_CLUSTER_DNS, DEFAULT_CLUSTER_DOMAIN, DEFAULT_RUN_DIR};
use thiserror::Error;

use crate::VerbOutcome;

use super::table::printable;
use super::{OutputFormat, to_json};

/// Says whether a pod may reach a destination, which rule decides, and what is missing if none does
///
/// Asks the running agent, which also knows what names have resolved to and what the kernel holds;
/// or, with --objects, reads files as the agent would, without one.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 0 when it is allowed (audited included), with 1 when it is denied, with 2 when that cannot be told.

Examples:
  namegate explain --from shop/web-0 --to api.stripe.com --port 443
  namegate explain --from shop/web-0 --to 192.0.2.7 --port 53 --protocol udp
  namegate explain --from shop/web-0 --to shop/db-0 --port 5432
  namegate explain --objects ./objects --from shop/web-0 --to api.stripe.com -o json")]
pub(crate) struct Args {
    /// The pod, as NAMESPACE/NAME, or NAME in the namespace default
    #[arg(long, value_name = "POD")]
    from: String,
    /// A name, an address, or a pod as NAMESPACE/NAME
    #[arg(long, value_name = "NAME|IP|POD")]
    to: String,
    /// The port, or the type of an ICMP message; without it, any
    #[arg(long)]
    port: Option<u16>,
    /// tcp (the default), udp, sctp, icmp or icmpv6
    #[arg(long)]
    protocol: Option<String>,
    /// Read objects from this directory, and ask no agent
    #[arg(long, value_name = "DIR")]
    objects: Option<PathBuf>,
    /// With --objects: the node that the pod runs on, for what its policies say of nodes; by
    /// default the pod's spec.nodeName
    #[arg(long, value_name = "NAME", requires = "objects")]
    node: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: OutputFormat,
    /// The agent's --run-dir
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR, conflicts_with = "objects")]
    run_dir: PathBuf,
}

/// Why it cannot be told.
#[derive(Debug, Error)]
pub(crate) enum ExplainError {
    /// Wrong usage.
    #[error("{0}")]
    Usage(String),
    /// The objects.
    #[error("cannot read the directory {}: {error}", directory.display())]
    Objects {
        /// Which.
        directory: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The pod.
    #[error("there is no pod {pod} with an address of its own{}", nearly.as_ref().map_or_else(String::new, |nearly| format!("; did you mean {nearly}?")))]
    NoPod {
        /// Which.
        pod: EndpointId,
        /// One of nearly that name.
        nearly: Option<String>,
    },
}

/// Runs the verb.
pub(crate) fn run(args: &Args) -> crate::Result {
    let asked = ExplainRequest {
        to: ExplainTarget::parse(&args.to).map_err(ExplainError::Usage)?,
        traffic: traffic(args.port, args.protocol.as_deref()).map_err(ExplainError::Usage)?,
    };
    let Ok(pod) = args.from.parse::<EndpointId>();
    let told = match &args.objects {
        Some(directory) => offline(directory, args.node.as_deref(), &pod, &asked)?,
        None => {
            let question = ExplainQuestion {
                from: args.from.clone(),
                to: args.to.clone(),
                port: args.port,
                protocol: args.protocol.clone(),
            };
            ask(ApiClient::new(&args.run_dir).explain(&question))??
        }
    };
    crate::print(&match args.output {
        OutputFormat::Json => to_json(&told)?,
        OutputFormat::Table => render(&told),
    })?;
    Ok(match told.verdict {
        ExplainVerdict::Denied => VerbOutcome::Negative,
        ExplainVerdict::Allowed | ExplainVerdict::Audited => VerbOutcome::Positive,
    })
}

fn offline(
    directory: &Path,
    node: Option<&str>,
    pod: &EndpointId,
    asked: &ExplainRequest,
) -> Result<ExplainAnswer, ExplainError> {
    let contents = tree::read_tree(directory, &mut |_| {}).map_err(|error| ExplainError::Objects {
        directory: directory.to_owned(),
        error,
    })?;
    answer_from(contents, node, pod, asked)
}

fn answer_from(
    contents: BTreeMap<PathBuf, cluster::catalogue::FileContent>,
    node: Option<&str>,
    pod: &EndpointId,
    asked: &ExplainRequest,
) -> Result<ExplainAnswer, ExplainError> {
    // The first scan always gives an update.
    let update = Catalogue::default().scan(contents).unwrap_or_default();
    let refused = update
        .reports
        .iter()
        .filter(|report| report.is_policy() && report.state == ReportState::Rejected);
    let refused: Vec<String> = refused.map(|report| refused_remark(&report.object)).collect();
    let mut cluster = Cluster::default();
    update.changes.into_iter().for_each(|change| cluster.apply(change));
    let endpoint = |pod: &EndpointId| {
        cluster.endpoint(pod).ok_or_else(|| ExplainError::NoPod {
            pod: pod.clone(),
            nearly: cluster.nearly(pod),
        })
    };
    let (from, own_node) = endpoint(pod)?;
    let pods = match &asked.to {
        ExplainTarget::Pod(to) => vec![endpoint(to)?.0],
        ExplainTarget::Name(_) | ExplainTarget::Address(_) => Vec::new(),
    };
    let node = node.map(str::to_owned).or(own_node).unwrap_or_default();
    let inventory = cluster.inventory(&node);
    let own = inventory
        .nodes
        .iter()
        .filter(|node| node.is_this)
        .flat_map(|node| node.addresses.clone());
    let places = Places::new(own, cluster.networks());
    let policies: Vec<&Policy> = cluster.policies().map(|policy| &**policy).collect();
    let scene = Scene {
        endpoint: &from,
        policies: &policies,
        inventory: &inventory,
    };
    // Those that a configuration names are not known here.
    let (namespace, name) = DEFAULT_CLUSTER_DNS;
    let resolvers = cluster.dns_services(&[(namespace.to_owned(), name.to_owned())]);
    let resolvers: BTreeSet<SocketAddr> = resolvers.into_iter().collect();
    let cluster_domain = Name::parse(DEFAULT_CLUSTER_DOMAIN).unwrap_or_else(|_| Name::root());
    let known = NodeKnowledge {
        ledger: None,
        counts: &|_| true,
        places: &places,
        cluster_domain: &cluster_domain,
        resolvers: &resolvers,
        pods: &pods,
        seen: None,
    };
    let mut told = answer(asked, scene, known);
    if let ExplainTarget::Address(address) = &asked.to
        && told.verdict == ExplainVerdict::Denied
        && asked.traffic.is_some_and(|(_, port)| port == 53)
    {
        told.remarks.push(format!(
            "if {address} is an upstream of the agent, or a policy's DNS rule names it, lookups to it are answered whatever rules say"
        ));
    }
    told.remarks.extend(refused);
    Ok(told)
}

fn render(told: &ExplainAnswer) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "{}: {} to {}, {}",
        told.verdict.to_string().to_uppercase(),
        told.from,
        told.to,
        told.port
    );
    if let Some(lookup) = &told.lookup {
        let may = if lookup.allowed {
            "may be asked"
        } else {
            "may NOT be asked"
        };
        let reason = lookup
            .reason
            .as_ref()
            .map_or_else(String::new, |reason| format!(": {reason}"));
        let _ = writeln!(text, "  lookup: the name {may}{reason}");
    }
    for part in &told.parts {
        if let Some(address) = part.address.filter(|_| told.parts.len() > 1 || told.lookup.is_some()) {
            let _ = writeln!(text, "  {address}: {}", part.verdict);
        }
        let _ = writeln!(text, "  because {}", part.reason);
        if let Some(kernel) = &part.kernel {
            let _ = writeln!(text, "  kernel: {kernel}");
        }
        for (position, miss) in part.nearest.iter().enumerate() {
            let label = if position == 0 { "nearest miss" } else { "also near" };
            let _ = writeln!(text, "  {label}: {miss}");
        }
    }
    for remark in &told.remarks {
        let _ = writeln!(text, "  note: {remark}");
    }
    text.lines().map(|line| printable(line.to_owned()) + "\n").collect()
}

#[cfg(test)]
mod tests {
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

    fn explained(from: &str, to: &str, port: u16) -> Result<ExplainAnswer, ExplainError> {
        let contents = BTreeMap::from([("objects.yaml".into(), Ok(OBJECTS.to_owned()))]);
        let asked = ExplainRequest {
            to: ExplainTarget::parse(to).unwrap(),
            traffic: traffic(Some(port), None).unwrap(),
        };
        answer_from(contents, None, &from.parse().unwrap(), &asked)
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
        assert!(
            render(&told).contains("note: 10.96.0.5 is the Service shop/db"),
            "{}",
            render(&told)
        );
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
