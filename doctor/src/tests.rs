//! The findings for nodes that are given as facts.

use serde_json::json;

use super::*;

/// A node where everything is as it should be.
fn sound() -> NodeFacts {
    NodeFacts {
        kernel: "6.18.0".into(),
        capabilities: 1 << 12,
        nft: Ok("nftables v1.0.6".into()),
        features: KernelFeature::ALL.map(|feature| (feature, Ok(()))).into(),
        sysctls: [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("netfilter/nf_conntrack_count", "100"),
            ("netfilter/nf_conntrack_max", "65536"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into(),
        ruleset: Ok(json!({"nftables": []})),
        legacy_tables: Vec::new(),
        bridges: BTreeMap::new(),
        dns_sockets: Vec::new(),
        running: Some(RunningAgent {
            interception: None,
            resolvers: vec!["10.53.0.53:53".parse().unwrap()],
            open_to_encrypted_dns: Vec::new(),
            open_providers: Vec::new(),
            other_clusters: Vec::new(),
        }),
        interception: InterceptionMode::Dnat,
        table: "namegate".into(),
    }
}

/// Code and level of what is not as it should be.
fn wrong(facts: &NodeFacts) -> Vec<(&'static str, FindingLevel)> {
    let findings = examine(facts).into_iter();
    findings
        .filter(|finding| finding.level != FindingLevel::Ok)
        .map(|finding| {
            assert!(finding.mend.is_some(), "{finding:?}");
            (finding.code, finding.level)
        })
        .collect()
}

fn with_objects(objects: Value) -> NodeFacts {
    NodeFacts {
        ruleset: Ok(json!({"nftables": objects})),
        ..sound()
    }
}

fn chain(table: &str, name: &str, hook: &str, policy: &str) -> Value {
    json!({"chain": {"family": "ip", "table": table, "name": name, "hook": hook, "prio": 0, "policy": policy}})
}

fn rule(table: &str, chain: &str, statements: Value) -> Value {
    json!({"rule": {"family": "ip", "table": table, "chain": chain, "expr": statements}})
}

#[test]
fn of_a_sound_node_there_is_nothing_to_say() {
    assert_eq!(wrong(&sound()), []);
}

#[test]
fn privileges_and_nft_are_needed() {
    let facts = NodeFacts {
        capabilities: 0,
        nft: Err("No such file or directory".into()),
        ruleset: Err("No such file or directory".into()),
        ..sound()
    };
    let codes = ["capabilities", "nft", "ruleset"].map(|code| (code, FindingLevel::Problem));
    assert_eq!(wrong(&facts), codes);
}

#[test]
fn a_feature_is_missed_only_in_the_mode_that_needs_it() {
    let mut facts = sound();
    facts
        .features
        .insert(KernelFeature::Tproxy, Err("Could not process rule".into()));
    assert_eq!(wrong(&facts), []);
    facts.interception = InterceptionMode::Tproxy;
    assert_eq!(wrong(&facts), [("kernel-feature", FindingLevel::Problem)]);
}

#[test]
fn a_bridge_between_workloads_must_pass_the_hooks_of_both_families() {
    let mut facts = sound();
    facts.bridges.insert("docker0".into(), 1);
    assert_eq!(wrong(&facts), []);
    facts.bridges.insert("cni0".into(), 2);
    assert_eq!(wrong(&facts), [("bridge-netfilter", FindingLevel::Problem)]);
    for name in ["iptables", "ip6tables"] {
        let key = format!("bridge/bridge-nf-call-{name}");
        assert_eq!(wrong(&facts), [("bridge-netfilter", FindingLevel::Problem)]);
        facts.sysctls.insert(key, "1".into());
    }
    assert_eq!(wrong(&facts), []);
    facts.interception = InterceptionMode::Tproxy;
    assert_eq!(wrong(&facts), [("bridge-netfilter", FindingLevel::Problem)]);
}

#[test]
fn sysctls_that_stand_in_the_way_are_named() {
    let mut facts = sound();
    for (key, value) in [
        ("ipv6/conf/all/forwarding", "0"),
        ("netfilter/nf_conntrack_count", "60000"),
        ("ipv4/conf/eth0/src_valid_mark", "1"),
    ] {
        facts.sysctls.insert(key.into(), value.into());
    }
    assert_eq!(
        wrong(&facts),
        [("forwarding", FindingLevel::Note), ("conntrack", FindingLevel::Problem)]
    );
    facts.interception = InterceptionMode::Tproxy;
    assert!(wrong(&facts).contains(&("src-valid-mark", FindingLevel::Problem)));
}

#[test]
fn what_others_drop_is_found_behind_jumps() {
    let forward = || chain("filter", "FORWARD", "forward", "accept");
    let to_cni = || rule("filter", "FORWARD", json!([{"jump": {"target": "CNI"}}]));
    let open = with_objects(json!([forward(), to_cni()]));
    assert_eq!(wrong(&open), []);
    let reject = rule(
        "filter",
        "CNI",
        json!([{"counter": {}}, {"xt": {"type": "target", "name": "REJECT"}}]),
    );
    let closed = with_objects(json!([forward(), to_cni(), reject]));
    assert_eq!(wrong(&closed), [("others-drop", FindingLevel::Note)]);
    // A ring of jumps, which the kernel refuses, ends all the same.
    let ring = with_objects(json!([
        forward(),
        to_cni(),
        rule("filter", "CNI", json!([{"goto": {"target": "FORWARD"}}]))
    ]));
    assert_eq!(wrong(&ring), []);
}

#[test]
fn an_input_that_is_closed_keeps_translated_lookups_out() {
    let mut facts = with_objects(json!([chain("filter", "INPUT", "input", "drop")]));
    assert_eq!(wrong(&facts), [("input-closed", FindingLevel::Problem)]);
    facts.interception = InterceptionMode::Tproxy;
    assert_eq!(wrong(&facts), []);
}

#[test]
fn lookups_that_are_not_tracked_are_found_as_node_local_caches_write_them() {
    let port = |number: u16| json!({"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": number}});
    let untrack = json!({"xt": {"type": "target", "name": "CT"}});
    for (statements, found) in [
        (json!([port(53), untrack]), true),
        (json!([{"notrack": null}]), true),
        (json!([port(8080), untrack]), false),
        (
            json!([{"match": {"left": {"payload": {"field": "sport"}}, "right": 53}}, untrack]),
            false,
        ),
    ] {
        let raw = chain("raw", "PREROUTING", "prerouting", "accept");
        let mut facts = with_objects(json!([raw, rule("raw", "PREROUTING", statements)]));
        assert_eq!(wrong(&facts), [], "dnat keeps them tracked");
        facts.interception = InterceptionMode::Tproxy;
        let expected: &[_] = if found {
            &[("untracked-lookups", FindingLevel::Problem)]
        } else {
            &[]
        };
        assert_eq!(wrong(&facts), expected);
    }
}

#[test]
fn legacy_tables_are_named_because_nobody_looks_into_them() {
    let facts = NodeFacts {
        legacy_tables: vec!["nat".into(), "filter".into()],
        ..sound()
    };
    assert_eq!(wrong(&facts), [("legacy-iptables", FindingLevel::Note)]);
}

#[test]
fn a_server_that_workloads_can_ask_and_nobody_knows_is_named() {
    let mut facts = sound();
    facts.dns_sockets = ["127.0.0.53:53", "0.0.0.0:53", "10.53.0.53:53"]
        .map(|text| text.parse().unwrap())
        .to_vec();
    assert_eq!(wrong(&facts), []);
    facts.dns_sockets.push("169.254.20.10:53".parse().unwrap());
    assert_eq!(wrong(&facts), [("second-resolver", FindingLevel::Note)]);
    facts.running = None;
    assert_eq!(wrong(&facts), [("second-resolver", FindingLevel::Note)]);
}

#[test]
fn our_own_table_is_not_somebody_elses() {
    let own = json!([
        {"table": {"family": "inet", "name": "namegate"}},
        {"chain": {"family": "inet", "table": "namegate", "name": "forward", "hook": "forward", "policy": "drop"}},
    ]);
    assert_eq!(wrong(&with_objects(own)), []);
}

#[test]
fn workloads_that_may_speak_dns_over_tls_to_anybody_are_named() {
    let mut facts = sound();
    if let Some(running) = &mut facts.running {
        running.open_to_encrypted_dns.push("shop/web".into());
    }
    assert_eq!(wrong(&facts), [("encrypted-dns", FindingLevel::Note)]);
}

#[test]
fn workloads_that_may_reach_single_servers_of_encrypted_dns_are_named() {
    let mut facts = sound();
    if let Some(running) = &mut facts.running {
        running.open_providers.push(OpenProviders {
            endpoint: "shop/web".into(),
            providers: vec!["Quad9"],
        });
    }
    assert_eq!(wrong(&facts), [("encrypted-dns-servers", FindingLevel::Note)]);
}

#[test]
fn the_mode_examined_is_the_one_asked_for_or_the_agents_or_the_default() {
    use InterceptionMode::{Dnat, Off, Tproxy};
    let agent = RunningAgent {
        interception: Some(Tproxy),
        ..RunningAgent::default()
    };
    assert_eq!(mode_to_examine(Some(Off), Some(&agent)), Off);
    assert_eq!(mode_to_examine(None, Some(&agent)), Tproxy);
    assert_eq!(mode_to_examine(None, Some(&RunningAgent::default())), Dnat);
    assert_eq!(mode_to_examine(None, None), Dnat);
}

#[test]
fn notes_are_no_problem() {
    assert!(!has_problem(&[
        NodeFinding::ok("a", "x"),
        NodeFinding::note("b", "x", "y")
    ]));
    assert!(has_problem(&[
        NodeFinding::ok("a", "x"),
        NodeFinding::problem("b", "x", "y")
    ]));
}
