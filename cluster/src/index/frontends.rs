//! Where Services are reached, and who answers there.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use policy::Protocol;
use policy::lint::TargetPort;

use crate::slim::{SlimEndpointSlice, SlimService, SlimServicePort};

/// A port of a Service over TCP, as kube-proxy translates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceFrontend {
    /// Its own addresses, inside the cluster and outside, with the port.
    pub at: BTreeSet<SocketAddr>,
    /// The port at which each node listens for it, where it has one.
    pub node_port: Option<u16>,
    /// Who answers. Those that are not ready count.
    pub backends: BTreeSet<SocketAddr>,
}

/// The frontends of a Service that these slices are of. Those without a backend are left out.
pub(super) fn of_service<'a>(
    service: &'a SlimService,
    slices: &'a [&SlimEndpointSlice],
) -> impl Iterator<Item = ServiceFrontend> + 'a {
    let over_tcp = service.ports.iter().filter(|port| port.protocol == Some(Protocol::Tcp));
    over_tcp.filter_map(move |port| {
        let backends = slices.iter().flat_map(|slice| backends(port, slice));
        let backends: BTreeSet<SocketAddr> = backends.collect();
        let addresses = service.addresses.iter().chain(&service.external);
        let at = |address: &IpAddr| SocketAddr::new(*address, port.port);
        (!backends.is_empty()).then(|| ServiceFrontend {
            at: addresses.map(at).collect(),
            node_port: port.node_port,
            backends,
        })
    })
}

/// The port of a slice bears the name of the Service's. A slice of a directory may leave its ports
/// out; then that of the Service says it.
fn backends(port: &SlimServicePort, slice: &SlimEndpointSlice) -> Vec<SocketAddr> {
    let same_name = slice
        .ports
        .iter()
        .filter(|it| it.name == port.name && it.protocol == Some(Protocol::Tcp));
    let mut numbers: Vec<u16> = same_name.map(|it| it.port).collect();
    if slice.ports.is_empty()
        && let Some(TargetPort::Number(number)) = port.target
    {
        numbers.push(number);
    }
    let each = slice.backends.iter();
    each.flat_map(|address| numbers.iter().map(|number| SocketAddr::new(*address, *number)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(service: Value, slices: &[Value]) -> Vec<ServiceFrontend> {
        let service: SlimService = serde_json::from_value(service).unwrap();
        let slices = slices
            .iter()
            .map(|slice| serde_json::from_value(slice.clone()).unwrap());
        let slices: Vec<SlimEndpointSlice> = slices.collect();
        let slices: Vec<&SlimEndpointSlice> = slices.iter().collect();
        of_service(&service, &slices).collect()
    }

    fn all(text: &[&str]) -> BTreeSet<SocketAddr> {
        text.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn a_port_leads_to_the_ports_of_the_slices_that_bear_its_name() {
        let service = json!({
            "metadata": {"name": "web"},
            "spec": {
                "clusterIPs": ["10.96.0.7", "fd00::7"], "externalIPs": ["192.0.2.7"],
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30_080},
                    {"name": "dns", "port": 53, "protocol": "UDP"},
                    {"name": "unused", "port": 81},
                ],
            },
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.8"}]}},
        });
        let slice = |ports: Value| json!({"metadata": {"name": "s"}, "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": ports});
        let slices = [
            slice(json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}])),
            json!({"metadata": {"name": "t"}, "endpoints": [{"addresses": ["10.0.0.2"]}], "ports": [{"name": "http", "port": 9090}]}),
        ];
        assert_eq!(
            found(service, &slices),
            [ServiceFrontend {
                at: all(&["10.96.0.7:80", "[fd00::7]:80", "192.0.2.7:80", "192.0.2.8:80"]),
                node_port: Some(30_080),
                backends: all(&["10.0.0.1:8080", "10.0.0.2:9090"]),
            }]
        );
    }

    #[test]
    fn without_ports_in_its_slice_a_service_says_where_they_are() {
        let service = json!({"metadata": {"name": "web"}, "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80, "targetPort": 8080}]}});
        let slice = json!({"metadata": {"name": "s"}, "endpoints": [{"addresses": ["10.0.0.1"]}]});
        let frontends = found(service, &[slice]);
        assert_eq!(frontends[0].backends, all(&["10.0.0.1:8080"]));
    }
}
