//! The crash guard: a process that outlives a crash of `namegate exec`, even by SIGKILL, and cleans
//! up after it.
//!
//! It reads a pipe from `namegate exec`. The first line is an [`Undo`] as JSON. A second line,
//! `done`, follows when everything is undone in the usual way. When the pipe ends without it,
//! `namegate exec` has died, and the guard performs the `Undo`.

use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use crate::undo::Undo;

const DONE: &str = "done\n";

/// The running guard, seen from the process that it guards. Dropping it without
/// [`release`](Self::release) makes the guard clean up.
#[derive(Debug)]
pub(crate) struct CrashGuard {
    process: Child,
}

impl CrashGuard {
    /// Starts `program`, which must call [`watch`] with its standard input, and sends it `undo`.
    pub(crate) fn start(mut program: Command, undo: &Undo) -> io::Result<Self> {
        let mut process = program
            // A process group of its own, so that signals from the terminal or a shell to our group
            // do not reach it.
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

    /// Tells the guard that nothing is left to undo, and waits for its end.
    pub(crate) fn release(mut self) -> io::Result<()> {
        if let Some(mut pipe) = self.process.stdin.take() {
            pipe.write_all(DONE.as_bytes())?;
        }
        self.process.wait()?;
        Ok(())
    }
}

/// The guard's work: waits for the end of `input`, and performs the [`Undo`] unless `done` was
/// received. Returns what could not be undone.
pub(crate) fn watch(mut input: impl BufRead) -> io::Result<Vec<String>> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    if line.is_empty() {
        // The guarded process died before it changed anything: it sends the `Undo` first.
        return Ok(Vec::new());
    }
    let undo: Undo = serde_json::from_str(&line)?;
    line.clear();
    // An error counts as the end of the input.
    let _ = input.read_line(&mut line);
    Ok(if line == DONE { Vec::new() } else { undo.perform() })
}

/// Runs [`watch`] on standard input. Signals that end the guarded process do not end the guard.
pub(crate) fn watch_standard_input() -> io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _inside = runtime.enter();
    // A service manager sends these to every process of a service that it stops. A process that has
    // a handler for a signal does not die of it.
    let _taken = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .map(signal)
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    watch(io::stdin().lock())
}
