//! Which specs govern an endpoint, found by its labels.

use std::collections::HashMap;
use std::sync::Arc;

use policy::compile::{governs, says_anything};
use policy::label_index::{LabelIndex, RegisteredUnder};
use policy::{Endpoint, Policy};

/// A spec: the address of its policy's allocation, and its index in the policy. A policy that
/// changes gets another allocation.
pub(super) type SpecKey = (usize, usize);

/// The specs of all policies, by the labels that they ask for.
#[derive(Debug, Default)]
pub(super) struct SpecIndex {
    /// Ordered by id. They are kept alive here, so that no other policy can come to lie at the
    /// address of one.
    policies: Arc<[Arc<Policy>]>,
    index: LabelIndex<SpecKey>,
    /// By the addresses of the policies: where each spec is registered, if it says anything.
    registered: HashMap<usize, RegisteredPolicy>,
}

#[derive(Debug)]
struct RegisteredPolicy {
    policy: Arc<Policy>,
    specs: Vec<Option<RegisteredUnder>>,
}

impl SpecIndex {
    /// Takes over another list of policies, ordered by id. Returns those that only one of both
    /// lists has. It takes a look at each policy, and at the specs of those that differ.
    pub(super) fn update(&mut self, policies: &Arc<[Arc<Policy>]>) -> Vec<Arc<Policy>> {
        let mut differ = Vec::new();
        if Arc::ptr_eq(&self.policies, policies) {
            return differ;
        }
        let former = std::mem::replace(&mut self.policies, Arc::clone(policies));
        let mut former = former.iter().peekable();
        for policy in policies.iter() {
            while let Some(gone) = former.next_if(|gone| gone.id < policy.id) {
                self.remove(gone);
                differ.push(Arc::clone(gone));
            }
            if let Some(known) = former.next_if(|known| known.id == policy.id) {
                if Arc::ptr_eq(known, policy) {
                    continue;
                }
                self.remove(known);
                differ.push(Arc::clone(known));
            }
            self.insert(policy);
            differ.push(Arc::clone(policy));
        }
        for gone in former {
            self.remove(gone);
            differ.push(Arc::clone(gone));
        }
        differ
    }

    /// The specs that govern an endpoint, ordered by policy.
    pub(super) fn governing(&self, endpoint: &Endpoint) -> Vec<(&Arc<Policy>, usize)> {
        let specs = self.index.candidates(&endpoint.labels);
        let specs = specs.filter_map(|(policy, number)| Some((&self.registered.get(&policy)?.policy, number)));
        let mut governing: Vec<_> = specs
            .filter(|(policy, number)| governs(&policy.specs[*number], endpoint))
            .collect();
        governing.sort_unstable_by(|(a, a_number), (b, b_number)| (&a.id, a_number).cmp(&(&b.id, b_number)));
        governing
    }

    fn insert(&mut self, policy: &Arc<Policy>) {
        let address = address_of(policy);
        let specs = policy
            .specs
            .iter()
            .enumerate()
            .map(|(number, spec)| says_anything(spec).then(|| self.index.insert(&spec.subject, (address, number))));
        let registered = RegisteredPolicy {
            specs: specs.collect(),
            policy: Arc::clone(policy),
        };
        self.registered.insert(address, registered);
    }

    fn remove(&mut self, policy: &Arc<Policy>) {
        let address = address_of(policy);
        let Some(RegisteredPolicy { policy, specs }) = self.registered.remove(&address) else {
            return;
        };
        for (number, (spec, under)) in policy.specs.iter().zip(specs).enumerate() {
            if let Some(under) = under {
                self.index.remove(&spec.subject, (address, number), under);
            }
        }
    }
}

/// The key of a spec.
pub(super) fn key_of((policy, number): &(&Arc<Policy>, usize)) -> SpecKey {
    (address_of(policy), *number)
}

fn address_of(policy: &Arc<Policy>) -> usize {
    Arc::as_ptr(policy).addr()
}
