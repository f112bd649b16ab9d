//! A lab with a real API server. The lab's pods are Pods there, and the agent watches it under its
//! own ServiceAccount.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use hickory_proto::rr::RecordType;
use lab::client::{ConnectAttempt, LookupTransport};
use lab::{Pod, RESOLVER, dns};
use serde_json::Value;

use crate::control_plane::ControlPlane;
use crate::{Scenario, ScenarioBuilder, SetOnDrop, wait_until};

/// The name of the lab's node in the cluster.
pub const NODE: &str = "node-1";

/// A [`Scenario`] with an API server on its node.
#[derive(Debug)]
pub struct TestCluster {
    scenario: Scenario,
    /// The API server.
    pub control: ControlPlane,
}

impl Deref for TestCluster {
    type Target = Scenario;

    fn deref(&self) -> &Scenario {
        &self.scenario
    }
}

impl DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut Scenario {
        &mut self.scenario
    }
}

impl TestCluster {
    /// Builds the lab, starts an API server, applies `manifests/`, and makes the Pods. Starts no
    /// agent. `None` where Go is missing.
    pub fn build(plan: ScenarioBuilder) -> Option<Self> {
        Self::build_with(plan, &[])
    }

    /// As [`build`](Self::build), with more flags for kube-apiserver.
    pub fn build_with(plan: ScenarioBuilder, flags: &[&str]) -> Option<Self> {
        let mut scenario = plan.build();
        let control = ControlPlane::start_with(scenario.lab().node(), flags)?;
        control.install("crds");
        control.install("overlays/default");
        control.apply(
            "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}\n---\n\
             {apiVersion: v1, kind: Node, metadata: {name: node-1}, spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24, 'fd00:10:244::/64']}}\n",
        );
        scenario.watch_cluster(&control.agent_kubeconfig(), NODE);
        let cluster = Self { scenario, control };
        for index in 0..cluster.lab().pods().len() {
            cluster.run_pod(index, &format!("{{app: pod{index}}}"));
        }
        Some(cluster)
    }

    /// As [`build`](Self::build), and starts an agent and waits until it is ready.
    pub fn start(plan: ScenarioBuilder) -> Option<Self> {
        let mut cluster = Self::build(plan)?;
        cluster.scenario.start();
        Some(cluster)
    }

    /// Makes the Pod `shop/podN` with these labels, or changes its labels.
    pub fn run_pod(&self, index: usize, labels: &str) {
        self.run_pod_as(&format!("pod{index}"), index, labels);
    }

    /// Makes a Pod of any name with the addresses of the lab's pod.
    pub fn run_pod_as(&self, name: &str, index: usize, labels: &str) {
        let pod = self.pod(index);
        let (v4, v6) = (pod.address4(), pod.address6());
        self.control.run_pod(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: shop, labels: {labels}}},
               spec: {{nodeName: {NODE}, containers: [{{name: main, image: none}}]}},
               status: {{phase: Running, podIP: {v4}, podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]}}}}"
        ));
    }

    /// Deletes an object of the namespace `shop`, as the kubelet or a user does, and waits until it
    /// is gone.
    pub fn delete(&self, kind: &str, name: &str) {
        self.control
            .kubectl(["delete", kind, name, "-n", "shop", "--grace-period=0", "--force"]);
    }

    /// Lets pod `index` reach these names.
    pub fn allow_names(&self, index: usize, names: &[&str]) {
        self.control.apply(&crate::allow(index, names));
    }

    /// The condition of a CiliumNetworkPolicy in `shop`: status, reason and message.
    pub fn condition(&self, policy: &str, kind: &str) -> Option<[String; 3]> {
        let object = self.control.kubectl(["get", "cnp", policy, "-n", "shop", "-o", "json"]);
        let object: Value = serde_json::from_str(&object).expect("kubectl prints JSON");
        let conditions = object["status"]["conditions"].as_array()?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind)?;
        // Of an earlier version it says nothing.
        (condition["observedGeneration"] == object["metadata"]["generation"]).then(|| {
            ["status", "reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned())
        })
    }

    /// Waits until a condition has this status and reason.
    pub fn wait_condition(&self, policy: &str, kind: &str, status: &str, reason: &str) -> Duration {
        wait_until(&format!("{policy} is {kind} {status} {reason}"), || {
            self.condition(policy, kind)
                .is_some_and(|[is, because, _]| (is.as_str(), because.as_str()) == (status, reason))
        })
    }

    /// Runs `work` while pod 0 repeats three steps: it asks for `allowed`, connects to its address,
    /// and tries `denied`. Prints the counts, and fails when an allowed connection was
    /// refused or a denied one was let through.
    pub fn under_traffic<R>(
        &mut self,
        what: &str,
        allowed: &str,
        denied: IpAddr,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let pod = self.pod(0).clone();
        let resolve = || pod.resolve(dns(RESOLVER), allowed, RecordType::A, LookupTransport::Udp);
        let attempt = || match resolve().map(|reply| reply.address()) {
            Ok(Some(address)) => connects(&pod, address),
            other => {
                // The code tells a lookup that failed from one that was denied.
                let code = resolve().map(|reply| reply.code());
                Err(format!("{allowed}: {other:?}, and then {code:?}"))
            }
        };
        self.under(what, &attempt, denied, work)
    }

    /// As [`under_traffic`](Self::under_traffic), without lookups, for times without an agent.
    /// `allowed` is an address that is open.
    pub fn under_connections<R>(
        &mut self,
        what: &str,
        allowed: IpAddr,
        denied: IpAddr,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let pod = self.pod(0).clone();
        self.under(what, &|| connects(&pod, allowed), denied, work)
    }

    fn under<R>(
        &mut self,
        what: &str,
        attempt: &(dyn Fn() -> Result<(), String> + Sync),
        denied: IpAddr,
        work: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let over = AtomicBool::new(false);
        let (connected, refused) = (AtomicU32::new(0), AtomicU32::new(0));
        let pod = self.pod(0).clone();
        let (result, wrong) = thread::scope(|scope| {
            let client = scope.spawn(|| {
                let mut wrong = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    match attempt() {
                        Ok(()) => drop(connected.fetch_add(1, Ordering::Relaxed)),
                        Err(reason) => wrong.push(reason),
                    }
                    match pod.connect(denied, 443) {
                        Ok(ConnectAttempt::Refused(_)) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                        other => wrong.push(format!("denied {denied}: {other:?}")),
                    }
                }
                wrong
            });
            // Some of it before the work, and some after.
            let some = |before: u32| {
                wait_until("there is traffic", || {
                    client.is_finished() || connected.load(Ordering::Relaxed) > before + 5
                });
            };
            // Also when the work panics: the scope waits for the client.
            let end = SetOnDrop(&over);
            some(0);
            let result = work(self);
            some(connected.load(Ordering::Relaxed));
            drop(end);
            (result, client.join().expect("the client does not panic"))
        });
        let (connected, refused) = (connected.into_inner(), refused.into_inner());
        // The figures are part of what the tests show.
        #[allow(clippy::print_stdout)]
        {
            println!(
                "{what}: {connected} allowed connections, {refused} denied, {} wrong",
                wrong.len()
            );
        }
        assert!(wrong.is_empty(), "{what}: {:?}", &wrong[..wrong.len().min(5)]);
        result
    }

    /// Waits until `condition` holds, for up to `patience`.
    pub fn wait_long(&self, what: &str, patience: Duration, condition: impl FnMut() -> bool) -> Duration {
        patience::wait(patience, Duration::from_millis(50), condition)
            .unwrap_or_else(|| panic!("waited in vain until {what}"))
    }
}

fn connects(pod: &Pod, address: IpAddr) -> Result<(), String> {
    match pod.connect(address, 443) {
        Ok(ConnectAttempt::Connected(_)) => Ok(()),
        other => Err(format!("allowed {address}: {other:?}")),
    }
}
