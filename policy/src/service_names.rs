//! Port names of the IANA Service Name and Transport Protocol Port Number Registry that policies
//! use.

/// Sorted. The number holds for every protocol that a rule asks for.
const PORTS: [(&str, u16); 37] = [
    ("amqp", 5672),
    ("amqps", 5671),
    ("domain", 53),
    ("domain-s", 853),
    ("ftp", 21),
    ("git", 9418),
    ("http", 80),
    ("http-alt", 8080),
    ("https", 443),
    ("imap", 143),
    ("imaps", 993),
    ("kerberos", 88),
    ("ldap", 389),
    ("ldaps", 636),
    ("mqtt", 1883),
    ("ms-sql-s", 1433),
    ("mysql", 3306),
    ("nfs", 2049),
    ("nntp", 119),
    ("ntp", 123),
    ("pop3", 110),
    ("pop3s", 995),
    ("postgresql", 5432),
    ("redis", 6379),
    ("rsync", 873),
    ("secure-mqtt", 8883),
    ("sip", 5060),
    ("sips", 5061),
    ("smtp", 25),
    ("snmp", 161),
    ("ssh", 22),
    ("submission", 587),
    ("submissions", 465),
    ("syslog", 514),
    ("syslog-tls", 6514),
    ("telnet", 23),
    ("xmpp-client", 5222),
];

/// The port of a service name, in any case.
pub(crate) fn port(name: &str) -> Option<u16> {
    let name = name.to_ascii_lowercase();
    PORTS
        .binary_search_by(|(known, _)| (*known).cmp(&name))
        .ok()
        .map(|at| PORTS[at].1)
}

/// Whether a text may name a service (RFC 6335 §5.1).
pub(crate) fn is_valid(name: &str) -> bool {
    (1..=15).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && name.bytes().any(|byte| byte.is_ascii_alphabetic())
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Whether a container may give a port this name, as Kubernetes has it: as above, in lower case.
pub(crate) fn is_valid_at_a_container(name: &str) -> bool {
    is_valid(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_valid_names_only() {
        assert!(PORTS.is_sorted());
        assert!(PORTS.iter().all(|(name, _)| is_valid(name)));
        assert_eq!((port("HTTPS"), port("web")), (Some(443), None));
    }

    #[test]
    fn service_names_follow_rfc_6335() {
        for name in ["http", "a", "x-1", "0x10"] {
            assert!(is_valid(name), "{name}");
        }
        for name in ["", "53", "-a", "a-", "a--b", "a_b", "sixteen-letters-x"] {
            assert!(!is_valid(name), "{name}");
        }
    }
}
