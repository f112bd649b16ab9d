//! The guard: a process that outlives a crash of `namegate exec`, even a SIGKILL, and cleans up
//! after it.
//!
//! It holds the read end of a pipe. First comes an [`Undo`] as one line of JSON; then, when all is
//! undone in the normal way, one line `done`. If the pipe ends without it, the other side died, and
//! the guard does the undoing.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::undo::Undo;

const DONE: &str = "done\n";

/// The side that is guarded. Dropping it without [`release`](Self::release) sets the guard to work.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts `program`, which must call [`watch`] with its standard input, and tells it what to
    /// undo.
    pub(super) fn start(mut program: Command, undo: &Undo) -> io::Result<Self> {
        let mut process = program
            // A group of its own, so that what the terminal or a shell sends to ours does not reach
            // it.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        if let Some(pipe) = &mut process.stdin {
            serde_json::to_writer(&mut *pipe, undo)?;
            pipe.write_all(b"\n")?;
        }
        Ok(Self { process })
    }

    /// Tells the guard that nothing is left to do, and waits for it to go.
    pub(super) fn release(mut self) -> io::Result<()> {
        if let Some(mut pipe) = self.process.stdin.take() {
            pipe.write_all(DONE.as_bytes())?;
        }
        self.process.wait()?;
        Ok(())
    }
}

/// What the guard does: waits for the end of `input`, and undoes what was not reported done.
/// Returns what could not be undone.
pub(super) fn watch(mut input: impl BufRead) -> io::Result<Vec<String>> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    if line.is_empty() {
        // It died before it said, and so before it did, anything.
        return Ok(Vec::new());
    }
    let undo: Undo = serde_json::from_str(&line)?;
    line.clear();
    // An error is the end too.
    let _ = input.read_line(&mut line);
    Ok(if line == DONE { Vec::new() } else { undo.perform() })
}

/// [`watch`] on standard input, with the signals ignored that end the guarded process.
pub(super) fn watch_standard_input() -> io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    // A stopping service sends these to every process it has. Whoever takes a signal no longer dies
    // of it.
    let _taken = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    watch(io::stdin().lock())
}
