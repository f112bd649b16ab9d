//! Prints tables as kubectl does: headers in capitals, columns separated by spaces, no lines.
//!
//! Off a terminal, a row is a line, so that tools can search and split it. On one, cells fold where
//! the table is wider than it.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement, Table};

use crate::terminal::{TerminalStyle, Tone};

/// The columns whose words are painted. In others such a word is a name.
const PAINTED: [&str; 2] = ["VERDICT", "STATE"];

/// Lays out rows under headers.
pub(super) fn table<const N: usize>(
    headers: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    style: TerminalStyle,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty().set_header(headers);
    match style.columns {
        Some(columns) => table
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_width(columns),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    if style.colour {
        table.enforce_styling();
    }
    for row in rows {
        let cells = headers.iter().zip(row).map(|(header, text)| {
            let tone = Tone::of(&text).filter(|_| style.colour && PAINTED.contains(header));
            let cell = Cell::new(printable(text));
            match tone {
                Some(Tone::Bad) => cell.fg(Color::Red),
                Some(Tone::Warning) => cell.fg(Color::Yellow),
                None => cell,
            }
        });
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

/// Joins several values for one cell; `-` for none.
pub(super) fn list(values: impl IntoIterator<Item = impl ToString>) -> String {
    let values: Vec<String> = values.into_iter().map(|it| it.to_string()).collect();
    match values.is_empty() {
        true => "-".into(),
        false => values.join(","),
    }
}

/// A duration in whole seconds, rounded down.
pub(super) fn whole_seconds(millis: u64) -> String {
    let seconds = Duration::from_secs(millis / 1_000);
    humantime::format_duration(seconds).to_string().replace(' ', "")
}

/// Escapes control characters: texts of policies and answers must not control the terminal.
pub(super) fn printable(text: String) -> String {
    match text.chars().any(char::is_control) {
        true => text.escape_debug().to_string(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_spaces_only() {
        let text = table(
            ["NAME", "ADDRESS"],
            [["a.example".into(), "192.0.2.1".into()], ["b".into(), list(["x", "y"])]],
            TerminalStyle::default(),
        );
        assert_eq!(
            text,
            "NAME        ADDRESS\n\
             a.example   192.0.2.1\n\
             b           x,y\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let text = table(["NAME"], [["\u{1b}[2J".to_owned()]], TerminalStyle::default());
        assert_eq!(text, "NAME\n\\u{1b}[2J\n");
    }

    #[test]
    fn a_table_folds_to_the_terminal() {
        let row = [
            "shop/web-with-a-long-name",
            "no selector of shop/web matches mail.example",
        ];
        let wide = [row.map(str::to_owned)];
        let folded = table(
            ["POD", "WHY"],
            wide,
            TerminalStyle {
                columns: Some(40),
                colour: false,
            },
        );
        assert!(folded.lines().count() > 2, "{folded}");
        assert!(folded.lines().all(|line| line.chars().count() <= 40), "{folded}");
    }

    #[test]
    fn verdicts_are_painted_and_names_are_not() {
        let style = TerminalStyle {
            colour: true,
            columns: None,
        };
        let text = table(["VERDICT", "POD"], [["refused".into(), "refused".into()]], style);
        assert_eq!(text.matches('\u{1b}').count(), 2, "{text:?}");
        assert!(
            text.contains("\u{1b}[38;5;9mrefused") || text.contains("\u{1b}[31mrefused"),
            "{text:?}"
        );
    }

    #[test]
    fn an_empty_list_is_a_dash() {
        assert_eq!(list(Vec::<String>::new()), "-");
    }
}
