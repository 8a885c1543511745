//! Redaction: what looks like a secret does not get into an incident.
//!
//! The rule, for environment variables and command-line arguments:
//!
//! * The whole value of a *name* that looks secret is replaced: one that has, in any case, `SECRET`,
//!   `TOKEN`, `PASSW`, `PASSPHRASE`, `CREDENTIAL`, `APIKEY`, `AUTH`, `COOKIE`, `SIGNATURE`, `PRIVATE`
//!   or `DSN` in it, or a word `KEY`, `PWD` (other than `PWD` and `OLDPWD`) or `PASS`. A name is what
//!   stands before `=`, in `NAME=value` and `--name=value`; before `:` and a space, in
//!   `Header: value`; or an option by itself, `--name`, whose value is the next argument.
//! * Within any other value, such as a shell's script, the same: a secret name's value after `=`, after
//!   `: `, or after the quote that ends the name (`"token": "..."`), up to its quote's end, else to the
//!   next space or separator. Not `key`, `keys`, `pass` or `pwd` alone there, and nothing of tokens that
//!   are counted or made (`max_tokens=`, `tokenizer=`): these are ordinary words.
//! * There are replaced, too: the password in `scheme://user:password@host`, and what has
//!   the form of a well-known key (of AWS, GitHub, GitLab, Slack, Hugging Face, `sk-...`, a JSON web
//!   token, a PEM block).
//! * Beside these, whatever one of the expressions given with `--redact` matches: in a name, the whole
//!   value; in a value, what it matches.
//!
//! It is a net and no wall: an incident is of mode 0600 as well.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in a secret's place.
pub const REDACTED: &str = "[redacted]";

/// A name that looks secret; its words are split by anything that is no letter or digit.
static SECRET_NAME: LazyLock<Regex> = LazyLock::new(|| {
    built(
        "(?i)(secret|token|passw|passphrase|credential|api_?key|auth(orization|[^o]|$)|cookie|signature|private|dsn)\
         |(^|[^a-z0-9])(key|keys|pass|pwd)($|[^a-z0-9])",
    )
});

/// Secrets by their own form; what the group `kept` takes is kept.
static SECRET_VALUE: LazyLock<Regex> = LazyLock::new(|| {
    built(
        r"(?P<kept>[a-zA-Z][a-zA-Z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?P<host>@)|(AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[0-9A-Za-z]{20,}|github_pat_[0-9A-Za-z_]{20,}|glpat-[0-9A-Za-z_-]{16,}|xox[a-z]-[0-9A-Za-z-]{10,}|hf_[0-9A-Za-z]{20,}|\bsk-[0-9A-Za-z_-]{16,}|eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*|-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END [A-Z ]*-----)?",
    )
});

/// A name within a text, and what stands between it and its value, which may begin with a quote.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    built(
        r#"(?P<name>[A-Za-z0-9_.-]+)(?:(?:\\?["']\s*[:=]\s*|\s*=\s*|:\s+)\\?(?P<quote>["'])|\\?["']\s*[:=]\s*|=|:\s+)"#,
    )
});

/// A name that looks secret and is none within a text.
static ORDINARY_NAME: LazyLock<Regex> =
    LazyLock::new(|| built("(?i)^[-.]*(key|keys|pass|pwd)$|tokeniz|tokens$"));

/// The value of an unquoted name in a text; how it is authorized belongs to a header's.
static BARE_VALUE: LazyLock<Regex> =
    LazyLock::new(|| built(r#"^((Bearer|Basic|Digest|Token)\s+)?[^\s"'`&;,|<>(){}\\]+"#));

fn built(expression: &str) -> Regex {
    Regex::new(expression).expect("a constant, which the tests build")
}

/// Replaces what looks like a secret.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    more: Vec<Regex>,
}

impl Redactor {
    /// The rule, extended by these expressions.
    ///
    /// # Errors
    /// What is wrong with the first that is none.
    pub fn new<'e>(
        expressions: impl IntoIterator<Item = &'e str>,
    ) -> Result<Redactor, regex::Error> {
        let more: Result<_, _> = expressions.into_iter().map(Regex::new).collect();
        Ok(Redactor { more: more? })
    }

    /// The expressions that extend the rule.
    pub fn expressions(&self) -> impl Iterator<Item = &str> {
        self.more.iter().map(Regex::as_str)
    }

    /// A variable of an environment, `NAME=value`.
    pub fn variable(&self, variable: &str) -> String {
        match variable.split_once('=') {
            Some((name, value)) if !matches!(name, "PWD" | "OLDPWD") => {
                format!("{name}={}", self.value_of(name, value))
            }
            _ => self.value(variable),
        }
    }

    /// The arguments of a command, the program first.
    pub fn arguments(&self, arguments: &[String]) -> Vec<String> {
        let mut is_secret = false; // by the option before it
        let redacted = |argument: &String| {
            if std::mem::take(&mut is_secret) && !argument.starts_with("--") {
                return REDACTED.to_owned();
            }
            let (name, value) = match argument.split_once('=') {
                Some((name, value)) if is_name(name) => (Some((name, "=")), value),
                _ => match argument.split_once(": ") {
                    Some((name, value)) if is_name(name) => (Some((name, ": ")), value),
                    _ => (None, argument.as_str()),
                },
            };
            if let Some((name, between)) = name {
                return format!("{name}{between}{}", self.value_of(name, value));
            }
            is_secret = argument.starts_with("--") && self.is_secret_name(argument);
            self.value(argument)
        };
        arguments.iter().map(redacted).collect()
    }

    fn value_of(&self, name: &str, value: &str) -> String {
        if self.is_secret_name(name) && !value.is_empty() {
            REDACTED.to_owned()
        } else {
            self.value(value)
        }
    }

    fn is_secret_name(&self, name: &str) -> bool {
        SECRET_NAME.is_match(name) || self.more.iter().any(|regex| regex.is_match(name))
    }

    /// A text in which names may stand with their values.
    fn text(&self, text: &str) -> String {
        let (mut told, mut rest) = (String::new(), text);
        while let Some(named) = NAMED.captures(rest) {
            let (whole, name) = (named.get_match(), &named["name"]);
            told.push_str(&rest[..whole.end()]);
            let quote = named.name("quote").and_then(|quote| quote.as_str().chars().next());
            rest = &rest[whole.end()..];
            if ORDINARY_NAME.is_match(name) || !self.is_secret_name(name) {
                continue;
            }
            let length = length_of(rest, quote);
            if length > 0 {
                told.push_str(REDACTED);
            }
            rest = &rest[length..];
        }
        told + rest
    }

    fn value(&self, value: &str) -> String {
        let replacement = format!("${{kept}}{REDACTED}${{host}}");
        let value = self.text(value);
        let mut value = SECRET_VALUE.replace_all(&value, replacement).into_owned();
        for regex in &self.more {
            value = regex.replace_all(&value, regex::NoExpand(REDACTED)).into_owned();
        }
        value
    }
}

/// How long a secret is that begins this text, after such a quote or none.
fn length_of(text: &str, quote: Option<char>) -> usize {
    if text.starts_with(REDACTED) {
        return 0;
    }
    match quote {
        Some(quote) => {
            let end = text.find(quote).unwrap_or(text.len());
            text[..end].trim_end_matches('\\').len() // of a quote within a quote
        }
        // A comparison is no assignment.
        None if text.starts_with('=') => 0,
        None => BARE_VALUE.find(text).map_or(0, |value| value.end()),
    }
}

/// Whether what stands before a `=` or `:` is a name: an option, a variable, a header.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

#[cfg(test)]
mod tests;
