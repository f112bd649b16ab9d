//! A client of the API server in the test's own process, for what `kubectl` is too slow for:
//! bursts, and moments that are measured.

use std::fmt::Debug;

use cluster::kubernetes::client::Access;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, core::GroupVersionKind};
use serde_json::{Value, json};

use crate::control_plane::ControlPlane;
use crate::fail;

/// Requests on their way at once: enough that the server is never idle, and not so many that it
/// queues.
const AT_ONCE: usize = 24;

/// The administrator, without `kubectl`. Everything panics with what went wrong.
#[derive(Clone)]
pub struct Administrator(Client);

impl ControlPlane {
    /// Runs `work` in the namespace of the API server.
    pub fn administer<T: Send>(&self, work: impl AsyncFnOnce(Administrator) -> T + Send) -> T {
        let kubeconfig = self.admin_kubeconfig();
        let run = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap_or_else(fail("a runtime")).block_on(async {
                let access = Access::find(Some(&kubeconfig)).await;
                let client = access.and_then(|access| access.client());
                work(Administrator(client.unwrap_or_else(fail("a client")))).await
            })
        };
        self.namespace().run(run).unwrap_or_else(fail("the namespace"))
    }
}

impl Administrator {
    /// Makes a Pod, as the scheduler leaves it.
    pub async fn create_pod(&self, pod: &Value) {
        let object = read::<Pod>(pod);
        let namespace = text(&pod["metadata"]["namespace"]);
        let created = self.pods(namespace).create(&PostParams::default(), &object).await;
        created.unwrap_or_else(fail("creating a Pod"));
    }

    /// Gives a Pod its addresses, as a kubelet does when the sandbox has its network.
    pub async fn set_addresses(&self, namespace: &str, name: &str, addresses: &[String]) {
        let listed: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"phase": "Running", "podIP": addresses.first(), "podIPs": listed}});
        let patched = self
            .pods(namespace)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(&status))
            .await;
        patched.unwrap_or_else(fail("the status of a Pod"));
    }

    /// Deletes a Pod at once.
    pub async fn delete_pod(&self, namespace: &str, name: &str) {
        let at_once = DeleteParams::default().grace_period(0);
        let deleted = self.pods(namespace).delete(name, &at_once).await;
        deleted.unwrap_or_else(fail("deleting a Pod"));
    }

    /// Makes a Pod that runs: its manifest carries the status.
    pub async fn run_pod(&self, pod: &Value) {
        self.create_pod(pod).await;
        let metadata = &pod["metadata"];
        let addresses = pod["status"]["podIPs"].as_array().into_iter().flatten();
        let addresses: Vec<String> = addresses.map(|ip| text(&ip["ip"]).to_owned()).collect();
        self.set_addresses(text(&metadata["namespace"]), text(&metadata["name"]), &addresses)
            .await;
    }

    /// Makes a CiliumNetworkPolicy.
    pub async fn create_policy(&self, policy: &Value) {
        let kind = GroupVersionKind::gvk("cilium.io", "v2", "CiliumNetworkPolicy");
        let resource = ApiResource::from_gvk_with_plural(&kind, "ciliumnetworkpolicies");
        let namespace = text(&policy["metadata"]["namespace"]);
        let api: Api<DynamicObject> = Api::namespaced_with(self.0.clone(), namespace, &resource);
        let created = api.create(&PostParams::default(), &read(policy)).await;
        created.unwrap_or_else(fail("creating a policy"));
    }

    /// Makes Pods that run and policies, as fast as the API server takes them; roughly in this
    /// order.
    pub async fn burst(&self, objects: &[Value]) {
        let makings = objects.iter().map(|object| async move {
            match text(&object["kind"]) {
                "Pod" => self.run_pod(object).await,
                _ => self.create_policy(object).await,
            }
        });
        stream::iter(makings)
            .buffer_unordered(AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.0.clone(), namespace)
    }
}

impl Debug for Administrator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Administrator")
    }
}

fn read<T: serde::de::DeserializeOwned>(object: &Value) -> T {
    serde_json::from_value(object.clone()).unwrap_or_else(fail("an object of the test"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
