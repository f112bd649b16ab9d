//! Comments and documents that are wider than a reader's window.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use proc_macro2::{LineColumn, TokenStream, TokenTree};
use pulldown_cmark::{Event, Options, Parser, Tag};

use super::error::{StructureError, read};
use super::workspace::tracked_files;

/// How wide prose may be, in characters. Code has its own width (rustfmt.toml).
const WIDTH: usize = 100;

/// Every line of prose that is too wide: comments of Rust, and Markdown outside of tables and code.
pub(crate) fn wide_lines(root: &Path) -> Result<Vec<String>, StructureError> {
    let mut findings = Vec::new();
    let mut check = |file: &PathBuf, lines: &[(usize, &str)]| {
        for (number, line) in lines {
            let width = line.chars().count();
            if width > WIDTH && can_be_broken(line) {
                findings.push(format!("{}:{number}: {width} columns", file.display()));
            }
        }
    };
    for file in tracked_files(root, "rs")? {
        let text = read(&root.join(&file))?;
        check(&file, &comments(&text));
    }
    for file in tracked_files(root, "md")? {
        let text = read(&root.join(&file))?;
        check(&file, &prose(&text));
    }
    Ok(findings)
}

/// The lines that are a comment or end in one, numbered from 1. Tables and code in documentation do
/// not count.
fn comments(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        if let Some(words) = ["///", "//!"].iter().find_map(|mark| trimmed.strip_prefix(mark)) {
            let is_fence = words.trim_start().starts_with("```");
            fenced ^= is_fence;
            let is_table = words.trim_start().starts_with('|');
            if !(is_fence || fenced || is_table || words.starts_with("     ")) {
                lines.push((number, line));
            }
        } else {
            fenced = false;
            if trimmed.starts_with("//") || ends_in_comment(text, number, line) {
                lines.push((number, line));
            }
        }
    }
    lines
}

/// Whether `//` stands in the line, and not in a string.
fn ends_in_comment(text: &str, number: usize, line: &str) -> bool {
    // To read the literals of a file takes long, and few lines need it.
    if line.chars().count() <= WIDTH || !line.contains("//") {
        return false;
    }
    let literals = TokenStream::from_str(text).map(literals).unwrap_or_default();
    line.match_indices("//").any(|(at, _)| {
        let place = LineColumn {
            line: number,
            column: line[..at].chars().count(),
        };
        !literals.iter().any(|(start, end)| *start <= place && place < *end)
    })
}

/// Where each literal begins and ends.
fn literals(tokens: TokenStream) -> Vec<(LineColumn, LineColumn)> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Literal(literal) => vec![(literal.span().start(), literal.span().end())],
            TokenTree::Group(group) => literals(group.stream()),
            _ => Vec::new(),
        })
        .collect()
}

/// The lines of a document that are neither code nor a table, numbered from 1.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let unwrapped: Vec<_> = Parser::new_ext(text, Options::ENABLE_TABLES)
        .into_offset_iter()
        .filter(|(event, _)| matches!(event, Event::Start(Tag::CodeBlock(_) | Tag::Table(_) | Tag::HtmlBlock)))
        .map(|(_, range)| range)
        .collect();
    let mut begin = 0;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        // An indented block begins at its text, so the line is asked where it ends.
        let last = begin + line.trim_end().len().saturating_sub(1);
        if !unwrapped.iter().any(|range| range.contains(&last)) {
            lines.push((number, line.trim_end()));
        }
        begin += line.len();
    }
    lines
}

/// Whether there is a space to break the line at. A long address has none.
fn can_be_broken(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '/', '!', '-', '*', '#', '>']);
    let marks = line.chars().count() - text.chars().count();
    text.chars().take(WIDTH.saturating_sub(marks) + 1).any(|c| c == ' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(lines: &[(usize, &str)]) -> Vec<usize> {
        lines.iter().map(|(number, _)| *number).collect()
    }

    #[test]
    fn code_and_tables_are_no_prose() {
        let text = "one\n\n    code\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```\nfence\n```\nlast\n";
        let kept: Vec<&str> = prose(text)
            .iter()
            .map(|(_, line)| *line)
            .filter(|line| !line.is_empty())
            .collect();
        assert_eq!(kept, ["one", "last"]);
    }

    #[test]
    fn a_string_is_no_comment() {
        let long = "x".repeat(WIDTH);
        let text = format!("// a\nlet url = \"{long} // y\";\nlet {long} = 1; // b\nlet m = 2; // c\n");
        assert_eq!(numbers(&comments(&text)), [1, 3]);
    }

    #[test]
    fn tables_and_code_in_documentation_are_no_prose() {
        let text = "/// words\n/// | a | b |\n///     code\n/// ```\n/// let a = 1;\n/// ```\n/// words\n";
        assert_eq!(numbers(&comments(text)), [1, 7]);
    }

    #[test]
    fn an_address_cannot_be_broken() {
        let address = format!("//! <https://example.com/{}>", "a".repeat(100));
        assert!(!can_be_broken(&address));
        assert!(can_be_broken(&format!("// words and {address}")));
    }
}
