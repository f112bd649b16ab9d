//! What the pods of a cluster take in an agent's memory, and what its start and an edit cost.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use lab::cpu_time;
use lab::process::{AgentProcess, Installation};
use netns::Namespace;
use serde_json::{Value, json};

use crate::list_watch_server::{ListWatchServer, Listed};
use crate::objects::{ClusterShape, PODS_OF_NODE, THIS_NODE};
use crate::usage::{resident, resident_peak};

/// What a pod of another node may take.
pub(crate) const GOAL: f64 = 400.0;
/// The files of a directory that hold pods.
const POD_FILES: usize = 200;

/// One policy, which speaks of pods, so that they are watched: what is measured is the pods.
const fn shape(pods: usize) -> ClusterShape {
    ClusterShape {
        namespaces: 100,
        apps: 20,
        pods,
        services: 0,
        policies: 1,
    }
}

/// Measures both sources, and prints.
pub(crate) fn run(binary: &str, rounds: usize) {
    let few = 10_000;
    for (source, many, start) in [
        (
            "a directory, 200 files",
            100_000,
            from_directory as fn(&str, usize, usize) -> Footprint,
        ),
        ("lists and watches", 150_000, from_server),
    ] {
        let footprints = [few, many].map(|pods| start(binary, pods, rounds));
        for footprint in &footprints {
            println!("{source}, {footprint}");
        }
        let [small, large] = footprints;
        let bytes = (large.resident.saturating_sub(small.resident)) as f64 / (many - few) as f64;
        let verdict = if bytes <= GOAL { "reached" } else { "NOT REACHED" };
        println!("  {bytes:.0} bytes for each further pod; at most {GOAL:.0}: {verdict}");
    }
}

/// What an agent takes with so many pods.
struct Footprint {
    pods: usize,
    resident: u64,
    peak: u64,
    ready: Duration,
    cpu: Duration,
    /// Of an edit of one pod, where that was measured.
    edit: Option<Duration>,
    /// The size of the file that an edit changes.
    file: u64,
}

impl std::fmt::Display for Footprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{} pods: {:.1} MiB resident (at most {:.1}), ready after {:.1?} and {:.1?} of CPU",
            self.pods,
            mib(self.resident),
            mib(self.peak),
            self.ready,
            self.cpu
        )?;
        if let Some(edit) = self.edit {
            write!(
                f,
                "; an edit of one pod in a file of {} KiB {edit:.1?} of CPU",
                self.file >> 10
            )?;
        }
        Ok(())
    }
}

/// The objects of a cluster by the plural of their kind, as the API server lists them.
pub(crate) fn listed(shape: ClusterShape, plural: &str) -> Listed {
    let made =
        |count, make: fn(&ClusterShape, usize) -> Value| (0..count).map(move |number| as_stored(make(&shape, number)));
    match plural {
        "pods" => Box::new(made(shape.pods, ClusterShape::pod)),
        "nodes" => Box::new(made(shape.nodes(), ClusterShape::node)),
        "namespaces" => Box::new(made(shape.namespaces, ClusterShape::namespace)),
        "services" => Box::new(made(shape.services, ClusterShape::service)),
        policies => {
            let plural = policies.to_owned();
            let is_of_kind = move |policy: &Value| {
                let kind = policy["kind"].as_str().unwrap_or_default().to_lowercase();
                plural
                    .strip_suffix("ies")
                    .is_some_and(|stem| kind == format!("{stem}y"))
            };
            Box::new(made(shape.policies, ClusterShape::policy).filter(is_of_kind))
        }
    }
}

/// An object with what the API server adds, and a pod with what the kubelet does too: agents skip
/// most of it.
pub(crate) fn as_stored(mut object: Value) -> Value {
    object["metadata"]["uid"] = "0b7e5c1e-6b0f-4b55-9f43-2f4f1d6a8f11".into();
    object["metadata"]["resourceVersion"] = "1".into();
    if object["kind"] != "Pod" {
        object["metadata"]["generation"] = 1.into();
        return object;
    }
    let pod = &mut object;
    pod["metadata"]["managedFields"] = json!([{
        "manager": "kubelet", "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {".": {}, "f:status": {}}}, "f:phase": {}, "f:podIP": {}}},
    }]);
    pod["status"]["conditions"] = json!([
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
    ]);
    object
}

fn from_server(binary: &str, pods: usize, _: usize) -> Footprint {
    let (installation, _server) = watching(binary, shape(pods));
    let begun = Instant::now();
    let mut agent = installation.start(["--upstream", "192.0.2.53"]).unwrap();
    agent.wait_ready().unwrap();
    footprint(pods, begun, &agent)
}

/// An installation whose agents watch a server with the objects of a cluster.
pub(crate) fn watching(binary: &str, shape: ClusterShape) -> (Installation, ListWatchServer) {
    let namespace = Namespace::new().unwrap();
    namespace.set_up("lo").unwrap();
    let server = ListWatchServer::start(&namespace, move |plural| listed(shape, plural)).unwrap();
    let mut installation = Installation::new(binary, &namespace).unwrap();
    let kubeconfig = installation.scratch("kubeconfig");
    fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    installation.watch_cluster(&kubeconfig, THIS_NODE);
    (installation, server)
}

fn from_directory(binary: &str, pods: usize, rounds: usize) -> Footprint {
    let shape = shape(pods);
    let namespace = Namespace::new().unwrap();
    namespace.set_up("lo").unwrap();
    let installation = Installation::new(binary, &namespace).unwrap();
    let objects = installation.objects();
    shape.write(&objects, POD_FILES).unwrap();
    let begun = Instant::now();
    let mut agent = installation
        .start(["--upstream", "192.0.2.53", "--node", THIS_NODE])
        .unwrap();
    agent.wait_ready().unwrap();
    let mut footprint = footprint(pods, begun, &agent);
    let of_file = pods.div_ceil(POD_FILES);
    footprint.file = fs::metadata(objects.join("pods-1.yaml")).unwrap().len();
    let unfinished = installation.scratch("edited");
    fs::create_dir(&unfinished).unwrap();
    footprint.edit = Some(edit(&agent, &shape, [&unfinished, &objects], of_file, rounds));
    footprint
}

/// What an edit of one pod costs, in the median. The file is written elsewhere and put in its place
/// whole, as editors and `kubectl` mounts do.
fn edit(
    agent: &AgentProcess,
    shape: &ClusterShape,
    [unfinished, objects]: [&Path; 2],
    of_file: usize,
    rounds: usize,
) -> Duration {
    // The last file: none of its pods is of this node.
    let file = shape.pods / of_file - 1;
    let edited = file * of_file + PODS_OF_NODE % of_file;
    let mut costs = Vec::new();
    for round in 0..rounds.max(3) {
        let idle = cost_of(agent.pid(), || ());
        let label = |number, mut pod: Value| {
            if number == edited {
                pod["metadata"]["labels"]["version"] = format!("edited-{round}").into();
            }
            pod
        };
        shape.write_pods(unfinished, file, of_file, label).unwrap();
        let name = format!("pods-{file}.yaml");
        let cost = cost_of(agent.pid(), || {
            fs::rename(unfinished.join(&name), objects.join(&name)).unwrap();
        });
        costs.push(cost.saturating_sub(idle));
    }
    costs.sort_unstable();
    costs[costs.len() / 2]
}

/// The processor's time in three seconds that begin with `work`.
fn cost_of(pid: u32, work: impl FnOnce()) -> Duration {
    let before = cpu_time::of(pid);
    work();
    sleep(Duration::from_secs(3));
    cpu_time::of(pid) - before
}

fn footprint(pods: usize, begun: Instant, agent: &AgentProcess) -> Footprint {
    let ready = begun.elapsed();
    let cpu = cpu_time::of(agent.pid());
    // What follows a start: the snapshot is written, what it took is freed.
    sleep(Duration::from_secs(8));
    Footprint {
        pods,
        resident: resident(agent.pid()),
        peak: resident_peak(agent.pid()),
        ready,
        cpu,
        edit: None,
        file: 0,
    }
}
