//! The table, for people and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agents::Node;
use crate::connections::Row;
use crate::latency::{Latency, Times};
use crate::load::{Run, resident};
use crate::slow::Slow;
use crate::spread::Spread;

/// What must be reached.
pub(crate) struct Goals {
    pub(crate) ratios: &'static [Goal],
    /// What one query at a time takes longer than without Namegate, at most.
    pub(crate) latency: &'static [(&'static str, Times)],
    /// The work that tells how fast this machine is beside the one that the goals of latency were
    /// set on, and what a query of it took there.
    pub(crate) yardstick: (&'static str, f64),
    /// In MiB, by when.
    pub(crate) memory: &'static [(&'static str, f64)],
}

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
    /// Of each round.
    latencies: BTreeMap<&'static str, Vec<Latency>>,
    /// Resident memory in KiB, by when.
    memory: BTreeMap<&'static str, u64>,
    slow: Option<Slow>,
    connections: Vec<Row>,
}

/// What one query at a time takes: a figure of each round, in microseconds.
struct LatencyRow {
    address: &'static str,
    figure: &'static str,
    direct: Spread,
    through: Spread,
    added: Spread,
    goal: f64,
    /// What is added as a multiple of the yardstick in the same round, where that was measured, and
    /// the goal as one.
    ratio: Option<(f64, f64)>,
}

impl Report {
    pub(crate) fn add(&mut self, work: &'static str, run: Run) {
        self.runs.entry(work).or_default().push(run);
    }

    pub(crate) fn latency(&mut self, what: &'static str, latency: Latency) {
        self.latencies.entry(what).or_default().push(latency);
    }

    pub(crate) fn idle(&mut self, node: &Node) {
        self.memory.insert("idle", resident(node.pid()));
    }

    /// After the second round the agent holds 100,000 names with two addresses each, all of them in
    /// the kernel.
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

    pub(crate) fn print(&self, goals: &Goals) {
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
        let line = |work: &str, against, ratio, most| {
            println!(
                "{work:<22} {against:<22} {ratio:>7.2} {most:>7.2} {}",
                verdict(ratio, most)
            );
        };
        for goal in goals.ratios {
            if let Some(ratio) = self.ratio(goal) {
                line(goal.work, goal.against, ratio, goal.most);
            }
        }
        let latencies = self.latency_rows(goals);
        for row in &latencies {
            if let Some((ratio, most)) = row.ratio {
                let work = format!("added, {}, {}", row.address, row.figure);
                line(&work, goals.yardstick.0, ratio, most);
            }
        }
        self.print_connections();
        print_latencies(&latencies);
        for (when, most) in goals.memory {
            if let Some(kib) = self.memory.get(when) {
                let mib = *kib as f64 / 1024.0;
                println!("memory, {when}: {mib:.1} MiB, goal {most} MiB: {}", verdict(mib, *most));
            }
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
            "\n{:<22} {:<11} {:>9} {:>9} {:<13} {:>7} {:>7}",
            "the node has", "new", "µs each", "median", "beside", "ratio", "goal"
        );
        for Row {
            node,
            new,
            cost,
            median,
            base,
            ratio,
            goal,
        } in &self.connections
        {
            let goal = goal.map(|goal| format!("{goal:>7.2} {}", verdict(*ratio, goal)));
            println!(
                "{node:<22} {new:<11} {cost:>9.2} {median:>9.2} {base:<13} {ratio:>7.2} {}",
                goal.unwrap_or_default()
            );
        }
    }

    /// What is added is compared within each round, as a ratio is.
    fn latency_rows(&self, goals: &Goals) -> Vec<LatencyRow> {
        type Figure = fn(&Times) -> f64;
        let figures: [(&str, Figure); 2] = [("median", |it| it.median), ("p99", |it| it.p99)];
        let (yardstick, there) = goals.yardstick;
        let here = self.runs.get(yardstick);
        let mut rows = Vec::new();
        for (address, goal) in goals.latency {
            let Some(rounds) = self.latencies.get(address) else {
                continue;
            };
            for (figure, of) in figures {
                let added = || rounds.iter().map(|it| it.added(of));
                let ratios = here.map(|here| Spread::of(added().zip(here).map(|(added, here)| added / here.cost())));
                rows.push(LatencyRow {
                    address,
                    figure,
                    direct: Spread::of(rounds.iter().map(|it| of(&it.direct))),
                    through: Spread::of(rounds.iter().map(|it| of(&it.through))),
                    added: Spread::of(added()),
                    goal: of(goal),
                    ratio: ratios.map(|ratios| (ratios.median, of(goal) / there)),
                });
            }
        }
        rows
    }

    pub(crate) fn json(&self, goals: &Goals) -> String {
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
            .ratios
            .iter()
            .filter_map(|goal| {
                let ratio = self.ratio(goal)?;
                Some(json!({"work": goal.work, "against": goal.against, "ratio": ratio, "goal": goal.most, "reached": ratio <= goal.most}))
            })
            .collect();
        let latencies: Vec<Value> = self
            .latency_rows(goals)
            .iter()
            .map(|row| {
                let (direct, through, added) = (row.direct.json(), row.through.json(), row.added.json());
                json!({"address": row.address, "figure": row.figure, "direct_us": direct, "through_us": through, "added_us": added, "goal_us": row.goal, "reached": row.added.median <= row.goal, "over_yardstick": row.ratio.map(|it| it.0), "goal_over_yardstick": row.ratio.map(|it| it.1)})
            })
            .collect();
        let slow = self
            .slow
            .as_ref()
            .map(|slow| json!({"answered": slow.run.answered, "lost": slow.run.lost, "memory_kib": slow.resident}));
        let connections: Vec<Value> = self
            .connections
            .iter()
            .map(|Row { node, new, cost, median, base, ratio, goal }| {
                let reached = goal.map(|goal| *ratio <= goal);
                json!({"node": node, "new": new, "us": cost, "median_us": median, "beside": base, "ratio": ratio, "goal": goal, "reached": reached})
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

fn spread(runs: &[Run], figure: impl Fn(&Run) -> f64) -> Spread {
    Spread::of(runs.iter().map(figure))
}

/// Whether a figure reaches its goal.
pub(crate) fn verdict(figure: f64, most: f64) -> &'static str {
    if figure <= most { "reached" } else { "NOT reached" }
}

fn print_latencies(rows: &[LatencyRow]) {
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<23} {:>7} {:>8} {:>7} {:>14} {:>5}",
        "one query at a time, µs", "direct", "through", "added", "spread", "goal"
    );
    for row in rows {
        let range = format!("{:.1}–{:.1}", row.added.least, row.added.greatest);
        println!(
            "{:<23} {:>7.1} {:>8.1} {:>7.1} {range:>14} {:>5} {}",
            format!("{} address, {}", row.address, row.figure),
            row.direct.median,
            row.through.median,
            row.added.median,
            row.goal,
            verdict(row.added.median, row.goal)
        );
    }
    println!();
}
