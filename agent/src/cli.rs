//! The verbs of `namegate`.

use std::process::ExitCode;

/// Parses the command line and runs the verb.
pub fn run() -> ExitCode {
    todo!()
}
