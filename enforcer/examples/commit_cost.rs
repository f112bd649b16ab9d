//! Prints what one admission costs, from asking to the proof in hand, by how many elements it
//! writes: `cargo run --release -p namegate-enforcer --example commit_cost`, as root. Works in a
//! network namespace of its own.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::Time;
use enforcer::layout::prepared;
use enforcer::pod_links::PodLinks;
use enforcer::{DesiredState, Element, Enforcer, FailMode, Interception, KernelProgram, LocalHost};
use names::Pattern;
use policy::{
    Action, DenyResponse, LeaseTerms, Peer, PerDirection, PortRange, PortSet, Program, ProgramId, Protocol, Rule, Tiers,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

const ROUNDS: u32 = 200;
const PATIENCE: Duration = Duration::from_secs(10);
const LEASE: Duration = Duration::from_secs(600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    enter_new_namespace()?;
    let program = program()?;
    let id = program.id();
    let program = Arc::new(KernelProgram::new(&program));
    let enforcer = Enforcer::start("namegate")?;
    let generation = enforcer.install(desired(id, &program), Vec::new).await?;
    let mut addresses = 0u32..;
    let mut fresh = |count: usize| -> Vec<(Element, Time)> {
        let end = clock::now() + LEASE;
        let targets = prepared(id, &program.enforced.classifier, 0).unwrap_or_default();
        let each = addresses
            .by_ref()
            .take(count)
            .map(|host| (0x0a00_0000 | host).to_be_bytes().into());
        let elements = each.flat_map(|address| targets.iter().filter_map(move |target| target.element(address)));
        elements.map(|element| (element, end)).collect()
    };

    println!(
        "{:>9} {:>14} {:>14} {:>14}",
        "elements", "new µs", "renewed µs", "held µs"
    );
    for count in [1, 10, 100, 1000] {
        let (mut new, mut renewed, mut held) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for _ in 0..ROUNDS {
            let elements = fresh(count);
            let later: Vec<_> = elements.iter().map(|(element, end)| (*element, *end + LEASE)).collect();
            let begun = Instant::now();
            let _proof = enforcer.admit(generation, elements, PATIENCE).await?;
            new += begun.elapsed();
            let begun = Instant::now();
            let _proof = enforcer.admit(generation, later.clone(), PATIENCE).await?;
            renewed += begun.elapsed();
            let begun = Instant::now();
            let proof = enforcer.already_admitted(generation, &later, Duration::ZERO);
            held += begun.elapsed();
            assert!(proof.is_some(), "what was just admitted is held");
        }
        let micros = |total: Duration| total.as_secs_f64() * 1e6 / f64::from(ROUNDS);
        println!(
            "{count:>9} {:>14.1} {:>14.1} {:>14.2}",
            micros(new),
            micros(renewed),
            micros(held)
        );
    }
    println!("{:?}", enforcer.stats());
    enforcer.shut_down().await;
    Ok(())
}

/// One name on one port.
fn program() -> Result<Program, Box<dyn Error>> {
    let rule = Rule {
        action: Action::Allow,
        peer: Peer::Name(Pattern::name("api.example")?),
        ports: PortSet::Ranges(vec![PortRange::single(Protocol::Tcp, 443)]),
        named: vec![],
        through: None,
        lease: LeaseTerms::default(),
        origins: vec![],
    };
    Ok(Program {
        enforced: Tiers {
            network: vec![rule],
            ..Tiers::default()
        },
        ..Program::default()
    })
}

fn desired(id: ProgramId, program: &Arc<KernelProgram>) -> DesiredState {
    DesiredState {
        table: "namegate".to_owned(),
        programs: BTreeMap::from([(id, Arc::clone(program))]),
        members: BTreeMap::new(),
        dispatch: PerDirection::of_egress(BTreeMap::from([([10, 66, 0, 1].into(), id)])),
        local_host: LocalHost::Always,
        intercepted: BTreeSet::new(),
        resolvers: Vec::new(),
        listening: Vec::new(),
        interception: Interception::Off,
        fail_mode: FailMode::Closed,
        cluster: Vec::new(),
        host: BTreeSet::new(),
        pod_links: PodLinks::default(),
        servers: BTreeSet::new(),
        unknown: Vec::new(),
        refusal: DenyResponse::Reject,
        handover: None,
        inspected_services: PerDirection::default(),
        records: None,
        capacity: NonZeroU32::MIN.saturating_add(1_000_000),
    }
}

#[allow(unsafe_code)]
fn enter_new_namespace() -> std::io::Result<()> {
    // SAFETY: only the network namespace of this thread changes, before any other thread or
    // descriptor depends on it.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}
