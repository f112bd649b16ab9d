//! The terminal and its jobs, across the border of the sandbox.
//!
//! Command and namegate are one process group, so that keys reach both, and a pipeline stays one
//! job. Two things the border hides: a shell inside cannot hand the terminal back to a group whose
//! leader is outside; and a command that stops its whole group (`vim` on Ctrl-Z) stops only what is
//! inside.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgid, getpgrp, kill_current_process_group, waitid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The terminal that this process was started in the foreground of, if it was.
#[derive(Debug)]
pub(crate) struct Foreground {
    terminal: Option<File>,
}

impl Foreground {
    /// Of the controlling terminal.
    pub(crate) fn of_this_process() -> Self {
        Self {
            terminal: File::options()
                .read(true)
                .write(true)
                .open("/dev/tty")
                .ok()
                .filter(is_ours),
        }
    }

    /// Puts our group into the foreground again, where a shell inside has left its own.
    pub(crate) fn restore(&self) {
        let Some(terminal) = self.terminal.as_ref().filter(|terminal| !is_ours(terminal)) else {
            return;
        };
        // SAFETY: no handler is installed, and no other thread depends on this signal. Without it
        // the kernel would stop a background process that does the next.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        // The terminal may be gone.
        let _ = tcsetpgrp(terminal, getpgrp());
    }
}

/// Stops our group whenever the command has stopped itself as one of it, as it would have stopped
/// us without the border. Whoever continues the group, as a shell does, continues both.
///
/// On a thread of its own, which ends when the command has been waited for: handlers of SIGCHLD
/// here are not told of stops.
pub(crate) fn follow_stops(command: Pid) -> io::Result<()> {
    // When the shell continues the group, it reaches us a moment before the command.
    const SETTLED: Duration = Duration::from_millis(20);
    let follow = move || {
        while stopped(command, WaitIdOptions::NOWAIT).is_ok() {
            thread::sleep(SETTLED);
            let stays = stopped(command, WaitIdOptions::NOHANG).is_ok_and(|stopped| stopped);
            let one_job = getpgid(Some(command)).is_ok_and(|group| group == getpgrp());
            let foreground = File::open("/dev/tty").is_ok_and(|terminal| is_ours(&terminal));
            if stays && one_job && foreground {
                // Its default action is not taken in a group that no shell looks after.
                let _ = kill_current_process_group(Signal::TSTP);
            }
        }
    };
    thread::Builder::new().name("stops".to_owned()).spawn(follow)?;
    Ok(())
}

/// Waits until the process is stopped, or asks whether it is. An error when it is no child any
/// more.
fn stopped(process: Pid, options: WaitIdOptions) -> rustix::io::Result<bool> {
    let status = waitid(WaitId::Pid(process), options | WaitIdOptions::STOPPED)?;
    Ok(status.is_some_and(|status| status.stopped()))
}

fn is_ours(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}
