//! The `namegate.io/` annotations, which any policy object may carry.

use std::time::Duration;

use serde::Serialize;

use crate::diagnostic::{closest, quoted};
use crate::diagnostic_report::DiagnosticReport;
use crate::dns_rules::QuestionMode;
use crate::ignore::{self, IGNORE};
use crate::l7::VerifyNames;
use crate::shape::DocumentNode;

/// What the `namegate.io/` annotations of a policy object say; nothing is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Extensions {
    /// `namegate.io/mode: audit`: nothing is dropped, what would have been is recorded.
    pub audit: bool,
    /// `namegate.io/mode: ignore`: it is somebody else's to enforce, and has no effect here.
    pub ignored: bool,
    /// How long addresses of its names stay.
    pub lease: LeaseTerms,
    /// What may be asked without a DNS rule (annotation `namegate.io/dns-questions`).
    pub questions: Option<QuestionMode>,
    /// How a refused packet is answered (annotation `namegate.io/deny-response`).
    pub response: Option<DenyResponse>,
    /// Whether connections must announce the name that led them there (annotation
    /// `namegate.io/verify-names`).
    pub verify_names: Option<VerifyNames>,
}

/// What a policy says about leases, where it differs from the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseTerms {
    /// `namegate.io/min-ttl`: a TTL below counts as this.
    pub min_ttl: Option<Duration>,
    /// `namegate.io/grace`: how long an address stays when its TTL is over.
    pub grace: Option<Duration>,
}

/// What a refused packet gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DenyResponse {
    /// A TCP reset or an ICMP error, so that applications fail at once.
    Reject,
    /// Nothing is sent back; the client waits for its timeout.
    Drop,
}

const MODE: &str = "namegate.io/mode";
const MIN_TTL: &str = "namegate.io/min-ttl";
const GRACE: &str = "namegate.io/grace";
const DNS_QUESTIONS: &str = "namegate.io/dns-questions";
const DENY_RESPONSE: &str = "namegate.io/deny-response";
const VERIFY_NAMES: &str = "namegate.io/verify-names";

const KNOWN: [&str; 7] = [MODE, MIN_TTL, GRACE, DNS_QUESTIONS, DENY_RESPONSE, VERIFY_NAMES, IGNORE];

/// A lease that outlives a day is a mistake in the unit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What the annotations of an object say. A value that is not understood is an error, so that
/// nobody takes a policy for audited, or for enforced, that is not.
pub(crate) fn read(root: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Extensions {
    let mut extensions = Extensions::default();
    let Some(annotations) = root.get("metadata").and_then(|metadata| metadata.get("annotations")) else {
        return extensions;
    };
    for (key, node) in annotations.fields().filter(|(key, _)| key.starts_with("namegate.io/")) {
        match key {
            MODE => {
                let modes = [
                    ("enforce", (false, false)),
                    ("audit", (true, false)),
                    ("ignore", (false, true)),
                ];
                (extensions.audit, extensions.ignored) = one_of(&node, modes, report).unwrap_or_default();
            }
            MIN_TTL => extensions.lease.min_ttl = duration(&node, report),
            GRACE => extensions.lease.grace = duration(&node, report),
            DNS_QUESTIONS => {
                let modes = [("any", QuestionMode::Any), ("allowed-only", QuestionMode::AllowedOnly)];
                extensions.questions = one_of(&node, modes, report);
            }
            DENY_RESPONSE => {
                let responses = [("reject", DenyResponse::Reject), ("drop", DenyResponse::Drop)];
                extensions.response = one_of(&node, responses, report);
            }
            VERIFY_NAMES => {
                let modes = [("enforce", VerifyNames::Enforce), ("audit", VerifyNames::Audit)];
                extensions.verify_names = one_of(&node, modes, report);
                report.unenforced(
                    &node.path,
                    "connections are looked into by agents with `--inspect on` alone; elsewhere TCP is not opened to the names of this policy",
                );
            }
            IGNORE => {
                let entries = ignore::entries(node.value.as_str().unwrap_or_default());
                let without_reason = |entry: &&str| !entry.trim().is_empty() && ignore::code(entry).is_none();
                for entry in entries.filter(without_reason) {
                    report
                        .warning(
                            "bad-ignore",
                            &node.path,
                            format!("{} names no reason, and nothing is ignored by it", quoted(entry.trim())),
                        )
                        .suggest("write `code: reason`, several with `;` between them");
                }
            }
            unknown => {
                let finding = report.doubtful_key(
                    "unknown-annotation",
                    &node.path,
                    format!("no annotation {unknown} is known; it has no effect"),
                );
                if let Some(meant) = closest(unknown, KNOWN) {
                    finding.suggest(format!("did you mean {meant}?"));
                }
            }
        }
    }
    extensions
}

fn one_of<T, const N: usize>(
    node: &DocumentNode<'_>,
    values: [(&str, T); N],
    report: &mut DiagnosticReport<'_>,
) -> Option<T> {
    let written = node.value.as_str().unwrap_or_default();
    let names = values.each_ref().map(|(name, _)| *name);
    let found = values.into_iter().find(|(name, _)| *name == written);
    if found.is_none() {
        let reason = format!("{} is not one of {}", quoted(written), names.join(", "));
        let finding = report.error("bad-annotation", &node.path, reason);
        if let Some(meant) = closest(written, names) {
            finding.suggest(format!("did you mean {meant}?"));
        }
    }
    found.map(|(_, value)| value)
}

/// As Kubernetes writes durations where people do: `90s`, `5m`, `1h30m`; a bare number is refused,
/// since its unit would be a guess.
fn duration(node: &DocumentNode<'_>, report: &mut DiagnosticReport<'_>) -> Option<Duration> {
    let written = node.value.as_str().unwrap_or_default();
    let read = parse_duration(written);
    match read {
        Some(read) if read <= LONGEST => return Some(read),
        Some(_) => report
            .error(
                "bad-annotation",
                &node.path,
                format!("{} is more than a day", quoted(written)),
            )
            .suggest("write a shorter time, such as 10m"),
        None => report
            .error(
                "bad-annotation",
                &node.path,
                format!("{} is not a time", quoted(written)),
            )
            .suggest("write a number and a unit, such as 90s, 5m or 1h30m"),
    };
    None
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match rest.get(..letters)? {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return None,
        };
        rest = rest.get(letters..)?;
        total = total.checked_add(unit.checked_mul(u32::try_from(number).ok()?)?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        for (text, seconds) in [
            ("90s", 90.0),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1500ms", 1.5),
            ("0s", 0.0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_secs_f64(seconds)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5 s", "5d", "1.5h", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
