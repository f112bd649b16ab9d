//! Where the agent reports a fault: in its log, in metrics, in `namegate status`.

use std::collections::BTreeSet;

use namegate_integration::Scenario;

/// What the agent has reported until a moment.
#[derive(Debug, Default)]
pub(crate) struct AgentSignals {
    warnings: Vec<String>,
    /// Names of series that are not zero, with their values as text.
    metrics: BTreeSet<(String, String)>,
    /// Lines of `namegate status` without their figures.
    status: BTreeSet<String>,
}

impl AgentSignals {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let warnings = scenario.log().into_iter().filter(|line| is_warning(line)).collect();
        let text = scenario.metrics().unwrap_or_default();
        let status = scenario
            .installation()
            .inspect("status", &[])
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        Self {
            warnings,
            metrics: text.lines().filter_map(series).collect(),
            status: status.lines().map(without_figures).collect(),
        }
    }

    /// In which of the three something stands now that did not stand there `before`. `ordinary` are
    /// series that grow anyway.
    pub(crate) fn since(&self, before: &AgentSignals, ordinary: &BTreeSet<String>) -> Vec<&'static str> {
        let mut places = Vec::new();
        if self.first_warning(before).is_some() {
            places.push("log");
        }
        if self.changed(before).iter().any(|name| !ordinary.contains(name)) {
            places.push("metrics");
        }
        if !self.status.is_subset(&before.status) {
            places.push("status");
        }
        places
    }

    /// The series that changed.
    pub(crate) fn changed(&self, before: &AgentSignals) -> BTreeSet<String> {
        let changed = self.metrics.difference(&before.metrics);
        changed.map(|(name, _)| name.clone()).collect()
    }

    /// The first warning since `before` that is not like an earlier one.
    pub(crate) fn first_warning(&self, before: &AgentSignals) -> Option<&str> {
        let known: BTreeSet<String> = before.warnings.iter().map(|line| message(line)).collect();
        let new = self.warnings.iter().skip(before.warnings.len());
        new.map(String::as_str).find(|line| !known.contains(&message(line)))
    }
}

/// A line of the log without its time and figures.
fn message(line: &str) -> String {
    without_figures(line.split_once('Z').map_or(line, |(_, rest)| rest))
}

fn is_warning(line: &str) -> bool {
    [" WARN ", " ERROR "].iter().any(|level| line.contains(level))
}

fn series(line: &str) -> Option<(String, String)> {
    let (name, value) = line.rsplit_once(' ')?;
    // A histogram's count tells of it; which of its buckets grow, and its sum, is chance.
    let family = name.split('{').next().unwrap_or(name);
    let is_chance = ["_sum", "_bucket"].iter().any(|suffix| family.ends_with(suffix));
    (name.starts_with("namegate_") && !is_chance && value != "0").then(|| (name.to_owned(), value.to_owned()))
}

fn without_figures(line: &str) -> String {
    line.chars().filter(|it| !it.is_ascii_digit()).collect()
}
