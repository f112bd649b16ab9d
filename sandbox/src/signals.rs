//! Takes the signals that would end `namegate exec`, to forward them to the command.

use std::fs;
use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{self, SignalKind};

/// The signals that are taken.
#[derive(Debug)]
pub(crate) struct Signals {
    taken: [Option<unix::Signal>; 4],
}

/// In the order of `Signals::taken`.
const FORWARDED: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

impl Signals {
    /// Takes the signals, so that they no longer end this process. Signals that were ignored when
    /// it was started (`nohup`) stay ignored, also by the command.
    pub(crate) fn take() -> io::Result<Self> {
        let ignored = fs::read_to_string("/proc/self/status").map_or(0, |status| ignored_signals(&status));
        let mut taken = [const { None }; 4];
        for (place, signal) in taken.iter_mut().zip(FORWARDED) {
            if ignored & (1 << (signal.as_raw() - 1)) == 0 {
                *place = Some(unix::signal(SignalKind::from_raw(signal.as_raw()))?);
            }
        }
        Ok(Self { taken })
    }

    /// Waits for the next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        let [int, term, hup, quit] = &mut self.taken;
        tokio::select! {
            () = arrival(int) => Signal::INT,
            () = arrival(term) => Signal::TERM,
            () = arrival(hup) => Signal::HUP,
            () = arrival(quit) => Signal::QUIT,
        }
    }

    /// Whether the terminal sent `signal`. It sends to its whole foreground group, so the command
    /// has got it as well.
    pub(crate) fn reached_our_group(&self, signal: Signal) -> bool {
        let from_keyboard = signal == Signal::INT || signal == Signal::QUIT;
        from_keyboard && fs::read_to_string("/proc/self/stat").is_ok_and(|stat| is_foreground(&stat))
    }
}

async fn arrival(signal: &mut Option<unix::Signal>) {
    let arrived = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if arrived.is_none() {
        // The signal is not taken, or no more will come.
        std::future::pending().await
    }
}

/// The mask `SigIgn` of proc_pid_status(5): bit n−1 stands for signal n.
fn ignored_signals(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Whether the process group of proc_pid_stat(5) is the foreground group of its terminal.
fn is_foreground(stat: &str) -> bool {
    // The command's name is in parentheses and may contain anything. Behind it follow state, ppid,
    // pgrp, session, tty_nr, tpgid.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().collect())
        .unwrap_or_default();
    matches!((fields.get(2), fields.get(5)), (Some(group), Some(foreground)) if group == foreground)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_foreground_group_is_read_past_any_name() {
        assert!(is_foreground("12 (a) b) S 1 12 10 34816 12 4194304 0"));
        assert!(!is_foreground("12 (sh) S 1 12 10 34816 99 4194304 0"));
        assert!(!is_foreground("12 (sh) S 1 12 10 0 -1 4194304 0"), "no terminal");
        assert!(!is_foreground("nonsense"));
    }

    #[test]
    fn ignored_signals_are_a_mask_of_hexadecimal_digits() {
        assert_eq!(
            ignored_signals("SigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"),
            0x1001
        );
        assert_eq!(ignored_signals("SigIgn:\tnonsense"), 0);
        assert_eq!(ignored_signals(""), 0);
    }
}
