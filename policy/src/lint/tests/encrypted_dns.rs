//! Servers of encrypted DNS that are left open.

use super::*;

/// The findings about them alone.
fn open(rules: &str) -> Vec<String> {
    let found = findings(&format!("{HEAD}{rules}")).into_iter();
    found.filter(|line| line.starts_with("encrypted-dns-open ")).collect()
}

const NAMES: &str = "  egress:\n  - toFQDNs: [{matchName: a.example}]\n    toPorts: [{ports: [{port: '443'}]}]\n";

#[test]
fn a_name_or_pattern_that_opens_a_server_is_told() {
    let names = |selector: &str, port: u16| {
        open(&format!(
            "  egress:\n  - toFQDNs: [{selector}]\n    toPorts: [{{ports: [{{port: '{port}', protocol: TCP}}]}}]\n"
        ))
    };
    let told = ["encrypted-dns-open spec.egress[0]"];
    assert_eq!(names("{matchName: dns.google}", 443), told);
    assert_eq!(names("{matchName: one.one.one.one}", 853), told);
    assert_eq!(names("{matchPattern: '*.cloudflare-dns.com'}", 443), told);
    assert_eq!(names("{matchName: dns.google}", 80), [""; 0]);
    assert_eq!(
        names("{matchPattern: '*.google.com'}", 443),
        told,
        "dns.google.com is among them"
    );
    assert_eq!(names("{matchName: www.google.com}", 443), [""; 0]);
    for of_everybody in ["'*'", "'**.com'"] {
        let found = names(&format!("{{matchPattern: {of_everybody}}}"), 443);
        assert_eq!(found, [""; 0], "there is another finding of {of_everybody}");
    }
}

#[test]
fn addresses_beside_names_are_told_once_for_each_way() {
    let beside = |rule: &str| open(&format!("{NAMES}{rule}"));
    assert_eq!(
        beside("  - toCIDR: [0.0.0.0/0]\n    toPorts: [{ports: [{port: '443', protocol: TCP}]}]\n"),
        ["encrypted-dns-open spec.egress[1]"]
    );
    assert_eq!(
        beside("  - toEntities: [world]\n"),
        ["encrypted-dns-open spec.egress[1]", "encrypted-dns-open spec.egress[1]"],
        "over HTTPS and over TLS"
    );
    let denied = "  egressDeny:\n  - toEntities: [world]\n    toPorts: [{ports: [{port: '853'}]}]\n";
    assert_eq!(
        beside(&format!("  - toEntities: [world]\n{denied}")),
        ["encrypted-dns-open spec.egress[1]"]
    );
    assert_eq!(beside("  - toCIDR: [192.0.2.0/24]\n"), [""; 0]);
    assert_eq!(beside("  - toEntities: [cluster]\n"), [""; 0]);
}

#[test]
fn a_policy_that_speaks_of_no_names_bounds_none() {
    assert_eq!(open("  egress:\n  - toEntities: [world]\n"), [""; 0]);
}
