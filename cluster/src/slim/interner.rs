//! What many objects share is kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use crate::object::Object;

use super::PodTemplate;

/// Gives objects that agree in a part the same copy of it.
#[derive(Debug, Default)]
pub struct Interner {
    /// Names of namespaces, nodes, Services and service accounts.
    names: SharedValues<Arc<str>>,
    templates: SharedValues<Arc<PodTemplate>>,
}

/// Values, each once. Those that nobody else holds any more are forgotten when there are twice as
/// many as there were after that was done last, so that it costs little for each.
#[derive(Debug)]
struct SharedValues<T> {
    values: HashSet<T>,
    sweep_at: usize,
}

/// So many values are never looked through.
const FEW: usize = 256;

impl Interner {
    /// Has an object share what others have too. It must not be shared itself yet.
    pub fn share(&mut self, object: &mut Object) {
        match object {
            Object::Pod(pod) => {
                let Some(pod) = Arc::get_mut(pod) else { return };
                if let Some(node) = &mut pod.node {
                    self.share_name(node);
                }
                if let Some(known) = self.templates.values.get(&pod.template) {
                    pod.template = Arc::clone(known);
                    return;
                }
                if let Some(template) = Arc::get_mut(&mut pod.template) {
                    self.share_name(&mut template.namespace);
                    self.share_name(&mut template.service_account);
                }
                self.templates
                    .insert(&pod.template, |template| Arc::strong_count(template) > 1);
            }
            Object::Service(service) => {
                let Some(service) = Arc::get_mut(service) else { return };
                self.share_name(&mut service.namespace);
                self.share_name(&mut service.name);
            }
            Object::EndpointSlice(slice) => {
                let Some(slice) = Arc::get_mut(slice) else { return };
                self.share_name(&mut slice.namespace);
                for name in [&mut slice.service, &mut slice.import].into_iter().flatten() {
                    self.share_name(name);
                }
            }
            Object::Namespace(namespace) => {
                if let Some(namespace) = Arc::get_mut(namespace) {
                    self.share_name(&mut namespace.name);
                }
            }
            Object::Node(node) => {
                if let Some(node) = Arc::get_mut(node) {
                    self.share_name(&mut node.name);
                }
            }
            Object::ServiceImport(_) | Object::CidrGroup(_) | Object::Policy(_) => {}
        }
    }

    fn share_name(&mut self, name: &mut Arc<str>) {
        match self.names.values.get(&*name) {
            Some(known) => *name = Arc::clone(known),
            None => self.names.insert(name, |name| Arc::strong_count(name) > 1),
        }
    }
}

impl<T: Clone + Eq + Hash> SharedValues<T> {
    fn insert(&mut self, value: &T, is_held: impl Fn(&T) -> bool) {
        if self.values.len() >= self.sweep_at {
            self.values.retain(is_held);
            self.sweep_at = (2 * self.values.len()).max(FEW);
            self.values.shrink_to(self.sweep_at);
        }
        self.values.insert(value.clone());
    }
}

impl<T> Default for SharedValues<T> {
    fn default() -> Self {
        Self {
            values: HashSet::new(),
            sweep_at: FEW,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::slim::SlimPod;

    use super::*;

    fn pod(name: &str, app: &str) -> Arc<SlimPod> {
        let pod = json!({
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
            "spec": {"nodeName": "node-1"},
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn shared(interner: &mut Interner, name: &str, app: &str) -> Arc<SlimPod> {
        let mut object = Object::Pod(pod(name, app));
        interner.share(&mut object);
        match object {
            Object::Pod(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pods_share_what_they_agree_in() {
        let mut interner = Interner::default();
        let [a, b] = ["a", "b"].map(|name| shared(&mut interner, name, "web"));
        assert_eq!(*a, *pod("a", "web"));
        assert!(Arc::ptr_eq(&a.template, &b.template));
        let other = shared(&mut interner, "c", "db");
        assert!(!Arc::ptr_eq(&a.template, &other.template));
        assert!(Arc::ptr_eq(&a.template.namespace, &other.template.namespace));
        assert!(Arc::ptr_eq(a.node.as_ref().unwrap(), other.node.as_ref().unwrap()));
    }

    #[test]
    fn what_nobody_holds_any_more_is_forgotten() {
        let mut interner = Interner::default();
        let kept = shared(&mut interner, "kept", "kept");
        for number in 0..10 * FEW {
            shared(&mut interner, "pod", &format!("app-{number}"));
        }
        assert!(interner.templates.values.len() <= 2 * FEW);
        assert!(Arc::ptr_eq(
            &kept.template,
            &shared(&mut interner, "again", "kept").template
        ));
    }
}
