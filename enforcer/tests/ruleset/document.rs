//! The frame as text: pure, without a kernel.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use enforcer::ruleset::{ExistingObjects, frame};
use enforcer::{DesiredState, FailMode, Interception, ResolverBinding};
use nftables::schema::Nftables;
use policy::DenyResponse;
use serde_json::Value;

use crate::lab::{Lab, ip};
use crate::programs::desired;

/// One command a line.
#[test]
fn the_frame_of_a_new_table_is_the_golden_one() {
    let text = commands(&frame(&example(), &ExistingObjects::default()))
        .iter()
        .map(|command| format!("{command}\n"))
        .collect::<String>();
    insta::assert_snapshot!(text);
}

#[test]
fn the_frame_depends_on_settings_only() {
    let first = frame(&example(), &ExistingObjects::default());
    let mut other = example();
    other.resolvers.clear();
    other.dispatch.egress.clear();
    other.intercepted.clear();
    other.cluster.clear();
    other.host.clear();
    assert_eq!(frame(&other, &ExistingObjects::default()), first);
}

#[test]
fn commands_stand_in_the_order_that_the_kernel_needs() {
    let mut existing = standing_after(&frame(&example(), &ExistingObjects::default()));
    existing.chains.insert("old".to_owned());
    existing.sets.insert("older".to_owned());
    let rank = |command: &Value| {
        let is = |verb: &str, kind: &str| command[verb][kind].is_object();
        match command {
            _ if is("add", "table") => 0,
            _ if is("add", "rule") => 3,
            _ if command["add"].is_object() => 1,
            _ if is("flush", "chain") => 2,
            _ if is("delete", "set") => 4,
            _ if is("delete", "chain") => 5,
            _ => panic!("{command}"),
        }
    };
    let commands = commands(&frame(&example(), &existing));
    assert!(commands.is_sorted_by_key(rank));
    for rank_in_use in 0..=5 {
        assert!(
            commands.iter().any(|command| rank(command) == rank_in_use),
            "{rank_in_use}"
        );
    }
}

#[test]
fn what_is_replaced_is_emptied_and_what_is_foreign_deleted() {
    let mut existing = standing_after(&frame(&example(), &ExistingObjects::default()));
    existing.chains.insert("old".to_owned());
    existing.sets.insert("older".to_owned());
    let commands = commands(&frame(&example(), &existing));
    assert_eq!(
        names(&commands, "flush", "chain"),
        existing.chains.iter().cloned().collect::<Vec<_>>()
    );
    assert_eq!(names(&commands, "delete", "set"), ["older"]);
    assert_eq!(names(&commands, "delete", "chain"), ["old"]);
}

#[test]
fn what_stands_is_nothing_where_the_table_is_gone() {
    let new = frame(&example(), &ExistingObjects::default());
    let gone = ExistingObjects {
        table: false,
        ..standing_after(&new)
    };
    assert_eq!(frame(&example(), &gone), new);
}

/// nft looks some names up in files of the host, which an image need not have.
#[test]
fn the_frame_is_taken_where_etc_is_empty() {
    let Some(lab) = Lab::new() else { return };
    for interception in [
        Interception::Dnat,
        Interception::Off,
        Interception::Tproxy {
            mark: NonZeroU32::new(0x20_0000).unwrap(),
            routing_table: 2053,
            port: 10053,
        },
    ] {
        let desired = DesiredState {
            interception,
            ..example()
        };
        lab.install(&desired, &[]);
        // Without the sets, which the frame does not write.
        let existing = ExistingObjects {
            sets: BTreeSet::new(),
            ..lab.existing()
        };
        let text = serde_json::to_string(&frame(&desired, &existing)).unwrap();
        let script = "mount -t tmpfs none /etc; exec nft -j -f -";
        let unshared = ["--mount", "--propagation", "private", "sh", "-ec", script];
        if let Err(error) = lab.node.run("unshare", &unshared, &text) {
            panic!("{interception:?}: {error}");
        }
    }
}

/// Settings that use everything once.
fn example() -> DesiredState {
    let mut desired = desired();
    desired.cluster = ["10.0.0.0/24", "10.0.1.0/24", "10.0.0.5/32", "fd00::/64"]
        .map(|prefix| prefix.parse().unwrap())
        .to_vec();
    desired.host = [ip("10.1.0.1"), ip("fd01::1")].into();
    desired.interception = Interception::Dnat;
    desired.fail_mode = FailMode::Open;
    desired.refusal = DenyResponse::Reject;
    desired.records = Some(78);
    desired.listening = vec!["10.1.0.1:53".parse().unwrap(), "[::]:53".parse().unwrap()];
    desired.resolvers = [
        ("10.96.0.11:53", "169.254.53.53:10002"),
        ("10.96.0.10:53", "169.254.53.53:10001"),
    ]
    .map(|(asked, listener)| ResolverBinding {
        asked: asked.parse().unwrap(),
        listener: listener.parse().unwrap(),
    })
    .to_vec();
    desired
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
fn standing_after(document: &Nftables<'_>) -> ExistingObjects {
    ExistingObjects {
        table: true,
        chains: names(&commands(document), "add", "chain").into_iter().collect(),
        sets: BTreeSet::new(),
    }
}
