//! Who is governed, by which program, and which names that program knows.

use super::*;

#[test]
fn endpoints_that_a_policy_selects_are_governed_and_others_left_alone() {
    let plan = plan(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), allow("a", "a.example")]);
    assert_eq!(plan.governed.len(), 1);
    let governed = &plan.governed[&ip("10.0.0.1")];
    assert_eq!(governed.id.to_string(), "n/a");
    assert_eq!(
        plan.desired.dispatch.egress,
        BTreeMap::from([(ip("10.0.0.1"), governed.program)])
    );
    assert_eq!(plan.desired.intercepted, BTreeSet::from([ip("10.0.0.1")]));
    assert_eq!(
        plan.desired.programs[&governed.program]
            .enforced
            .classifier
            .default_verdict(),
        policy::Verdict::Deny
    );
    let rows: Vec<_> = plan
        .endpoints
        .iter()
        .map(|row| (row.endpoint.as_str(), row.egress.as_str(), row.policies.join(" ")))
        .collect();
    assert_eq!(
        rows,
        [
            ("n/a", "default-deny", "n/a".into()),
            ("n/b", "unselected", String::new())
        ]
    );
}

#[test]
fn endpoints_that_are_governed_alike_share_a_program_and_the_names_know_every_policy() {
    let plan = plan(&[
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        pod("c", "10.0.0.3"),
        allow("a", "a.example"),
        allow("b", "a.example"),
        allow("c", "c.example"),
    ]);
    assert_eq!(program(&plan, "10.0.0.1"), program(&plan, "10.0.0.2"));
    assert_ne!(program(&plan, "10.0.0.1"), program(&plan, "10.0.0.3"));
    assert_eq!(plan.desired.programs.len(), 2);
    let (patterns, policies) = plan.attribution(&name("a.example"));
    let patterns: Vec<_> = patterns.into_iter().map(ToString::to_string).collect();
    let policies: Vec<_> = policies.into_iter().map(ToString::to_string).collect();
    assert_eq!(
        (patterns, policies),
        (vec!["a.example".into()], vec!["n/a".into(), "n/b".into()])
    );
    assert!(plan.attribution(&name("z.example")).0.is_empty());
}

#[test]
fn every_selector_that_matches_a_name_is_attributed_and_opens_its_program() {
    let plan = plan(&[
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        allow("a", "x.example"),
        policy_of("b", &names("{matchPattern: '*.example'}, {matchName: example}")),
    ]);
    let (patterns, _) = plan.attribution(&name("x.example"));
    assert_eq!(patterns.len(), 2);
    let mut both = vec![program(&plan, "10.0.0.1"), program(&plan, "10.0.0.2")];
    both.sort();
    let mut opened_now = opened(&plan, "x.example", "198.51.100.1", "192.0.2.53");
    opened_now.sort();
    assert_eq!(opened_now, both);
    assert_eq!(
        opened(&plan, "y.example", "198.51.100.1", "192.0.2.53"),
        [program(&plan, "10.0.0.2")]
    );
}

#[test]
fn the_chain_counts_only_where_the_configuration_says_so() {
    let objects = [pod("a", "10.0.0.1"), allow("a", "cdn.example")];
    let (question, chain) = (name("www.example"), [name("other.example"), name("cdn.example")]);
    assert!(plan(&objects).matched_names(&question, &chain, false).is_empty());
    let settings = Settings {
        matching: NameMatching::Chain,
        ..settings()
    };
    let matched = |plan: &Plan, question, chain| -> Vec<Name> {
        let matched = plan.matched_names(question, chain, false);
        matched.iter().map(|matched| matched.name.clone()).collect()
    };
    assert_eq!(matched(&plan_with(&objects, &settings), &question, &chain), chain[1..]);
    let direct = name("cdn.example");
    let alone = matched(&plan(&objects), &direct, &[]);
    assert_eq!(alone, [direct]);
}

/// An application may keep an NXDOMAIN for a name that the plan allows which is on its way to the
/// kernel.
#[test]
fn a_lookup_that_only_the_coming_plan_allows_is_judged_by_that() {
    use dns_proxy::QueryTarget;

    use crate::ActivePlan;
    let objects = [pod("a", "10.0.0.1"), allow("a", "old.example")];
    let edited = [pod("a", "10.0.0.1"), allow("a", "new.example")];
    let mut in_force = ActivePlan {
        plan: Arc::new(plan(&objects)),
        generation: Default::default(),
        coming: None,
    };
    let asked = QueryTarget::Resolver(at(UPSTREAM));
    let coming_judges = |in_force: &ActivePlan, text| in_force.plan_for(ip("10.0.0.1"), asked, &name(text)).1;
    assert!(!coming_judges(&in_force, "new.example"));
    in_force.coming = Some(Arc::new(plan(&edited)));
    assert!(coming_judges(&in_force, "new.example"));
    assert!(
        !coming_judges(&in_force, "old.example"),
        "it is allowed until the rules change"
    );
    assert!(!coming_judges(&in_force, "neither.example"));
}

#[test]
fn a_deleted_policy_that_leaves_a_pod_open_is_told_with_the_pods_name() {
    let pods = pod("a", "10.0.0.1") + "---\n" + &pod("b", "10.0.0.2");
    let (of_a, of_b) = (allow("a", "x.example"), allow("b", "x.example"));
    let also_of_b = policy_of("b", "{}").replace("name: b, namespace", "name: other, namespace");
    let told = |before: &[String], now: &[String]| -> Vec<String> {
        let opened = opened_pods::opened(&plan(before), &plan(now));
        opened.iter().map(ToString::to_string).collect()
    };
    let all = [pods.clone(), of_a.clone(), of_b.clone(), also_of_b.clone()];
    assert_eq!(
        told(&all, &[pods.clone(), of_b.clone()]),
        ["CiliumNetworkPolicy n/a is deleted, and no policy restricts n/a any more: egress is OPEN"]
    );
    assert_eq!(
        told(&all, &[pods.clone(), of_a.clone(), also_of_b]),
        [""; 0],
        "another one closes it"
    );
    assert_eq!(told(&[pods.clone(), of_a.clone()], &all), [""; 0]);
    // With its pod.
    assert_eq!(told(&[pod("a", "10.0.0.1"), of_a], &[pod("b", "10.0.0.2")]), [""; 0]);
}

/// A policy for a pod of what may connect to it.
fn admit(pod: &str, rules: &str) -> String {
    policy_of(pod, rules)
        .replace("egress:", "ingress:")
        .replace("name: ", "name: in-")
}

#[test]
fn a_pod_that_only_ingress_rules_speak_of_is_closed_for_that_and_left_alone_otherwise() {
    let plan = plan(&[
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2"),
        admit(
            "a",
            "{fromEndpoints: [{matchLabels: {app: b}}], toPorts: [{ports: [{port: '80', protocol: TCP}]}]}",
        ),
    ]);
    assert!(
        plan.governed.is_empty() && plan.desired.intercepted.is_empty(),
        "its lookups are its own"
    );
    assert!(plan.desired.dispatch.egress.is_empty());
    let dispatch: Vec<_> = plan.desired.dispatch.ingress.iter().collect();
    let [(address, id)] = dispatch.as_slice() else {
        panic!("{dispatch:?}")
    };
    assert_eq!(**address, ip("10.0.0.1"));
    let program = &plan.desired.programs[id];
    assert_eq!(program.enforced.classifier.default_verdict(), policy::Verdict::Deny);
    let members: Vec<String> = plan.desired.members[id]
        .iter()
        .map(|it| it.key.address.to_string())
        .collect();
    assert_eq!(members, ["10.0.0.2"], "whoever may connect");
    let rows: Vec<_> = plan
        .endpoints
        .iter()
        .map(|row| (row.endpoint.as_str(), row.egress.as_str(), row.ingress.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("n/a", "unselected", "default-deny"),
            ("n/b", "unselected", "unselected")
        ]
    );
    assert_eq!(plan.endpoints[0].program, None);
    assert_eq!(plan.endpoints[0].ingress_program, Some(id.to_string()));
}

#[test]
fn both_directions_of_a_pod_have_programs_of_their_own_or_share_one_that_is_the_same() {
    let rule = "toPorts: [{ports: [{port: '80', protocol: TCP}]}]";
    let of = |peer: &str| {
        let to = policy_of("a", &format!("{{toEndpoints: [{{matchLabels: {{app: b}}}}], {rule}}}"));
        let from = admit(
            "a",
            &format!("{{fromEndpoints: [{{matchLabels: {{app: {peer}}}}}], {rule}}}"),
        );
        plan(&[pod("a", "10.0.0.1"), pod("b", "10.0.0.2"), to, from])
    };
    let programs = |plan: &Plan| {
        let dispatch = &plan.desired.dispatch;
        let programs = [&dispatch.egress, &dispatch.ingress].map(|it| it[&ip("10.0.0.1")]);
        assert!(programs.iter().all(|id| plan.desired.programs.contains_key(id)));
        programs
    };
    let [egress, ingress] = programs(&of("c"));
    assert_ne!(egress, ingress);
    let same = of("b");
    let [egress, ingress] = programs(&same);
    assert_eq!((egress, same.desired.programs.len()), (ingress, 1));
    assert_eq!(program(&same, "10.0.0.1"), egress);
}

#[test]
fn pods_of_one_policy_whose_containers_name_other_ports_have_other_ingress_programs() {
    let with_port = |name: &str, address: &str, port: u16| {
        format!(
            "{}spec: {{containers: [{{name: c, ports: [{{name: web, containerPort: {port}}}]}}]}}\n",
            pod(name, address).replace(&format!("app: {name}"), "app: a")
        )
    };
    let named = "{fromEntities: [all], toPorts: [{ports: [{port: web, protocol: TCP}]}]}";
    let plan = plan(&[
        with_port("a", "10.0.0.1", 80),
        with_port("b", "10.0.0.2", 8080),
        with_port("c", "10.0.0.3", 8080),
        admit("a", named),
    ]);
    let ids = ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| plan.desired.dispatch.ingress[&ip(address)]);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[1], ids[2]);
    let open = |id: &ProgramId, port| {
        let classifier = &plan.desired.programs[id].enforced.classifier;
        let traffic = Some((policy::Protocol::Tcp, port));
        classifier.verdict(
            ip("198.51.100.1"),
            policy::AddressZone::World,
            std::iter::empty(),
            traffic,
        ) == policy::Verdict::Allow
    };
    assert_eq!([80, 8080].map(|port| open(&ids[0], port)), [true, false]);
    assert_eq!([80, 8080].map(|port| open(&ids[1], port)), [false, true]);
}

#[test]
fn a_deleted_policy_of_ingress_leaves_ingress_open_and_that_is_told() {
    let closed = admit("a", "{}");
    let before = plan(&[pod("a", "10.0.0.1"), allow("a", "x.example"), closed]);
    let now = plan(&[pod("a", "10.0.0.1"), allow("a", "x.example")]);
    let told: Vec<String> = opened_pods::opened(&before, &now)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        told,
        ["CiliumNetworkPolicy n/in-a is deleted, and no policy restricts n/a any more: ingress is OPEN"]
    );
}
