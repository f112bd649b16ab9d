//! Rules about requests and TLS names.

use super::*;

/// Findings about one rule of egress with these fields, beside the one that nothing is enforced.
fn of_rule(rule: &str) -> Vec<String> {
    findings(&format!("{HEAD}  egress:\n{rule}"))
}

fn of_http(entries: &str) -> Vec<String> {
    of_rule(&format!(
        "  - toFQDNs: [{{matchName: a.example}}]\n    toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: {entries}}}}}]\n"
    ))
}

const HTTP: &str = "spec.egress[0].toPorts[0].rules.http";

#[test]
fn what_requests_can_never_match_is_said() {
    assert_eq!(of_http("[{method: GET|HEAD, path: /users}]"), [""; 0]);
    assert_eq!(
        of_http("[{path: users}]"),
        [format!("path-without-slash {HTTP}[0].path")]
    );
    assert_eq!(
        of_http("[{path: '/users|admin'}, {path: '.*'}, {path: 'a.example:443'}]"),
        [""; 0]
    );
    assert_eq!(
        of_http("[{path: '^/users$'}]"),
        [format!("anchored-expression {HTTP}[0].path")]
    );
    assert_eq!(
        of_http("[{method: post}]"),
        [format!("lower-case-method {HTTP}[0].method")]
    );
}

#[test]
fn get_without_head_is_said_unless_another_entry_allows_it() {
    assert_eq!(
        of_http("[{method: GET, path: /users}]"),
        [format!("get-without-head {HTTP}[0].method")]
    );
    assert_eq!(of_http("[{method: GET, path: /users}, {method: HEAD}]"), [""; 0]);
    assert_eq!(
        of_http("[{method: GET, path: /users}, {method: HEAD, path: /other}]"),
        [format!("get-without-head {HTTP}[0].method")]
    );
}

#[test]
fn a_rule_of_ports_alone_makes_one_about_requests_void() {
    let inspected = "  - toCIDR: [192.0.2.1/32]\n    toPorts: [{ports: [{port: '80', protocol: TCP}], rules: {http: [{path: /users}]}}]\n";
    let void = ["void-l7-rule spec.egress[0].toPorts[0]"];
    for (plain, expected) in [
        ("  - toCIDR: [192.0.2.0/24]\n", &void[..]),
        (
            "  - toCIDR: [192.0.2.1/32]\n    toPorts: [{ports: [{port: '80'}]}]\n",
            &void[..],
        ),
        (
            "  - toCIDR: [192.0.2.1/32]\n    toPorts: [{ports: [{port: '443'}]}]\n",
            &[],
        ),
        ("  - toCIDR: [192.0.2.2/32]\n", &[]),
    ] {
        assert_eq!(of_rule(&format!("{inspected}{plain}")), expected, "{plain}");
    }
    let same_rule = "  - toCIDR: [192.0.2.1/32]\n    toPorts:\n    - ports: [{port: '80', protocol: TCP}]\n      rules: {http: [{path: /users}]}\n    - ports: [{port: '80', protocol: TCP}]\n";
    assert_eq!(of_rule(same_rule), void);
}

#[test]
fn names_that_are_opened_and_names_that_are_announced_should_agree() {
    let names = |fqdns: &str, listed: &str| {
        of_rule(&format!(
            "  - toFQDNs: [{fqdns}]\n    toPorts: [{{ports: [{{port: '443', protocol: TCP}}], serverNames: [{listed}]}}]\n"
        ))
    };
    let path = "spec.egress[0].toPorts[0].serverNames";
    assert_eq!(names("{matchName: a.example}", "a.example"), [""; 0]);
    assert_eq!(names("{matchName: a.example}", "'*.example'"), [""; 0]);
    assert_eq!(
        names("{matchName: a.example}, {matchName: b.example}", "a.example"),
        [format!("server-names-miss-fqdn {path}")]
    );
    assert_eq!(
        names("{matchName: a.example}", "a.example, c.example"),
        [format!("fqdn-misses-server-name {path}[1]")]
    );
}

#[test]
fn without_default_deny_nothing_is_asked() {
    let text = format!(
        "{HEAD}  enableDefaultDeny: {{egress: false}}\n  egress:\n  - toCIDR: [192.0.2.1/32]\n    toPorts: [{{ports: [{{port: '80', protocol: TCP}}], rules: {{http: [{{}}]}}}}]\n"
    );
    assert_eq!(findings(&text), ["l7-without-default-deny spec.egress[0].toPorts[0]"]);
}
