//! A node that is rebooted, a namespace that is restored: thousands of objects at once.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use namegate_integration::cluster::{NODE, TestCluster};
use rustix::param::clock_ticks_per_second;
use serde_json::{Value, json};

use super::{ALLOWED, denied, plan};

const PODS: u32 = 5_000;
const POLICIES: u32 = 500;
/// So many of the Pods are on this node; nothing runs in them.
const LOCAL: u32 = 40;
/// Labels that the policies select, and labels of those they let be reached.
const APPS: u32 = 50;
const GROUPS: u32 = 100;
const PORT: u16 = 8080;

const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn five_thousand_pods_and_five_hundred_policies_come_in_a_burst_under_traffic() {
    let Some(mut cluster) = TestCluster::start(plan()) else {
        return;
    };
    cluster.allow_names(0, &[ALLOWED]);
    cluster.wait_until("the policy is in force", || cluster.connect(0, denied()).is_refused());
    // The last Pod of all is on another node, and there the third of the lab.
    cluster.delete("pod", "pod2");
    let server = cluster.pod(2).clone();
    let to = SocketAddr::new(server.address4().into(), PORT);
    let _server = server.namespace().run(|| TcpListener::bind(to)).unwrap().unwrap();

    let before = Usage::of(cluster.agent().pid());
    let (made, in_force) = cluster.under_traffic("burst", ALLOWED, denied(), |cluster| {
        let began = Instant::now();
        let objects = objects();
        let last = [
            pod("last", "node-2", server.address4(), json!({"role": "last"})),
            policy("last", "pod1", json!({"role": "last"})),
        ];
        cluster.control.administer(async |administrator| {
            administrator.burst(&objects).await;
            administrator.burst(&last).await;
        });
        let made = began.elapsed();
        let reached = || cluster.pod(1).connect(to.ip(), PORT).unwrap().is_connected();
        let in_force = cluster.wait_long("the last policy and the last Pod count", PATIENCE, || {
            cluster.connect(1, denied()).is_refused() && reached()
        });
        (made, in_force)
    });
    let after = Usage::of(cluster.agent().pid());
    println!(
        "{PODS} Pods and {POLICIES} policies were made in {made:.1?}; the last was in force {in_force:.1?} after that; the agent took {:.1} s of \
         CPU, and {} MB of memory where it had {} MB (a debug build)",
        after.seconds - before.seconds,
        after.megabytes,
        before.megabytes,
    );
    // It is written down which objects are held a little after they changed.
    cluster.wait_long("all are held", PATIENCE, || {
        let held = |kind: &str| {
            let series = format!("namegate_objects{{kind=\"{kind}\"}}");
            cluster.agent().metric(&series).unwrap()
        };
        held("Pod") == f64::from(PODS + 3) && held("CiliumNetworkPolicy") == f64::from(POLICIES + 2)
    });
}

/// Ten Pods, a policy, and so on.
fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for index in 0..PODS {
        let labels = json!({"app": format!("app{}", index % APPS), "group": format!("g{}", index % GROUPS)});
        let name = format!("burst-{index}");
        let [.., high, low] = index.to_be_bytes();
        objects.push(match index % (PODS / LOCAL) {
            0 => {
                let address = Ipv4Addr::new(10, 244, 0, 201 + low_byte(index / (PODS / LOCAL)));
                pod(&name, NODE, address, labels)
            }
            other => pod(
                &name,
                &format!("node-{}", 2 + other % 50),
                Ipv4Addr::new(10, 245, high, low),
                labels,
            ),
        });
        if index % (PODS / POLICIES) == 0 {
            let policy_index = index / (PODS / POLICIES);
            // One in ten is another policy of the pod that has the traffic: its program changes
            // again and again.
            let subject = match policy_index % 10 {
                0 => "pod0".to_owned(),
                _ => format!("app{}", policy_index % APPS),
            };
            let peers = json!({"group": format!("g{}", policy_index % GROUPS)});
            objects.push(policy(&format!("burst-{policy_index}"), &subject, peers));
        }
    }
    objects
}

fn low_byte(number: u32) -> u8 {
    number.to_be_bytes()[3]
}

fn pod(name: &str, node: &str, address: Ipv4Addr, labels: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": labels},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    })
}

/// Those that are labelled `app: subject` may reach these Pods, and a name.
fn policy(name: &str, subject: &str, peers: Value) -> Value {
    json!({
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": subject}},
            "egress": [
                {
                    "toEndpoints": [{"matchLabels": peers}],
                    "toPorts": [{"ports": [{"port": PORT.to_string(), "protocol": "TCP"}]}],
                },
                {"toFQDNs": [{"matchName": format!("{name}.example")}]},
            ],
        },
    })
}

/// What a process has taken so far.
struct Usage {
    seconds: f64,
    /// At most, so far.
    megabytes: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let stat = read("stat");
        // The name, in brackets, may hold anything; user and system time are the 12th and 13th
        // field after it (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kilobytes: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
        Self {
            seconds: ticks / clock_ticks_per_second() as f64,
            megabytes: kilobytes / 1024,
        }
    }
}
