//! The cases of `policy/tests/cases`: policies with expected verdicts, in YAML.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use policy::Protocol;
use policy::explain::ExplainOutcome;
use policy::labels::Labels;
use serde::Deserialize;

use crate::world::{Pod, World, decided_by};

/// The first document of a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    refused: bool,
    pods: Option<BTreeMap<String, CasePod>>,
    #[serde(default)]
    packets: Vec<Packet>,
    #[serde(default)]
    lookups: Vec<Lookup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CasePod {
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    namespace_labels: Labels,
    address: IpAddr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Packet {
    from: String,
    to: Option<String>,
    name: Option<String>,
    port: Option<String>,
    icmp: Option<u16>,
    verdict: String,
    by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lookup {
    from: String,
    name: String,
    verdict: String,
}

#[test]
fn every_case_has_the_verdicts_that_it_expects() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = [directory.join("cilium"), directory]
        .iter()
        .flat_map(|directory| std::fs::read_dir(directory).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    for path in cases {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        run(&name, &std::fs::read_to_string(&path).unwrap());
    }
}

fn run(case: &str, text: &str) {
    let (expected, policies) = text
        .split_once("\n---\n")
        .unwrap_or_else(|| panic!("{case} has no policy"));
    let expected: Expected = serde_saphyr::from_str(expected).unwrap_or_else(|error| panic!("{case}: {error}"));
    assert!(
        !expected.packets.is_empty() || !expected.lookups.is_empty(),
        "{case} expects nothing"
    );
    let world = match expected.refused {
        true => World::under_refused(policies),
        false => World::under(policies),
    };
    let world = match expected.pods {
        None => world,
        Some(pods) => world.with_pods(pods.into_iter().map(|(name, pod)| Pod {
            name,
            of_namespace: pod.namespace_labels,
            own: pod.labels,
            address: pod.address,
        })),
    };
    for packet in &expected.packets {
        check_packet(case, &world, packet);
    }
    for lookup in &expected.lookups {
        let verdict = match world.may_ask(&lookup.from, &lookup.name) {
            true => "allowed",
            false => "denied",
        };
        assert_eq!(verdict, lookup.verdict, "{case}: {lookup:?}");
    }
}

fn check_packet(case: &str, world: &World, packet: &Packet) {
    /// What every name resolves to.
    const NAMED: [u8; 4] = [203, 0, 113, 80];
    let to = match (packet.to.as_deref(), &packet.name) {
        (Some(to), None) => world
            .address(to)
            .unwrap_or_else(|| panic!("{case}: {to} is no address")),
        (None, Some(_)) => NAMED.into(),
        _ => panic!("{case}: a packet has either `to` or `name`: {packet:?}"),
    };
    let explanation = world.explain(&packet.from, Some(to), packet.name.as_deref(), traffic(case, packet));
    let verdict = match explanation.outcome {
        ExplainOutcome::Allowed => "allowed",
        ExplainOutcome::Audited => "audited",
        ExplainOutcome::Denied => "denied",
    };
    assert_eq!(verdict, packet.verdict, "{case}: {packet:?}\n{}", explanation.decision);
    if let Some(by) = &packet.by {
        assert_eq!(
            decided_by(&explanation),
            by,
            "{case}: {packet:?}\n{}",
            explanation.decision
        );
    }
}

fn traffic(case: &str, packet: &Packet) -> (Protocol, u16) {
    match (&packet.port, packet.icmp) {
        (None, Some(kind)) => (Protocol::Icmp, kind),
        (Some(port), None) => {
            let (port, protocol) = port.split_once('/').unwrap_or((port, ""));
            let known = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
            let found = known.iter().find(|(name, _)| *name == protocol);
            let (_, protocol) = found.unwrap_or_else(|| panic!("{case}: write 443/TCP, for example: {packet:?}"));
            (*protocol, port.parse().unwrap())
        }
        _ => panic!("{case}: a packet has either `port` or `icmp`: {packet:?}"),
    }
}
