//! Writes statuses and Events to the API server.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Client;
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::runtime::events::{Event, EventType, Reporter};
use policy::Direction;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::kubernetes::resources::ResourceKind;

use super::conditions::cut;
use super::cut_flows::CutNotice;
use super::events::EventPublisher;
use super::queue::{EventNotice, StatusWrite, WriteOutcome};

/// Who writes, as managed fields and Events name it.
const NAME: &str = "namegate";
/// An API server that takes longer is asked again later.
const DEADLINE: Duration = Duration::from_secs(10);
/// Of an Event's note; the API allows 1,024 bytes.
const LONGEST: usize = 1_000;

pub(super) struct StatusWriter {
    client: Client,
    events: Mutex<EventPublisher>,
}

impl StatusWriter {
    pub(super) fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter {
            controller: NAME.into(),
            instance: Some(node.to_owned()),
        };
        Self {
            events: Mutex::new(EventPublisher::new(client.clone(), reporter)),
            client,
        }
    }

    pub(super) async fn write(&self, write: &StatusWrite) -> WriteOutcome {
        let outcome = match &write.conditions {
            Some(conditions) => timeout(DEADLINE, self.patch_in_some_version(write, conditions))
                .await
                .unwrap_or(WriteOutcome::Later),
            None => WriteOutcome::Written { status: None },
        };
        // Of what is not written somebody else may have the last word.
        if let (WriteOutcome::Written { .. }, Some(notice)) = (&outcome, &write.event) {
            match timeout(DEADLINE, self.publish(write, notice)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(policy = write.policy.name, %error, "an Event could not be sent"),
                Err(_) => warn!(policy = write.policy.name, "an Event could not be sent in time"),
            }
        }
        outcome
    }

    /// Of a kind of several versions the API server may have another than the newest.
    async fn patch_in_some_version(&self, write: &StatusWrite, conditions: &[Value]) -> WriteOutcome {
        let mut outcome = WriteOutcome::Never;
        for version in ResourceKind::of(write.policy.resource).versions() {
            match self.patch(write, version, conditions).await {
                Ok(outcome) => return outcome,
                Err(absent) => outcome = absent,
            }
        }
        outcome
    }

    /// Replaces the conditions, if the object is still as it was seen: a list has no smaller part
    /// that could be merged.
    ///
    /// # Errors
    /// What became of it where the API server has no such object in this version.
    async fn patch(
        &self,
        write: &StatusWrite,
        version: &str,
        conditions: &[Value],
    ) -> Result<WriteOutcome, WriteOutcome> {
        let resource = ResourceKind::of(write.policy.resource).api_resource(version);
        let api: Api<DynamicObject> = match write.policy.namespace.as_str() {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        };
        let patch = Patch::Merge(json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"uid": write.uid, "resourceVersion": write.resource_version},
            "status": {"conditions": conditions},
        }));
        let parameters = PatchParams {
            field_manager: Some(NAME.into()),
            ..PatchParams::default()
        };
        Ok(match api.patch_status(&write.policy.name, &parameters, &patch).await {
            Ok(object) => WriteOutcome::Written {
                status: Some(kept(object)),
            },
            Err(kube::Error::Api(status)) if status.code == 404 => {
                debug!(
                    policy = write.policy.name,
                    version, "there is no such object, or no such version"
                );
                return Err(WriteOutcome::Never);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                debug!(policy = write.policy.name, "its status was changed meanwhile");
                WriteOutcome::Later
            }
            Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                warn!(
                    policy = write.policy.name,
                    kind = resource.kind,
                    error = status.message,
                    "its status cannot be written"
                );
                WriteOutcome::Never
            }
            Err(error) => {
                debug!(policy = write.policy.name, %error, "its status is not written yet");
                WriteOutcome::Later
            }
        })
    }

    /// Says of this node what somebody had changed in its kernel and is repaired.
    pub(super) async fn tell_repair(&self, node: &str, what: &str) {
        let regarding = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Node".into()),
            name: Some(node.to_owned()),
            // As the kubelet's own: to look for a Node's Events is to look for this.
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let note =
            format!("Somebody else had changed what Namegate keeps in this node's kernel; it is repaired: {what}");
        let event = Event {
            type_: EventType::Warning,
            reason: "Repaired".into(),
            note: Some(cut(note, LONGEST)),
            action: "Repair".into(),
            secondary: None,
        };
        let published = async { self.events.lock().await.publish(&event, &regarding).await };
        match timeout(DEADLINE, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "an Event of a repair could not be sent"),
            Err(_) => warn!("an Event of a repair could not be sent in time"),
        }
    }

    /// Says of a pod that flows of it were cut. Who looks for a pod's Events looks for its uid,
    /// which nobody else here needs: it is asked for.
    pub(super) async fn tell_cut(&self, notice: &CutNotice) {
        let CutNotice { pod, direction, flows } = notice;
        let whose = match direction {
            Direction::Egress => "from it",
            Direction::Ingress => "to it",
        };
        let note = format!(
            "Live connections {whose} were cut, {flows} in all: {direction} policies do not allow them any more"
        );
        let event = Event {
            type_: EventType::Normal,
            reason: "ConnectionsCut".into(),
            note: Some(cut(note, LONGEST)),
            action: "Cut".into(),
            secondary: None,
        };
        let published = async {
            let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
            let named = ListParams::default().fields(&format!("metadata.name={}", pod.name));
            let found = pods.list_metadata(&named).await?.items;
            // One that is gone has nobody who looks.
            let Some(uid) = found.into_iter().find_map(|it| it.metadata.uid) else {
                return Ok(());
            };
            let regarding = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(uid),
                ..ObjectReference::default()
            };
            self.events.lock().await.publish(&event, &regarding).await
        };
        match timeout(DEADLINE, published).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%pod, %error, "an Event of connections that were cut could not be sent"),
            Err(_) => warn!(%pod, "an Event of connections that were cut could not be sent in time"),
        }
    }

    async fn publish(&self, write: &StatusWrite, notice: &EventNotice) -> Result<(), kube::Error> {
        let kind = ResourceKind::of(write.policy.resource);
        let namespace = Some(write.policy.namespace.clone()).filter(|namespace| !namespace.is_empty());
        let regarding = ObjectReference {
            api_version: Some(kind.api_version()),
            kind: Some(kind.kind.into()),
            name: Some(write.policy.name.clone()),
            namespace,
            uid: Some(write.uid.clone()),
            ..ObjectReference::default()
        };
        let note = cut(notice.note.clone(), LONGEST);
        let event = Event {
            type_: EventType::Warning,
            reason: notice.reason.into(),
            note: Some(note),
            action: "Enforce".into(),
            secondary: None,
        };
        self.events.lock().await.publish(&event, &regarding).await
    }
}

fn kept(object: DynamicObject) -> (String, Vec<Value>) {
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    (
        object.metadata.resource_version.unwrap_or_default(),
        conditions.cloned().unwrap_or_default(),
    )
}
