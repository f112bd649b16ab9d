//! A network namespace for one test.
#![allow(unsafe_code)]

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Runs a test on a thread in a network namespace of its own.
pub(crate) fn inside(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: kernel tests need root");
        return;
    }
    let thread = std::thread::spawn(|| {
        // SAFETY: only this thread's network namespace changes, which no memory or open descriptor
        // depends on.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        run("ip", &["link", "set", "lo", "up"], "");
        test();
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

/// Runs nft on a text.
pub(crate) fn nft(script: &str) {
    run("nft", &["-f", "-"], script);
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} {arguments:?} {input}");
}
