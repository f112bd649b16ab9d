//! Limits how often an equal line is logged, so that no event can fill the log.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Time;

/// How many equal lines are logged within a [`WINDOW`]. Three show that the event goes on.
pub(super) const OFTEN: u64 = 3;
/// How long further equal lines are counted before their number is logged.
const WINDOW: Duration = Duration::from_secs(10);
/// How many different lines are remembered. Further lines are not limited.
const LINES: usize = 128;

/// The lines of the last [`WINDOW`], and how often each was logged.
#[derive(Debug, Default)]
pub(super) struct RepeatLimiter {
    /// In the order of their first occurrence.
    lines: VecDeque<RepeatedLine>,
}

#[derive(Debug)]
struct RepeatedLine {
    text: String,
    since: Time,
    times: u64,
}

/// A line whose repetitions were not all logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SuppressedLine {
    pub(super) line: String,
    /// How many repetitions were not logged.
    pub(super) times: u64,
    /// The time in which they occurred.
    pub(super) over: Duration,
}

impl RepeatLimiter {
    /// Whether a line is logged. Counts it.
    pub(super) fn allows(&mut self, text: String, now: Time) -> bool {
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

    /// Forgets the lines whose window is over. Returns those of which repetitions were not logged.
    pub(super) fn expired(&mut self, now: Time) -> Vec<SuppressedLine> {
        let mut suppressed = Vec::new();
        let is_over = |line: &RepeatedLine| now.since(line.since) >= WINDOW;
        while self.lines.front().is_some_and(is_over)
            && let Some(line) = self.lines.pop_front()
        {
            if line.times > OFTEN {
                suppressed.push(SuppressedLine {
                    times: line.times - OFTEN,
                    over: now.since(line.since),
                    line: line.text,
                });
            }
        }
        suppressed
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
        let passed = (0..64).filter(|_| repeats.allows("a".into(), at(1))).count() as u64;
        assert_eq!(passed, OFTEN);
        assert!(repeats.allows("b".into(), at(2)));
        assert_eq!(repeats.expired(at(10)), []);
        let repeated = SuppressedLine {
            line: "a".into(),
            times: 64 - OFTEN,
            over: Duration::from_secs(10),
        };
        assert_eq!(repeats.expired(at(11)), [repeated]);
        assert_eq!(repeats.expired(at(60)), [], "what was said once needs no number");
        assert!(repeats.allows("a".into(), at(60)));
    }

    #[test]
    fn lines_without_end_take_no_memory_without_end_and_all_pass() {
        let mut repeats = RepeatLimiter::default();
        assert!((0..10 * LINES).all(|number| repeats.allows(number.to_string(), at(1))));
        assert_eq!(repeats.lines.len(), LINES);
    }
}
