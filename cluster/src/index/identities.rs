//! What rules see of the pods of a template.

use std::collections::HashMap;
use std::sync::Arc;

use policy::endpoint;
use policy::inventory::PodIdentity;
use policy::labels::Labels;

use crate::slim::PodTemplate;

/// So many are never looked through.
const FEW: usize = 256;

/// The identities of the templates that pods have: made once, and not for each pod.
#[derive(Debug)]
pub(super) struct Identities {
    /// The name of their cluster.
    cluster: Arc<str>,
    /// By the address of the template in memory, which is its own as long as it is held here.
    known: HashMap<usize, KnownIdentity>,
    sweep_at: usize,
}

#[derive(Debug)]
struct KnownIdentity {
    template: Arc<PodTemplate>,
    identity: Arc<PodIdentity>,
}

impl Identities {
    /// Of pods of this cluster.
    pub(super) fn new(cluster: Arc<str>) -> Self {
        Self {
            cluster,
            known: HashMap::new(),
            sweep_at: 0,
        }
    }

    /// The name of their cluster.
    pub(super) fn cluster(&self) -> Arc<str> {
        Arc::clone(&self.cluster)
    }

    /// The identity of a template's pods, whose namespace has these labels.
    pub(super) fn of(&mut self, template: &Arc<PodTemplate>, of_namespace: &Labels) -> Arc<PodIdentity> {
        let place = Arc::as_ptr(template).addr();
        if let Some(known) = self.known.get(&place) {
            return Arc::clone(&known.identity);
        }
        if self.known.len() >= self.sweep_at {
            // No pod has the template any more.
            self.known.retain(|_, known| Arc::strong_count(&known.template) > 1);
            self.sweep_at = (2 * self.known.len()).max(FEW);
        }
        let identity = Arc::new(PodIdentity {
            labels: endpoint::labels(
                &template.labels,
                &template.namespace,
                of_namespace,
                &template.service_account,
                &self.cluster,
            ),
            ports: template.ports.to_vec(),
        });
        let known = KnownIdentity {
            template: Arc::clone(template),
            identity: Arc::clone(&identity),
        };
        self.known.insert(place, known);
        identity
    }

    /// The namespace has other labels.
    pub(super) fn relabel(&mut self, namespace: &str) {
        self.known.retain(|_, known| &*known.template.namespace != namespace);
    }
}
