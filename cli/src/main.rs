//! `namegate`: see `namegate --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
