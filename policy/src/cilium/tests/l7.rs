//! `serverNames` and `rules.http`.

use crate::l7::{HeaderMismatch, HttpExpression};

use super::*;

fn findings_in_entry(fields: &str) -> Vec<String> {
    let findings = findings_in_egress(&entry(fields));
    findings
        .into_iter()
        .filter(|found| !found.starts_with("not-enforced"))
        .collect()
}

fn entry(fields: &str) -> String {
    format!(
        "  - toFQDNs: [{{matchName: a.example}}]\n    toPorts:\n    - ports: [{{port: '80', protocol: TCP}}]\n{}",
        fields.lines().map(|line| format!("      {line}\n")).collect::<String>()
    )
}

const ENTRY: &str = "spec.egress[0].toPorts[0]";

#[test]
fn requests_are_read_with_all_that_is_asked_of_them() {
    let text = entry(
        "rules:\n  http:\n  - method: GET|HEAD\n    path: /users/[0-9]+\n    host: a\\.example\n    headers: [X-Token, 'X-Kind: small one', 'X-Plain a']\n    headerMatches: [{name: X-Key, value: k, mismatch: REPLACE}, {name: X-Any}]\n  - {path: ''}\n",
    );
    let rule = rule(&text);
    assert!(rule.ports.is_empty());
    let [inspected] = rule.inspected.as_slice() else {
        panic!("{rule:?}")
    };
    assert_eq!(inspected.path, ENTRY);
    assert_eq!(inspected.ports, PortSet::Ranges(vec![range(Protocol::Tcp, 80, 80)]));
    let [first, second] = inspected.rules.http.as_ref().unwrap().rules() else {
        panic!()
    };
    assert_eq!(first.method, HttpExpression::compile("GET|HEAD").ok());
    assert_eq!(first.host, HttpExpression::compile(r"a\.example").ok());
    let headers: Vec<_> = first
        .headers
        .iter()
        .map(|it| (it.name.as_str(), it.value.as_deref()))
        .collect();
    assert_eq!(
        headers,
        [("x-token", None), ("x-kind", Some("small one")), ("x-plain", Some("a"))]
    );
    let matches: Vec<_> = first
        .header_matches
        .iter()
        .map(|it| (it.name.as_str(), it.value.as_deref(), it.mismatch))
        .collect();
    assert_eq!(
        matches,
        [
            ("x-key", Some("k"), Some(HeaderMismatch::Replace)),
            ("x-any", None, None)
        ]
    );
    assert_eq!(*second, crate::l7::HttpRule::default(), "an empty text asks nothing");
}

#[test]
fn names_of_servers_are_read_in_both_directions() {
    let text = entry("serverNames: [A.example, '**.b.example']\n");
    let inspected = rule(&text).inspected.remove(0);
    let names: Vec<_> = inspected.rules.server_names.iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["a.example", "**.b.example"]);
    assert_eq!(inspected.rules.http, None);
    let ingress = "  ingress:\n  - fromEndpoints: [{}]\n    toPorts:\n    - ports: [{port: web, protocol: TCP}]\n      rules: {http: [{method: GET}]}\n";
    let inspected = spec(ingress).directions.ingress.rules.remove(0).inspected.remove(0);
    assert!(inspected.ports.is_empty());
    assert_eq!(inspected.named[0].name, "web");
}

#[test]
fn a_list_of_requests_without_entries_asks_nothing() {
    for fields in ["rules: {}\n", "rules: {http: []}\n", "serverNames: []\n"] {
        let rule = rule(&entry(fields));
        assert!(rule.inspected.is_empty(), "{fields}");
        assert_eq!(
            rule.ports,
            PortSet::Ranges(vec![range(Protocol::Tcp, 80, 80)]),
            "{fields}"
        );
    }
    assert_eq!(
        findings_in_entry("rules: {http: []}\n"),
        [format!("empty-http-rules {ENTRY}.rules.http 12")]
    );
}

#[test]
fn what_cannot_be_read_is_refused_where_it_stands() {
    for (fields, expected) in [
        (
            "rules: {http: [{path: '[a&&b]'}]}",
            "bad-expression {}.rules.http[0].path 12",
        ),
        (
            "rules: {http: [{host: '('}]}",
            "bad-expression {}.rules.http[0].host 12",
        ),
        (
            "rules: {http: [{}, {method: '*'}]}",
            "bad-expression {}.rules.http[1].method 12",
        ),
        (
            "rules: {http: [{headers: ['X-A:b']}]}",
            "bad-header {}.rules.http[0].headers[0] 12",
        ),
        (
            "rules: {http: [{headerMatches: [{name: 'a b'}]}]}",
            "bad-header {}.rules.http[0].headerMatches[0].name 12",
        ),
        (
            "rules: {http: [{headerMatches: [{name: a, mismatch: DROP}]}]}",
            "bad-value {}.rules.http[0].headerMatches[0].mismatch 12",
        ),
        (
            "rules: {http: [{headerMatches: [{name: a, mismatch: ADD}]}]}",
            "missing-field {}.rules.http[0].headerMatches[0] 12",
        ),
        (
            "rules: {http: [{headerMatches: [{value: a}]}]}",
            "missing-field {}.rules.http[0].headerMatches[0] 12",
        ),
        ("serverNames: [a.example.]", "bad-server-name {}.serverNames[0] 12"),
        (
            "serverNames: [a.example, 'a b']",
            "bad-server-name {}.serverNames[1] 12",
        ),
        (
            "serverNames: [a.example]\nrules: {http: [{}]}",
            "server-names-with-http {}.serverNames 12",
        ),
    ] {
        assert_eq!(
            findings_in_entry(&format!("{fields}\n")),
            [expected.replace("{}", ENTRY)],
            "{fields}"
        );
    }
}

#[test]
fn requests_are_read_from_tcp_alone() {
    let with = |protocol: &str, fields: &str| {
        format!(
            "  - toFQDNs: [{{matchName: a.example}}]\n    toPorts: [{{ports: [{{port: '443'{protocol}}}], {fields}}}]\n"
        )
    };
    let ports = |text: &str| {
        let found = findings_in_egress(text);
        found
            .into_iter()
            .filter(|found| !found.starts_with("not-enforced"))
            .collect::<Vec<_>>()
    };
    for protocol in ["", ", protocol: ANY", ", protocol: UDP"] {
        for fields in ["rules: {http: [{}]}", "serverNames: [a.example]"] {
            assert_eq!(
                ports(&with(protocol, fields)),
                [format!("l7-needs-tcp {ENTRY}.ports 10")],
                "{protocol} {fields}"
            );
        }
    }
    // A name is asked for where the entry speaks of TCP; no other protocol is opened by it.
    let rule = rule(&with("", "serverNames: [a.example]"));
    assert!(rule.ports.is_empty());
    assert_eq!(
        rule.inspected[0].ports,
        PortSet::Ranges(vec![range(Protocol::Tcp, 443, 443)])
    );
}

#[test]
fn a_secret_is_expected_as_the_value_beside_it_or_not_at_all() {
    let header = |fields: &str| {
        let text = entry(&format!(
            "rules: {{http: [{{headerMatches: [{{name: X-Key, secret: {{name: s}}{fields}}}]}}]}}\n"
        ));
        assert!(findings_in_egress(&text).iter().any(|found| found.contains(".secret")));
        let inspected = rule(&text).inspected.remove(0);
        inspected.rules.http.as_ref().unwrap().rules()[0].header_matches[0].clone()
    };
    assert_eq!(header(", value: k").value.as_deref(), Some("k"));
    let none = header(", mismatch: LOG");
    assert_eq!(none.mismatch, None, "nothing matches");
    assert_eq!(none.value.as_deref(), Some("\n"), "no header holds a line break");
}

#[test]
fn what_expressions_take_together_is_bounded() {
    let many = |count: usize| {
        let entries: Vec<String> = (0..count)
            .map(|n| format!("{{path: '/{n}/([a-z]{{100}}x){{20}}'}}"))
            .collect();
        findings_in_entry(&format!("rules: {{http: [{}]}}\n", entries.join(", ")))
    };
    assert_eq!(many(20), none());
    let found = many(2_000);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("too-many"), "{found:?}");
}
