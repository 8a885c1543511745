//! Writes the fields of an event, escaped and bounded, as text and as JSON.
//!
//! Values may come from workers, paths and other hosts: see [`hangwatch_text::Plain`]. Numbers with a fraction
//! have three decimals.

use std::fmt::{self, Debug};
use std::io;
use std::time::SystemTime;

use serde::Serializer as _;
use serde::ser::SerializeMap;
use serde_json::ser::CompactFormatter;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{MakeVisitor, VisitFmt, VisitOutput};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use hangwatch_text::{CleanJson, Cleaner, plain_up_to};

/// The most bytes of one field, as written.
pub(super) const MOST_FIELD_BYTES: usize = 2048;
/// The most bytes of all fields of an event.
pub(super) const MOST_LINE_BYTES: usize = 8192;

/// The room left in a line.
struct Room(usize);

impl Room {
    fn of_field(&self) -> usize {
        self.0.min(MOST_FIELD_BYTES)
    }

    /// A value's text, as far as it fits.
    fn text(&mut self, value: fmt::Arguments<'_>) -> String {
        let mut text = String::new();
        let _ = Cleaner::new(&mut text, self.of_field()).put(value);
        self.0 = self.0.saturating_sub(text.len());
        text
    }

    /// A string; if it is too long, with the number of bytes left out.
    fn string(&mut self, value: &str) -> String {
        let text = plain_up_to(value, self.of_field());
        // Cut again, because escapes make it longer; escaping again changes nothing.
        self.text(format_args!("{text}"))
    }

    /// A string in quotes, so that it cannot look like another field.
    fn quoted(&mut self, value: &str) -> String {
        let kept = &value[..value.floor_char_boundary(self.of_field())];
        let left_out = value.len() - kept.len();
        let escaped = format!("{kept:?}");
        let inner = self.text(format_args!("{}", &escaped[1..escaped.len() - 1]));
        // A backslash at the cut would escape the closing quote.
        let inner = inner.trim_end_matches('\u{2026}');
        let backslashes = inner.len() - inner.trim_end_matches('\\').len();
        let whole = &inner[..inner.len() - backslashes % 2];
        let mark = match (left_out, whole.len() < escaped.len() - 2) {
            (0, false) => String::new(),
            (0, true) => "\u{2026}".to_owned(),
            (bytes, _) => format!("\u{2026} ({bytes} more bytes)"),
        };
        format!("\"{whole}{mark}\"")
    }
}

/// Escaped text in quotes; quotes within it are escaped.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn decimals(value: f64) -> String {
    format!("{value:.3}")
}

/// The fields as text: `message name=value ...`.
#[derive(Debug)]
pub(super) struct Fields;

pub(super) struct TextVisitor<'w> {
    writer: Writer<'w>,
    room: Room,
    is_first: bool,
    result: fmt::Result,
}

impl<'w> MakeVisitor<Writer<'w>> for Fields {
    type Visitor = TextVisitor<'w>;

    fn make_visitor(&self, writer: Writer<'w>) -> TextVisitor<'w> {
        TextVisitor { writer, room: Room(MOST_LINE_BYTES), is_first: true, result: Ok(()) }
    }
}

impl TextVisitor<'_> {
    fn put(&mut self, field: &Field, text: &str) {
        if self.result.is_err() {
            return;
        }
        let gap = if std::mem::take(&mut self.is_first) { "" } else { " " };
        let name = field.name().trim_start_matches("r#");
        self.result = if name == "message" {
            write!(self.writer, "{gap}{text}")
        } else if self.writer.has_ansi_escapes() {
            write!(self.writer, "{gap}\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{text}")
        } else {
            write!(self.writer, "{gap}{name}={text}")
        };
    }
}

impl Visit for TextVisitor<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, &decimals(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = self.room.quoted(value);
        self.put(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = self.room.text(format_args!("{value:?}"));
        // Text that could look like another field is quoted.
        let is_one_word = !text.contains([' ', '"', '=']);
        let text = if is_one_word || field.name() == "message" { text } else { quoted(&text) };
        self.put(field, &text);
    }
}

impl VisitOutput<fmt::Result> for TextVisitor<'_> {
    fn finish(self) -> fmt::Result {
        self.result
    }
}

impl VisitFmt for TextVisitor<'_> {
    fn writer(&mut self) -> &mut dyn fmt::Write {
        &mut self.writer
    }
}

/// An event as one JSON object on a line: `timestamp`, `level`, its fields, `target`.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let line = json_line(event).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

fn json_line(event: &Event<'_>) -> io::Result<String> {
    let mut line = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut line, CleanJson(CompactFormatter));
    let mut map = serializer.serialize_map(None)?;
    map.serialize_entry("timestamp", &now())?;
    map.serialize_entry("level", event.metadata().level().as_str())?;
    let mut visitor = JsonVisitor { map, room: Room(MOST_LINE_BYTES), result: Ok(()) };
    event.record(&mut visitor);
    visitor.result?;
    let mut map = visitor.map;
    map.serialize_entry("target", event.metadata().target())?;
    map.end()?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// The time as RFC 3339 in UTC.
pub(super) fn now() -> String {
    humantime::format_rfc3339_micros(SystemTime::now()).to_string()
}

struct JsonVisitor<M> {
    map: M,
    room: Room,
    result: serde_json::Result<()>,
}

impl<M: SerializeMap<Ok = (), Error = serde_json::Error>> JsonVisitor<M> {
    fn put(&mut self, field: &Field, value: &(impl serde::Serialize + ?Sized)) {
        if self.result.is_ok() {
            let name = field.name().trim_start_matches("r#");
            self.result = self.map.serialize_entry(name, value);
        }
    }
}

impl<M: SerializeMap<Ok = (), Error = serde_json::Error>> Visit for JsonVisitor<M> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Rounded as in text; NaN and infinity become null.
        self.put(field, &decimals(value).parse::<f64>().ok().filter(|value| value.is_finite()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, &value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, &value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let text = self.room.string(value);
        self.put(field, &text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = self.room.text(format_args!("{value:?}"));
        self.put(field, &text);
    }
}
