//! Log lines that are written once for as long as they hold.
//!
//! Findings hold for hours and are read again with every change. Two other limits have other
//! clocks: `agent::log_throttle` passes one line a second of what packets bring about, and the log
//! itself counts equal lines within ten seconds.

use std::collections::{BTreeMap, BTreeSet};

use policy::Severity;
use tracing::Level;

use crate::report::{ReadReport, ReportState};

/// Lines with one code that are written before the rest is counted.
const FEW: usize = 3;

/// A line of the log.
pub(crate) type LogLine = (Level, String);

/// The lines that hold now.
#[derive(Debug, Default)]
pub(crate) struct LogDedup(BTreeSet<LogLine>);

impl LogDedup {
    /// Replaces the lines that hold, and returns those that are to be written: the new ones, and
    /// of warnings with one code a few.
    pub(crate) fn replace(&mut self, lines: BTreeSet<LogLine>) -> Vec<LogLine> {
        let new = few_of_each_code(lines.difference(&self.0));
        self.0 = lines;
        new
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The lines of reports: every finding, and that a last good version stays in force.
pub(crate) fn report_lines(reports: &[ReadReport]) -> BTreeSet<LogLine> {
    let mut lines = BTreeSet::new();
    for report in reports {
        for diagnostic in &report.diagnostics {
            let level = match diagnostic.severity {
                Severity::Error => Level::ERROR,
                Severity::Unenforced | Severity::Warning => Level::WARN,
            };
            lines.insert((level, report.headline(diagnostic)));
        }
        if report.state == ReportState::KeptLastGood && !report.object.is_empty() {
            let line = format!("{} is refused now; its last good version stays in force", report.object);
            lines.insert((Level::ERROR, line));
        }
    }
    lines
}

/// Of warnings with one code, the first few and how many there are: hundreds of policies say the
/// same at a start. `namegate status` shows all of them.
fn few_of_each_code<'l>(lines: impl Iterator<Item = &'l LogLine>) -> Vec<LogLine> {
    let mut written = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (level, line) in lines {
        // `file:line:column: warning[code] path: reason`.
        let code = line.split_once('[').and_then(|(_, rest)| Some(rest.split_once(']')?.0));
        let code = code.filter(|_| *level == Level::WARN);
        let count = code.map(|code| counts.entry(code.to_owned()).or_default());
        let is_one_of_few = count.is_none_or(|count| {
            *count += 1;
            *count <= FEW
        });
        if is_one_of_few {
            written.push((*level, line.clone()));
        }
    }
    let more = counts.into_iter().filter(|(_, count)| *count > FEW);
    written.extend(more.map(|(code, count)| {
        let more = count - FEW;
        (
            Level::WARN,
            format!("{more} more findings [{code}], {count} in all; `namegate status` shows them"),
        )
    }));
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_policies_say_is_said_a_few_times_with_a_count() {
        let line = |level, text: String| (level, text);
        let lines: Vec<(Level, String)> = (0..450)
            .map(|n| {
                line(
                    Level::WARN,
                    format!(
                        "p{n}.yaml:5:3: not enforced[not-enforced] spec.egress[0].toPorts[0].rules.http: it is not"
                    ),
                )
            })
            .chain([
                line(Level::WARN, "a.yaml:1:1: warning[no-ports] spec: x".into()),
                line(Level::ERROR, "b.yaml:1:1: error[bad-port] spec: x".into()),
            ])
            .collect();
        let said = few_of_each_code(lines.iter());
        assert_eq!(said.len(), 3 + 2 + 1);
        assert!(
            said.last()
                .unwrap()
                .1
                .starts_with("447 more findings [not-enforced], 450 in all"),
            "{said:?}"
        );
    }
}
