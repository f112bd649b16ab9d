//! Job control across the border of the sandbox.
//!
//! The command and namegate are one process group, so that keys reach both and a pipeline stays one
//! job. The PID namespace breaks two things, which are mended here. A shell inside cannot hand the
//! terminal back to a group whose leader is outside. And a command that stops its whole group
//! (`vim` on Ctrl-Z) stops only the processes inside.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgid, getpgrp, kill_current_process_group, waitid};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// The controlling terminal, if this process was started in its foreground.
#[derive(Debug)]
pub(crate) struct Foreground {
    terminal: Option<File>,
}

impl Foreground {
    /// Opens the controlling terminal.
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

    /// Puts this process group into the foreground again, in case a shell inside has left its own
    /// there.
    pub(crate) fn restore(&self) {
        let Some(terminal) = self.terminal.as_ref().filter(|terminal| !is_ours(terminal)) else {
            return;
        };
        // SAFETY: no handler is installed, and no other thread depends on this signal. If it were
        // not ignored, the next call would stop a process in the background.
        unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
        // The terminal may be gone.
        let _ = tcsetpgrp(terminal, getpgrp());
    }
}

/// Stops this process group whenever the command stops as a member of it, as if there were no
/// sandbox. A shell that continues the group continues both.
///
/// This takes a thread of its own, because tokio's handler of SIGCHLD does not report stops. The
/// thread ends when the command has been waited for.
pub(crate) fn follow_stops(command: Pid) -> io::Result<()> {
    // When the shell continues the group, this process may continue a moment before the command.
    const SETTLED: Duration = Duration::from_millis(20);
    let follow = move || {
        while stopped(command, WaitIdOptions::NOWAIT).is_ok() {
            thread::sleep(SETTLED);
            let stays = stopped(command, WaitIdOptions::NOHANG).is_ok_and(|stopped| stopped);
            let one_job = getpgid(Some(command)).is_ok_and(|group| group == getpgrp());
            let foreground = File::open("/dev/tty").is_ok_and(|terminal| is_ours(&terminal));
            if stays && one_job && foreground {
                // The kernel ignores SIGTSTP in an orphaned process group, which no shell controls.
                let _ = kill_current_process_group(Signal::TSTP);
            }
        }
    };
    thread::Builder::new().name("stops".to_owned()).spawn(follow)?;
    Ok(())
}

/// Waits until the process is stopped, or with NOHANG asks whether it is. An error when it is no
/// child any more.
fn stopped(process: Pid, options: WaitIdOptions) -> rustix::io::Result<bool> {
    let status = waitid(WaitId::Pid(process), options | WaitIdOptions::STOPPED)?;
    Ok(status.is_some_and(|status| status.stopped()))
}

fn is_ours(terminal: &File) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}
