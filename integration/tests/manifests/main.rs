//! What the project ships for clusters, held against a real API server. Skipped where Go is
//! missing. Needs root.

// Clippy's exception for tests does not reach the functions that they share.
#![allow(clippy::unwrap_used)]

mod chart;
mod control_plane;
mod definitions;
mod deployed;
mod overlays;
mod rights;

use std::sync::LazyLock;

use namegate_integration::control_plane::ControlPlane;
use netns::Namespace;
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;

/// One control plane for the tests that leave nothing behind in it, with the overlay `default`
/// applied. `None` where Go is missing.
fn shared() -> Option<MutexGuard<'static, ControlPlane>> {
    // Its servers end with this process: nothing drops a static.
    static SHARED: LazyLock<Option<Mutex<ControlPlane>>> = LazyLock::new(|| {
        let cluster = ControlPlane::start(&Namespace::new().unwrap())?;
        cluster.install("crds");
        cluster.install("overlays/default");
        cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}");
        Some(Mutex::new(cluster))
    });
    let shared = SHARED.as_ref()?;
    Some(shared.lock())
}

/// The objects of a stream of YAML documents.
fn objects(text: &str) -> Vec<Value> {
    let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(text).unwrap();
    documents.into_iter().flatten().collect()
}

fn name(object: &Value) -> String {
    format!(
        "{} {}",
        object["kind"].as_str().unwrap_or_default(),
        object["metadata"]["name"].as_str().unwrap_or_default()
    )
}
