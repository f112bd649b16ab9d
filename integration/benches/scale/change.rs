//! What a change of one object costs an agent's node: from the object to the kernel's
//! acknowledgement, and nothing of how the object came.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cluster::index::Cluster;
use cluster::slim::Interner;
use cluster::{Object, ObjectChange};
use enforcer::Enforcer;
use enforcer::pod_links::NodeNetwork;
use planner::{Plan, Planner};
use policy::{document, validate};
use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts, Settings};

use crate::objects::{ClusterShape, PODS_OF_NODE, THIS_NODE, app_name, namespace_name};

/// Clusters that differ in their pods alone.
pub(crate) const SHAPES: [ClusterShape; 2] = [shape(10_000), shape(150_000)];

/// The first argument where the benchmark has started itself in a namespace.
pub(crate) const INSIDE: &str = "--change-inside";

const fn shape(pods: usize) -> ClusterShape {
    ClusterShape {
        namespaces: 100,
        apps: 20,
        pods,
        services: 1_000,
        policies: 1_000,
    }
}

/// Measures in network namespaces of their own.
pub(crate) fn run(rounds: usize, which: &str) {
    let this = std::env::current_exe().unwrap();
    for shape in SHAPES {
        let status = Command::new("unshare")
            .arg("-n")
            .arg(&this)
            .args([INSIDE, &shape.pods.to_string(), &rounds.to_string(), which])
            .status()
            .unwrap();
        assert!(status.success(), "the measurement failed");
    }
}

/// Measures one cluster, inside its network namespace.
pub(crate) fn inside(pods: usize, rounds: usize, which: &str) {
    let shape = shape(pods);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure(&shape, rounds, which));
}

async fn measure(shape: &ClusterShape, rounds: usize, which: &str) {
    let mut node = Node::new();
    let mut indexed = Duration::ZERO;
    // One after the other, so that memory is the agent's.
    for mut object in shape.objects().map(object) {
        node.interner.share(&mut object);
        let begun = cpu();
        node.cluster.apply(ObjectChange::Apply(object));
        indexed += cpu() - begun;
    }
    let begun = cpu();
    node.put_in_force().await;
    println!(
        "{} pods, {} policies: indexed in {indexed:.0?} of CPU, in the kernel after {:.0?}; {}",
        shape.pods,
        shape.policies,
        indexed + (cpu() - begun),
        memory(),
    );
    let last = shape.pods - 1;
    let relabelled = |number: usize, label: &str, value: String| {
        let mut pod = shape.pod(number);
        pod["metadata"]["labels"][label] = value.into();
        pod
    };
    let peers = shape.with_peers();
    let local = |round: usize| round % PODS_OF_NODE;
    // Policies of this kind hold rules about pods and about names.
    let shared = |round: usize| 1 + 4 * (round % 2);
    let rows: [(&str, &dyn Fn(usize) -> Value); 8] = [
        // Into what a local program's peers select, and out of it: each change is one of the
        // kernel's.
        ("a remote pod that policies' peers match", &|round| {
            let app = if round % 2 == 0 { 1 } else { shape.apps - 1 };
            let (turn, place) = ((round / 2) / peers.len(), (round / 2) % peers.len());
            let first = shape.pods - (turn + 1) * shape.namespaces;
            relabelled(first + peers[place], "app", app_name(app))
        }),
        ("a remote pod of which no peer says more", &|round| {
            relabelled(last - 1_000 - round, "version", format!("v{}", round % 2 + 2))
        }),
        ("a new local pod whose program exists", &|round| {
            let mut pod = shape.pod(shared(round));
            pod["metadata"]["name"] = format!("replica-{round}").into();
            let address = format!("10.0.0.{}", PODS_OF_NODE + 10 + round);
            pod["status"]["podIP"] = address.clone().into();
            pod["status"]["podIPs"] = json!([{"ip": address}]);
            pod
        }),
        ("a policy that ten local pods share", &|round| {
            let mut policy = shape.policy(shared(round));
            let ports = json!([{"ports": [{"port": (8_100 + round).to_string(), "protocol": "TCP"}]}]);
            policy["spec"]["egress"][0]["toPorts"] = ports;
            policy
        }),
        ("a local pod that needs a program", &|round| {
            relabelled(local(round), "app", app_name(round % shape.apps))
        }),
        ("a policy of fifteen local programs", &|round| {
            let mut policy = shape.policy(99);
            policy["spec"]["egress"][1]["to"] = json!([{"networks": [format!("203.0.113.{round}/32")]}]);
            policy
        }),
        ("the label of a namespace", &|round| {
            let mut namespace = shape.namespace(round % shape.namespaces);
            namespace["metadata"]["labels"]["stage"] = format!("s{round}").into();
            namespace
        }),
        ("the endpoints of a service", &|round| slice(shape, round)),
    ];
    for (what, change) in rows.into_iter().filter(|(what, _)| what.contains(which)) {
        let mut times = Vec::new();
        for round in 0..rounds.max(3) * 7 {
            let mut object = object(change(round));
            node.interner.share(&mut object);
            let change = ObjectChange::Apply(object);
            let begun = cpu();
            node.cluster.apply(change);
            node.put_in_force().await;
            times.push(cpu() - begun);
        }
        times.sort_unstable();
        println!(
            "  {what:<42} {:>9.1?} of CPU (worst {:.1?})",
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
}

/// The most memory that the process has had so far, and what it has now.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kibibytes = |field: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap()
    };
    format!(
        "{} MiB of memory at most, {} MiB then",
        kibibytes("VmHWM") >> 10,
        kibibytes("VmRSS") >> 10
    )
}

/// The endpoints of the service with this number.
fn slice(shape: &ClusterShape, round: usize) -> Value {
    let service = shape.service(4 * round + 2);
    let name = service["metadata"]["name"].as_str().unwrap().to_owned();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{name}-x"), "namespace": namespace_name((4 * round + 2) % shape.namespaces),
            "labels": {"kubernetes.io/service-name": name},
        },
        "endpoints": [{"addresses": [format!("192.0.2.{}", 1 + round % 200)]}],
    })
}

/// An agent's index, planner and writer.
struct Node {
    /// The source's: what pods have in common is one.
    interner: Interner,
    cluster: Cluster,
    planner: Planner,
    settings: Settings,
    network: Arc<NodeNetwork>,
    in_force: Option<Plan>,
    enforcer: Enforcer,
}

impl Node {
    fn new() -> Self {
        let host = HostFacts {
            name: THIS_NODE.into(),
            resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
        };
        let settings = resolve(AgentOptions::default(), &host).unwrap();
        Self {
            interner: Interner::default(),
            cluster: Cluster::new(&settings.node),
            planner: Planner::default(),
            network: Arc::default(),
            in_force: None,
            enforcer: Enforcer::start(&settings.table).unwrap(),
            settings,
        }
    }

    /// As the agent does, which asks nothing of the writer where nothing is to be written.
    async fn put_in_force(&mut self) {
        let plan = self.planner.plan(&self.cluster, &self.settings, &self.network);
        if !self.in_force.as_ref().is_some_and(|in_force| plan.decides_as(in_force)) {
            let desired = Arc::clone(&plan.desired);
            self.enforcer.install(desired, Vec::new).await.unwrap();
        }
        self.in_force = Some(plan);
    }
}

fn object(value: Value) -> Object {
    match value["kind"].as_str() {
        Some("Pod") => Object::Pod(read(value)),
        Some("Node") => Object::Node(read(value)),
        Some("Namespace") => Object::Namespace(read(value)),
        Some("Service") => Object::Service(read(value)),
        Some("EndpointSlice") => Object::EndpointSlice(read(value)),
        _ => {
            let document = document::Document::from_value(value).unwrap();
            Object::Policy(Box::new(validate::validate(&document).0.accepted().unwrap()))
        }
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).unwrap())
}

/// The CPU time of the process so far, the writer's thread included.
fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    );
    Duration::new(seconds, nanoseconds)
}
