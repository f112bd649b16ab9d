//! The `namegate` binary again, under a name of its own, so that cargo builds it before the
//! scenarios and tells them where it is.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
