//! What a `toPorts` entry asks of connections beyond their ports: `serverNames` and `rules.http`.

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::l7::{
    HeaderCondition, HeaderMatch, HeaderMismatch, HttpExpression, HttpRule, HttpRuleList, L7Rules, ServerNameError,
    ServerNamePattern,
};
use crate::shape::DocumentNode;
use crate::spelling;

/// What an expression that is refused costs of what is left for others.
const LARGEST_TRIED: usize = 1 << 16;

/// How many entries one `http` may have, and one `headers`, `headerMatches` or `serverNames`.
const MAX_ENTRIES: usize = 10_000;

/// What an entry asks beyond ports.
pub(super) enum Inspected {
    /// Nothing.
    Nothing,
    /// That connections announce what these rules say.
    By(L7Rules),
    /// Something that is not enforced here, which is reported.
    Unenforced,
}

/// Reads what an entry asks beyond ports.
pub(super) fn read(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Inspected {
    let rules = entry.get("rules");
    let is_unenforced = report_unenforced(entry, rules.as_ref(), report);
    let mut asked = L7Rules::default();
    if let Some(names) = entry.get("serverNames") {
        asked.server_names = server_names(&names, report);
    }
    if let Some(http) = rules.as_ref().and_then(|rules| rules.get("http")) {
        asked.http = http_rules(&http, report);
    }
    // Cilium refuses this too: names and requests of one connection are read only where TLS ends.
    if !asked.server_names.is_empty() && asked.http.is_some() && entry.get("terminatingTLS").is_none() {
        report
            .error(
                "server-names-with-http",
                &format!("{}.serverNames", entry.path),
                "requests inside TLS cannot be read without `terminatingTLS`",
            )
            .suggest("write one `toPorts` entry for the names, and one for the requests of plain HTTP");
    }
    match asked.is_empty() {
        _ if is_unenforced => Inspected::Unenforced,
        true => Inspected::Nothing,
        false => Inspected::By(asked),
    }
}

/// The field that asks, of an entry that asks something.
pub(super) fn written<'a>(entry: &DocumentNode<'a>) -> DocumentNode<'a> {
    let http = entry.get("rules").and_then(|rules| rules.get("http"));
    http.or_else(|| entry.get("serverNames"))
        .unwrap_or_else(|| entry.clone())
}

/// Reports what is not enforced, and what may not stand together.
fn report_unenforced(
    entry: &DocumentNode<'_>,
    rules: Option<&DocumentNode<'_>>,
    report: &mut DiagnosticReport<'_>,
) -> bool {
    let mut found: Vec<DocumentNode<'_>> = ["listener", "terminatingTLS", "originatingTLS"]
        .iter()
        .filter_map(|field| entry.get(field))
        .collect();
    if let Some(rules) = rules {
        let kinds = ["http", "kafka", "l7proto", "dns"];
        if kinds.iter().filter(|kind| rules.get(kind).is_some()).count() > 1 {
            report
                .error(
                    "two-l7-kinds",
                    &rules.path,
                    "rules of several protocols stand in one entry",
                )
                .suggest("write one `toPorts` entry for each");
        }
        if rules.get("l7").is_some() && rules.get("l7proto").is_none() {
            report.error("missing-field", &rules.path, "`l7` needs `l7proto`");
        }
        found.extend(["kafka", "l7proto"].iter().filter_map(|field| rules.get(field)));
    }
    for node in &found {
        report.unenforced(
            &node.path,
            "connections are not looked into for this yet, so these ports are not opened by this rule",
        );
    }
    !found.is_empty()
}

fn server_names(names: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Vec<ServerNamePattern> {
    if is_too_long(names, report) {
        return Vec::new();
    }
    let mut patterns = Vec::new();
    for node in names.items() {
        let Some(text) = node.value.as_str() else { continue };
        match ServerNamePattern::parse(text) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => {
                let reason = format!("{} is not the name of a TLS server: {error}", quoted(text));
                let finding = report.error("bad-server-name", &node.path, reason);
                match error {
                    ServerNameError::TrailingDot => {
                        finding.suggest(format!("write {}", quoted(text.trim_end_matches('.'))))
                    }
                    ServerNameError::StarsInLabel => {
                        finding.suggest("write `*` within a label, and `**` for one or more labels")
                    }
                    _ => {
                        if let Some(meant) = spelling::meant(text) {
                            finding.suggest(meant);
                        }
                    }
                }
            }
        }
    }
    patterns
}

/// As in Cilium, a list without entries asks nothing.
fn http_rules(http: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<HttpRuleList> {
    if is_too_long(http, report) {
        return None;
    }
    let rules: Vec<HttpRule> = http.items().map(|entry| http_rule(&entry, report)).collect();
    if rules.is_empty() {
        report
            .warning(
                "empty-http-rules",
                &http.path,
                "a list without entries asks nothing of requests: the ports are open for every connection",
            )
            .suggest("write `http: [{}]` for any request of HTTP, or leave `rules` out");
        return None;
    }
    Some(HttpRuleList::new(rules))
}

fn http_rule(entry: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> HttpRule {
    let mut expression = |field| expression(entry, field, report);
    HttpRule {
        method: expression("method"),
        path: expression("path"),
        host: expression("host"),
        headers: entry
            .list("headers")
            .iter()
            .filter_map(|node| header(node, report))
            .collect(),
        header_matches: entry
            .list("headerMatches")
            .iter()
            .filter_map(|node| header_match(node, report))
            .collect(),
    }
}

/// The expression of a field. An empty text asks nothing, as in Cilium.
fn expression(
    entry: &DocumentNode<'_>,
    field: &'static str,
    report: &mut DiagnosticReport<'_>,
) -> Option<HttpExpression> {
    let text = entry.text(field).filter(|text| !text.is_empty())?;
    // Once too much was asked for, nothing more is compiled.
    if !report.afford(text.len()) {
        return None;
    }
    match HttpExpression::compile(text) {
        Ok(expression) if report.afford(expression.size()) => Some(expression),
        Ok(_) => {
            report
                .error(
                    "too-many",
                    &format!("{}.{field}", entry.path),
                    "the expressions up to this one take more than 32 MiB when compiled",
                )
                .suggest("write several policies, simpler expressions, or literal paths");
            None
        }
        Err(error) => {
            // To find out takes as long as to compile it.
            report.afford(LARGEST_TRIED);
            let reason = format!("{} is not an expression that is understood: {error}", quoted(text));
            let finding = report.error("bad-expression", &format!("{}.{field}", entry.path), reason);
            if let Some(suggestion) = error.suggestion {
                finding.suggest(suggestion);
            }
            None
        }
    }
}

/// `Name`, `Name: value` or `Name value`.
fn header(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<HeaderCondition> {
    let text = node.value.as_str()?;
    let (name, value) = match text.split_once(' ') {
        Some((name, value)) => (name.strip_suffix(':').unwrap_or(name), Some(value.trim())),
        None => (text, None),
    };
    let name = header_name(name, &node.path, report)?;
    Some(HeaderCondition {
        name,
        value: value.map(str::to_owned),
    })
}

fn header_match(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<HeaderMatch> {
    if !node.value.is_object() {
        return None;
    }
    let Some(name) = node.text("name") else {
        report.error("missing-field", &node.path, "`name` is required");
        return None;
    };
    let name = header_name(name, &format!("{}.name", node.path), report)?;
    let value = node.text("value").filter(|value| !value.is_empty()).map(str::to_owned);
    let mismatch = match node.text("mismatch") {
        None | Some("") => None,
        Some(written) => {
            let actions = [
                ("LOG", HeaderMismatch::Log),
                ("ADD", HeaderMismatch::Add),
                ("DELETE", HeaderMismatch::Delete),
                ("REPLACE", HeaderMismatch::Replace),
            ];
            let found = actions.iter().find(|(name, _)| *name == written);
            if found.is_none() {
                let reason = format!("{} is not one of LOG, ADD, DELETE and REPLACE", quoted(written));
                let finding = report.error("bad-value", &format!("{}.mismatch", node.path), reason);
                if let Some(meant) = closest(written, actions.map(|(name, _)| name)) {
                    finding.suggest(format!("did you mean {meant}?"));
                }
            }
            found.map(|(_, action)| *action)
        }
    };
    if let Some(secret) = node.get("secret") {
        report.unenforced(
            &secret.path,
            "secrets are not read yet: `value` is expected in its place, or nothing at all",
        );
        // Without a value nothing can be expected, and no request matches.
        if value.is_none() {
            return Some(HeaderMatch::impossible(name));
        }
    }
    if value.is_none() && matches!(mismatch, Some(HeaderMismatch::Add | HeaderMismatch::Replace)) {
        report
            .error(
                "missing-field",
                &node.path,
                "`value` is required: there is nothing to add",
            )
            .suggest("write the `value` that the header is to have");
    }
    Some(HeaderMatch { name, value, mismatch })
}

/// In lower case. RFC 9110 §5.1: a token.
fn header_name(name: &str, path: &str, report: &mut DiagnosticReport<'_>) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(is_token) {
        return Some(name.to_ascii_lowercase());
    }
    report
        .error(
            "bad-header",
            path,
            format!("{} is not the name of a header", quoted(name)),
        )
        .suggest("write `Name`, or `Name: value` with a space before the value");
    None
}

fn is_too_long(list: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> bool {
    let length = list.items().count();
    if length > MAX_ENTRIES {
        let reason = format!("it has {length} entries, and at most {MAX_ENTRIES} are allowed");
        report
            .error("too-many", &list.path, reason)
            .suggest("write several `toPorts` entries");
    }
    length > MAX_ENTRIES
}
