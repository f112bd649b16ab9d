//! Plans of objects in YAML. Here is what the tests make them of.

mod address_conflicts;
mod events;
mod governed;
mod inspected_services;
mod leases;
mod resolvers;
mod shared_names;

use std::num::NonZeroU32;

use cluster::catalogue::Catalogue;
use cluster::index::Cluster;
use enforcer::Handover;
use settings::resolve::resolve;
use settings::{AgentOptions, HostFacts, Settings};

use super::*;

const UPSTREAM: &str = "192.0.2.53:53";
const SECOND_UPSTREAM: &str = "[2001:db8::53]:53";

/// A policy's own resolver, with what it needs to be one.
const OWN_RESOLVER: &str =
    "{toCIDR: [203.0.113.53], toPorts: [{ports: [{port: '53'}], rules: {dns: [{matchPattern: '*'}]}}]}";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn settings() -> Settings {
    let host = HostFacts {
        name: "here".into(),
        resolv_conf: Ok("nameserver 192.0.2.53\nnameserver 2001:db8::53\n".into()),
    };
    let mut options = AgentOptions::default();
    options.objects.objects = Some("objects".into());
    resolve(options, &host).unwrap()
}

fn tproxy() -> Settings {
    Settings {
        interception: Interception::Tproxy {
            mark: NonZeroU32::MIN,
            routing_table: 7,
            port: 15_353,
        },
        ..settings()
    }
}

fn plan_with(objects: &[String], settings: &Settings) -> Plan {
    Planner::default().plan(&cluster_of(objects, settings), settings, &network())
}

fn network() -> Arc<NodeNetwork> {
    Arc::new(NodeNetwork {
        own: BTreeSet::from([ip("10.0.0.254")]),
        ..NodeNetwork::default()
    })
}

/// Where connections are handed over to.
fn handover() -> Handover {
    Handover {
        listeners: vec![at("127.0.0.1:1")],
        mark: NonZeroU32::MIN,
        reply_mark: NonZeroU32::MIN,
        routing_table: 1,
        zone: 1,
    }
}

fn cluster_of(objects: &[String], settings: &Settings) -> Cluster {
    let text = Ok(objects.join("---\n"));
    let update = Catalogue::default().scan(BTreeMap::from([("objects.yaml".into(), text)]));
    let update = update.unwrap();
    let mut cluster = Cluster::new(&settings.node);
    for report in update.reports.iter() {
        assert!(report.worst() < Some(policy::Severity::Error), "{report:?}");
    }
    for change in update.changes {
        cluster.apply(change);
    }
    cluster
}

fn plan(objects: &[String]) -> Plan {
    plan_with(objects, &settings())
}

/// A pod in namespace `n` whose label `app` is its name.
fn pod(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: n, labels: {{app: {name}}}}}\nstatus: {{podIPs: [{{ip: '{address}'}}]}}\n"
    )
}

/// A policy of the same name for a pod; `rules` is the content of the list `egress`.
fn policy_of(pod: &str, rules: &str) -> String {
    format!(
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {{name: {pod}, namespace: n}}\n\
         spec: {{endpointSelector: {{matchLabels: {{app: {pod}}}}}, egress: [{rules}]}}\n"
    )
}

fn names(names: &str) -> String {
    format!("{{toFQDNs: [{names}], toPorts: [{{ports: [{{port: '443', protocol: TCP}}]}}]}}")
}

fn allow(pod: &str, allowed: &str) -> String {
    policy_of(pod, &names(&format!("{{matchName: {allowed}}}")))
}

/// The programs that `address`, learned for `name` from `source` under this plan, opens or closes
/// something for.
fn opened(plan: &Plan, learned: &str, address: &str, source: &str) -> Vec<ProgramId> {
    let elements = elements_of(plan, learned, address, source);
    let programs = plan.desired.programs.iter();
    let opened = programs.filter(|(_, program)| elements.iter().any(|element| looks_up(program, element)));
    opened.map(|(id, _)| *id).collect()
}

/// The elements of `address`, learned for `name` from `source`.
fn elements_of(plan: &Plan, learned: &str, address: &str, source: &str) -> BTreeSet<Element> {
    let mut elements = BTreeSet::new();
    for matched in plan.matched_names(&name(learned), &[], false) {
        plan.elements(&matched, ip(address), plan.teacher(ip(source)), |element| {
            assert_eq!(element.key.address, ip(address));
            elements.insert(element);
        });
    }
    elements
}

/// Whether a program looks things up in the set of this element.
fn looks_up(program: &enforcer::KernelProgram, element: &Element) -> bool {
    program.enforced.looked_up().any(|id| id == element.set.program)
}

fn program(plan: &Plan, address: &str) -> ProgramId {
    plan.governed[&ip(address)].program
}
