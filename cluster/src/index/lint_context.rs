//! The objects as policies are held against them before they are applied.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use policy::Protocol;
use policy::lint::{ClusterContext, ServicePortMapping, TargetPort};

use super::{Cluster, pod_ranges};

impl Cluster {
    /// What [`lint::across`](policy::lint::across) is told. Other than in
    /// [`inventory`](Self::inventory), Pods count that have no address, yet or any more: what is
    /// written is looked at, and not what runs.
    pub fn lint_context(&self) -> ClusterContext<'static> {
        let mut inventory = self.inventory_from("");
        inventory.pods = self.pods.inventory(&self.inventory.pods);
        ClusterContext {
            inventory: Cow::Owned(inventory),
            pod_ranges: self.nodes.values().flat_map(pod_ranges).collect(),
            service_ports: self
                .services
                .iter()
                .map(|(key, service)| (key.clone(), ports(service)))
                .collect(),
            masquerading: self
                .services
                .iter()
                .filter(|(_, service)| hides_clients(service))
                .map(|(key, _)| key.clone())
                .collect(),
        }
    }
}

/// Whether nodes without a Pod of a Service forward to it what comes from outside.
fn hides_clients(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        let is_reached_from_outside = matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"));
        is_reached_from_outside && spec.external_traffic_policy.as_deref() != Some("Local")
    })
}

fn ports(service: &Service) -> Vec<ServicePortMapping> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let read = |port: &k8s_openapi::api::core::v1::ServicePort| {
        let number = u16::try_from(port.port).ok()?;
        Some(ServicePortMapping {
            protocol: match port.protocol.as_deref() {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                Some(_) => return None,
            },
            port: number,
            target: match &port.target_port {
                // As the API server fills it in.
                None => TargetPort::Number(number),
                Some(IntOrString::Int(target)) => TargetPort::Number(u16::try_from(*target).ok()?),
                Some(IntOrString::String(name)) => TargetPort::Name(name.clone()),
            },
        })
    };
    ports.filter_map(read).collect()
}
