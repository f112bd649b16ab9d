//! Prints tables as kubectl does: headers in capitals, columns separated by spaces, no lines.

use std::time::Duration;

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

/// Lays out rows under headers. Cells are never wrapped or cut, so that tools can search and split
/// the lines.
pub(super) fn table<const N: usize>(headers: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .force_no_tty()
        .set_header(headers);
    for row in rows {
        table.add_row(row.map(printable));
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
        let text = table(["NAME"], [["\u{1b}[2J".to_owned()]]);
        assert_eq!(text, "NAME\n\\u{1b}[2J\n");
    }

    #[test]
    fn an_empty_list_is_a_dash() {
        assert_eq!(list(Vec::<String>::new()), "-");
    }
}
