//! Cuts out the lines around a finding, and makes them safe for a terminal.

use policy::diagnostic::Position;

/// The number of characters that are shown of a line.
const WIDTH: usize = 120;
/// The number of characters before the mark, when a line is cut.
const BEFORE: usize = 40;

/// The lines around a position of a text.
#[derive(Debug, PartialEq)]
pub(super) struct Excerpt {
    /// The marked line, and the lines before and after it, where there are any.
    pub(super) lines: Vec<ExcerptLine>,
    /// The index of the marked line.
    pub(super) marked: usize,
    /// The marked characters of the marked line.
    pub(super) mark: std::ops::Range<usize>,
}

/// A line of a file, cut to a width. Each character is printable and takes one column, except for
/// wide East Asian ones.
#[derive(Debug, PartialEq)]
pub(super) struct ExcerptLine {
    /// The number of the line, from 1.
    pub(super) number: usize,
    pub(super) text: String,
}

impl Excerpt {
    /// `None` for a position that is not in the text.
    pub(super) fn of(text: &str, at: Position) -> Option<Self> {
        let offset = at.offset as usize;
        let before = text.get(..offset)?;
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = first_line(text.get(start..)?);
        // A position behind the last line is shown at its end.
        let column = before.get(start..)?.chars().count();
        let marked = text.get(offset..at.end() as usize).unwrap_or_default();
        let marked = first_line(marked).trim_end().chars().count().max(1);

        // All lines are cut at the same columns, so that they stay aligned.
        let cut = match line.chars().nth(WIDTH) {
            None => 0,
            Some(_) => column.saturating_sub(BEFORE),
        };
        let mut lines = Vec::new();
        let number = at.line as usize;
        if let Some(end) = start.checked_sub(1)
            && let Some(above) = text.get(..end)
        {
            let start = above.rfind('\n').map_or(0, |newline| newline + 1);
            lines.push(ExcerptLine::cut(number - 1, above.get(start..)?, cut));
        }
        let marked_line = lines.len();
        lines.push(ExcerptLine::cut(number, line, cut));
        if let Some(below) = text.get(start + line.len()..)?.strip_prefix('\n')
            && !below.is_empty()
        {
            lines.push(ExcerptLine::cut(number + 1, first_line(below), cut));
        }
        let first = column - cut + usize::from(cut > 0);
        let last = (first + marked).min(WIDTH + 1).max(first + 1);
        Some(Self {
            lines,
            marked: marked_line,
            mark: first..last,
        })
    }

    /// The line that contains the mark.
    pub(super) fn line(&self) -> &ExcerptLine {
        &self.lines[self.marked]
    }
}

fn first_line(text: &str) -> &str {
    text.split('\n').next().unwrap_or_default()
}

impl ExcerptLine {
    /// `WIDTH` characters from the character `from` on, with an ellipsis where others are left out.
    fn cut(number: usize, line: &str, from: usize) -> Self {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let mut rest = line.chars().skip(from);
        let mut text = String::new();
        if from > 0 {
            text.push('…');
        }
        text.extend(rest.by_ref().take(WIDTH).map(one_column));
        if rest.next().is_some() {
            text.push('…');
        }
        Self { number, text }
    }
}

/// Replaces a tab by a blank. Replaces characters that move the cursor or change the direction of
/// writing by the replacement character.
fn one_column(c: char) -> char {
    let turns = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    match c {
        '\t' => ' ',
        c if c.is_control() || turns => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, marked: &str) -> Position {
        let offset = text.find(marked).unwrap();
        let line = text[..offset].matches('\n').count() + 1;
        let column = text[..offset].rsplit('\n').next().unwrap().chars().count() + 1;
        let narrow = |n| u32::try_from(n).unwrap();
        Position {
            line: narrow(line),
            column: narrow(column),
            offset: narrow(offset),
            length: narrow(marked.len()),
        }
    }

    fn shown(excerpt: &Excerpt) -> Vec<(usize, &str)> {
        excerpt
            .lines
            .iter()
            .map(|line| (line.number, line.text.as_str()))
            .collect()
    }

    fn marked(excerpt: &Excerpt) -> String {
        let range = excerpt.mark.clone();
        excerpt
            .line()
            .text
            .chars()
            .skip(range.start)
            .take(range.len())
            .collect()
    }

    #[test]
    fn the_line_stands_between_its_neighbours() {
        let text = "a: 1\r\n\tä: two\r\nc: 3\r\n";
        let excerpt = Excerpt::of(text, at(text, "two")).unwrap();
        assert_eq!(shown(&excerpt), [(1, "a: 1"), (2, " ä: two"), (3, "c: 3")]);
        assert_eq!(marked(&excerpt), "two");
        let first = Excerpt::of(text, at(text, "a")).unwrap();
        assert_eq!((first.marked, first.lines.len()), (0, 2));
        let last = Excerpt::of(text, at(text, "3")).unwrap();
        assert_eq!((last.marked, last.lines.len()), (1, 2));
    }

    #[test]
    fn a_mark_of_many_lines_ends_with_the_first() {
        let text = "a: |\n  b\n  c\n";
        let mut position = at(text, "|");
        position.length = 9;
        assert_eq!(marked(&Excerpt::of(text, position).unwrap()), "|");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mark() {
        let text = format!(
            "short\n{}here{}\n{}",
            "x".repeat(1_000_000),
            "y".repeat(1_000_000),
            "z".repeat(500)
        );
        let excerpt = Excerpt::of(&text, at(&text, "here")).unwrap();
        assert_eq!(marked(&excerpt), "here");
        for line in &excerpt.lines {
            assert!(line.text.chars().count() <= WIDTH + 2, "{line:?}");
        }
        let mut long = at(&text, "here");
        long.length = 900_000;
        let excerpt = Excerpt::of(&text, long).unwrap();
        assert!(marked(&excerpt).starts_with("hereyyy"));
        assert!(excerpt.mark.end <= WIDTH + 1);
    }

    #[test]
    fn what_would_disturb_a_terminal_is_replaced() {
        let text = "a: \u{1b}[2J \u{202e}x\n";
        let excerpt = Excerpt::of(text, at(text, "x")).unwrap();
        assert_eq!(excerpt.line().text, "a: \u{fffd}[2J \u{fffd}x");
    }

    #[test]
    fn a_position_that_is_not_in_the_text_shows_nothing() {
        let position = Position {
            line: 1,
            column: 1,
            offset: 1,
            length: 1,
        };
        assert_eq!(Excerpt::of("ä", position), None, "in the middle of a character");
        assert_eq!(Excerpt::of("", position), None);
    }
}
