//! What the kernel does with packets, beside a reference model that reads the program itself.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use enforcer::DesiredState;
use ipnet::IpNet;
use policy::Protocol::Tcp;
use policy::{AddressZone, PortSet, ProgramId, Zone};
use proptest::collection::{hash_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestRunner};

use crate::lab::{Lab, OUTSIDE, Outcome, POD_V4, POD_V6, ip};
use crate::programs::{
    NameRule, PrefixRule, Program, Rules, desired, evaluation, governs, learn_at, name_rule, ports, prefix_rule, range,
    single,
};

const PORTS: [u16; 3] = [80, 85, 443];
const NAMES: [&str; 3] = ["a.example", "b.example", "c.example"];
const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "10.88.0.0/24",
    "10.88.0.0/31",
    "10.88.0.2/32",
    "10.77.0.0/16",
    "::/0",
    "fd88::/127",
    "fd77::2/128",
];

#[test]
fn the_kernel_decides_as_the_program_reads() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&PORTS);
    let next_id = Cell::new(0);
    let config = Config {
        cases: 32,
        failure_persistence: None,
        ..Config::default()
    };
    // The same programs every time.
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    TestRunner::new_with_rng(config, rng)
        .run(&case(), |case| {
            let id = ProgramId(next_id.replace(next_id.get() + 1));
            let mut desired = governs(desired(), [POD_V4, POD_V6], id, case.program.clone());
            desired.cluster = case.cluster.iter().map(|address| IpNet::from(ip(address))).collect();
            desired.host = case.host.iter().map(|address| ip(address)).collect();
            let program = evaluation(id, &case.program.tiers());
            let place = |address| match address {
                address if desired.host.contains(&address) => AddressZone::Host,
                address if desired.cluster.iter().any(|prefix| prefix.contains(&address)) => AddressZone::Cluster,
                _ => AddressZone::World,
            };
            let learned: Vec<_> = case
                .taught
                .iter()
                .flat_map(|(name, address)| {
                    let address = ip(address);
                    learn_at(&program, name, address, place(address), Duration::from_secs(600))
                })
                .collect();
            lab.install(&desired, &learned);
            for address in OUTSIDE {
                for port in PORTS {
                    let expected = case.allows(&desired, address, port);
                    let seen = lab.pod.tries(address, port);
                    let allowed = match seen {
                        Outcome::Connected => true,
                        Outcome::Refused => false,
                        Outcome::Failed(error) => return Err(TestCaseError::fail(error)),
                    };
                    prop_assert_eq!(allowed, expected, "{} {}", address, port);
                }
            }
            Ok(())
        })
        .unwrap();
}

#[derive(Debug, Clone)]
struct Case {
    program: Program,
    taught: Vec<(&'static str, &'static str)>,
    cluster: Vec<&'static str>,
    host: Vec<&'static str>,
}

impl Case {
    fn allows(&self, desired: &DesiredState, address: &str, port: u16) -> bool {
        let matches = |rules: &Rules| {
            rules.names.iter().any(|rule| self.name_matches(rule, address, port))
                || rules
                    .prefixes
                    .iter()
                    .any(|rule| prefix_matches(rule, desired, ip(address), port))
        };
        !matches(&self.program.deny) && (!self.program.closed || matches(&self.program.allow))
    }

    fn name_matches(&self, rule: &NameRule, address: &str, port: u16) -> bool {
        let taught = |(name, taught): &(&str, &str)| rule.pattern.to_string() == *name && *taught == address;
        rule.ports.contains(Tcp, port) && self.taught.iter().any(taught)
    }
}

fn prefix_matches(rule: &PrefixRule, desired: &DesiredState, address: IpAddr, port: u16) -> bool {
    let host = desired.host.contains(&address);
    let inside = host || desired.cluster.iter().any(|prefix| prefix.contains(&address));
    let in_zone = match rule.zone {
        Zone::Anywhere => true,
        Zone::World => !inside,
        Zone::Cluster | Zone::Mesh => inside,
        Zone::Host => host,
    };
    in_zone && rule.prefix.contains(&address) && rule.ports.contains(Tcp, port)
}

fn case() -> impl Strategy<Value = Case> {
    let teaching = (select(NAMES.to_vec()), select(OUTSIDE.to_vec()));
    (
        prop::bool::weighted(0.9),
        rules(),
        rules(),
        hash_set(teaching, 0..8),
        subsequence(OUTSIDE.to_vec(), 0..4),
        subsequence(OUTSIDE.to_vec(), 0..3),
    )
        .prop_map(|(closed, deny, allow, taught, cluster, host)| Case {
            program: Program { closed, deny, allow },
            taught: taught.into_iter().collect(),
            cluster,
            host,
        })
}

fn rules() -> impl Strategy<Value = Rules> {
    let zone = select(vec![Zone::Anywhere, Zone::World, Zone::Cluster, Zone::Host]);
    let prefix = (zone, select(PREFIXES.to_vec()), port_set());
    let prefixes = vec(
        prefix.prop_map(|(zone, prefix, ports)| prefix_rule(zone, prefix, ports)),
        0..5,
    );
    let names = subsequence(NAMES.to_vec(), 0..=NAMES.len()).prop_flat_map(|names| {
        names
            .into_iter()
            .map(|name| (Just(name), port_set()))
            .collect::<Vec<_>>()
    });
    (prefixes, names).prop_map(|(prefixes, names)| Rules {
        prefixes,
        names: names.into_iter().map(|(name, ports)| name_rule(name, ports)).collect(),
    })
}

fn port_set() -> impl Strategy<Value = PortSet> {
    select(vec![
        PortSet::All,
        ports([single(Tcp, 80)]),
        ports([range(Tcp, 80, 85), single(Tcp, 443)]),
        ports([range(Tcp, 81, 442)]),
        ports([]),
    ])
}
