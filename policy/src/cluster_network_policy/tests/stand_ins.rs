//! What stands in for a policy that is refused.

use super::*;

fn stand_in(fields: &str) -> StandIn {
    match read(fields).0 {
        Validation::Refused(stand_in) => stand_in,
        Validation::Accepted(policy) => panic!("{policy:?}"),
    }
}

fn said(stand_in: &StandIn) -> Vec<String> {
    let findings = stand_in.findings.iter();
    findings
        .map(|finding| format!("{} {}", finding.code, finding.path))
        .collect()
}

#[test]
fn a_refused_policy_denies_everything_in_its_place() {
    let bad = "[{action: Accept, to: [{nodes: {}}]}, {action: Deny, to: [{networks: [nowhere]}]}]";
    for (place, expected) in [
        ("tier: Admin, priority: 7", Tier::Admin { priority: 7 }),
        ("tier: Baseline, priority: 7", Tier::Baseline { priority: 7 }),
        ("tier: Admin, priority: many", Tier::Admin { priority: 0 }),
        ("tier: Strict, priority: 7", Tier::Admin { priority: 7 }),
    ] {
        let stand_in = stand_in(&format!(
            "  {{{place}, subject: {{namespaces: {{matchLabels: {{team: a}}}}}}, egress: {bad}}}\n"
        ));
        assert_eq!(said(&stand_in), ["closed-until-mended spec.subject"]);
        let spec = stand_in.policy.unwrap().specs.remove(0);
        assert_eq!((spec.tier, spec.directions.egress.closes), (expected, false));
        assert!(
            spec.subject.matches(&labels("n", &[], &[("team", "a")])) && !spec.subject.matches(&labels("n", &[], &[]))
        );
        let [rule] = spec.directions.egress.rules.as_slice() else {
            panic!("{spec:?}")
        };
        assert_eq!((rule.action, &rule.ports), (Action::Deny, &PortSet::All));
        assert_eq!(rule.peers, anywhere(&["0.0.0.0/0", "::/0"]));
    }
}

#[test]
fn a_refused_policy_that_only_accepts_closes_nothing() {
    let head = "  {tier: Admin, priority: 1, subject: {namespaces: {}}";
    for egress in [
        "egress: [{action: Accept, to: [{networks: [nowhere]}]}]",
        "egress: [{action: Allow, to: [{namespaces: {}}]}]",
        "ingress: [{action: Accept, from: []}]",
    ] {
        assert_eq!(
            stand_in(&format!("{head}, {egress}}}\n")),
            StandIn::default(),
            "{egress}"
        );
    }
    for egress in [
        "egress: 7",
        "egress: [{to: [{namespaces: {}}]}]",
        "egress: [{action: Pass, to: []}]",
        "eggress: []",
        "something: 1",
    ] {
        assert!(stand_in(&format!("{head}, {egress}}}\n")).policy.is_some(), "{egress}");
    }
}

#[test]
fn only_the_directions_that_it_may_be_about_are_denied() {
    let accept = "egress: [{action: Accept, to: [{namespaces: {}}]}]";
    for (fields, denied) in [
        ("egress: 7", "egress"),
        ("eggress: []", "egress"),
        ("ingress: 7", "ingress"),
        ("ingres: []", "ingress"),
        ("ingress: [{action: Deny, from: []}]", "ingress"),
        (
            "egress: [{action: Deny, to: []}], ingress: [{action: Accept, from: []}]",
            "egress",
        ),
        ("something: 1", "egress ingress"),
    ] {
        let accepting = if fields.contains("egress:") { "" } else { accept };
        let text = format!("  {{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, {accepting}, {fields}}}\n");
        let text = text.replace(", ,", ",");
        let spec = stand_in(&text).policy.unwrap().specs.remove(0);
        let with_rules = spec.directions.iter().filter(|(_, spec)| !spec.rules.is_empty());
        let with_rules: Vec<&str> = with_rules.map(|(direction, _)| direction.as_str()).collect();
        assert_eq!(with_rules.join(" "), denied, "{fields}");
    }
}

#[test]
fn a_subject_in_doubt_closes_nobody_and_that_is_said() {
    for subject in [
        "{}",
        "7",
        "{namespace: {}}",
        "{namespaces: {matchLabel: {a: b}}}",
        "{pods: {}}",
    ] {
        let text = format!(
            "  {{tier: Admin, priority: 1, subject: {subject}, egress: [{{action: Deny, to: [{{namespaces: {{}}}}]}}]}}\n"
        );
        let stand_in = stand_in(&text);
        assert_eq!(
            (said(&stand_in), stand_in.policy),
            (vec!["cannot-close spec".to_owned()], None),
            "{subject}"
        );
    }
}

#[test]
fn a_refused_policy_in_mode_audit_stays_an_audited_one() {
    let text = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p, annotations: {namegate.io/mode: audit}}\nspec: {tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: []}]}\n";
    match validate(&parse(text).0[0]).0 {
        Validation::Refused(stand_in) => assert!(stand_in.policy.unwrap().extensions.audit),
        Validation::Accepted(policy) => panic!("{policy:?}"),
    }
}
