//! The theme: which styles and characters the view is drawn with.

use ratatui::style::{Color, Modifier, Style};

use super::row::Urgency;
use super::text::{Charset, Keep, clean, fit};

/// How everything is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    pub(super) colour: Colour,
    pub(super) charset: Charset,
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Ansi,
    None,
}

/// Of titles.
pub(super) const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
/// Of what is selected.
pub(super) const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

impl Theme {
    /// By the environment: `NO_COLOR` and the locale.
    pub(super) fn of_environment(get: impl Fn(&str) -> Option<String>) -> Theme {
        let plain = get("NO_COLOR").is_some_and(|value| !value.is_empty());
        Theme {
            colour: if plain { Colour::None } else { Colour::Ansi },
            charset: Charset::of_locale(get),
        }
    }

    fn in_colour(self, colour: Color) -> Style {
        if self.colour == Colour::Ansi { Style::new().fg(colour) } else { Style::new() }
    }

    pub(super) fn faint(self) -> Style {
        // Dim is unreadable on some terminals without colours.
        self.in_colour(Color::DarkGray)
    }

    pub(super) fn alarm(self) -> Style {
        self.in_colour(Color::Red).add_modifier(Modifier::BOLD)
    }

    pub(super) fn warning(self) -> Style {
        self.in_colour(Color::Yellow)
    }

    pub(super) fn good(self) -> Style {
        self.in_colour(Color::Green)
    }

    pub(super) fn of_urgency(self, urgency: Urgency) -> Style {
        match urgency {
            Urgency::Idle => self.faint(),
            Urgency::Calm => Style::new(),
            Urgency::Near => self.warning(),
            Urgency::Overdue => self.alarm(),
        }
    }

    /// A bar of `columns`, `fraction` of it full.
    pub(super) fn bar(self, fraction: f64, columns: usize) -> String {
        let (full, empty) = match self.charset {
            Charset::Unicode => ('\u{2588}', '\u{b7}'),
            Charset::Ascii => ('#', '.'),
        };
        let over = if fraction > 1.0 { '!' } else { full };
        #[expect(
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "between 0 and the terminal's columns"
        )]
        let filled = (fraction.clamp(0.0, 1.0) * columns as f64).round() as usize;
        let cell = |column| if column < filled { over } else { empty };
        (0..columns).map(cell).collect()
    }

    /// A worker's text, harmless and at most so wide.
    pub(super) fn text(self, text: &str, columns: usize, keep: Keep) -> String {
        fit(&clean(text, self.charset), columns, keep, self.charset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_with_time_and_shouts_beyond() {
        let theme = Theme { colour: Colour::None, charset: Charset::Ascii };
        let check = |fraction: f64, bar: &str| assert_eq!(theme.bar(fraction, 4), bar);
        check(0.0, "....");
        check(0.5, "##..");
        check(1.0, "####");
        check(1.01, "!!!!");
        check(f64::INFINITY, "!!!!");
        check(f64::NAN, "....");
    }

    #[test]
    fn no_color_takes_the_colours_and_leaves_the_rest() {
        let check = |value: Option<&str>, colour| {
            let get = |name: &str| (name == "NO_COLOR").then_some(value?.to_owned());
            let theme = Theme::of_environment(get);
            assert_eq!(theme.colour, colour, "{value:?}");
            assert_eq!(theme.alarm().fg.is_none(), colour == Colour::None);
        };
        check(None, Colour::Ansi);
        check(Some(""), Colour::Ansi);
        check(Some("1"), Colour::None);
    }
}
