//! Requests that are allowed, by method and URL: `GET,HEAD https://api.example/repos/**`.

use std::sync::Arc;

use policy::l7::{HttpExpression, HttpRule, HttpRuleList, L7Rules, TlsEnd, VerifyNames};

/// Requests to one server or pattern of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedRequests {
    /// As it was written.
    text: String,
    is_tls: bool,
    rules: Arc<L7Rules>,
}

impl AllowedRequests {
    /// Reads it, and returns with it the authority of the URL: `HOST` or `HOST:PORT`.
    ///
    /// A `*` in the path stands for anything within a segment, `**` for anything. Where the pattern
    /// has no `?`, every query is allowed. Without a path every path is.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<(Self, &str), String> {
        let (methods, url) = match text.trim().rsplit_once(' ') {
            Some((methods, url)) => (methods.trim_end(), url),
            None => ("", text.trim()),
        };
        let methods: Vec<&str> = methods.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
        let is_method = |method: &&str| method.bytes().all(|octet| octet.is_ascii_uppercase() || octet == b'-');
        if let Some(wrong) = methods.iter().find(|method| !is_method(method)) {
            return Err(format!("{wrong} is no method; they are written as in GET or GET,HEAD"));
        }
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(format!("{scheme} is no scheme that is looked into; http and https are")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if path.contains('#') {
            return Err("what follows # is never sent to a server".to_owned());
        }
        if path.starts_with('?') {
            return Err("a query has a path before it, as in /?page=1".to_owned());
        }
        let expression = |text: String| HttpExpression::compile(&text).map_err(|error| error.to_string());
        let method = (!methods.is_empty())
            .then(|| expression(methods.join("|")))
            .transpose()?;
        let path = (!path.is_empty())
            .then(|| expression(path_expression(path)))
            .transpose()?;
        let rule = HttpRule {
            method,
            path,
            ..HttpRule::default()
        };
        let rules = L7Rules {
            http: Some(HttpRuleList::new(vec![rule])),
            // The server is the one whose address was looked up, and not another behind it.
            verify_names: Some(VerifyNames::Enforce),
            tls: is_tls.then_some(TlsEnd::LocalAuthority),
            ..L7Rules::default()
        };
        let requests = Self {
            text: text.trim().to_owned(),
            is_tls,
            rules: Arc::new(rules),
        };
        Ok((requests, authority))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether they come in TLS, which must end here to be read.
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The port where the URL has none.
    pub(crate) fn usual_port(&self) -> u16 {
        if self.is_tls { 443 } else { 80 }
    }

    pub(crate) fn rules(&self) -> Arc<L7Rules> {
        Arc::clone(&self.rules)
    }
}

/// A path with stars as an expression for paths with their queries.
fn path_expression(path: &str) -> String {
    let mut expression = String::new();
    let mut rest = path;
    while let Some(star) = rest.find('*') {
        expression.push_str(&escaped(&rest[..star]));
        let after = rest[star..].trim_start_matches('*');
        let stars = rest.len() - star - after.len();
        expression.push_str(if stars > 1 { "[^?]*" } else { "[^/?]*" });
        rest = after;
    }
    expression.push_str(&escaped(rest));
    if !path.contains('?') {
        expression.push_str(r"(\?.*)?");
    }
    expression
}

/// A text as an expression for itself.
fn escaped(text: &str) -> String {
    let is_plain =
        |letter: char| letter.is_ascii_alphanumeric() || "/-_~%&=,@!:;".contains(letter) || !letter.is_ascii();
    let mut escaped = String::new();
    for letter in text.chars() {
        if !is_plain(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use names::Name;
    use policy::l7::{Announcement, HttpRequest};

    use super::*;

    fn allows(text: &str, method: &str, path: &str) -> bool {
        let (requests, authority) = AllowedRequests::parse(text).unwrap();
        let request = HttpRequest {
            method: method.as_bytes(),
            path: path.as_bytes(),
            host: authority.as_bytes(),
            headers: &[],
        };
        let server_name = Name::parse(authority.split(':').next().unwrap()).unwrap();
        let announced = match requests.is_tls() {
            true => Announcement::Secured {
                server_name: &server_name,
                request: &request,
            },
            false => Announcement::Http(&request),
        };
        requests.rules.decide(announced, |_| true).passes()
    }

    #[test]
    fn stars_stand_for_parts_of_a_path() {
        let all = "GET https://api.example/repos/**";
        assert!(allows(all, "GET", "/repos/a/b?page=2"));
        assert!(!allows(all, "POST", "/repos/a/b"));
        assert!(!allows(all, "GET", "/users"));
        let one = "GET,HEAD http://api.example:8080/repos/*/issues";
        assert!(allows(one, "HEAD", "/repos/a/issues"));
        assert!(allows(one, "GET", "/repos/a/issues?state=open"));
        assert!(!allows(one, "GET", "/repos/a/b/issues"));
        assert!(!allows(one, "GET", "/repos/a/issues/1"));
    }

    #[test]
    fn what_is_left_out_is_not_asked_for() {
        assert!(allows("https://api.example", "DELETE", "/anything?at=all"));
        assert!(allows("https://api.example/v1.0/", "PUT", "/v1.0/"));
        assert!(!allows("https://api.example/v1.0/", "PUT", "/v1x0/"));
        assert!(!allows("https://api.example/", "GET", "/users"));
        assert!(allows("https://api.example/users?page=*", "GET", "/users?page=2"));
        assert!(!allows("https://api.example/users?page=*", "GET", "/users"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            "get https://a.example/",
            "ftp://a.example/",
            "https://a.example/#top",
            "https://a.example?page=1",
        ] {
            assert!(AllowedRequests::parse(wrong).is_err(), "{wrong}");
        }
    }
}
