//! Tells the program which commit it is built from.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    // Whoever builds without git, from an archive, says it.
    println!("cargo::rerun-if-env-changed=NAMEGATE_COMMIT");
    // A commit changes the log of HEAD, and a checkout HEAD itself.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let said = env::var("NAMEGATE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = match said.or_else(|| git(&["rev-parse", "--short=12", "HEAD"])) {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    };
    println!("cargo::rustc-env=NAMEGATE_VERSION={version}");
}

/// What git says, if there is a git, and this is its repository.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
