//! The table, in the form in which docs/reliability.md keeps it.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use crate::agent_signals::AgentSignals;
use crate::faults::Fault;
use crate::probes::{self, ProbeError, ProbeResult};
use crate::site::{self, Mode};

/// What one fault came to in one mode.
pub(crate) struct FaultRow {
    fault: &'static Fault,
    mode: Mode,
    seen: ProbeResult,
    reported_in: Vec<&'static str>,
}

impl FaultRow {
    /// Makes a node, breaks it, and watches. `None`: the fault does not exist in this mode.
    pub(crate) fn measure(fault: &'static Fault, mode: Mode) -> Option<Self> {
        if !fault.modes.contains(&mode) {
            return None;
        }
        let ordinary = ordinary(mode);
        let mut scenario = site::start(mode, fault.flags);
        (fault.prepare)(&mut scenario);
        let before = AgentSignals::of(&scenario);
        let seen = probes::observe(&mut scenario, fault.break_it);
        let after = AgentSignals::of(&scenario);
        if let Some(line) = after.first_warning(&before) {
            eprintln!("    {line}");
        }
        let new: Vec<String> = after.changed(&before).difference(ordinary).cloned().collect();
        let passed = seen.when(ProbeError::DeniedAnswered);
        if let Some((first, last)) = passed.first().zip(passed.last()) {
            eprintln!(
                "    {} denied lookups were answered, from {first:?} to {last:?}",
                passed.len()
            );
        }
        if !new.is_empty() {
            eprintln!("    {}", new.join(" "));
        }
        Some(Self {
            fault,
            mode,
            reported_in: after.since(&before, ordinary),
            seen,
        })
    }

    /// Whether something happened that the fault does not excuse.
    pub(crate) fn has_failed(&self) -> bool {
        self.seen.count(ProbeError::AllowedRefused) > 0 && !self.fault.refuses
            || self.seen.count(ProbeError::DeniedLetThrough) > 0 && !self.fault.lets_through
            || self.seen.count(ProbeError::DeniedAnswered) > 0 && !self.fault.passes_agent
            || self.seen.goes_on
    }
}

/// The series that grow when nothing is broken.
fn ordinary(mode: Mode) -> &'static BTreeSet<String> {
    static ORDINARY: OnceLock<BTreeSet<String>> = OnceLock::new();
    ORDINARY.get_or_init(|| {
        let mut scenario = site::start(mode, "");
        let before = AgentSignals::of(&scenario);
        probes::observe(&mut scenario, |_| {});
        AgentSignals::of(&scenario).changed(&before)
    })
}

pub(crate) fn print(rows: &[FaultRow]) {
    println!("| fault | mode | allowed refused | denied let through | lookups lost | repaired after | said in |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let seen = &row.seen;
        let unobserved = seen.count(ProbeError::DeniedAnswered);
        let lost = format!("{} of {}", seen.count(ProbeError::LookupLost), seen.lookups);
        let lost = match unobserved {
            0 => lost,
            some => format!("{lost}; {some} passed unobserved"),
        };
        let repaired = match seen.repaired_after() {
            _ if seen.goes_on => "not by itself".into(),
            None => "–".into(),
            Some(after) => seconds(after),
        };
        let reported_in = match row.reported_in.is_empty() {
            true => "–".into(),
            false => row.reported_in.join(", "),
        };
        println!(
            "| {} | {} | {} | {} | {lost} | {repaired} | {reported_in} |",
            row.fault.name,
            row.mode,
            seen.count(ProbeError::AllowedRefused),
            seen.count(ProbeError::DeniedLetThrough),
        );
    }
}

fn seconds(time: Duration) -> String {
    match time.as_millis() {
        ms @ ..1_000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
