//! How output looks: its colours and its width.

use std::env;
use std::ffi::OsStr;
use std::io::{self, IsTerminal};

use clap::ValueEnum;

/// The values of `--color`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl ColorChoice {
    /// Whether there are colours on stdout or stderr, which is a terminal or not.
    pub(crate) fn is_coloured(self, terminal: bool) -> bool {
        self.decide(terminal, env::var_os("NO_COLOR").as_deref())
    }

    /// `NO_COLOR` switches colours off unless it is empty (<https://no-color.org>).
    fn decide(self, terminal: bool, no_color: Option<&OsStr>) -> bool {
        match self {
            ColorChoice::Auto => terminal && no_color.is_none_or(OsStr::is_empty),
            ColorChoice::Always => true,
            ColorChoice::Never => false,
        }
    }
}

/// How stdout looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TerminalStyle {
    /// Whether there are colours.
    pub(crate) colour: bool,
    /// The width of the terminal; `None` where stdout is none, so that nothing is folded.
    pub(crate) columns: Option<u16>,
}

impl TerminalStyle {
    /// The style of this process's stdout.
    pub(crate) fn of_stdout(choice: ColorChoice) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let columns = rustix::termios::tcgetwinsize(&stdout).map(|size| size.ws_col);
        Self {
            colour: choice.is_coloured(terminal),
            // Some terminals do not know their width.
            columns: columns.ok().filter(|columns| terminal && *columns > 0),
        }
    }

    /// A word, with the colour of what it says.
    pub(crate) fn paint(self, word: &str) -> String {
        match Tone::of(word).filter(|_| self.colour) {
            Some(Tone::Bad) => format!("\u{1b}[31m{word}\u{1b}[39m"),
            Some(Tone::Warning) => format!("\u{1b}[33m{word}\u{1b}[39m"),
            None => word.to_owned(),
        }
    }
}

/// What a word says to whoever looks for trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Something is refused, or does not work.
    Bad,
    /// Something would be refused, or is in force in part.
    Warning,
}

impl Tone {
    /// The tone of a verdict or a state; `None` where all is well.
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "refused" | "denied" | "rejected" | "withheld" | "failed" | "problem" => Some(Tone::Bad),
            "audited" | "partial" | "kept-last-good" => Some(Tone::Warning),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_user_does_not_mind_or_asks_for_them() {
        let auto = |terminal, no_color: Option<&str>| ColorChoice::Auto.decide(terminal, no_color.map(OsStr::new));
        assert!(auto(true, None) && auto(true, Some("")));
        assert!(!auto(true, Some("1")) && !auto(false, None));
        assert!(ColorChoice::Always.decide(false, Some("1".as_ref())));
        assert!(!ColorChoice::Never.decide(true, None));
    }

    #[test]
    fn what_is_refused_is_painted_and_what_is_well_is_not() {
        let style = TerminalStyle {
            colour: true,
            columns: None,
        };
        assert_eq!(style.paint("REFUSED"), "\u{1b}[31mREFUSED\u{1b}[39m");
        assert_eq!(style.paint("allowed"), "allowed");
        assert_eq!(TerminalStyle::default().paint("REFUSED"), "REFUSED");
    }
}
