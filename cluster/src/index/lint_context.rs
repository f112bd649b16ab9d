//! The objects as policies are held against them before they are applied.

use std::borrow::Cow;

use policy::lint::{ClusterContext, ServicePortMapping};

use crate::slim::SlimService;

use super::Cluster;

impl Cluster {
    /// What [`lint::across`](policy::lint::across) is told. Other than in
    /// [`inventory`](Self::inventory), Pods count that have no address, yet or any more: what is
    /// written is looked at, and not what runs.
    pub fn lint_context(&self) -> ClusterContext<'static> {
        let mut inventory = self.inventory_from("");
        inventory.pods = self
            .own
            .pods
            .inventory(&self.inventory.pods, |namespace| self.own.labels_of(namespace));
        ClusterContext {
            inventory: Cow::Owned(inventory),
            pod_ranges: self
                .own
                .nodes
                .values()
                .flat_map(|node| node.pod_ranges.iter().copied())
                .collect(),
            service_ports: self
                .own
                .services
                .iter()
                .map(|((namespace, name), service)| ((namespace.to_string(), name.to_string()), ports(service)))
                .collect(),
            masquerading: self
                .own
                .services
                .iter()
                .filter(|(_, service)| service.hides_clients)
                .map(|((namespace, name), _)| (namespace.to_string(), name.to_string()))
                .collect(),
        }
    }
}

fn ports(service: &SlimService) -> Vec<ServicePortMapping> {
    let ports = service.ports.iter().filter_map(|port| {
        Some(ServicePortMapping {
            protocol: port.protocol?,
            port: port.port,
            target: port.target.clone()?,
        })
    });
    ports.collect()
}
