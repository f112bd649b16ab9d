use std::net::IpAddr;
use std::num::NonZeroU32;

use names::Pattern;
use policy::{
    Action, DenyResponse, LeaseTerms, Peer, PerDirection, PortRange, PortSet, Program, ProgramId, Protocol, Rule, Tiers,
};

use crate::desired::{FailMode, Interception, KernelProgram, LocalHost};
use crate::netlink::set_key::SetKey;
use crate::pod_links::PodLinks;

use super::*;

/// Allows a name on a port.
fn program(port: u16, audited: bool) -> (ProgramId, Arc<KernelProgram>) {
    let tiers = |port| Tiers {
        network: vec![Rule {
            action: Action::Allow,
            peer: Peer::Name(Pattern::name("a.example").unwrap()),
            ports: PortSet::Ranges(vec![PortRange::single(Protocol::Tcp, port)]),
            named: vec![],
            through: None,
            lease: LeaseTerms::default(),
            origins: vec![],
        }],
        ..Tiers::default()
    };
    let program = Program {
        enforced: tiers(port),
        audited: audited.then(|| tiers(9)),
        ..Program::default()
    };
    (program.id(), Arc::new(KernelProgram::new(&program)))
}

/// Pods 10.0.0.1, 10.0.0.2, …, each with its program.
fn desired(programs: &[(ProgramId, Arc<KernelProgram>)]) -> DesiredState {
    let pods = (1..).map(|last: u8| IpAddr::from([10, 0, 0, last]));
    DesiredState {
        table: "namegate".to_owned(),
        programs: programs.iter().cloned().collect(),
        members: BTreeMap::new(),
        dispatch: PerDirection::of_egress(pods.zip(programs.iter().map(|(id, _)| *id)).collect()),
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
        capacity: NonZeroU32::new(10).unwrap(),
    }
}

fn prepared(change: &RulesetChange) -> Vec<TableCommand> {
    change.preparations(BTreeMap::new(), 10).concat()
}

#[test]
fn a_pod_that_comes_is_one_element_and_nothing_else() {
    let one = program(80, false);
    let before = desired(std::slice::from_ref(&one));
    let after = desired(&[one.clone(), one]);
    let change = RulesetChange::between(&before, &after);
    assert_eq!(prepared(&change), []);
    assert_eq!((change.frame_replaces, change.removal), (None, vec![]));
    let [TableCommand::AddElements(map, elements)] = &change.switch[..] else {
        panic!("{:?}", change.switch);
    };
    assert_eq!((&**map, elements.len()), ("dispatch4", 1));
}

#[test]
fn a_program_that_takes_over_is_prepared_and_the_other_one_removed_after_the_switch() {
    let (old, new) = (program(80, false), program(443, true));
    let change = RulesetChange::between(
        &desired(std::slice::from_ref(&old)),
        &desired(std::slice::from_ref(&new)),
    );
    let audited = new.1.audited.as_ref().unwrap().id;
    let prepared = prepared(&change);
    for chain in [format!("ep4-{}", new.0), format!("au6-{audited}")] {
        assert!(prepared.contains(&TableCommand::AddChain(chain.into())));
    }
    let sets = prepared
        .iter()
        .filter(|command| matches!(command, TableCommand::AddSet(..)));
    assert_eq!(sets.count(), 4, "of both evaluations, for both families");
    let [TableCommand::DeleteElements(..), TableCommand::AddElements(..)] = &change.switch[..] else {
        panic!("{:?}", change.switch);
    };
    let is_of_old = |command: &TableCommand| format!("{command:?}").contains(&old.0.to_string());
    assert!(change.removal.iter().all(is_of_old));
    assert_eq!(change.removal.len(), 2 + 2 + 2, "rules, sets, chains");
}

/// The kernel makes room for as many elements as the declaration of a new set names.
#[test]
fn a_new_set_is_limited_only_after_it_was_made_and_filled() {
    let one = program(80, false);
    let change = RulesetChange::between(&desired(&[]), &desired(std::slice::from_ref(&one)));
    let set = *change.new_sets.first().unwrap();
    let element = NewElement::plain(SetKey::from_slice(&[192, 0, 2, 1, 6, 0, 0, 0, 1, 187, 0, 0]));
    let prepared = change.preparations([(set, vec![element])].into(), 1_000_000).concat();
    let of_set: Vec<(&str, Option<u32>)> = prepared
        .iter()
        .filter_map(|command| match command {
            TableCommand::AddSet(name, form) if **name == set.to_string() => Some(("made", form.size)),
            TableCommand::LimitSet(name, form) if **name == set.to_string() => Some(("limited", form.size)),
            TableCommand::AddElements(name, _) if **name == set.to_string() => Some(("filled", None)),
            _ => None,
        })
        .collect();
    assert_eq!(of_set, [("made", None), ("filled", None), ("limited", Some(2_000_000))]);
}

#[test]
fn a_receivers_program_is_chains_of_its_own_and_the_same_sets() {
    let one = program(80, true);
    let before = desired(std::slice::from_ref(&one));
    let mut both = before.clone();
    both.dispatch.ingress = [(IpAddr::from([10, 0, 0, 9]), one.0)].into();
    let change = RulesetChange::between(&before, &both);
    let audited = one.1.audited.as_ref().unwrap().id;
    let chains = [format!("ai4-{audited}"), format!("ai6-{audited}")].into_iter();
    let chains: BTreeSet<String> = chains
        .chain([format!("in4-{}", one.0), format!("in6-{}", one.0)])
        .collect();
    assert_eq!(change.chains().into_keys().collect::<BTreeSet<_>>(), chains);
    assert!(change.new_sets.is_empty());
    let [TableCommand::AddElements(map, elements)] = &change.switch[..] else {
        panic!("{:?}", change.switch);
    };
    assert_eq!((&**map, elements.len()), ("dispatch-in4", 1));
    let back = RulesetChange::between(&both, &before);
    let deleted = back.removal.iter().filter_map(|command| match command {
        TableCommand::DeleteChain(name) => Some(name.to_string()),
        TableCommand::DeleteSet(set) => panic!("{set} is looked up still"),
        _ => None,
    });
    assert_eq!(deleted.collect::<BTreeSet<_>>(), chains);
}

#[test]
fn the_first_packet_of_a_flow_costs_what_both_ends_cost() {
    let one = program(80, true);
    let mut desired = desired(std::slice::from_ref(&one));
    let of_program = crate::ruleset::longest_path(&one.1);
    let of_both = crate::ruleset::longest_path_of_both_ends;
    assert_eq!(of_both(&desired), 1 + of_program + 1, "no receiver is governed");
    desired.dispatch.ingress = desired.dispatch.egress.clone();
    assert_eq!(of_both(&desired), 2 * (1 + of_program));
}

#[test]
fn tiers_that_another_program_still_evaluates_keep_their_sets() {
    let tiers = program(80, false).1.enforced.clone();
    let quiet = KernelProgram {
        enforced: tiers.clone(),
        audited: None,
        response: Some(policy::DenyResponse::Drop),
    };
    let both = [(ProgramId(1), Arc::new(quiet)), program(80, false)];
    let change = RulesetChange::between(&desired(&both), &desired(&both[1..]));
    assert!(
        !change
            .removal
            .iter()
            .any(|command| matches!(command, TableCommand::DeleteSet(_)))
    );
    assert_eq!(change.sets.len(), 2);
}

#[test]
fn sets_that_stand_are_adopted_rules_are_written_anew_and_what_is_foreign_goes_with_the_frame() {
    let one = program(80, false);
    let after = desired(std::slice::from_ref(&one));
    let mut existing = ExistingObjects {
        table: true,
        ..ExistingObjects::default()
    };
    for command in prepared(&RulesetChange::onto(&ExistingObjects::default(), &after)) {
        match command {
            TableCommand::AddChain(name) => drop(existing.chains.insert(name.to_string())),
            TableCommand::AddSet(name, _) => drop(existing.sets.insert(name.to_string())),
            _ => {}
        }
    }
    existing.chains.insert("dispatch".to_owned());
    existing.sets.insert("allow4-0000000000000001".to_owned());
    let change = RulesetChange::onto(&existing, &after);
    assert!(change.new_sets.is_empty());
    // A chain of the right name may be empty, or hold rules of somebody else.
    let rewritten = |chain: &str| {
        let prepared = prepared(&change);
        let emptied = prepared
            .iter()
            .position(|it| *it == TableCommand::EmptyChain(chain.into()));
        let ruled = prepared
            .iter()
            .position(|it| matches!(it, TableCommand::AddRule(name, _) if **name == *chain));
        emptied.is_some() && emptied < ruled
    };
    assert!(rewritten(&format!("ep4-{}", one.0)) && rewritten(&format!("ep6-{}", one.0)));
    assert!(change.chains().values().all(|rules| *rules > 0));
    let replaced = change.frame_replaces.unwrap();
    assert_eq!(replaced.sets, [].into());
    // The rules of before may look it up until the frame has taken their place.
    assert_eq!(
        change.foreign_removal,
        [TableCommand::DeleteSet("allow4-0000000000000001".into())]
    );
    assert!(replaced.chains.contains("dispatch") && !replaced.chains.contains(&format!("ep4-{}", one.0)));

    // Somebody has deleted one of its chains.
    existing.chains.remove(&format!("ep6-{}", one.0));
    let prepared = prepared(&RulesetChange::onto(&existing, &after));
    assert!(prepared.contains(&TableCommand::EmptyChain(format!("ep4-{}", one.0).into())));
}

#[test]
fn settings_write_the_frame_anew_and_touch_no_program() {
    let before = desired(&[program(80, false)]);
    let after = DesiredState {
        handover: None,
        records: Some(5),
        ..before.clone()
    };
    let change = RulesetChange::between(&before, &after);
    let replaced = change.frame_replaces.clone().unwrap();
    assert!(replaced.chains.contains("refuse") && replaced.sets.is_empty());
    assert_eq!(
        (prepared(&change), change.switch, change.removal),
        (vec![], vec![], vec![])
    );
}
