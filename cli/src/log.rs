//! The log on stderr: its level, its colours, and the limit on equal lines.

mod repeat_limiter;

use std::env;
use std::ffi::OsStr;
use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use repeat_limiter::{RepeatLimiter, SuppressedLine};

/// Writes events of `level` and above to stderr from now on. `RUST_LOG` takes precedence.
pub(crate) fn start(level: LevelFilter) {
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    // This module logs errors that it also returns to its caller, which retries and reports them.
    let filter = match "kube_client::client::builder=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(is_coloured(
            io::stderr().is_terminal(),
            env::var_os("NO_COLOR").as_deref(),
        ))
        .event_format(LimitedFormat::default())
        .init();
}

/// `NO_COLOR` switches colours off unless it is empty (<https://no-color.org>).
fn is_coloured(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

/// The default format, without warnings and errors that repeat too often.
#[derive(Default)]
struct LimitedFormat {
    format: Format,
    limiter: Mutex<RepeatLimiter>,
}

impl<S, N> FormatEvent<S, N> for LimitedFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
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
            SystemTime.format_time(&mut writer)?;
            let seconds = over.as_secs();
            writeln!(writer, " {line} (said {times} times more within {seconds} s)")?;
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

    #[test]
    fn colours_are_for_terminals_whose_user_does_not_mind() {
        assert!(is_coloured(true, None) && is_coloured(true, Some("".as_ref())));
        assert!(!is_coloured(true, Some("1".as_ref())));
        assert!(!is_coloured(false, None));
    }

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
            .event_format(LimitedFormat::default())
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
}
