//! The log on stderr: its level, its form, and the limit on equal lines.

mod repeat_limiter;

use std::fmt::{self, Write};
use std::io;

use parking_lot::Mutex;
use serde_json::json;
use settings::LogFormat;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use repeat_limiter::{RepeatLimiter, SuppressedLine};

/// Writes events of `level` and above to stderr from now on. `RUST_LOG` takes precedence.
pub(crate) fn start(level: LevelFilter, format: LogFormat, coloured: bool) {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    // This module logs errors that it also returns to its caller, which retries and reports them.
    let filter = match "kube_client::client::builder=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(coloured);
    match format {
        LogFormat::Text => log.event_format(LimitedFormat::<Format>::default()).init(),
        LogFormat::Json => log
            .with_ansi(false)
            .fmt_fields(JsonFields::new())
            .event_format(LimitedFormat::json())
            .init(),
    }
}

/// A format, without warnings and errors that repeat too often.
#[derive(Default)]
struct LimitedFormat<F> {
    format: F,
    limiter: Mutex<RepeatLimiter>,
}

impl LimitedFormat<Format<Json>> {
    /// An object a line: `timestamp`, `level`, `message`, `target`, and the event's own fields.
    fn json() -> Self {
        Self {
            format: Format::default().json().flatten_event(true).with_current_span(false),
            limiter: Mutex::default(),
        }
    }
}

/// How a line that says what was left out is written.
trait SummaryFormat {
    fn write_summary(&self, writer: &mut Writer<'_>, text: &str) -> fmt::Result;
}

impl SummaryFormat for Format {
    fn write_summary(&self, writer: &mut Writer<'_>, text: &str) -> fmt::Result {
        SystemTime.format_time(writer)?;
        writeln!(writer, " {text}")
    }
}

impl SummaryFormat for Format<Json> {
    fn write_summary(&self, writer: &mut Writer<'_>, text: &str) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let line = json!({
            "timestamp": timestamp,
            "level": Level::WARN.as_str(),
            "message": text.trim_start(),
            "target": module_path!(),
        });
        writeln!(writer, "{line}")
    }
}

impl<S, N, F> FormatEvent<S, N> for LimitedFormat<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N> + SummaryFormat,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let now = clock::now();
        let (expired, passes) = {
            let mut limiter = self.limiter.lock();
            let expired = limiter.expired(now);
            let passes = *metadata.level() > Level::WARN || {
                let mut line = format!("{:>5} {}:", metadata.level(), metadata.target());
                event.record(&mut FieldText(&mut line));
                limiter.allows(line, now)
            };
            (expired, passes)
        };
        for SuppressedLine { line, times, over } in expired {
            let seconds = over.as_secs();
            let text = format!("{line} (said {times} times more within {seconds} s)");
            self.format.write_summary(&mut writer, &text)?;
        }
        match passes {
            true => self.format.format_event(context, writer, event),
            false => Ok(()),
        }
    }
}

/// Appends the message and the fields of an event, in the default format.
struct FieldText<'a>(&'a mut String);

impl Visit for FieldText<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct LogBuffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for LogBuffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_said_again_and_again_is_said_a_few_times() {
        let written = LogBuffer::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || to.clone())
            .event_format(LimitedFormat::<Format>::default())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..64 {
                tracing::warn!(socket = "a", "it failed");
                tracing::info!("no warning");
                tracing::warn!(number, "each is another");
            }
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let count = |part: &str| text.matches(part).count();
        assert_eq!(count("it failed"), repeat_limiter::OFTEN as usize, "{text}");
        assert_eq!((count("no warning"), count("each is another")), (64, 64));
    }

    #[test]
    fn a_line_of_json_is_an_object_with_the_fields_beside_the_message() {
        let written = LogBuffer::default();
        let to = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || to.clone())
            .fmt_fields(JsonFields::new())
            .event_format(LimitedFormat::json())
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::warn!(socket = "a", "it \"failed\""));
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&line["message"], &line["socket"]),
            (&json!("it \"failed\""), &json!("a"))
        );
        assert_eq!(line["level"], "WARN");
        let mut summary = String::new();
        let format = LimitedFormat::json().format;
        format
            .write_summary(&mut Writer::new(&mut summary), " WARN x: \"again\"")
            .unwrap();
        let line: serde_json::Value = serde_json::from_str(&summary).unwrap();
        assert_eq!(line["message"], "WARN x: \"again\"");
    }
}
