//! The log: events on standard error, as text for people or JSON for machines.
//!
//! If standard error is the journal, lines have no time, because the journal adds it, but begin with the
//! priority (sd-daemon(3)).
//!
//! [`init`] sets it up once. The log must never end a watchdog: without a reader, with a full disk or a closed
//! descriptor, only lines are lost. It must not fill a disk either: fields are bounded and escaped (`fields`),
//! and so is the amount over time (`meter`).

use std::env;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::time::Instant;

use clap::ValueEnum;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::registry::LookupSpan;

use fields::{Fields, JsonLines};
use meter::{Meter, Verdict};

mod fields;
mod meter;
pub mod outlet;

/// The environment variable that says what is logged; if it is not set, `RUST_LOG` is used.
pub const FILTER_VARIABLE: &str = "HANGWATCH_LOG";

/// How events are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text, coloured on a terminal
    #[default]
    Text,
    /// One JSON object per line, with the time as RFC 3339 in UTC
    Json,
}

/// Why the log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is invalid.
    #[error(
        "{variable}={value:?} is not a log filter; write a level (trace, debug, info, warn, \
         error, off) or targets with levels, such as warn,hangwatch=debug"
    )]
    Filter {
        /// The environment variable of the filter.
        variable: &'static str,
        /// Its value.
        value: String,
        /// The parser's error.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A log was set up before.
    #[error("the log of this process has already been set up")]
    Again,
}

/// Starts to write events of this process to standard error.
///
/// `HANGWATCH_LOG` sets the filter, else `RUST_LOG`; without both, `otherwise` and above is logged.
/// Colours are for terminals, unless `NO_COLOR` is set (<https://no-color.org>) or `TERM`
/// is `dumb`.
///
/// # Errors
///
/// See [`InitError`].
pub fn init(format: Format, otherwise: Level) -> Result<(), InitError> {
    let (filter, unreadable) = filter(otherwise, |variable| env::var(variable).ok())?;
    let is_set = |variable| env::var_os(variable).is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    let dress = if is_journal(env::var("JOURNAL_STREAM").ok().as_deref()) {
        Dress::Journal
    } else if io::stderr().is_terminal() && !is_set("NO_COLOR") && !dumb {
        Dress::Ansi
    } else {
        Dress::Plain
    };
    tracing::subscriber::set_global_default(subscriber(format, dress, filter, || {
        Lossy(outlet::Stderr)
    }))
    .map_err(|_| InitError::Again)?;
    if let Some(value) = unreadable {
        tracing::info!("RUST_LOG={value:?} is no log filter for hangwatch, which ignores it");
    }
    Ok(())
}

/// Checks the filter that [`init`] would use.
///
/// # Errors
///
/// [`InitError::Filter`].
pub fn check() -> Result<(), InitError> {
    filter(Level::INFO, |variable| env::var(variable).ok()).map(drop)
}

/// Whether standard error is the journal stream of the service manager.
///
/// Compares device and inode, because standard error may have been redirected.
fn is_journal(stream: Option<&str>) -> bool {
    let Ok(stat) = rustix::fs::fstat(rustix::stdio::stderr()) else { return false };
    stream == Some(&format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// The style of text lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dress {
    /// With the time, in colours.
    Ansi,
    /// With the time.
    Plain,
    /// With the priority, for the journal.
    Journal,
}

fn subscriber<W, Out>(
    format: Format,
    dress: Dress,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn Subscriber + Send + Sync>
where
    W: Fn() -> Out + Send + Sync + 'static,
    Out: Write,
{
    let writer = Metered {
        writer,
        meter: Arc::new(Meter::new(Instant::now())),
        left_out: match format {
            Format::Json => left_out_in_json,
            Format::Text if dress == Dress::Journal => left_out_for_the_journal,
            Format::Text => left_out_as_text,
        },
    };
    // tracing would report a failed write with eprintln!, which panics if standard error fails.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .log_internal_errors(false)
        .with_ansi(dress == Dress::Ansi)
        .fmt_fields(Fields);
    match format {
        Format::Text if dress == Dress::Journal => {
            let text = builder.with_target(false).compact().without_time();
            boxed(text.with_writer(ByPriority(writer)).finish())
        }
        Format::Text => boxed(builder.with_target(false).compact().with_writer(writer).finish()),
        Format::Json => boxed(builder.event_format(JsonLines).with_writer(writer).finish()),
    }
}

fn boxed(
    subscriber: impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
) -> Box<dyn Subscriber + Send + Sync> {
    Box::new(subscriber)
}

/// The filter of the first variable that is set and not empty, and an invalid value of `RUST_LOG`.
///
/// `RUST_LOG` may be meant for the command, whose logger may accept it.
fn filter(
    otherwise: Level,
    get: impl Fn(&str) -> Option<String>,
) -> Result<(EnvFilter, Option<String>), InitError> {
    let set = [FILTER_VARIABLE, "RUST_LOG"].into_iter().find_map(|variable| {
        let value = get(variable).filter(|value| !value.trim().is_empty())?;
        Some((variable, value))
    });
    match set {
        None => Ok((EnvFilter::new(otherwise.as_str()), None)),
        Some((variable, value)) => match EnvFilter::builder().parse(&value) {
            Ok(filter) => Ok((filter, None)),
            Err(source) if variable == FILTER_VARIABLE => {
                Err(InitError::Filter { variable, value, source })
            }
            Err(_) => Ok((EnvFilter::new(otherwise.as_str()), Some(value))),
        },
    }
}

/// Writes the lines that the meter allows, and counts the others.
struct Metered<W> {
    writer: W,
    meter: Arc<Meter>,
    /// Writes the line with the number of lines left out.
    left_out: fn(u64) -> String,
}

/// The writer of one line.
struct MeteredLine<Out> {
    writer: Out,
    meter: Arc<Meter>,
    left_out: fn(u64) -> String,
}

impl<'a, W: Fn() -> Out, Out: Write> MakeWriter<'a> for Metered<W> {
    type Writer = MeteredLine<Out>;

    fn make_writer(&'a self) -> Self::Writer {
        let (meter, left_out) = (Arc::clone(&self.meter), self.left_out);
        MeteredLine { writer: (self.writer)(), meter, left_out }
    }
}

impl<Out: Write> Write for MeteredLine<Out> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.meter.take(bytes.len(), Instant::now()) {
            Verdict::LeftOut => {}
            Verdict::Written { left_out: 0 } => self.writer.write_all(bytes)?,
            Verdict::Written { left_out } => {
                // One write per line, so that lines of several threads do not mix.
                let line = (self.left_out)(left_out);
                self.writer.write_all(&[line.as_bytes(), bytes].concat())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

const LEFT_OUT: &str = "lines were left out: too much was logged at once";

fn left_out_as_text(lines: u64) -> String {
    format!("{} ERROR {LEFT_OUT} event=\"left_out\" lines={lines}\n", fields::now())
}

fn left_out_for_the_journal(lines: u64) -> String {
    format!("<3>ERROR {LEFT_OUT} event=\"left_out\" lines={lines}\n")
}

fn left_out_in_json(lines: u64) -> String {
    let line = serde_json::json!({
        "timestamp": fields::now(), "level": "ERROR", "event": "left_out", "lines": lines,
        "message": LEFT_OUT, "target": module_path!(),
    });
    format!("{line}\n")
}

/// Writes each line with its priority in front, for the journal.
struct ByPriority<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for ByPriority<W> {
    type Writer = Prefixed<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Prefixed { prefix: "<6>", writer: self.0.make_writer() }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let prefix = match *event.level() {
            Level::ERROR => "<3>",
            Level::WARN => "<4>",
            Level::INFO => "<6>",
            Level::DEBUG | Level::TRACE => "<7>",
        };
        Prefixed { prefix, writer: self.0.make_writer_for(event) }
    }
}

/// Writes a prefix and the text in one write, so that lines of several threads do not mix.
struct Prefixed<W> {
    prefix: &'static str,
    writer: W,
}

impl<W: Write> Write for Prefixed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write_all(&[self.prefix.as_bytes(), bytes].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// A writer that ignores errors.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = self.0.flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing::Level;
    use tracing_subscriber::EnvFilter;

    use super::fields::MOST_LINE_BYTES;
    use super::{Dress, Format, InitError, Lossy, filter, is_journal, subscriber};
    use hangwatch_text::testing::{rude_characters, rude_names};

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, dress: Dress) -> String {
        let page = Page::default();
        let writer = page.clone();
        let log = subscriber(format, dress, EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(log, || {
            tracing::debug!("left out");
            tracing::info!(pid = 7, scope = "forward", "reaped");
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn text_is_a_line_an_event() {
        let text = logged(Format::Text, Dress::Plain);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("INFO reaped pid=7 scope=\"forward\""), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
        assert!(logged(Format::Text, Dress::Ansi).contains('\x1b'));
    }

    #[test]
    fn the_journal_gets_the_priority_and_no_time() {
        let text = logged(Format::Text, Dress::Journal);
        assert_eq!(text, "<6> INFO reaped pid=7 scope=\"forward\"\n");
    }

    /// The log of an event with fields of these names.
    fn logged_names(format: Format, dress: Dress, names: &[String]) -> String {
        let page = Page::default();
        let writer = page.clone();
        let log = subscriber(format, dress, EnvFilter::new("info"), move || writer.clone());
        tracing::subscriber::with_default(log, || {
            for name in names {
                let path = std::path::Path::new(name).display();
                tracing::info!(scope = name, command = %name, %path, thread = ?name, "{name}");
            }
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_name_of_any_character_is_one_clean_line_of_the_log() {
        let names = rude_names(1000);
        for (format, dress) in [
            (Format::Text, Dress::Plain),
            (Format::Text, Dress::Journal),
            (Format::Json, Dress::Plain),
        ] {
            let text = logged_names(format, dress, &names);
            assert_eq!(rude_characters(&text), [], "{format:?} {dress:?}");
            assert_eq!(text.lines().count(), names.len(), "{format:?} {dress:?}");
            for line in text.lines().filter(|_| format == Format::Json) {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                for key in ["scope", "command", "path", "thread", "message"] {
                    assert_eq!(rude_characters(event[key].as_str().unwrap()), [], "{line}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_bounded_whatever_its_fields_hold() {
        for rude in ["x", "\u{202e}", "\"", "\n", "\u{4e16}"] {
            let name = rude.repeat(1_800_000 / rude.len());
            for format in [Format::Text, Format::Json] {
                let text = logged_names(format, Dress::Plain, std::slice::from_ref(&name));
                assert_eq!(text.lines().count(), 1);
                assert!(text.len() < 3 * MOST_LINE_BYTES, "{rude:?}: {}", text.len());
                if format == Format::Json {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_number_with_a_fraction_has_three_decimals() {
        let page = Page::default();
        for format in [Format::Text, Format::Json] {
            let writer = page.clone();
            let log =
                subscriber(format, Dress::Plain, EnvFilter::new("info"), move || writer.clone());
            tracing::subscriber::with_default(log, || {
                tracing::info!(late_ms = 93.576_163_000_000_01, nothing = f64::NAN, "late");
            });
        }
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        assert!(text.contains(" late_ms=93.576 nothing=NaN\n"), "{text}");
        assert!(text.contains("\"late_ms\":93.576,\"nothing\":null"), "{text}");
    }

    #[test]
    fn how_many_lines_were_left_out_is_a_line_like_any_other() {
        let json: serde_json::Value = serde_json::from_str(&super::left_out_in_json(7)).unwrap();
        assert_eq!((&json["event"], &json["lines"]), (&"left_out".into(), &7.into()));
        for line in [super::left_out_as_text(7), super::left_out_for_the_journal(7)] {
            assert!(line.ends_with(" event=\"left_out\" lines=7\n"), "{line}");
        }
    }

    #[test]
    fn the_journal_is_known_by_its_stream() {
        use rustix::fs::fstat;
        let stat = fstat(rustix::stdio::stderr()).unwrap();
        assert!(is_journal(Some(&format!("{}:{}", stat.st_dev, stat.st_ino))));
        for other in [None, Some(""), Some("1:2"), Some("x")] {
            assert!(!is_journal(other), "{other:?}");
        }
    }

    #[test]
    fn json_is_an_object_a_line_with_the_time_in_utc() {
        let text = logged(Format::Json, Dress::Plain);
        assert_eq!(text.lines().count(), 1, "{text}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], "reaped");
        assert_eq!((&event["pid"], &event["scope"]), (&7.into(), &"forward".into()));
        assert_eq!(event["level"], "INFO");
        let time = event["timestamp"].as_str().unwrap();
        humantime::parse_rfc3339(time).unwrap();
    }

    #[test]
    fn the_filter_comes_from_our_own_variable_first() {
        let check = |ours: Option<&str>, rusts: Option<&str>, filtered: &str| {
            let get = |variable: &str| {
                let value = if variable == "RUST_LOG" { rusts } else { ours };
                value.map(str::to_owned)
            };
            assert_eq!(filter(Level::INFO, get).unwrap().0.to_string(), filtered);
        };
        check(Some("warn"), Some("debug"), "warn");
        check(None, Some("debug"), "debug");
        check(Some(" "), Some("debug"), "debug");
        check(None, None, "info");
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = filter(Level::INFO, |_| Some("hangwatch=loud".to_owned())).unwrap_err();
        assert!(matches!(error, InitError::Filter { variable: "HANGWATCH_LOG", .. }));
        assert!(error.to_string().starts_with("HANGWATCH_LOG=\"hangwatch=loud\""), "{error}");
    }

    #[test]
    fn a_filter_of_the_commands_that_cannot_be_read_is_ignored() {
        let get = |variable: &str| (variable == "RUST_LOG").then(|| "my_app=loud".to_owned());
        let (filter, unreadable) = filter(Level::WARN, get).unwrap();
        assert_eq!((&*filter.to_string(), unreadable.as_deref()), ("warn", Some("my_app=loud")));
    }

    #[test]
    fn a_reader_that_has_gone_is_survived() {
        for format in [Format::Text, Format::Json] {
            let (read, write) = io::pipe().unwrap();
            drop(read);
            let writer = move || Lossy(write.try_clone().unwrap());
            let log = subscriber(format, Dress::Plain, EnvFilter::new("info"), writer);
            tracing::subscriber::with_default(log, || tracing::info!("into the void"));
        }
    }
}
