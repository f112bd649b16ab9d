//! What a new answer costs, by how many programs match it on how many ports.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::rr::RecordType;
use lab::client::StubResolver;
use lab::process::Installation;
use lab::{Lab, NODE4, NumberedNames, RESOLVER, cpu_time};

use crate::{common_pattern, median_of};

/// The most that a new answer may cost with many programs or ports, beside one of each.
const GOAL: f64 = 1.3;

/// Answers in a run.
const ANSWERS: u32 = 1000;

/// Programs, and ports of each.
const SHAPES: [(usize, u16); 6] = [(1, 1), (10, 1), (100, 1), (1, 12), (10, 12), (100, 12)];

struct Cost {
    /// The agent's CPU for each answer.
    cpu: Duration,
    /// Elements in the kernel for each address that was learned.
    elements: f64,
}

/// Measures in turn, and prints the table.
pub(crate) fn run(binary: &str, rounds: usize) {
    println!("a new answer, at most {GOAL} times that of one program on one port:");
    let mut costs: [Vec<Cost>; SHAPES.len()] = Default::default();
    for _ in 0..rounds {
        for ((programs, ports), costs) in SHAPES.into_iter().zip(&mut costs) {
            costs.push(cost(binary, programs, ports));
        }
    }
    let median = |costs: &[Cost]| median_of(costs.iter().map(|cost| cost.cpu));
    let one = median(&costs[0]);
    for ((programs, ports), costs) in SHAPES.into_iter().zip(&costs) {
        let cpu = median(costs);
        let ratio = cpu.as_secs_f64() / one.as_secs_f64();
        let elements = costs.iter().map(|cost| cost.elements).fold(0.0, f64::max);
        let verdict = if ratio <= GOAL { "reached" } else { "NOT REACHED" };
        println!(
            "  {programs} programs, {ports} ports: {cpu:.1?} of CPU, {ratio:.2} times, \
             {elements:.0} elements for an address: {verdict}"
        );
    }
}

fn cost(binary: &str, programs: usize, ports: u16) -> Cost {
    let lab = Lab::builder().pods(1).build().unwrap();
    lab.resolver().synthesize(NumberedNames {
        suffix: common_pattern::SUFFIX.to_owned(),
        ttl: 3600,
        addresses: 1,
        first4: Ipv4Addr::new(198, 18, 0, 1),
        first6: "2001:db8:18::1".parse().unwrap(),
    });
    let installation = Installation::new(binary, lab.node()).unwrap();
    let objects = common_pattern::objects(&lab, programs, 1, ports);
    installation.write_object("objects.yaml", &objects).unwrap();
    let listen = SocketAddr::new(IpAddr::V4(NODE4), 5300);
    let (upstream, address) = (RESOLVER.to_string(), listen.to_string());
    let mut agent = installation
        .start(["--upstream", &upstream, "--listen", &address])
        .unwrap();
    agent.wait_ready().unwrap();
    let ask = |first: u32, count: u32| {
        let ask = || {
            let stub = StubResolver::new(listen).unwrap();
            for number in first..first + count {
                let name = format!("n{number}.{}", common_pattern::SUFFIX);
                let reply = stub.ask(&name, RecordType::A, true).unwrap();
                assert!(reply.address().is_some(), "{name}: {:?}", reply.message);
            }
        };
        lab.pod(0).namespace().run(ask).unwrap();
    };
    // What is done once only.
    ask(0, 20);
    let elements = || agent.metric("namegate_set_elements").unwrap();
    let (before, elements_before) = (cpu_time::of(agent.pid()), elements());
    ask(1000, ANSWERS);
    let cost = Cost {
        cpu: (cpu_time::of(agent.pid()) - before) / ANSWERS,
        elements: (elements() - elements_before) / f64::from(ANSWERS),
    };
    agent.terminate().unwrap();
    cost
}
