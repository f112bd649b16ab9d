//! Which lines were said often enough. Whatever a line says and whatever brings it about, it cannot
//! fill the log.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Time;

/// Equal lines that pass within a [`WINDOW`]: twice is no flood, and three show that it goes on.
pub(super) const OFTEN: u64 = 3;
/// How long the others are counted before the number is told.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines remembered. One that is forgotten passes again.
const LINES: usize = 128;

/// The lines of the last [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct RepeatLimiter {
    /// In the order in which they were first said.
    lines: VecDeque<RepeatedLine>,
}

#[derive(Debug)]
struct RepeatedLine {
    text: String,
    since: Time,
    times: u64,
}

/// A line that was said more often than it passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SuppressedLine {
    pub(super) line: String,
    /// How often it did not pass.
    pub(super) times: u64,
    /// Within what time.
    pub(super) over: Duration,
}

impl RepeatLimiter {
    /// Whether a line is to be said.
    pub(super) fn pass(&mut self, text: String, now: Time) -> bool {
        if let Some(line) = self.lines.iter_mut().find(|line| line.text == text) {
            line.times += 1;
            return line.times <= OFTEN;
        }
        if self.lines.len() < LINES {
            self.lines.push_back(RepeatedLine {
                text,
                since: now,
                times: 1,
            });
        }
        true
    }

    /// What is to be told of lines whose time is over. They may be said again.
    pub(super) fn over(&mut self, now: Time) -> Vec<SuppressedLine> {
        let mut over = Vec::new();
        let is_over = |line: &RepeatedLine| now.since(line.since) >= WINDOW;
        while self.lines.front().is_some_and(is_over)
            && let Some(line) = self.lines.pop_front()
        {
            if line.times > OFTEN {
                over.push(SuppressedLine {
                    times: line.times - OFTEN,
                    over: now.since(line.since),
                    line: line.text,
                });
            }
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_millis(1_000 * seconds)
    }

    #[test]
    fn equal_lines_pass_a_few_times_in_a_window_and_the_others_are_counted() {
        let mut repeats = RepeatLimiter::default();
        let passed = (0..64).filter(|_| repeats.pass("a".into(), at(1))).count() as u64;
        assert_eq!(passed, OFTEN);
        assert!(repeats.pass("b".into(), at(2)));
        assert_eq!(repeats.over(at(10)), []);
        let repeated = SuppressedLine {
            line: "a".into(),
            times: 64 - OFTEN,
            over: Duration::from_secs(10),
        };
        assert_eq!(repeats.over(at(11)), [repeated]);
        assert_eq!(repeats.over(at(60)), [], "what was said once needs no number");
        assert!(repeats.pass("a".into(), at(60)));
    }

    #[test]
    fn lines_without_end_take_no_memory_without_end_and_all_pass() {
        let mut repeats = RepeatLimiter::default();
        assert!((0..10 * LINES).all(|number| repeats.pass(number.to_string(), at(1))));
        assert_eq!(repeats.lines.len(), LINES);
    }
}
