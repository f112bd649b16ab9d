use super::*;

/// Egress rules that refuse their policy.
const BAD: &str = "  egress:\n  - toFQDNs: [{matchName: 'two words'}]\n";

fn stand_in(text: &str) -> StandIn {
    let (documents, errors) = parse(text);
    assert_eq!(errors, []);
    match validate(&documents[0]).0 {
        Validation::Refused(stand_in) => stand_in,
        Validation::Accepted(policy) => panic!("{policy:?}"),
    }
}

/// `code path` of what is said, with the directions that are closed: `!` after one in which
/// everything is denied.
pub(super) fn said(text: &str) -> Vec<String> {
    let stand_in = stand_in(text);
    let specs = stand_in.policy.map(|policy| policy.specs).unwrap_or_default();
    let (closed, others): (Vec<_>, Vec<_>) = stand_in
        .findings
        .into_iter()
        .partition(|finding| finding.code == "closed-until-mended");
    assert_eq!(closed.len(), specs.len());
    let closed = closed.iter().zip(&specs).map(|(finding, spec)| {
        assert!(spec.rules().all(|rule| rule.action == Action::Deny));
        let closed = spec.directions.iter().filter(|(_, spec)| spec.closes);
        let closed: Vec<String> = closed
            .map(|(direction, spec)| {
                assert!(finding.reason.contains(direction.as_str()), "{}", finding.reason);
                let mark = if spec.rules.is_empty() { "" } else { "!" };
                format!("{direction}{mark}")
            })
            .collect();
        format!("{} {} {}", finding.code, finding.path, closed.join(" "))
    });
    let others = others
        .iter()
        .map(|finding| format!("{} {}", finding.code, finding.path));
    closed.chain(others).collect()
}

const CLOSED: [&str; 1] = ["closed-until-mended spec.endpointSelector egress"];
const DENIED: [&str; 1] = ["closed-until-mended spec.endpointSelector egress!"];
const CLOSED_AT_INGRESS: [&str; 1] = ["closed-until-mended spec.endpointSelector ingress"];
const DENIED_AT_INGRESS: [&str; 1] = ["closed-until-mended spec.endpointSelector ingress!"];
const CLOSED_BOTH_WAYS: [&str; 1] = ["closed-until-mended spec.endpointSelector egress ingress"];

#[test]
fn a_refused_policy_closes_whom_it_selects_and_allows_nothing() {
    let text = format!("{HEAD}  endpointSelector: {{matchLabels: {{app: web}}}}\n{BAD}");
    assert_eq!(said(&text), CLOSED);
    let policy = stand_in(&text).policy.unwrap();
    assert_eq!((policy.id.namespace.as_str(), policy.id.name.as_str()), ("n", "p"));
    let good = format!("{HEAD}  endpointSelector: {{matchLabels: {{app: web}}}}\n  egress: [{{}}]\n");
    assert_eq!(
        policy.specs,
        read(&good).0.unwrap().specs,
        "the same endpoints, in the same namespace, as `egress: [{{}}]` closes"
    );
}

#[test]
fn only_the_directions_that_it_may_be_about_are_closed() {
    let with = |fields: &str| said(&format!("{HEAD}{SELECTOR}{fields}"));
    let about_ingress = "  ingress: [{fromPorts: []}]\n";
    assert_eq!(with(about_ingress), CLOSED_AT_INGRESS);
    assert_eq!(with(&format!("{about_ingress}  egress: []\n")), CLOSED_AT_INGRESS);
    assert_eq!(with(&format!("{about_ingress}  egress: [{{}}]\n")), CLOSED_BOTH_WAYS);
    assert_eq!(with("  ingres: []\n  descripton: x\n"), CLOSED_AT_INGRESS);
    assert_eq!(with("  ingress: [{}]\n  descripton: x\n"), CLOSED_AT_INGRESS);
    for field in ["egres: []", "eggress: [{}]", "egress: {}", "egress: 7"] {
        assert_eq!(with(&format!("  {field}\n")), CLOSED, "{field}");
    }
    // What a field was meant to be cannot always be told.
    assert_eq!(with("  something: 1\n"), CLOSED_BOTH_WAYS);
    assert_eq!(with("egress: [{}]\n"), CLOSED_BOTH_WAYS, "indented too little");
}

#[test]
fn default_deny_is_heeded_where_it_can_be_read() {
    let said_with =
        |default: &str, rules: &str| said(&format!("{HEAD}{SELECTOR}  enableDefaultDeny: {default}\n{rules}"));
    assert_eq!(said_with("{egress: false}", BAD), none());
    assert_eq!(said_with("{egress: true}", "  ingress: 7\n"), CLOSED_BOTH_WAYS);
    assert_eq!(said_with("{egress: true, ingress: false}", "  ingress: 7\n"), CLOSED);
    assert_eq!(said_with("{ingress: false}", BAD), CLOSED);
    for rules in [BAD, ""] {
        assert_eq!(said_with("{egress: 'false'}", rules), CLOSED);
        for unclear in ["{egres: false}", "false"] {
            assert_eq!(said_with(unclear, rules), CLOSED_BOTH_WAYS, "{unclear}");
        }
    }
    assert_eq!(said_with("{ingress: 'false'}", ""), CLOSED_AT_INGRESS);
}

#[test]
fn a_denial_that_cannot_be_read_denies_everything() {
    for rules in ["egressDeny: [{toCIDR: [nowhere]}]", "egressDeni: []", "egressDeny: 1"] {
        assert_eq!(said(&format!("{HEAD}{SELECTOR}  {rules}\n")), DENIED, "{rules}");
    }
    for rules in [
        "ingressDeny: [{fromCIDR: [nowhere]}]",
        "ingressDeni: []",
        "ingressDeny: 1",
    ] {
        assert_eq!(
            said(&format!("{HEAD}{SELECTOR}  {rules}\n")),
            DENIED_AT_INGRESS,
            "{rules}"
        );
    }
    let whatever_the_default = format!("{HEAD}{SELECTOR}  enableDefaultDeny: {{egress: false}}\n  egressDeny: [7]\n");
    assert_eq!(said(&whatever_the_default), DENIED);
    let spec = stand_in(&whatever_the_default).policy.unwrap().specs.remove(0);
    assert_eq!(spec.directions.egress.rules[0].peers, everything(Zone::Anywhere));
    assert_eq!(spec.directions.egress.rules[0].ports, PortSet::All);
}

#[test]
fn a_selector_in_doubt_closes_nobody_and_that_is_said() {
    for selector in [
        "",
        "  endpointSelecter: {}\n",
        "  endpointSelector: []\n",
        "  endpointSelector: {matchLabel: {app: web}}\n",
        "  endpointSelector: {matchLabels: {app: 1}}\n",
        "  endpointSelector: {matchExpressions: [{key: app, operator: Is}]}\n",
    ] {
        assert_eq!(
            said(&format!("{HEAD}{selector}{BAD}")),
            ["cannot-close spec"],
            "{selector}"
        );
    }
    let head = HEAD.strip_suffix("spec:\n").unwrap();
    assert_eq!(said(head), ["cannot-close "]);
    assert_eq!(said(&format!("{head}spec: 1\n")), ["cannot-close spec"]);
    assert_eq!(
        said(&format!("{head}specs: {{endpointSelector: {{}}}}\n")),
        ["cannot-close specs"]
    );
}

#[test]
fn a_policy_for_nodes_means_no_pods() {
    assert_eq!(said(&format!("{HEAD}  nodeSelector: {{}}\n{BAD}")), none());
}

#[test]
fn of_several_specs_each_stands_in_for_itself() {
    let head = HEAD.strip_suffix("spec:\n").unwrap();
    let specs = "specs:\n\
        - {endpointSelector: {matchLabels: {app: a}}, egress: [{toFQDNs: [{matchName: a.example}]}]}\n\
        - {endpointSelector: {matchLabels: {app: b}}, ingress: []}\n\
        - {endpointSelector: {matchLabels: {app: c}}, egressDeny: [{toCIDR: [x]}]}\n\
        - {endpointSelector: 7, egress: [{}]}\n";
    assert_eq!(
        said(&format!("{head}{specs}")),
        [
            "closed-until-mended specs[0].endpointSelector egress",
            "closed-until-mended specs[1].endpointSelector ingress",
            "closed-until-mended specs[2].endpointSelector egress!",
            "cannot-close specs[3]",
        ]
    );
}
