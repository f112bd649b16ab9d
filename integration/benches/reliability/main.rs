//! Measures what each fault costs: how often something allowed was refused or something denied
//! passed, which lookups were lost, how soon the node was right again, and where the agent reported
//! the fault.
//! `./reliability` at the top runs it; docs/reliability.md keeps the table.
//!
//! - `site`: a node with two pods, and an agent to break.
//! - `faults`: the faults, one function each.
//! - `probes`: what the pods do meanwhile, and what fails.
//! - `agent_signals`: where the agent reported a fault: in its log, in metrics, in its status.
//! - `report`: the table.
//! - `hoard`: one pod that fills the ledger.
//! - `soak`: a million names, and memory that must not grow.

// A program that measures, not a library: it ends with a message when something is not as it must
// be.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod agent_signals;
mod faults;
mod hoard;
mod probes;
mod report;
mod site;
mod soak;

use lab::process::is_root;

use faults::FAULTS;
use report::FaultRow;
use site::Mode;

fn main() {
    // `cargo test --benches` starts every benchmark; this one is for `./reliability`.
    let arguments = Arguments::read();
    if !arguments.wanted {
        return;
    }
    assert!(is_root(), "faults need root: run ./reliability");
    if arguments.hoard {
        return hoard::run(arguments.hoarded);
    }
    if let Some(soak) = &arguments.soak {
        return soak::run(soak);
    }
    let rows = arguments.modes.iter().flat_map(|mode| {
        let wanted = FAULTS.iter().filter(|fault| arguments.wants(fault));
        wanted.filter_map(move |fault| {
            eprintln!("{mode}: {}", fault.name);
            FaultRow::measure(fault, *mode)
        })
    });
    let rows: Vec<FaultRow> = rows.collect();
    report::print(&rows);
    if rows.iter().any(FaultRow::has_failed) {
        std::process::exit(1);
    }
}

struct Arguments {
    wanted: bool,
    modes: Vec<Mode>,
    only: Vec<String>,
    short: bool,
    soak: Option<soak::Size>,
    hoard: bool,
    /// Names that it asks for.
    hoarded: u32,
}

impl Arguments {
    fn read() -> Self {
        let mut read = Self {
            wanted: false,
            modes: vec![Mode::Dnat, Mode::Tproxy],
            only: Vec::new(),
            short: false,
            soak: None,
            hoard: false,
            hoarded: 110_000,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().unwrap_or_else(|| {
                    eprintln!("reliability: {word} needs a value");
                    std::process::exit(2)
                })
            };
            match word.as_str() {
                "--run" => read.wanted = true,
                "--bench" | "--test" => {}
                "--mode" => read.modes = vec![Mode::parse(&value())],
                "--only" => read.only.push(value()),
                "--short" => read.short = true,
                "soak" => read.soak = Some(soak::Size::default()),
                "hoard" => read.hoard = true,
                "--names" if read.hoard => read.hoarded = number(&value()),
                "--names" => read.soak.get_or_insert_default().names = number(&value()),
                "--rate" => read.soak.get_or_insert_default().rate = number(&value()),
                other => {
                    eprintln!(
                        "reliability: what is {other}? \
                         Known: soak, hoard, --names N, --rate N, --mode dnat|tproxy, --only FAULT, --short"
                    );
                    std::process::exit(2);
                }
            }
        }
        read
    }

    fn wants(&self, fault: &faults::Fault) -> bool {
        let named = self.only.is_empty() || self.only.iter().any(|part| fault.name.contains(part.as_str()));
        named && (!self.short || fault.short)
    }
}

fn number(text: &str) -> u32 {
    text.replace('_', "").parse().unwrap_or_else(|_| {
        eprintln!("reliability: {text} is not a number");
        std::process::exit(2)
    })
}
