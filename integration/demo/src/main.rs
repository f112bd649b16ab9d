//! The demo (`./demo`) runs a real agent between two pods, a resolver and an internet in network
//! namespaces. It shows and checks what the agent does, step by step. It uses no network of the
//! machine and leaves nothing behind. It needs root, the program `nft`, and the binary `namegate`
//! beside its own.

mod demo_lab;
mod steps;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::process::{find_program, is_root};
use tokio::signal::unix::{SignalKind, signal};

use self::demo_lab::DemoLab;
use self::steps::{DemoStep, STEPS};

fn main() -> ExitCode {
    let mut out = io::stdout().lock();
    match show(&mut out) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(out: &mut impl Write) -> io::Result<bool> {
    check_requirements()?;
    let interrupted = watch_signals()?;
    writeln!(
        out,
        "Two pods, a resolver and an internet in network namespaces, and one agent on the pods' node.\n\
         No other network is used, and nothing is left behind.\n"
    )?;
    let started = Instant::now();
    let demo = DemoLab::start()?;
    writeln!(out, "{}\n", steps::PODS)?;
    writeln!(out, "The agent is ready after {}.\n", short(started.elapsed()))?;

    let mut passed = 0;
    for (number, step) in (1..).zip(STEPS) {
        let begun = Instant::now();
        let result = (step.check)(&demo);
        // Ctrl-C in a terminal reaches the agent too, so the result of the step means nothing.
        if interrupted.load(Ordering::Relaxed) {
            return Err(io::Error::other("interrupted; everything is cleaned up"));
        }
        tell(out, number, step, &result, begun.elapsed())?;
        passed += usize::from(result.is_ok());
    }
    writeln!(out, "\ndemo: {passed} of {} steps passed", STEPS.len())?;
    if passed < STEPS.len() {
        writeln!(out, "\nThe agent's log:\n{}", demo.log())?;
    }
    Ok(passed == STEPS.len())
}

fn tell(
    out: &mut impl Write,
    number: usize,
    step: &DemoStep,
    result: &Result<String, String>,
    took: Duration,
) -> io::Result<()> {
    let (verdict, seen) = match result {
        Ok(seen) => ("ok", seen),
        Err(seen) => ("FAILED", seen),
    };
    writeln!(out, "{verdict:<6}  {number}. {} ({})", step.title, short(took))?;
    for line in seen.lines() {
        writeln!(out, "{}", format!("           {line}").trim_end())?;
    }
    out.flush()
}

fn check_requirements() -> io::Result<()> {
    if !is_root() {
        return Err(io::Error::other(
            "it makes network namespaces and needs root: run ./demo as root",
        ));
    }
    if find_program("nft").is_none() {
        return Err(io::Error::other(
            "`nft` is not installed: apt-get install nftables, or dnf install nftables",
        ));
    }
    Ok(())
}

/// A flag that Ctrl-C and SIGTERM raise. It is read after each step, which takes a few seconds at
/// most.
fn watch_signals() -> io::Result<Arc<AtomicBool>> {
    let raised = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&raised);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) =
                (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
            else {
                return;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            flag.store(true, Ordering::Relaxed);
        });
    });
    Ok(raised)
}

/// A duration with a few digits and a unit.
fn short(time: Duration) -> String {
    match time.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        micros @ 1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}
