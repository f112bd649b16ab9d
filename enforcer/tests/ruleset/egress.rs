//! Egress through the rules, with real packets in namespaces.

use std::time::Duration;

use policy::{DenyResponse, PortSet, ProgramId, Zone};

use crate::lab::{Lab, NODE_V4, OUTSIDE, Outcome, POD_V4, POD_V6, ip, say};
use crate::programs::{
    NameRule, Program, Rules, desired, governs, learn, name_rule, ports, prefix_rule, range, single,
};
use policy::Protocol::{Sctp, Tcp, Udp};

const ID: ProgramId = ProgramId(0x00ab_cdef_0123_4567);
const NEXT: ProgramId = ProgramId(0xfedc_ba98_7654_3210);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_learned_address_is_open_on_its_ports_and_everything_else_is_refused_at_once() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let program = allowing_names([name_rule("a.example", ports([single(Tcp, 443), single(Udp, 443)]))]);
    let desired = governs(desired(), [POD_V4, POD_V6], ID, program.clone());
    let learned = learn(ID, &program, "a.example", &["10.88.0.1", "fd88::1"], MINUTE);
    lab.install(&desired, &learned);

    assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Connected);
    assert_eq!(lab.pod.tries("fd88::1", 443), Outcome::Connected);
    assert_eq!(lab.pod.ask_udp("10.88.0.1", 443, "hello").unwrap(), "outside: hello");
    assert_eq!(lab.pod.ask_udp("fd88::1", 443, "hello").unwrap(), "outside: hello");

    assert_eq!(lab.refused(), 0);
    for (address, port) in [
        ("10.88.0.1", 80),
        ("10.88.0.2", 443),
        ("fd88::1", 80),
        ("fd88::2", 443),
        (NODE_V4, 80),
    ] {
        assert_eq!(lab.pod.tries(address, port), Outcome::Refused, "{address} {port}");
    }
    assert_eq!(lab.refused(), 5);
    let prohibited = lab.pod.ask_udp("10.88.0.2", 443, "hello").unwrap_err();
    assert_eq!(prohibited.raw_os_error(), Some(libc::EHOSTUNREACH));
    let prohibited = lab.pod.ask_udp("fd88::2", 443, "hello").unwrap_err();
    assert_eq!(prohibited.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn an_endpoint_that_no_program_governs_is_left_alone() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let desired = governs(desired(), [POD_V4, POD_V6], ID, closed());
    lab.install(&desired, &[]);
    assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Refused);
    assert_eq!(lab.other.tries("10.88.0.1", 80), Outcome::Connected);
    assert_eq!(lab.other.tries("fd88::1", 80), Outcome::Connected);
}

#[test]
fn a_governed_endpoint_is_still_reachable_itself() {
    let Some(lab) = Lab::new() else { return };
    let desired = governs(desired(), [POD_V4, POD_V6], ID, closed());
    lab.install(&desired, &[]);
    lab.pod.echo((ip(POD_V4), 8080).into(), "pod");
    lab.pod.echo((ip(POD_V6), 8080).into(), "pod");
    assert_eq!(lab.outside.ask_tcp(POD_V4, 8080, "x").unwrap(), "pod: x");
    assert_eq!(lab.outside.ask_udp(POD_V6, 8080, "x").unwrap(), "pod: x");
}

#[test]
fn a_wide_range_opens_all_its_ports_and_no_other() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[79, 80, 8000, 9000, 9001]);
    let wide = ports([single(Tcp, 80), range(Tcp, 8000, 9000), range(Udp, 8000, 8999)]);
    let program = allowing_names([name_rule("a.example", wide)]);
    let desired = governs(desired(), [POD_V4, POD_V6], ID, program.clone());
    let learned = learn(ID, &program, "a.example", &["10.88.0.1", "fd88::1"], MINUTE);
    lab.install(&desired, &learned);
    for address in ["10.88.0.1", "fd88::1"] {
        for port in [80, 8000, 9000] {
            assert_eq!(lab.pod.tries(address, port), Outcome::Connected, "{address} {port}");
        }
        for port in [79, 9001] {
            assert_eq!(lab.pod.tries(address, port), Outcome::Refused, "{address} {port}");
        }
        assert!(lab.pod.ask_udp(address, 8000, "x").is_ok());
        assert!(lab.pod.ask_udp(address, 9000, "x").is_err());
    }
    assert_eq!(lab.pod.tries("10.88.0.2", 80), Outcome::Refused);
}

#[test]
fn every_port_includes_icmp_and_single_ports_do_not() {
    let Some(lab) = Lab::new() else { return };
    let program = allowing_names([
        name_rule("all.example", PortSet::All),
        name_rule(
            "some.example",
            ports([single(Tcp, 80), single(Udp, 80), single(Sctp, 80)]),
        ),
    ]);
    let desired = governs(desired(), [POD_V4, POD_V6], ID, program.clone());
    let learned = [
        learn(ID, &program, "all.example", &["10.88.0.1", "fd88::1"], MINUTE),
        learn(ID, &program, "some.example", &["10.88.0.2", "fd88::2"], MINUTE),
    ]
    .concat();
    lab.install(&desired, &learned);
    assert_eq!(lab.pod.ping("10.88.0.1").map_err(|error| error.kind()), Ok(()));
    assert_eq!(lab.pod.ping("fd88::1").map_err(|error| error.kind()), Ok(()));
    assert_eq!(
        lab.pod.ping("10.88.0.2").unwrap_err().raw_os_error(),
        Some(libc::EHOSTUNREACH)
    );
    assert_eq!(lab.pod.ping("fd88::2").unwrap_err().raw_os_error(), Some(libc::EACCES));
}

#[test]
fn zones_tell_the_cluster_from_the_world_and_from_this_node() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 81, 443]);
    lab.node.echo((ip(NODE_V4), 80).into(), "node");
    let mut desired = desired();
    desired.cluster = [
        "10.88.0.1/32",
        "10.88.0.1/32",
        "10.66.0.0/16",
        "10.66.0.0/24",
        "fd88::1/128",
    ]
    .map(|prefix| prefix.parse().unwrap())
    .to_vec();
    desired.host = [ip(NODE_V4)].into();
    let reaches = |zone, ports: PortSet| {
        let prefixes = ["0.0.0.0/0", "::/0"]
            .map(|prefix| prefix_rule(zone, prefix, ports.clone()))
            .to_vec();
        let program = Program {
            closed: true,
            allow: Rules {
                prefixes,
                names: vec![],
            },
            ..Program::default()
        };
        // Every program has its own id: what it makes the kernel do is what an id stands for.
        let id = ProgramId(1 + zone as u64 * 2 + u64::from(ports == PortSet::All));
        let desired = governs(desired.clone(), [POD_V4, POD_V6], id, program);
        lab.install(&desired, &[]);
        ["10.88.0.1", "10.88.0.2", NODE_V4, "fd88::1", "fd88::2"].map(|to| lab.pod.tries(to, 80) == Outcome::Connected)
    };
    for some in [PortSet::All, ports([single(Tcp, 80), range(Tcp, 443, 500)])] {
        assert_eq!(reaches(Zone::Anywhere, some.clone()), [true, true, true, true, true]);
        assert_eq!(reaches(Zone::World, some.clone()), [false, true, false, false, true]);
        assert_eq!(reaches(Zone::Cluster, some.clone()), [true, false, true, true, false]);
        assert_eq!(reaches(Zone::Host, some), [false, false, true, false, false]);
    }
    reaches(Zone::World, ports([single(Tcp, 80), range(Tcp, 443, 500)]));
    assert_eq!(lab.pod.tries("10.88.0.2", 443), Outcome::Connected);
    assert_eq!(lab.pod.tries("10.88.0.2", 81), Outcome::Refused);
}

#[test]
fn prefixes_match_with_and_without_ports() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let program = Program {
        closed: true,
        allow: Rules {
            prefixes: vec![
                prefix_rule(Zone::World, "10.88.0.0/31", ports([single(Tcp, 443)])),
                prefix_rule(Zone::World, "10.88.0.2/32", PortSet::All),
                prefix_rule(Zone::World, "10.88.0.3/32", PortSet::All),
                prefix_rule(Zone::World, "fd88::/127", PortSet::All),
                prefix_rule(Zone::World, "fd88::2/128", ports([range(Tcp, 400, 500)])),
            ],
            names: vec![],
        },
        ..Program::default()
    };
    let desired = governs(desired(), [POD_V4, POD_V6], ID, program);
    lab.install(&desired, &[]);
    let open = |address, port| lab.pod.tries(address, port) == Outcome::Connected;
    assert!(open("10.88.0.1", 443) && !open("10.88.0.1", 80));
    assert!(open("10.88.0.2", 443) && open("10.88.0.2", 80));
    assert!(open("fd88::1", 443) && open("fd88::1", 80));
    assert!(open("fd88::2", 443) && !open("fd88::2", 80));
    assert!(!open("10.77.0.2", 443) && !open("fd77::2", 80));
}

#[test]
fn deny_wins_over_every_allow_and_an_open_program_allows_the_rest() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let deny = Rules {
        prefixes: vec![prefix_rule(Zone::World, "fd88::1/128", PortSet::All)],
        names: vec![
            name_rule("bad.example", ports([single(Tcp, 443)])),
            name_rule("worse.example", PortSet::All),
        ],
    };
    let everything = ["0.0.0.0/0", "::/0"]
        .map(|all| prefix_rule(Zone::Anywhere, all, PortSet::All))
        .to_vec();
    for (id, closed, prefixes) in [(ID, true, everything), (NEXT, false, vec![])] {
        let program = Program {
            closed,
            deny: deny.clone(),
            allow: Rules {
                prefixes,
                names: vec![name_rule("worse.example", ports([single(Tcp, 80)]))],
            },
        };
        let desired = governs(desired(), [POD_V4, POD_V6], id, program.clone());
        let learned = [
            learn(id, &program, "bad.example", &["10.88.0.1"], MINUTE),
            learn(id, &program, "worse.example", &["10.88.0.2"], MINUTE),
        ]
        .concat();
        lab.install(&desired, &learned);
        assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Refused);
        assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Connected);
        assert_eq!(lab.pod.tries("10.88.0.2", 80), Outcome::Refused);
        assert_eq!(lab.pod.tries("fd88::1", 80), Outcome::Refused);
        assert_eq!(lab.pod.tries("fd88::2", 80), Outcome::Connected);
    }
}

#[test]
fn refusal_by_drop_answers_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let mut desired = governs(desired(), [POD_V4, POD_V6], ID, closed());
    desired.refusal = DenyResponse::Drop;
    lab.install(&desired, &[]);
    // Nothing comes back, so there is nothing to wait for: the counter shows that the SYN arrived
    // and was refused.
    lab.pod.enter(|| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let to: std::net::SocketAddr = (ip("10.88.0.1"), 80).into();
        let error = socket
            .connect_timeout(&to.into(), Duration::from_millis(200))
            .unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    });
    assert!(lab.refused() >= 1);
}

#[test]
fn installing_again_keeps_learned_elements_counters_and_flows() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[443]);
    let program = allowing_names([name_rule("a.example", ports([single(Tcp, 443)]))]);
    let mut desired = governs(desired(), [POD_V4, POD_V6], ID, program);
    lab.install(&desired, &[]);
    lab.nft(&format!(
        "add element inet namegate allow4-{ID} {{ 10.88.0.1 . tcp . 443 timeout 1m }}"
    ));
    assert_eq!(lab.pod.tries("10.88.0.2", 443), Outcome::Refused);
    let mut flow = lab.pod.connect("10.88.0.1", 443).unwrap();

    desired.cluster = vec!["10.99.0.0/16".parse().unwrap(), "10.99.1.0/24".parse().unwrap()];
    let first = lab.nft("list table inet namegate");
    lab.install(&desired, &[]);
    desired.cluster = vec!["10.98.0.0/15".parse().unwrap()];
    desired.capacity = desired.capacity.saturating_add(1);
    lab.install(&desired, &[]);

    assert_eq!(lab.refused(), 1);
    assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Connected);
    assert_eq!(say(&mut flow, "still").unwrap(), "outside: still");
    let last = lab.nft("list table inet namegate");
    assert_eq!(
        first.matches("vmap").count(),
        last.matches("vmap").count(),
        "rules were doubled:\n{last}"
    );
    assert!(
        last.contains("10.98.0.0/15") && !last.contains("10.99.0.0/16"),
        "{last}"
    );
}

#[test]
fn a_new_program_takes_over_with_its_sets_filled_and_the_old_one_leaves_nothing() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80, 443]);
    let before = allowing_names([name_rule("a.example", ports([single(Tcp, 443)]))]);
    let learned = learn(ID, &before, "a.example", &["10.88.0.1"], MINUTE);
    lab.install(&governs(desired(), [POD_V4], ID, before), &learned);
    let mut flow = lab.pod.connect("10.88.0.1", 443).unwrap();

    let after = allowing_names([name_rule("a.example", ports([single(Tcp, 80)]))]);
    let learned = learn(NEXT, &after, "a.example", &["10.88.0.1"], MINUTE);
    lab.install(&governs(desired(), [POD_V4], NEXT, after), &learned);
    assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Connected);
    assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Refused);
    assert_eq!(say(&mut flow, "still").unwrap(), "outside: still");
    assert!(!lab.nft("list table inet namegate").contains(&ID.to_string()));

    lab.install(&desired(), &[]);
    assert_eq!(lab.pod.tries("10.88.0.1", 443), Outcome::Connected);
    assert!(!lab.nft("list table inet namegate").contains(&NEXT.to_string()));
}

#[test]
fn what_another_version_left_in_the_table_is_removed() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    lab.nft(
        "add table inet namegate
         add chain inet namegate old
         add set inet namegate old-set { type ipv4_addr; }
         add map inet namegate old-map { type ipv4_addr : inet_service; }
         add map inet namegate old-dispatch { type ipv4_addr : verdict; elements = { 10.66.0.2 : goto old }; }
         add chain inet namegate old-hook { type filter hook forward priority 0; policy drop; }
         add rule inet namegate old-hook ip saddr vmap @old-dispatch
         add rule inet namegate old ip daddr @old-set accept",
    );
    assert!(lab.existing().sets.contains("old-dispatch"));
    lab.install(&desired(), &[]);
    assert!(!lab.nft("list table inet namegate").contains("old"));
    assert_eq!(lab.pod.tries("10.88.0.1", 80), Outcome::Connected);
}

#[test]
fn the_elements_that_layout_names_are_the_ones_the_rules_look_up() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let program = allowing_names([
        name_rule("one.example", ports([range(Tcp, 78, 82)])),
        name_rule("two.example", ports([range(Tcp, 70, 700)])),
    ]);
    let desired = governs(desired(), [POD_V4, POD_V6], ID, program.clone());
    lab.install(&desired, &[]);
    for (name, addresses) in [
        ("one.example", ["10.88.0.1", "fd88::1"]),
        ("two.example", ["10.88.0.2", "fd88::2"]),
    ] {
        for address in addresses {
            assert_eq!(lab.pod.tries(address, 80), Outcome::Refused);
            for (element, _) in learn(ID, &program, name, &[address], MINUTE) {
                let key = match element.key.port {
                    None => element.key.address.to_string(),
                    Some((protocol, port)) => format!("{address} . {} . {port}", protocol.to_string().to_lowercase()),
                };
                lab.nft(&format!(
                    "add element inet namegate {} {{ {key} timeout 1m }}",
                    element.set
                ));
            }
            assert_eq!(lab.pod.tries(address, 80), Outcome::Connected);
        }
    }
}

#[test]
fn a_source_whose_program_is_missing_is_refused() {
    let Some(lab) = Lab::new() else { return };
    lab.serve_outside(&[80]);
    let mut desired = governs(desired(), [POD_V4], ID, closed());
    desired.programs.clear();
    lab.install(&desired, &[]);
    assert_eq!(lab.pod.tries(OUTSIDE[0], 80), Outcome::Refused);
}

fn closed() -> Program {
    allowing_names([])
}

fn allowing_names<const N: usize>(names: [NameRule; N]) -> Program {
    Program {
        closed: true,
        allow: Rules {
            prefixes: vec![],
            names: names.to_vec(),
        },
        ..Program::default()
    }
}
