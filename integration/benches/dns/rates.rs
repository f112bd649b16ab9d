//! What a lookup costs where few come, which is what a node does most of the time: known lookups at
//! a low rate, and one at a time, beside dnsdist.
//!
//! All that a process does counts, what it does by itself too: at 50 lookups a second that is most
//! of it.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use lab::cpu_time;

use crate::agents::{Kind, Node};
use crate::latency::{self, Times};
use crate::load::Load;
use crate::peers::{self, FORWARDING};
use crate::spread::Spread;
use crate::zone::Zone;

/// Lookups a second.
const RATES: [u32; 3] = [50, 500, 3_000];

/// A known lookup at any of these rates costs at most so many times what dnsdist's does.
const COST_GOAL: f64 = 0.9;

/// And one at a time takes at most so many times longer than dnsdist's does.
const ADDED_GOAL: f64 = 1.0;

/// Picks one of the figures of a round.
type Figure = fn(&Times) -> f64;

/// A row of the table: a figure of each round, of dnsdist and of Namegate.
struct Row {
    work: String,
    unit: &'static str,
    figures: Vec<(f64, f64)>,
    goal: Option<f64>,
}

/// Measures in rounds, and prints the table.
pub(crate) fn run(rounds: usize, seconds: u32) {
    let zone = Zone::new(0);
    let node = Node::start(Kind::Listening, &zone);
    let bare = Node::start(Kind::Bare, &zone);
    let peers = peers::start(&bare, &zone, |work| work == FORWARDING);
    let dnsdist = peers.get(FORWARDING).expect("dnsdist is installed");
    let load = |node, server| Load::of(node, server, zone.few(), seconds);
    let mut rows = Rows::default();
    for round in 1..=rounds {
        let before = [dnsdist.pid(), node.pid()].map(cpu_time::of);
        thread::sleep(Duration::from_secs(seconds.into()));
        let [theirs, ours] = [(dnsdist.pid(), before[0]), (node.pid(), before[1])]
            .map(|(pid, before)| (cpu_time::of(pid) - before).as_secs_f64() * 1e6 / f64::from(seconds));
        rows.add("idle".into(), "µs a second", (theirs, ours), None);
        for rate in RATES {
            let theirs = load(&bare, dnsdist.server).rate(rate).run(dnsdist.pid());
            // Learned, and their leases as long as can be.
            load(&node, node.server()).once().run(node.pid());
            let ours = load(&node, node.server()).rate(rate).run(node.pid());
            eprintln!("round {round}: {rate} a second: dnsdist {theirs}; Namegate {ours}");
            let costs = (theirs.cost(), ours.cost());
            rows.add(format!("{rate} a second"), "µs of CPU", costs, Some(COST_GOAL));
        }
        let theirs = latency::known_through(&bare, dnsdist.server, &bare, &zone);
        let ours = latency::known(&node, &bare, &zone);
        let figures: [(&str, Figure); 2] = [("median", |it| it.median), ("p99", |it| it.p99)];
        for (figure, of) in figures {
            let added = (theirs.added(of), ours.added(of));
            eprintln!("round {round}: one at a time, {figure}: {added:.1?} µs added");
            rows.add(format!("one at a time, {figure}"), "µs added", added, Some(ADDED_GOAL));
        }
    }
    rows.print();
}

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    numbers: BTreeMap<String, usize>,
}

impl Rows {
    /// Adds the figures of a round: dnsdist's, and ours.
    fn add(&mut self, work: String, unit: &'static str, figures: (f64, f64), goal: Option<f64>) {
        let next = self.rows.len();
        let number = *self.numbers.entry(work.clone()).or_insert(next);
        if number == next {
            self.rows.push(Row {
                work,
                unit,
                figures: Vec::new(),
                goal,
            });
        }
        self.rows[number].figures.push(figures);
    }

    fn print(&self) {
        println!(
            "\n{:<24} {:<12} {:>8} {:>9} {:>16} {:>7} {:>7}",
            "known lookups", "", "dnsdist", "Namegate", "spread", "ratio", "goal"
        );
        for Row {
            work,
            unit,
            figures,
            goal,
        } in &self.rows
        {
            let theirs = Spread::of(figures.iter().map(|it| it.0));
            let ours = Spread::of(figures.iter().map(|it| it.1));
            let ratio = Spread::of(figures.iter().map(|(theirs, ours)| ours / theirs)).median;
            let range = format!("{:.1}–{:.1}", ours.least, ours.greatest);
            let verdict = goal.map(|most| format!("{most:>7.2} {}", crate::report::verdict(ratio, most)));
            println!(
                "{work:<24} {unit:<12} {:>8.1} {:>9.1} {range:>16} {ratio:>7.2} {}",
                theirs.median,
                ours.median,
                verdict.unwrap_or_default()
            );
        }
    }
}
