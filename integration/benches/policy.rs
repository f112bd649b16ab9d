//! From objects to the kernel: how long a change of a pod or a policy takes, and how long a
//! packet's way is.
//!
//! `cargo bench -p namegate-integration --bench policy`, as root. A cluster of 10,000 pods, 110 of
//! them on this node, with 10, 100 and 1,000 policies; the ruleset is that of a network namespace
//! of its own. Each policy selects the pods of one app in one of 100 namespaces and has names,
//! pods, prefixes and port ranges.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::catalogue::Catalogue;
use cluster::index::Cluster;
use enforcer::Enforcer;
use enforcer::ruleset::longest_path;
use planner::{Plan, Planner};
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts, Settings};

const PODS: usize = 10_000;
const NAMESPACES: usize = 100;
/// Pods of this node: what the kubelet allows by default.
const LOCAL: usize = 110;
const APPS: usize = 10;
const TIMES: usize = 15;

fn main() {
    // `cargo bench` says `--bench`.
    if std::env::args().nth(1).as_deref() != Some("inside") {
        let this = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .arg("-n")
            .arg(this)
            .arg("inside")
            .status()
            .unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    println!("{PODS} pods in {NAMESPACES} namespaces, {LOCAL} on this node; medians of {TIMES} (worst)");
    println!(
        "{:>8}  {:>8}  {:>10}  {:>10}  {:>19}  {:>19}  {:>19}  {:>8}",
        "policies", "programs", "cold plan", "cold start", "pod label", "new pod", "policy", "lookups"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for policies in [10, 100, 1_000] {
        runtime.block_on(measure(policies));
    }
}

async fn measure(policies: usize) {
    let mut node = Node::new(policies);
    let begun = Instant::now();
    let plan = node.plan();
    let cold_plan = begun.elapsed();
    let programs = plan.desired.programs.len();
    let lookups = plan
        .desired
        .programs
        .values()
        .map(|program| longest_path(program))
        .max();
    install(&node.enforcer, plan).await;
    let cold_start = begun.elapsed();

    let mut relabelled = Vec::new();
    let mut new_pods = Vec::new();
    let mut edited = Vec::new();
    for number in 0..TIMES {
        // A pod of another node that some programs mean.
        relabelled.push(
            node.change(&pod(LOCAL + number, (number + 1) % APPS, "10.200.0", number))
                .await,
        );
        new_pods.push(
            node.change(&pod_named(
                &format!("new-{number}"),
                number,
                number % APPS,
                "10.201.0",
                number,
                "here",
            ))
            .await,
        );
        edited.push(node.change(&policy(number % policies, 9_000 + number)).await);
    }
    println!(
        "{policies:>8}  {programs:>8}  {cold_plan:>10.1?}  {cold_start:>10.1?}  {:>19}  {:>19}  {:>19}  {:>8}",
        shown(relabelled),
        shown(new_pods),
        shown(edited),
        lookups.unwrap_or(0),
    );
}

struct Node {
    cluster: Cluster,
    planner: Planner,
    settings: Settings,
    enforcer: Enforcer,
}

impl Node {
    fn new(policies: usize) -> Self {
        let host = HostFacts {
            name: "here".into(),
            resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
        };
        let settings = resolve(AgentOptions::default(), &host).unwrap();
        let mut cluster = Cluster::new(&settings.node);
        let pods = (0..PODS).map(|number| pod(number, number / NAMESPACES % APPS, "", number));
        let policies = (0..policies).map(|number| policy(number, number));
        apply(&mut cluster, &pods.chain(policies).collect::<String>());
        // The table of the measurement before.
        enforcer::writer::clean_up(&settings.table).unwrap();
        Self {
            cluster,
            planner: Planner::default(),
            enforcer: Enforcer::start(&settings.table).unwrap(),
            settings,
        }
    }

    fn plan(&mut self) -> Plan {
        self.planner.plan(&self.cluster, &self.settings, &Arc::default())
    }

    /// From a changed object to the kernel's acknowledgement. (Reading its text is no part of it: a
    /// cluster sends objects.)
    async fn change(&mut self, text: &str) -> Duration {
        let changes = read(text);
        let begun = Instant::now();
        changes.into_iter().for_each(|change| self.cluster.apply(change));
        let plan = self.plan();
        install(&self.enforcer, plan).await;
        begun.elapsed()
    }
}

async fn install(enforcer: &Enforcer, plan: Plan) {
    enforcer.install(plan.desired, Vec::new).await.unwrap();
}

fn apply(cluster: &mut Cluster, text: &str) {
    read(text).into_iter().for_each(|change| cluster.apply(change));
}

fn read(text: &str) -> Vec<cluster::ObjectChange> {
    // Files of four megabytes at most are read.
    let documents: Vec<&str> = text.split_inclusive("---\n").collect();
    let files = documents.chunks(1_000).enumerate();
    let files: BTreeMap<_, _> = files
        .map(|(number, part)| (format!("{number}.yaml").into(), Ok(part.concat())))
        .collect();
    let update = Catalogue::default().scan(files).unwrap();
    let wrong = update
        .reports
        .iter()
        .find(|report| report.worst() >= Some(::policy::Severity::Error));
    assert!(wrong.is_none(), "{wrong:?}");
    update.changes
}

fn pod(number: usize, app: usize, prefix: &str, host: usize) -> String {
    let node = if number < LOCAL { "here" } else { "there" };
    pod_named(&format!("pod-{number}"), number % NAMESPACES, app, prefix, host, node)
}

fn pod_named(name: &str, namespace: usize, app: usize, prefix: &str, host: usize, node: &str) -> String {
    let address = match prefix {
        "" => format!("10.{}.{}.{}", 100 + host / 65_536, host / 256 % 256, host % 256),
        prefix => format!("{prefix}.{host}"),
    };
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns-{namespace}, labels: {{app: app-{app}, team: t{app}, version: v1}}}}\n\
         spec: {{nodeName: {node}, containers: [{{name: main, image: none, ports: [{{name: web, containerPort: 8080}}]}}]}}\n\
         status: {{podIPs: [{{ip: {address}}}]}}\n---\n"
    )
}

/// `version` makes it another one of the same name.
fn policy(number: usize, version: usize) -> String {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % APPS);
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: p-{number}, namespace: ns-{namespace}}}\nspec:\n  \
         endpointSelector: {{matchLabels: {{app: app-{app}}}}}\n  egress:\n  \
         - toFQDNs: [{{matchName: api-{version}.example}}, {{matchPattern: '*.cdn-{version}.example'}}]\n    toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]\n  \
         - toFQDNs: [{{matchName: db-{version}.example}}]\n    toPorts: [{{ports: [{{port: '30000', endPort: 32767, protocol: TCP}}]}}]\n  \
         - toEndpoints: [{{matchLabels: {{app: app-{}}}}}]\n    toPorts: [{{ports: [{{port: web, protocol: TCP}}]}}]\n  \
         - toCIDRSet: [{{cidr: 192.0.2.0/24, except: [192.0.2.{}/32]}}]\n---\n",
        (app + 1) % APPS,
        version % 256,
    )
}

fn shown(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    format!("{:.1?} ({:.1?})", times[times.len() / 2], times[times.len() - 1])
}
