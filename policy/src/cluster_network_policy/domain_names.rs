//! `domainNames`: exact names, and `*.` for one or more whole labels before a name.

use names::Pattern;

use crate::diagnostic::quoted;
use crate::diagnostic_report::DiagnosticReport;
use crate::policy::Action;
use crate::shape::DocumentNode;

/// `None` for one that is refused. Looking a name up is never hindered by these; they only open
/// what it resolves to.
pub(super) fn read(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Pattern> {
    let text = node.value.as_str()?;
    let (name, under) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    if let Err(reason) = check(name) {
        report
            .error(
                "bad-name",
                &node.path,
                format!("{} is not a domain name: {reason}", quoted(text)),
            )
            .suggest(
                "write a name like www.example.com, or *.example.com for all names below, which leaves example.com out",
            );
        return None;
    }
    let pattern = match under {
        true => Pattern::pattern(&format!("**.{name}")),
        false => Pattern::name(name),
    };
    if let Err(error) = &pattern {
        report.error(
            "bad-name",
            &node.path,
            format!("{} is not a domain name: {error}", quoted(text)),
        );
    }
    pattern.ok()
}

/// Names stand in Accept rules only.
pub(super) fn check_action(names: &[(String, Option<Pattern>)], action: Action, report: &mut DiagnosticReport<'_>) {
    let Some((path, _)) = names.first() else { return };
    let list = path.rsplit_once('[').map_or(path.as_str(), |(list, _)| list);
    if action != Action::Allow {
        report
            .error("domain-names", list, "names are for rules with the action Accept only")
            .suggest("accept the names that are meant, and deny `networks` in a rule after it");
    }
}

/// Two or more labels, each of letters, digits, `-` and `_`, that begin (with `_` too) and end with
/// a letter or digit.
fn check(name: &str) -> Result<(), &'static str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.contains('*') {
        return Err("a star may stand for the labels at its beginning only");
    }
    if !name.contains('.') {
        return Err("it needs two labels without stars");
    }
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        bytes.iter().all(is_inner)
            && bytes.first().is_some_and(|first| *first != b'-')
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    match name.split('.').all(is_label) {
        true => Ok(()),
        false => Err("a label holds letters, digits, `-` and `_`, and begins and ends with a letter or digit"),
    }
}
