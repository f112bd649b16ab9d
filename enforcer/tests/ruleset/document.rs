//! The document as text: pure, without a kernel.

use std::time::Duration;

use enforcer::ruleset::{Standing, transaction};
use enforcer::{Desired, Element, FailMode, Interception, Refusal, ResolverBinding, SetId};
use nftables::schema::Nftables;
use policy::PortSet;
use policy::ProgramId;
use policy::policy::Zone;
use policy::ports::Protocol::{Tcp, Udp};
use policy::program::{Program, Rules};
use serde_json::Value;

use crate::lab::ip;
use crate::programs::{desired, governs, learn, name_rule, ports, prefix_rule, range, single};

const ID: ProgramId = ProgramId(0x00ab_cdef_0123_4567);
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ruleset/document.golden.jsonl");

/// One command a line. After a change that is meant, run the tests with `BLESS=1` and read the difference.
#[test]
fn the_document_of_a_new_table_is_the_golden_one() {
    let (desired, learned) = example();
    let text = commands(&transaction(&desired, &Standing::default(), &learned))
        .iter()
        .map(|command| format!("{command}\n"))
        .collect::<String>();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for (number, (line, golden)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(line, golden, "line {}", number + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count());
}

#[test]
fn equal_inputs_give_equal_text_whatever_the_order_of_resolvers_and_learned_elements() {
    let (mut desired, mut learned) = example();
    let text = |desired: &Desired, learned: &[(Element, Duration)]| {
        serde_json::to_string(&transaction(desired, &Standing::default(), learned)).unwrap()
    };
    let first = text(&desired, &learned);
    desired.resolvers.reverse();
    learned.reverse();
    assert_eq!(text(&desired, &learned), first);
}

#[test]
fn commands_stand_in_the_order_that_the_kernel_needs() {
    let (desired, learned) = example();
    let mut standing = standing_after(&transaction(&desired, &Standing::default(), &learned));
    standing.chains.insert("old".to_owned());
    standing.sets.insert("older".to_owned());
    let rank = |command: &Value| {
        let is = |verb: &str, kind: &str| command[verb][kind].is_object();
        match command {
            _ if is("add", "table") => 0,
            _ if is("add", "element") => 4,
            _ if is("add", "rule") => 5,
            _ if command["add"].is_object() => 1,
            _ if is("flush", "chain") => 2,
            _ if command["flush"].is_object() => 3,
            _ if is("delete", "set") => 6,
            _ if is("delete", "chain") => 7,
            _ => panic!("{command}"),
        }
    };
    let commands = commands(&transaction(&desired, &standing, &learned));
    assert!(commands.is_sorted_by_key(rank));
    for rank_in_use in 0..=7 {
        assert!(
            commands.iter().any(|command| rank(command) == rank_in_use),
            "{rank_in_use}"
        );
    }
}

#[test]
fn what_stands_is_emptied_and_written_anew_except_for_what_is_learned() {
    let (desired, learned) = example();
    let new = transaction(&desired, &Standing::default(), &learned);
    let standing = standing_after(&new);
    let commands = commands(&transaction(&desired, &standing, &learned));

    assert_eq!(
        names(&commands, "flush", "chain"),
        standing.chains.iter().cloned().collect::<Vec<_>>()
    );
    let emptied = [names(&commands, "flush", "set"), names(&commands, "flush", "map")].concat();
    for set in [
        "pods4",
        "cluster6",
        "host4",
        "resolvers4",
        "listener-address4",
        "listener-port6",
    ] {
        assert!(emptied.iter().any(|name| name == set), "{set} is not in {emptied:?}");
    }
    let filled = names(&commands, "add", "element");
    for name in emptied.iter().chain(&filled) {
        assert!(
            name.parse::<SetId>().is_err() && name != "alive",
            "{name} must keep its elements"
        );
        assert!(
            !name.contains(&ID.to_string()),
            "{name} holds what its name says already"
        );
    }
    assert_eq!(names(&commands, "delete", "set"), [""; 0]);
    assert_eq!(names(&commands, "delete", "chain"), [""; 0]);
}

#[test]
fn what_stands_is_nothing_where_the_table_is_gone() {
    let (desired, learned) = example();
    let new = transaction(&desired, &Standing::default(), &learned);
    let gone = Standing {
        table: false,
        ..standing_after(&new)
    };
    assert_eq!(transaction(&desired, &gone, &learned), new);
}

#[test]
fn a_lease_is_rounded_up_to_seconds_within_what_nft_can_count() {
    let (desired, _) = example();
    let program = desired.programs[&ID].clone();
    let timeout = |lease| {
        let learned = learn(ID, &program, "group.example", &["192.0.2.7"], lease);
        let commands = commands(&transaction(&desired, &Standing::default(), &learned));
        let element = commands
            .iter()
            .find(|command| command["add"]["element"]["name"] == format!("allow4-{ID}-g0"))
            .unwrap();
        element["add"]["element"]["elem"][0]["elem"]["timeout"]
            .as_u64()
            .unwrap()
    };
    assert_eq!(timeout(Duration::from_secs(60)), 60);
    assert_eq!(timeout(Duration::from_millis(60_001)), 61);
    assert_eq!(timeout(Duration::ZERO), 1);
    assert_eq!(timeout(Duration::MAX), 24 * 24 * 3600);
}

#[test]
fn elements_of_sets_that_are_not_wanted_are_left_out_and_of_equal_ones_the_longer_lease_counts() {
    let (desired, _) = example();
    let program = desired.programs[&ID].clone();
    let lease = |seconds| Duration::from_secs(seconds);
    let learned = [
        learn(ProgramId(1), &program, "group.example", &["192.0.2.7"], lease(60)),
        learn(ID, &program, "group.example", &["192.0.2.7"], lease(90)),
        learn(ID, &program, "group.example", &["192.0.2.7"], lease(30)),
    ]
    .concat();
    let text = serde_json::to_string(&transaction(&desired, &Standing::default(), &learned)).unwrap();
    assert!(!text.contains(&ProgramId(1).to_string()));
    assert_eq!(text.matches("192.0.2.7").count(), 1);
    assert!(text.contains(r#""timeout":90"#));
}

#[test]
fn a_packet_pays_a_fixed_number_of_lookups_however_much_a_program_holds() {
    let rules = |count: u8| Rules {
        prefixes: (0..count)
            .flat_map(|n| {
                [
                    prefix_rule(Zone::World, &format!("198.51.{n}.0/25"), PortSet::All),
                    prefix_rule(Zone::World, &format!("198.51.{n}.128/25"), ports([single(Tcp, 443)])),
                    prefix_rule(Zone::Cluster, &format!("10.0.{n}.0/24"), PortSet::All),
                ]
            })
            .collect(),
        names: (0..count)
            .flat_map(|n| {
                [
                    name_rule(&format!("a{n}.example"), ports([single(Tcp, n.into())])),
                    name_rule(&format!("b{n}.example"), PortSet::All),
                ]
            })
            .collect(),
    };
    let chain_length = |count| {
        let program = Program {
            closed: true,
            deny: rules(count),
            allow: rules(count),
            ..Program::default()
        };
        let document = transaction(
            &governs(desired(), ["10.0.0.1"], ID, program),
            &Standing::default(),
            &[],
        );
        let of_chain = |command: &&Value| command["add"]["rule"]["chain"] == format!("ep4-{ID}");
        commands(&document).iter().filter(of_chain).count()
    };
    assert_eq!(chain_length(1), 11);
    assert_eq!(chain_length(200), 11);
}

/// A program that uses everything once, a service and its lookups.
fn example() -> (Desired, Vec<(Element, Duration)>) {
    let program = Program {
        closed: true,
        deny: Rules {
            prefixes: vec![prefix_rule(Zone::Anywhere, "169.254.169.254/32", PortSet::All)],
            names: vec![name_rule("bad.example", ports([single(Tcp, 443)]))],
        },
        allow: Rules {
            prefixes: vec![
                prefix_rule(Zone::World, "0.0.0.0/0", ports([single(Udp, 123)])),
                prefix_rule(Zone::World, "198.51.100.0/25", PortSet::All),
                prefix_rule(Zone::World, "198.51.100.128/25", PortSet::All),
                prefix_rule(Zone::Cluster, "::/0", PortSet::All),
                prefix_rule(Zone::Host, "0.0.0.0/0", ports([range(Tcp, 9000, 9100)])),
            ],
            names: vec![
                name_rule("exact.example", ports([single(Tcp, 443), single(Udp, 443)])),
                name_rule("group.example", ports([single(Tcp, 80), range(Tcp, 8000, 8999)])),
            ],
        },
        ..Program::default()
    };
    let lease = Duration::from_secs(300);
    let learned = [
        learn(ID, &program, "exact.example", &["192.0.2.1", "2001:db8::1"], lease),
        learn(ID, &program, "group.example", &["192.0.2.2"], lease),
        learn(ID, &program, "bad.example", &["192.0.2.3"], lease),
    ]
    .concat();
    let mut desired = governs(desired(), ["10.0.0.1", "10.0.0.2", "fd00::1"], ID, program);
    desired.cluster = ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.5/32", "fd00::/64"]
        .map(|prefix| prefix.parse().unwrap())
        .to_vec();
    desired.host = [ip("10.1.0.1"), ip("fd01::1")].into();
    desired.interception = Interception::Dnat;
    desired.fail_mode = FailMode::Open;
    desired.refusal = Refusal::Reject;
    desired.resolvers = [
        ("10.96.0.11:53", "169.254.53.53:10002"),
        ("10.96.0.10:53", "169.254.53.53:10001"),
    ]
    .map(|(asked, listener)| ResolverBinding {
        asked: asked.parse().unwrap(),
        listener: listener.parse().unwrap(),
    })
    .to_vec();
    (desired, learned)
}

fn commands(document: &Nftables<'_>) -> Vec<Value> {
    // Through text, so that what is looked at is what nft reads.
    let text = serde_json::to_string(document).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    document["nftables"].as_array().unwrap().clone()
}

fn names(commands: &[Value], verb: &str, kind: &str) -> Vec<String> {
    let objects = commands.iter().map(|command| &command[verb][kind]);
    objects
        .filter_map(|object| object["name"].as_str())
        .map(str::to_owned)
        .collect()
}

/// What stands once a document for a new table is applied.
fn standing_after(document: &Nftables<'_>) -> Standing {
    let commands = commands(document);
    let sets = [names(&commands, "add", "set"), names(&commands, "add", "map")].concat();
    Standing {
        table: true,
        chains: names(&commands, "add", "chain").into_iter().collect(),
        sets: sets.into_iter().collect(),
    }
}
