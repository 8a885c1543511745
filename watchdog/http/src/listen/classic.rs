//! Converts a page to the older text format of Prometheus (0.0.4), for collectors that know no newer one.
//!
//! The formats differ in the descriptions: the older one names a counter or an info like its samples, has no
//! info type and no unit, and no end marker.

use std::fmt::Write;

/// Converts a page from `OpenMetrics`.
pub(super) fn from_openmetrics(page: &str) -> String {
    let mut text = String::with_capacity(page.len() + page.len() / 16);
    let mut help = None;
    for line in page.lines() {
        if let Some(said) = line.strip_prefix("# HELP ") {
            // The name depends on the type, which follows.
            help = said.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|said| said.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let help = help.take().unwrap_or_default();
            let _ = write!(text, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_like_their_samples() {
        let page = "# HELP a Some.\n# TYPE a counter\na_total{b=\"# TYPE x y\"} 1\n\
                    # HELP c Some.\n# TYPE c info\n# UNIT c x\nc_info{v=\"1\"} 1\n\
                    # HELP d Some.\n# TYPE d gauge\nd 2\n# EOF\n";
        let expected = "# HELP a_total Some.\n# TYPE a_total counter\na_total{b=\"# TYPE x y\"} 1\n\
                        # HELP c_info Some.\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n\
                        # HELP d Some.\n# TYPE d gauge\nd 2\n";
        assert_eq!(from_openmetrics(page), expected);
    }
}
