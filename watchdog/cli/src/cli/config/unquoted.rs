//! Recognises the most common mistake in a TOML file: a text without quotes.

use hangwatch_text::plain;

/// What to write instead of a line such as `segment = train`.
///
/// `None` if missing quotes are not what is wrong with the line.
pub(crate) fn advice(line: &str) -> Option<String> {
    let (key, value) = line.split_once('=')?;
    let (key, value) = (key.trim(), value.split(" #").next().unwrap_or_default().trim());
    let is_key = !key.is_empty() && !key.starts_with(['#', '[']);
    let is_quoted = value.is_empty() || value.starts_with(['"', '\'', '[', '{']);
    let is_toml = value.parse::<toml_edit::Value>().is_ok();
    if !is_key || is_quoted || is_toml {
        return None;
    }
    let key = plain(key);
    let quoted = toml_edit::Value::from(&*plain(value)).to_string();
    Some(format!("put quotes around the text: {key} = {quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_quotes_gets_advice() {
        let check = |line: &str, right: Option<&str>| {
            let expected = right.map(|right| format!("put quotes around the text: {right}"));
            assert_eq!(advice(line), expected, "{line}");
        };
        check("segment = train", Some("segment = \"train\""));
        check("  signal=TERM # gently", Some("signal = \"TERM\""));
        check("grace = 10s", Some("grace = \"10s\""));
        check("incidents = /var/lib/x", Some("incidents = \"/var/lib/x\""));
        check("notify-only = true", None);
        check("max-reaps = 3", None);
        check("segment = \"train", None);
        check("segment train", None);
        check("# segment = train", None);
        check("a = [1,", None);
        check("a =", None);
    }
}
