//! The chains of some programs, in the words of `nft list`: what whoever looks at a node sees.

use std::process::Command;

use policy::{PortSet, ProgramId, Protocol, Zone};

use crate::lab::Lab;
use crate::programs::{Program, Rules, desired, governs, name_rule, ports, prefix_rule, range, single};

const ID: ProgramId = ProgramId(0x0123_4567_89ab_cdef);

/// The snapshots are in the words of this version. Others word some rules in another way.
const NFT: &str = "v1.0.6";

#[test]
fn names_on_single_ports_cost_one_lookup() {
    let names = vec![name_rule("a.example", ports([single(Protocol::Tcp, 443)]))];
    let allow = Rules {
        prefixes: vec![],
        names,
    };
    if let Some(chains) = listed(&closed(Rules::default(), allow)) {
        insta::assert_snapshot!(chains);
    }
}

#[test]
fn a_wide_range_of_ports_is_a_chain_of_its_own() {
    let wide = ports([single(Protocol::Tcp, 80), range(Protocol::Tcp, 8000, 9000)]);
    let names = vec![name_rule("a.example", wide)];
    let allow = Rules {
        prefixes: vec![],
        names,
    };
    if let Some(chains) = listed(&closed(Rules::default(), allow)) {
        insta::assert_snapshot!(chains);
    }
}

#[test]
fn prefixes_and_a_denied_name_follow_each_other() {
    let deny = Rules {
        prefixes: vec![prefix_rule(Zone::World, "10.88.0.1/32", PortSet::All)],
        names: vec![name_rule("bad.example", ports([single(Protocol::Tcp, 443)]))],
    };
    let allow = Rules {
        prefixes: vec![
            prefix_rule(Zone::Anywhere, "10.88.0.0/16", ports([single(Protocol::Tcp, 443)])),
            prefix_rule(Zone::World, "fd88::/64", PortSet::All),
        ],
        names: vec![name_rule("a.example", ports([single(Protocol::Tcp, 443)]))],
    };
    if let Some(chains) = listed(&closed(deny, allow)) {
        insta::assert_snapshot!(chains);
    }
}

fn closed(deny: Rules, allow: Rules) -> Program {
    Program {
        closed: true,
        deny,
        allow,
    }
}

/// The chains of a program on a node with a pod that it governs. `None` where they cannot be
/// compared.
fn listed(program: &Program) -> Option<String> {
    let version = Command::new("nft").arg("--version").output().ok()?;
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    if !version.contains(NFT) {
        eprintln!("skipped: the snapshots are those of nft {NFT}, and this is {version}");
        return None;
    }
    let lab = Lab::new()?;
    lab.install(&governs(desired(), ["10.66.0.2", "fd66::2"], ID, program.clone()), &[]);
    let arguments = ["--stateless", "--numeric", "list", "table", "inet", "namegate"];
    let table = lab.node.run("nft", &arguments, "").unwrap();
    let chains: Vec<String> = table
        .split("\n\n")
        .filter_map(|block| block.strip_prefix("\tchain ep"))
        .map(|block| format!("chain ep{}", block.replace("\n\t", "\n").trim_end_matches("\n}\n")))
        .collect();
    assert!(!chains.is_empty(), "{table}");
    Some(chains.join("\n\n"))
}
