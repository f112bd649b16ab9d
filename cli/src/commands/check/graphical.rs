//! Renders findings for a terminal: the lines around each, with the position marked.

use std::fmt;

use cluster::check::CheckedFiles;
use miette::{
    GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan,
    SpanContents,
};
use policy::Severity;

use crate::commands::table::printable;
use crate::terminal::TerminalStyle;

use super::excerpt::Excerpt;
use super::findings::{CheckFinding, findings, summary};

/// The width where the terminal does not know its own.
const COLUMNS: u16 = 100;

pub(super) fn render(checked: &CheckedFiles, look: TerminalStyle) -> String {
    let theme = match look.colour {
        true => GraphicalTheme::unicode(),
        false => GraphicalTheme::unicode_nocolor(),
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_context_lines(1)
        .with_width(usize::from(look.columns.unwrap_or(COLUMNS)));
    let mut text = String::new();
    for finding in findings(checked) {
        // Writing to a String does not fail.
        let _ = handler.render_report(&mut text, &RenderedFinding::new(&finding));
        text.push('\n');
    }
    text + &summary(checked)
}

/// A finding as miette renders it.
#[derive(Debug)]
struct RenderedFinding {
    headline: String,
    code: &'static str,
    severity: Severity,
    help: Option<String>,
    source: Option<ExcerptSource>,
}

/// An excerpt as a source of miette, with its position in the file.
#[derive(Debug)]
struct ExcerptSource {
    file: String,
    text: String,
    /// The marked bytes of `text`.
    mark: SourceSpan,
    /// The number of the excerpt's first line, from 0.
    first_line: usize,
    lines: usize,
    /// The line of the file in which the mark begins, from 0.
    line: usize,
    column: usize,
}

impl RenderedFinding {
    fn new(finding: &CheckFinding<'_>) -> Self {
        let (report, diagnostic) = (finding.report, finding.diagnostic);
        let file = report.file.as_ref().map(|file| printable(file.display().to_string()));
        let source = finding.text.zip(diagnostic.position).and_then(|(text, at)| {
            let excerpt = Excerpt::of(text, at)?;
            Some(ExcerptSource::new(
                file.clone().unwrap_or_default(),
                &excerpt,
                (at.line as usize, at.column as usize),
            ))
        });
        // An excerpt has the file in its own headline.
        let file = file.filter(|_| source.is_none());
        let object = Some(&report.object).filter(|object| diagnostic.position.is_none() && !object.is_empty());
        let path = Some(&diagnostic.path).filter(|path| !path.is_empty());
        let parts = [file.as_ref(), object, path, Some(&diagnostic.reason)];
        let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
        Self {
            headline: printable(parts.join(": ")),
            code: diagnostic.code,
            severity: diagnostic.severity,
            help: diagnostic.suggestion.clone().map(printable),
            source,
        }
    }
}

impl ExcerptSource {
    fn new(file: String, excerpt: &Excerpt, (line, column): (usize, usize)) -> Self {
        let lines: Vec<&str> = excerpt.lines.iter().map(|line| line.text.as_str()).collect();
        let bytes = |text: &str, chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(byte, _)| byte);
        let marked = &excerpt.line().text;
        let (start, end) = (bytes(marked, excerpt.mark.start), bytes(marked, excerpt.mark.end));
        let before: usize = lines.iter().take(excerpt.marked).map(|line| line.len() + 1).sum();
        Self {
            file,
            text: lines.join("\n"),
            mark: (before + start, end - start).into(),
            first_line: excerpt.lines.first().map_or(0, |line| line.number.saturating_sub(1)),
            lines: lines.len(),
            line: line.saturating_sub(1),
            column: column.saturating_sub(1),
        }
    }
}

impl fmt::Display for RenderedFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.headline)
    }
}

impl std::error::Error for RenderedFinding {}

impl miette::Diagnostic for RenderedFinding {
    fn code(&self) -> Option<Box<dyn fmt::Display + '_>> {
        Some(Box::new(format!("{}[{}]", self.severity, self.code)))
    }

    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Unenforced | Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_ref().map(|source| source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let mark = self.source.as_ref()?.mark;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(None, mark))))
    }
}

impl SourceCode for ExcerptSource {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        lines_before: usize,
        lines_after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        // Without lines around it, miette asks for the position of the mark.
        let (line, column) = match (lines_before, lines_after) {
            (0, 0) => (self.line, self.column),
            _ => (self.first_line, 0),
        };
        let whole: SourceSpan = match (lines_before, lines_after) {
            (0, 0) => *span,
            _ => (0, self.text.len()).into(),
        };
        let data = self
            .text
            .as_bytes()
            .get(whole.offset()..whole.offset() + whole.len())
            .ok_or(MietteError::OutOfBounds)?;
        let contents = MietteSpanContents::new_named(self.file.clone(), data, whole, line, column, self.lines);
        Ok(Box::new(contents))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const STYLE: TerminalStyle = TerminalStyle {
        colour: false,
        columns: Some(80),
    };

    fn rendered(text: &str) -> String {
        let checked = CheckedFiles::new(BTreeMap::from([("a.yaml".into(), Ok(text.to_owned()))]));
        let text = render(&checked, STYLE);
        // miette pads the lines of its frame.
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn a_finding_stands_under_its_code_with_the_lines_around_it() {
        let text = rendered(
            "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: api, namespace: shop}\nspec:\n  endpointSelector: {}\n  egress:\n  - toFQDNs:\n    - matchPatern: a.example.com\n",
        );
        let expected = "\
error[unknown-field]

  × spec.egress[0].toFQDNs[0].matchPatern: there is no field \"matchPatern\"
  │ here
   ╭─[a.yaml:8:7]
 7 │   - toFQDNs:
 8 │     - matchPatern: a.example.com
   ·       ───────────
   ╰────
  help: did you mean `matchPattern`?

warning[closed-until-mended]

  ⚠ spec.endpointSelector: as long as this policy is refused, the endpoints
  │ that it selects are closed for egress: only what other policies allow is
  │ let through
   ╭─[a.yaml:5:21]
 4 │ spec:
 5 │   endpointSelector: {}
   ·                     ──
 6 │   egress:
   ╰────
  help: mend what is named as an error; then the policy is in force as written

1 file read: 1 object, 1 of them policies; 1 error, 1 warning, 0 not enforced; 1 rejected
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_finding_without_a_place_names_file_and_object() {
        let checked = CheckedFiles::new(BTreeMap::from([("a.yaml".into(), Err("it is gone".to_owned()))]));
        let text = render(&checked, STYLE);
        assert!(text.contains("a.yaml: the file cannot be read: it is gone"), "{text}");
    }

    #[test]
    fn colours_are_there_unless_they_are_not_wanted() {
        let checked = CheckedFiles::new(BTreeMap::from([("a.yaml".into(), Ok("a: [".to_owned()))]));
        assert!(!render(&checked, STYLE).contains('\u{1b}'));
        let coloured = render(&checked, TerminalStyle { colour: true, ..STYLE });
        assert!(coloured.contains('\u{1b}'), "{coloured:?}");
    }
}
