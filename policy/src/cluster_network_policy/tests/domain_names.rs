//! `domainNames`.

use super::*;

#[test]
fn a_star_is_one_or_more_whole_labels_and_never_the_apex() {
    let PeerSelector::Names(names) =
        rule("to: [{domainNames: ['*.kubernetes.io', Blog.Example.com., _x.a_b.example]}]").peers
    else {
        panic!()
    };
    let matches = |text: &str| {
        let name = Name::parse(text).unwrap();
        names.iter().any(|pattern| pattern.matches(&name))
    };
    for name in [
        "www.kubernetes.io",
        "latest.blog.kubernetes.io",
        "blog.example.com",
        "_x.a_b.example",
    ] {
        assert!(matches(name), "{name}");
    }
    for name in [
        "kubernetes.io",
        "my-kubernetes.io",
        "wikipedia.org",
        "www.blog.example.com",
        "example.com",
    ] {
        assert!(!matches(name), "{name}");
    }
}

#[test]
fn other_names_are_refused() {
    for name in [
        "'*'",
        "'**'",
        "'*.'",
        "'*.com'",
        "com",
        "'**.example.com'",
        "'a.*.example.com'",
        "'*example.com'",
        "'a*.example.com'",
        "''",
        "'.'",
        "a..example",
        "-a.example",
        "a-.example",
        "'a b.example'",
        "'ä.example'",
        "a.example..",
        "https://a.example",
    ] {
        let found = findings_in_rules(&format!("{{action: Accept, to: [{{domainNames: [{name}]}}]}}"));
        assert_eq!(found, ["bad-name spec.egress[0].to[0].domainNames[0] 7"], "{name}");
    }
}

#[test]
fn names_stand_in_accept_rules_of_both_tiers() {
    let names = "to: [{domainNames: [a.example, b.example]}]";
    let path = "spec.egress[0].to[0].domainNames";
    for action in ["Deny", "Pass"] {
        assert_eq!(
            findings_in_rules(&format!("{{action: {action}, {names}}}")),
            [format!("domain-names {path} 7")]
        );
    }
    assert_eq!(
        findings(&format!("{BASELINE}    {{action: Accept, {names}}}]}}\n")),
        none()
    );
    assert_eq!(findings_in_rules(&format!("{{action: Accept, {names}}}")), none());
}
