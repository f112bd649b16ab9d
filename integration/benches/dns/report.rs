//! The table, for people and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::agents::Node;
use crate::connections::Row;
use crate::latency::Latency;
use crate::load::{Run, resident};
use crate::slow::Slow;

/// One row: `work` costs at most `most` times what `against` costs.
pub(crate) struct Goal {
    work: &'static str,
    against: &'static str,
    most: f64,
}

impl Goal {
    pub(crate) const fn new(work: &'static str, against: &'static str, most: f64) -> Self {
        Self { work, against, most }
    }
}

#[derive(Default)]
pub(crate) struct Report {
    runs: BTreeMap<&'static str, Vec<Run>>,
    latencies: BTreeMap<&'static str, Latency>,
    /// Resident memory in KiB, by when.
    memory: BTreeMap<&'static str, u64>,
    slow: Option<Slow>,
    connections: Vec<Row>,
}

/// Median, least and greatest.
#[derive(Clone, Copy)]
struct Spread {
    median: f64,
    least: f64,
    greatest: f64,
}

impl Report {
    pub(crate) fn add(&mut self, work: &'static str, run: Run) {
        self.runs.entry(work).or_default().push(run);
    }

    pub(crate) fn latency(&mut self, what: &'static str, latency: Latency) {
        self.latencies.insert(what, latency);
    }

    pub(crate) fn idle(&mut self, node: &Node) {
        self.memory.insert("idle", resident(node.pid()));
    }

    /// After the second round the agent holds 100,000 names with two addresses each, all of them in the kernel.
    pub(crate) fn resident(&mut self, round: usize, node: &Node) {
        if round == 1 {
            self.memory.insert("100,000 names", resident(node.pid()));
        }
    }

    pub(crate) fn slow(&mut self, slow: Slow) {
        self.slow = Some(slow);
    }

    pub(crate) fn connections(&mut self, rows: Vec<Row>) {
        self.connections = rows;
    }

    pub(crate) fn print(&self, goals: &[Goal]) {
        println!(
            "\n{:<22} {:>9} {:>16} {:>9} {:>6}",
            "work", "µs/query", "spread", "q/s", "lost"
        );
        for (work, runs) in &self.runs {
            let (cost, rate) = (spread(runs, Run::cost), spread(runs, |run| run.per_second));
            let lost: u64 = runs.iter().map(|run| run.lost).sum();
            let range = format!("{:.2}–{:.2}", cost.least, cost.greatest);
            println!(
                "{work:<22} {:>9.2} {range:>16} {:>9.0} {lost:>6}",
                cost.median, rate.median
            );
        }
        println!("\n{:<22} {:<22} {:>7} {:>7}", "work", "against", "ratio", "goal");
        for goal in goals {
            if let Some(ratio) = self.ratio(goal) {
                let verdict = if ratio <= goal.most { "reached" } else { "NOT reached" };
                println!(
                    "{:<22} {:<22} {ratio:>7.2} {:>7.2} {verdict}",
                    goal.work, goal.against, goal.most
                );
            }
        }
        self.print_connections();
        for (what, Latency { direct, through }) in &self.latencies {
            println!(
                "\nlatency, {what} address: direct {:?} median, {:?} p99; through {:?} median, {:?} p99; added {:?} median, {:?} p99",
                direct[0],
                direct[1],
                through[0],
                through[1],
                added(direct[0], through[0]),
                added(direct[1], through[1]),
            );
        }
        for (when, kib) in &self.memory {
            println!("memory, {when}: {:.1} MiB", *kib as f64 / 1024.0);
        }
        if let Some(Slow { run, resident }) = &self.slow {
            println!(
                "an upstream of 50 ms, 20,000 in flight: {} answered, {} lost, memory {:.1} → {:.1} MiB",
                run.answered,
                run.lost,
                resident[0] as f64 / 1024.0,
                resident[1] as f64 / 1024.0
            );
        }
    }

    fn print_connections(&self) {
        if self.connections.is_empty() {
            return;
        }
        println!(
            "\n{:<18} {:<11} {:>9} {:>9} {:>7} {:>7}",
            "the node has", "new", "µs each", "median", "ratio", "goal"
        );
        for Row {
            node,
            new,
            cost,
            median,
            ratio,
            goal,
        } in &self.connections
        {
            let verdict = goal.map(|goal| match *ratio <= goal {
                true => format!("{goal:>7.2} reached"),
                false => format!("{goal:>7.2} NOT reached"),
            });
            println!(
                "{node:<18} {new:<11} {cost:>9.2} {median:>9.2} {ratio:>7.2} {}",
                verdict.unwrap_or_default()
            );
        }
    }

    pub(crate) fn json(&self, goals: &[Goal]) -> String {
        let works: BTreeMap<_, Value> = self
            .runs
            .iter()
            .map(|(work, runs)| {
                let value = json!({
                    "cpu_us_per_query": spread(runs, Run::cost).json(),
                    "queries_per_second": spread(runs, |run| run.per_second).median,
                    "lost": runs.iter().map(|run| run.lost).sum::<u64>(),
                    "rounds": runs.len(),
                });
                (*work, value)
            })
            .collect();
        let ratios: Vec<Value> = goals
            .iter()
            .filter_map(|goal| {
                let ratio = self.ratio(goal)?;
                Some(json!({"work": goal.work, "against": goal.against, "ratio": ratio, "goal": goal.most, "reached": ratio <= goal.most}))
            })
            .collect();
        let latencies: BTreeMap<_, Value> = self
            .latencies
            .iter()
            .map(|(what, it)| {
                let micros = |times: [Duration; 2]| json!({"median_us": times[0].as_secs_f64() * 1e6, "p99_us": times[1].as_secs_f64() * 1e6});
                (*what, json!({"direct": micros(it.direct), "through": micros(it.through)}))
            })
            .collect();
        let slow = self
            .slow
            .as_ref()
            .map(|slow| json!({"answered": slow.run.answered, "lost": slow.run.lost, "memory_kib": slow.resident}));
        let connections: Vec<Value> = self
            .connections
            .iter()
            .map(|Row { node, new, cost, median, ratio, goal }| {
                let reached = goal.map(|goal| *ratio <= goal);
                json!({"node": node, "new": new, "us": cost, "median_us": median, "over_kube_proxy": ratio, "goal": goal, "reached": reached})
            })
            .collect();
        let document = json!({"works": works, "connections": connections, "ratios": ratios, "latency": latencies, "memory_kib": self.memory, "slow_upstream": slow});
        serde_json::to_string_pretty(&document).unwrap() + "\n"
    }

    /// The median of the ratios of the rounds: both sides of each were measured within seconds.
    fn ratio(&self, goal: &Goal) -> Option<f64> {
        let (ours, theirs) = (self.runs.get(goal.work)?, self.runs.get(goal.against)?);
        let ratios = ours.iter().zip(theirs).map(|(our, their)| our.cost() / their.cost());
        Some(Spread::of(ratios).median)
    }
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Self {
            median: figures[figures.len() / 2],
            least: figures[0],
            greatest: figures[figures.len() - 1],
        }
    }

    fn json(self) -> Value {
        json!({"median": self.median, "least": self.least, "greatest": self.greatest})
    }
}

fn spread(runs: &[Run], figure: impl Fn(&Run) -> f64) -> Spread {
    Spread::of(runs.iter().map(figure))
}

fn added(direct: Duration, through: Duration) -> Duration {
    through.saturating_sub(direct)
}
