//! Whether what a connection announces fulfils the rules that its addresses and ports lead to.

use std::fmt;

use names::Name;
use serde::Serialize;

use super::header_condition::{HeaderChange, HeaderNote};
use super::http_request::HttpRequest;
use super::{L7Rules, TlsEnd, VerifyNames};

/// What a connection, or a request in it, announces.
#[derive(Debug, Clone, Copy)]
pub enum Announcement<'a> {
    /// A ClientHello.
    Tls {
        /// The name in it; `None` where it names none, or one that is no name.
        server_name: Option<&'a Name>,
        /// Whether the real name is encrypted (ECH), so that the other one says nothing.
        is_encrypted: bool,
    },
    /// A request of plain HTTP.
    Http(&'a HttpRequest<'a>),
    /// A request within TLS that ends at the node.
    Secured {
        /// The name in the ClientHello.
        server_name: &'a Name,
        /// The request.
        request: &'a HttpRequest<'a>,
    },
    /// Neither.
    Other,
}

/// What becomes of it by the rules of one entry. Where several entries lead there, the
/// [better](Self::better) decision counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum L7Decision<'r> {
    /// It passes.
    Allowed {
        /// What is done to the headers of the request.
        changes: Vec<HeaderChange<'r>>,
        /// What is recorded of them.
        notes: Vec<HeaderNote<'r>>,
    },
    /// It is TLS that ends at the node: each request in it is decided about.
    Terminated(&'r TlsEnd),
    /// It passes, and that it would be refused is recorded.
    Audited(L7Denial),
    /// It is refused.
    Denied(L7Denial),
}

/// Why it is refused. The later in this list, the nearer was it to be allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum L7Denial {
    /// No rule leads there any more.
    NoRule,
    /// It is neither TLS nor HTTP.
    OtherProtocol,
    /// It is plain HTTP, where a TLS name is asked for.
    NotTls,
    /// It is TLS, where requests are to be read.
    NotHttp,
    /// The ClientHello is encrypted.
    EncryptedHello,
    /// It announces no name.
    NoName,
    /// No entry of `serverNames` matches the name.
    ServerName,
    /// No entry of `http` matches the request.
    Request,
    /// The request is for another host than the TLS connection that it comes in.
    OtherHost,
    /// The address was not learned for the name, or the rule does not select it.
    OtherName,
}

impl L7Denial {
    /// All of them, in order.
    pub const ALL: [L7Denial; 10] = [
        L7Denial::NoRule,
        L7Denial::OtherProtocol,
        L7Denial::NotTls,
        L7Denial::NotHttp,
        L7Denial::EncryptedHello,
        L7Denial::NoName,
        L7Denial::ServerName,
        L7Denial::Request,
        L7Denial::OtherHost,
        L7Denial::OtherName,
    ];

    /// A word for metrics and records.
    pub fn as_str(self) -> &'static str {
        match self {
            L7Denial::NoRule => "no-rule",
            L7Denial::OtherProtocol => "other-protocol",
            L7Denial::NotTls => "not-tls",
            L7Denial::NotHttp => "not-http",
            L7Denial::EncryptedHello => "encrypted-hello",
            L7Denial::NoName => "no-name",
            L7Denial::ServerName => "server-name",
            L7Denial::Request => "request",
            L7Denial::OtherHost => "other-host",
            L7Denial::OtherName => "other-name",
        }
    }
}

/// The rest of a sentence that begins with *the rule*.
impl fmt::Display for L7Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            L7Denial::NoRule => "does not speak of it any more",
            L7Denial::OtherProtocol => "asks for TLS or HTTP, and this is neither",
            L7Denial::NotTls => "asks for TLS, and this is plain HTTP",
            L7Denial::NotHttp => "asks for plain HTTP, and this is TLS",
            L7Denial::EncryptedHello => "asks for a name, and the ClientHello is encrypted",
            L7Denial::NoName => "asks for a name, and none is announced",
            L7Denial::ServerName => "lists other names in `serverNames`",
            L7Denial::Request => "has no HTTP entry that matches the request",
            L7Denial::OtherHost => "reads requests in TLS, and this one is for another host than the connection",
            L7Denial::OtherName => "selects no such name, or the address was not learned for it",
        })
    }
}

impl<'r> L7Decision<'r> {
    /// The decision of two entries that both lead there: what one allows passes, with what each of
    /// them does to headers.
    #[must_use]
    pub fn better(self, other: Self) -> Self {
        match (self, other) {
            (
                L7Decision::Allowed { mut changes, mut notes },
                L7Decision::Allowed {
                    changes: more,
                    notes: noted,
                },
            ) => {
                changes.extend(more);
                notes.extend(noted);
                L7Decision::Allowed { changes, notes }
            }
            (allowed @ L7Decision::Allowed { .. }, _) | (_, allowed @ L7Decision::Allowed { .. }) => allowed,
            (terminated @ L7Decision::Terminated(_), _) | (_, terminated @ L7Decision::Terminated(_)) => terminated,
            (audited @ L7Decision::Audited(_), _) | (_, audited @ L7Decision::Audited(_)) => audited,
            (L7Decision::Denied(a), L7Decision::Denied(b)) => L7Decision::Denied(a.max(b)),
        }
    }

    /// Whether it passes.
    pub fn passes(&self) -> bool {
        !matches!(self, L7Decision::Denied(_))
    }
}

impl L7Rules {
    /// Decides. `is_of_rule` says of a name whether the rule selects it and the connection's
    /// address was learned for it; it is asked only where names are [verified](VerifyNames).
    pub fn decide<'r>(&'r self, announced: Announcement<'_>, is_of_rule: impl FnOnce(&Name) -> bool) -> L7Decision<'r> {
        let verified = |name: Option<&Name>| match (self.verify_names, name) {
            (None, _) => Ok(()),
            (Some(_), None) => Err(L7Denial::NoName),
            (Some(_), Some(name)) => is_of_rule(name).then_some(()).ok_or(L7Denial::OtherName),
        };
        let (written, verified) = match announced {
            Announcement::Tls { .. } if !self.takes_tls() => (Err(L7Denial::NotHttp), Ok(())),
            Announcement::Http(_) if !self.takes_http() => (Err(L7Denial::NotTls), Ok(())),
            Announcement::Secured { .. } if !self.takes_tls() => (Err(L7Denial::NotHttp), Ok(())),
            Announcement::Other => (Err(L7Denial::OtherProtocol), Ok(())),
            Announcement::Tls { is_encrypted: true, .. } => (Err(L7Denial::EncryptedHello), Ok(())),
            Announcement::Tls { server_name, .. } => (self.server_name(server_name), verified(server_name)),
            Announcement::Secured { server_name, request } => {
                (self.secured(server_name, request), verified(Some(server_name)))
            }
            Announcement::Http(request) => {
                let host = host_of(request);
                (self.request(request), verified(host.as_ref()))
            }
        };
        let ends_here = matches!(announced, Announcement::Tls { .. })
            .then_some(self.tls.as_ref())
            .flatten();
        match (written, verified) {
            (Ok(_), Ok(())) if let Some(end) = ends_here => L7Decision::Terminated(end),
            (Ok((changes, notes)), Ok(())) => L7Decision::Allowed { changes, notes },
            (Err(denial), _) if self.verify_names != Some(VerifyNames::Audit) || self.asks_more() => {
                L7Decision::Denied(denial)
            }
            (_, Err(denial)) | (Err(denial), _) => match self.verify_names {
                Some(VerifyNames::Audit) => L7Decision::Audited(denial),
                _ => L7Decision::Denied(denial),
            },
        }
    }

    /// Whether it asks for more than that names are verified.
    fn asks_more(&self) -> bool {
        !self.server_names.is_empty() || self.http.is_some()
    }

    fn server_name(&self, name: Option<&Name>) -> Result<Done<'static>, L7Denial> {
        if self.server_names.is_empty() {
            return Ok(Done::default());
        }
        let name = name.ok_or(L7Denial::NoName)?;
        let is_listed = self.server_names.iter().any(|pattern| pattern.matches(name));
        is_listed.then(Done::default).ok_or(L7Denial::ServerName)
    }

    /// A rule that lets the connection pass unread lets every request in it pass.
    fn secured(&self, server_name: &Name, request: &HttpRequest<'_>) -> Result<Done<'_>, L7Denial> {
        self.server_name(Some(server_name))?;
        if host_of(request).as_ref() != Some(server_name) {
            return Err(L7Denial::OtherHost);
        }
        self.request(request)
    }

    fn request(&self, request: &HttpRequest<'_>) -> Result<Done<'_>, L7Denial> {
        let Some(rules) = &self.http else {
            return Ok(Done::default());
        };
        let allowed = rules.decide(request).ok_or(L7Denial::Request)?;
        Ok((allowed.changes, allowed.notes))
    }
}

/// The name that a request is for.
fn host_of(request: &HttpRequest<'_>) -> Option<Name> {
    let host = std::str::from_utf8(request.host_name()).ok()?;
    Name::parse(host).ok()
}

/// What is done to headers, and recorded.
type Done<'r> = (Vec<HeaderChange<'r>>, Vec<HeaderNote<'r>>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::{HttpExpression, HttpRule, HttpRuleList, ServerNamePattern};

    fn name(text: &str) -> Name {
        Name::parse(text).unwrap()
    }

    fn tls(name: Option<&Name>) -> Announcement<'_> {
        Announcement::Tls {
            server_name: name,
            is_encrypted: false,
        }
    }

    fn server_names(patterns: &[&str]) -> L7Rules {
        L7Rules {
            server_names: patterns
                .iter()
                .map(|it| ServerNamePattern::parse(it).unwrap())
                .collect(),
            ..L7Rules::default()
        }
    }

    fn gets(path: &str) -> L7Rules {
        L7Rules {
            http: Some(HttpRuleList::new(vec![HttpRule {
                method: Some(HttpExpression::compile("GET").unwrap()),
                path: Some(HttpExpression::compile(path).unwrap()),
                ..HttpRule::default()
            }])),
            ..L7Rules::default()
        }
    }

    fn request<'a>(path: &'a str, host: &'a str) -> HttpRequest<'a> {
        HttpRequest {
            method: b"GET",
            path: path.as_bytes(),
            host: host.as_bytes(),
            headers: &[],
        }
    }

    fn denied(decision: &L7Decision<'_>) -> Option<L7Denial> {
        match decision {
            L7Decision::Denied(denial) => Some(*denial),
            _ => None,
        }
    }

    #[test]
    fn server_names_ask_for_tls_with_one_of_the_names() {
        let rules = server_names(&["a.example", "*.b.example"]);
        let decide = |announced: Announcement<'_>| denied(&rules.decide(announced, |_| unreachable!()));
        assert_eq!(decide(tls(Some(&name("x.b.example")))), None);
        assert_eq!(decide(tls(Some(&name("c.example")))), Some(L7Denial::ServerName));
        assert_eq!(decide(tls(None)), Some(L7Denial::NoName));
        assert_eq!(decide(Announcement::Other), Some(L7Denial::OtherProtocol));
        assert_eq!(
            decide(Announcement::Http(&request("/", "a.example"))),
            Some(L7Denial::NotTls)
        );
        let encrypted = Announcement::Tls {
            server_name: Some(&name("a.example")),
            is_encrypted: true,
        };
        assert_eq!(decide(encrypted), Some(L7Denial::EncryptedHello));
    }

    #[test]
    fn http_entries_ask_for_requests_that_match() {
        let rules = gets("/users");
        let decide = |announced: Announcement<'_>| denied(&rules.decide(announced, |_| unreachable!()));
        assert_eq!(decide(Announcement::Http(&request("/users", "x"))), None);
        assert_eq!(
            decide(Announcement::Http(&request("/admin", "x"))),
            Some(L7Denial::Request)
        );
        assert_eq!(decide(tls(Some(&name("x")))), Some(L7Denial::NotHttp));
        assert_eq!(decide(Announcement::Other), Some(L7Denial::OtherProtocol));
    }

    #[test]
    fn a_name_is_verified_by_tls_and_by_the_host_of_a_request() {
        let (a, b) = (name("a.example"), name("b.example"));
        let verified = |mode, announced: Announcement<'_>| {
            let rules = L7Rules {
                verify_names: Some(mode),
                ..L7Rules::default()
            };
            match rules.decide(announced, |announced| *announced == a) {
                L7Decision::Allowed { .. } => None,
                L7Decision::Terminated(_) => unreachable!(),
                L7Decision::Audited(denial) => Some((denial, true)),
                L7Decision::Denied(denial) => Some((denial, false)),
            }
        };
        for (mode, audited) in [(VerifyNames::Enforce, false), (VerifyNames::Audit, true)] {
            assert_eq!(verified(mode, tls(Some(&a))), None);
            assert_eq!(verified(mode, tls(Some(&b))), Some((L7Denial::OtherName, audited)));
            assert_eq!(verified(mode, tls(None)), Some((L7Denial::NoName, audited)));
            assert_eq!(
                verified(mode, Announcement::Other),
                Some((L7Denial::OtherProtocol, audited))
            );
            for host in ["a.example", "A.example:8080"] {
                assert_eq!(verified(mode, Announcement::Http(&request("/", host))), None);
            }
            for (host, denial) in [
                ("b.example", L7Denial::OtherName),
                ("[2001:db8::1]:80", L7Denial::NoName),
            ] {
                let announced = request("/", host);
                assert_eq!(verified(mode, Announcement::Http(&announced)), Some((denial, audited)));
            }
        }
    }

    #[test]
    fn an_audited_name_does_not_excuse_what_else_is_asked() {
        let mut rules = gets("/users");
        rules.verify_names = Some(VerifyNames::Audit);
        let decide = |request: &HttpRequest<'_>| rules.decide(Announcement::Http(request), |_| false);
        assert_eq!(
            denied(&decide(&request("/admin", "a.example"))),
            Some(L7Denial::Request)
        );
        assert_eq!(
            decide(&request("/users", "a.example")),
            L7Decision::Audited(L7Denial::OtherName)
        );
    }

    #[test]
    fn where_tls_ends_its_requests_are_decided_about_and_nothing_passes_in_clear() {
        let a = name("a.example");
        let rules = L7Rules {
            tls: Some(TlsEnd::LocalAuthority),
            verify_names: Some(VerifyNames::Enforce),
            ..gets("/users")
        };
        let decide = |announced: Announcement<'_>| rules.decide(announced, |announced| *announced == a);
        assert_eq!(decide(tls(Some(&a))), L7Decision::Terminated(&TlsEnd::LocalAuthority));
        assert_eq!(
            denied(&decide(tls(Some(&name("b.example"))))),
            Some(L7Denial::OtherName)
        );
        let secured = |path, host| {
            let request = request(path, host);
            denied(&decide(Announcement::Secured {
                server_name: &a,
                request: &request,
            }))
        };
        assert_eq!(secured("/users", "A.example:443"), None);
        assert_eq!(secured("/admin", "a.example"), Some(L7Denial::Request));
        assert_eq!(secured("/users", "b.example"), Some(L7Denial::OtherHost));
        let clear = request("/users", "a.example");
        assert_eq!(denied(&decide(Announcement::Http(&clear))), Some(L7Denial::NotTls));
    }

    #[test]
    fn what_may_pass_unread_is_not_terminated() {
        let a = name("a.example");
        let reads = L7Rules {
            tls: Some(TlsEnd::LocalAuthority),
            ..gets("/users")
        };
        let passes = server_names(&["a.example"]);
        let hello = tls(Some(&a));
        let decided = reads.decide(hello, |_| true).better(passes.decide(hello, |_| true));
        assert!(matches!(decided, L7Decision::Allowed { .. }));
        // Rules for requests in clear say nothing of those in TLS.
        let inside = request("/users", "a.example");
        let secured = Announcement::Secured {
            server_name: &a,
            request: &inside,
        };
        assert_eq!(
            denied(&gets("/users").decide(secured, |_| true)),
            Some(L7Denial::NotHttp)
        );
    }

    #[test]
    fn of_several_rules_the_better_counts() {
        let (tls_rule, http_rule) = (server_names(&["a.example"]), gets("/users"));
        let both = |announced: Announcement<'_>| {
            let decide = |rules: &L7Rules| rules.decide(announced, |_| false).passes();
            assert_eq!(
                tls_rule
                    .decide(announced, |_| false)
                    .better(http_rule.decide(announced, |_| false))
                    .passes(),
                decide(&tls_rule) || decide(&http_rule)
            );
            tls_rule
                .decide(announced, |_| false)
                .better(http_rule.decide(announced, |_| false))
                .passes()
        };
        assert!(both(tls(Some(&name("a.example")))));
        assert!(both(Announcement::Http(&request("/users", "x"))));
        assert!(!both(Announcement::Http(&request("/admin", "x"))));
        assert!(!both(tls(Some(&name("b.example")))));
    }
}
