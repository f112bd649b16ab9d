//! What tests of several modules begin with.

use cluster::index::Cluster;
use enforcer::revocation::Flow;
use planner::{Plan, Planner};
use policy::Protocol;
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts};

/// The plan of a node without objects, with the default settings.
pub(crate) fn empty_plan() -> Plan {
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\n".into()),
    };
    let settings = resolve(AgentOptions::default(), &host).unwrap();
    Planner::default().plan(&Cluster::default(), &settings, &std::sync::Arc::default())
}

/// A TCP flow. Behind a Service `asked` is another than the destination.
pub(crate) fn flow(source: &str, destination: &str, asked: &str) -> Flow {
    Flow {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        asked: asked.parse().unwrap(),
        protocol: Protocol::Tcp.number(),
        icmp_type: None,
        is_expected: false,
        zone: 0,
    }
}
