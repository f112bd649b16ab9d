//! Which addresses of Services stand for backends that are looked into. Pure.
//!
//! The kernel asks before kube-proxy translates, when a packet still bears the Service's address.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use cluster::index::ServiceFrontend;
use enforcer::desired::KernelProgram;
use policy::classifier::{ConnectionClass, ConnectionPeer};
use policy::{Direction, PerDirection, Protocol};

use super::Plan;

/// The addresses and ports behind which some backend is looked into: at egress by some sender's
/// program, at ingress by that of the backend, whoever the sender is.
///
/// It takes a look at each backend for each program that looks into connections.
pub(super) fn find(
    plan: &Plan,
    frontends: impl Iterator<Item = ServiceFrontend>,
) -> PerDirection<BTreeSet<SocketAddr>> {
    let desired = &plan.desired;
    let senders = desired.programs_of(Direction::Egress).into_values();
    let senders: Vec<&KernelProgram> = senders.map(AsRef::as_ref).filter(|it| it.inspects()).collect();
    let mut found = PerDirection::<BTreeSet<SocketAddr>>::default();
    for frontend in frontends {
        for is_v4 in [true, false] {
            let backends = frontend.backends.iter().filter(|at| at.is_ipv4() == is_v4);
            let of_nodes = frontend.node_port.into_iter().flat_map(|port| {
                let own = desired.host.iter();
                own.map(move |address| SocketAddr::new(*address, port))
            });
            let at = frontend.at.iter().copied().chain(of_nodes);
            let at = at.filter(|at| at.is_ipv4() == is_v4);
            let by_sender =
                |backend: &&SocketAddr| senders.iter().any(|program| is_inspected(plan, program, **backend));
            if backends.clone().any(|backend| by_sender(&backend)) {
                found.egress.extend(at.clone());
            }
            if backends.clone().any(|backend| inspects_port(plan, *backend)) {
                found.ingress.extend(at);
            }
        }
    }
    found
}

fn is_inspected(plan: &Plan, sender: &KernelProgram, backend: SocketAddr) -> bool {
    let peer = ConnectionPeer {
        address: backend.ip(),
        zone: plan.places.of(backend.ip()),
        port: backend.port(),
        names: &[],
    };
    let class = sender.enforced.classifier.connection(peer, &plan.inventory);
    matches!(class, ConnectionClass::Inspected(_))
}

/// Whether the program of a local pod looks into what comes to this port, from anybody.
fn inspects_port(plan: &Plan, backend: SocketAddr) -> bool {
    let program = plan.desired.dispatch.ingress.get(&backend.ip());
    let program = program.and_then(|id| plan.desired.programs.get(id));
    program.is_some_and(|program| {
        let mut rules = program.enforced.classifier.rules().iter();
        rules.any(|rule| rule.through.is_some() && rule.ports.contains(Protocol::Tcp, backend.port()))
    })
}
