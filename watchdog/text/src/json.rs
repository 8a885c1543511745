//! JSON in which every string is escaped as by [`plain`](super::plain).
//!
//! JSON may contain control characters above 31, which a terminal would obey. They are spelt out within the
//! string (`\\u{9b}`), so that parsed strings are safe, too.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, PrettyFormatter};

use super::{is_harmful, spelt};

/// A value as JSON on one line.
///
/// # Errors
/// `value` cannot be written as JSON: a map has keys that are not strings.
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    written(value, CompactFormatter)
}

/// A value as indented JSON.
///
/// # Errors
/// As [`to_json`].
pub fn to_json_pretty<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    written(value, PrettyFormatter::new())
}

fn written<T: Serialize + ?Sized>(value: &T, inner: impl Formatter) -> serde_json::Result<String> {
    let mut text = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut text, CleanJson(inner)))?;
    Ok(String::from_utf8(text).expect("JSON is UTF-8"))
}

/// Escapes strings, and leaves everything else to another formatter.
pub struct CleanJson<F>(pub F);

/// Forwards a method to the inner formatter.
macro_rules! as_within {
    ($($name:ident($($argument:ident: $type:ty),*);)*) => {
        $(fn $name<W: ?Sized + Write>(&mut self, writer: &mut W, $($argument: $type),*) -> io::Result<()> {
            self.0.$name(writer, $($argument),*)
        })*
    };
}

impl<F: Formatter> Formatter for CleanJson<F> {
    as_within! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }

    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_harmful) {
            let (clean, from) = rest.split_at(at);
            let c = from.chars().next().expect("it was found");
            writer.write_all(clean.as_bytes())?;
            write!(writer, "\\{}", spelt(c))?;
            rest = &from[c.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn write_char_escape<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        let c = match escape {
            CharEscape::Backspace => '\u{8}',
            CharEscape::FormFeed => '\u{c}',
            CharEscape::LineFeed => '\n',
            CharEscape::CarriageReturn => '\r',
            CharEscape::Tab => '\t',
            CharEscape::AsciiControl(byte) => char::from(byte),
            harmless => return self.0.write_char_escape(writer, harmless),
        };
        write!(writer, "\\{}", spelt(c))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::plain_up_to;
    use super::*;
    use crate::testing::{every_code_unit, rude_characters};

    #[test]
    fn every_string_and_key_of_a_document_is_clean() {
        let all = every_code_unit();
        let value = BTreeMap::from([(all.as_str(), vec![all.as_str()])]);
        for text in [to_json(&value).unwrap(), to_json_pretty(&value).unwrap()] {
            assert_eq!(rude_characters(&text), []);
            let read: BTreeMap<String, Vec<String>> = serde_json::from_str(&text).unwrap();
            let cleaned = plain_up_to(&all, usize::MAX);
            assert_eq!(read[&*cleaned], [cleaned.into_owned()]);
        }
    }

    #[test]
    fn what_is_clean_is_written_as_ever() {
        let value = serde_json::json!({"a": [1, -2.5, null, "b\\\"/\u{e9}"], "c": {}});
        assert_eq!(to_json(&value).unwrap(), serde_json::to_string(&value).unwrap());
        assert_eq!(to_json_pretty(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap());
    }
}
