//! How long changes take in a large node:
//! `cargo run --release -p namegate-enforcer --example scale`, as root.
//!
//! 250 endpoints, each with a program of its own of 50 rules, and 10,000 pods of the cluster as
//! elements. Works in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use enforcer::layout::elements;
use enforcer::pod_links::PodLinks;
use enforcer::ruleset::longest_path;
use enforcer::{DesiredState, Element, ElementSet, Enforcer, FailMode, Interception, KernelProgram, LocalHost};
use names::Pattern;
use policy::classifier::AddressContext;
use policy::labels::LabelSelector;
use policy::{
    Action, AddressZone, DenyResponse, LeaseTerms, ObjectSelector, Origin, Peer, PerDirection, PolicyId, PolicyKind,
    PortRange, PortSet, Program, ProgramId, Protocol, Rule, Tiers, Zone,
};

const PROGRAMS: u16 = 250;
const PODS: u16 = 10_000;
const TIMES: u16 = 21;

fn main() {
    if std::env::args().nth(1).as_deref() != Some("inside") {
        let this = std::env::current_exe().unwrap();
        let status = Command::new("unshare")
            .arg("-n")
            .arg(this)
            .arg("inside")
            .status()
            .unwrap();
        std::process::exit(status.code().unwrap_or(1));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let begun = Instant::now();
    let mut desired = desired();
    println!(
        "folded {PROGRAMS} programs, {PODS} pods       {:>9.2?}",
        begun.elapsed()
    );
    let deepest = desired.programs.values().map(|program| longest_path(program)).max();
    println!("lookups of a packet, at most         {:>9}", deepest.unwrap());

    let enforcer = Enforcer::start("namegate").unwrap();
    println!(
        "cold start                           {:>9.2?}",
        install(&enforcer, &desired).await
    );

    let mut times = Vec::new();
    for number in 0..TIMES {
        let [high, low] = number.to_be_bytes();
        let pod = IpAddr::from([10, 200, high, low]);
        let id = *desired.programs.keys().nth(usize::from(number)).unwrap();
        desired.dispatch.egress.insert(pod, id);
        desired.intercepted.insert(pod);
        times.push(install(&enforcer, &desired).await);
    }
    report("a pod comes", times);

    let mut times = Vec::new();
    for number in 0..TIMES {
        let (pod, former) = desired
            .dispatch
            .egress
            .iter()
            .nth(usize::from(number))
            .map(|(pod, id)| (*pod, *id))
            .unwrap();
        let (id, program, members) = program(PROGRAMS + number, 40);
        desired.programs.insert(id, program);
        desired.members.insert(id, members);
        desired.dispatch.egress.insert(pod, id);
        if !desired.dispatch.egress.values().any(|id| *id == former) {
            desired.programs.remove(&former);
            desired.members.remove(&former);
        }
        times.push(install(&enforcer, &desired).await);
    }
    report("a policy changes: a new program", times);

    let mut times = Vec::new();
    let largest = desired
        .members
        .iter()
        .max_by_key(|(_, members)| members.len())
        .map(|(id, _)| *id)
        .unwrap();
    let classifier = Arc::clone(&desired.programs[&largest].enforced.classifier);
    for number in 0..TIMES {
        let mut members = desired.members[&largest].clone();
        members.extend(member(largest, &classifier, pod(PODS + number)));
        desired.members.insert(largest, members);
        times.push(install(&enforcer, &desired).await);
    }
    report("a pod of the cluster comes", times);

    enforcer.shut_down().await;
    let begun = Instant::now();
    let enforcer = Enforcer::start("namegate").unwrap();
    let adopted = begun.elapsed();
    println!("another process: reads what stands   {adopted:>9.2?}");
    println!(
        "                 and installs        {:>9.2?}",
        install(&enforcer, &desired).await
    );
    enforcer.shut_down().await;
}

async fn install(enforcer: &Enforcer, desired: &DesiredState) -> Duration {
    let desired = desired.clone();
    let begun = Instant::now();
    enforcer.install(desired, Vec::new).await.unwrap();
    begun.elapsed()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let median = times[times.len() / 2];
    let most = times[times.len() - 1];
    println!("{what:<36} {median:>9.2?} median, {most:.2?} at most");
}

fn desired() -> DesiredState {
    let mut programs = BTreeMap::new();
    let mut members = BTreeMap::new();
    let mut dispatch = BTreeMap::new();
    for number in 0..PROGRAMS {
        let count = if number == 0 { PODS } else { PODS / PROGRAMS };
        let (id, program, of_program) = program(number, count);
        programs.insert(id, program);
        members.insert(id, of_program);
        let [high, low] = number.to_be_bytes();
        dispatch.insert(IpAddr::from([10, 100, high, low]), id);
    }
    DesiredState {
        table: "namegate".to_owned(),
        programs,
        members,
        local_host: LocalHost::Always,
        intercepted: dispatch.keys().copied().collect(),
        dispatch: PerDirection::of_egress(dispatch),
        resolvers: Vec::new(),
        listening: Vec::new(),
        interception: Interception::Dnat,
        fail_mode: FailMode::Open,
        cluster: vec!["10.0.0.0/8".parse().unwrap()],
        host: BTreeSet::new(),
        pod_links: PodLinks::default(),
        servers: BTreeSet::new(),
        unknown: Vec::new(),
        refusal: DenyResponse::Reject,
        handover: None,
        inspected_services: PerDirection::default(),
        records: Some(78),
        capacity: NonZeroU32::new(65_536).unwrap(),
    }
}

type Governed = (ProgramId, Arc<KernelProgram>, ElementSet);

/// 30 names, 10 prefixes and 10 rules about objects; a denial among each.
fn program(number: u16, members: u16) -> Governed {
    let mut network = Vec::new();
    for rule in 0..30 {
        let name = Pattern::name(&format!("n{rule}.p{number}.example")).unwrap();
        network.push((rule, Peer::Name(name)));
    }
    for rule in 30..40 {
        let prefix = format!("192.{}.{rule}.0/24", number % 256).parse().unwrap();
        network.push((rule, Peer::Prefix(Zone::World, prefix)));
    }
    for rule in 40..50 {
        let requirements = Vec::new();
        network.push((rule, Peer::Object(ObjectSelector::Pods(LabelSelector { requirements }))));
    }
    let mut network: Vec<Rule> = network.into_iter().map(|(rule, to)| allow(rule, to)).collect();
    network.sort_by_key(|rule| rule.action);
    let tiers = Tiers {
        network,
        closed_by: vec![origin()],
        ..Tiers::default()
    };
    let program = Program {
        enforced: tiers,
        ..Program::default()
    };
    let id = program.id();
    let folded = KernelProgram::new(&program);
    let members = (0..members)
        .flat_map(|number| member(id, &folded.enforced.classifier, pod(number)))
        .collect();
    (id, Arc::new(folded), members)
}

fn allow(rule: u16, peer: Peer) -> Rule {
    let tcp = |port| PortRange::single(Protocol::Tcp, port);
    Rule {
        action: if rule % 10 == 9 { Action::Deny } else { Action::Allow },
        peer,
        ports: PortSet::from_ranges([tcp(443), tcp(8000 + rule)]),
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    }
}

fn member(id: ProgramId, classifier: &policy::classifier::Classifier, address: IpAddr) -> Vec<Element> {
    let objects: Vec<_> = classifier
        .object_rules()
        .take(1)
        .map(|(index, rule)| (index, rule.ports.clone()))
        .collect();
    let at = AddressContext {
        address,
        zone: AddressZone::Cluster,
        objects: &objects,
    };
    let entries = classifier.entries_for_objects(at);
    entries
        .iter()
        .flat_map(|entry| elements(id, classifier.layout(), address, entry))
        .collect()
}

fn pod(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

fn origin() -> Origin {
    let policy = PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: "n".into(),
        name: "p".into(),
    };
    Origin {
        policy,
        rule: String::new(),
    }
}
