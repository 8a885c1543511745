//! Redaction: what looks like a secret does not get into an incident.
//!
//! The rule, for environment variables and command-line arguments:
//!
//! * The whole value of a *name* that looks secret is replaced: one that has, in any case, `SECRET`,
//!   `TOKEN`, `PASSW`, `PASSPHRASE`, `CREDENTIAL`, `APIKEY`, `AUTH`, `COOKIE`, `SIGNATURE`, `PRIVATE`
//!   or `DSN` in it, or a word `KEY`, `PWD` (other than `PWD` and `OLDPWD`) or `PASS`. A name is what
//!   stands before `=`, in `NAME=value` and `--name=value`; before `:` and a space, in
//!   `Header: value`; or an option by itself, `--name`, whose value is the next argument.
//! * Within any other value are replaced: the password in `scheme://user:password@host`, and what has
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

    fn value(&self, value: &str) -> String {
        let replacement = format!("${{kept}}{REDACTED}${{host}}");
        let mut value = SECRET_VALUE.replace_all(value, replacement).into_owned();
        for regex in &self.more {
            value = regex.replace_all(&value, regex::NoExpand(REDACTED)).into_owned();
        }
        value
    }
}

/// Whether what stands before a `=` or `:` is a name: an option, a variable, a header.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    !text.is_empty() && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_variable(variable: &str, redacted: &str) {
        assert_eq!(Redactor::default().variable(variable), redacted);
    }

    #[test]
    fn variables_that_look_secret_are_redacted_and_others_are_not() {
        for name in [
            "AWS_SECRET_ACCESS_KEY",
            "HF_TOKEN",
            "PGPASSWORD",
            "MYSQL_PWD",
            "OPENAI_API_KEY",
            "key",
        ] {
            check_variable(&format!("{name}=hunter2"), &format!("{name}=[redacted]"));
        }
        for harmless in
            ["PWD=/home/me", "PATH=/bin", "KEYBOARD=de", "RANK=3", "COMPASS=n", "HF_TOKEN=", "odd"]
        {
            check_variable(harmless, harmless);
        }
    }

    #[test]
    fn values_that_are_secrets_by_their_form_are_redacted_wherever_they_stand() {
        check_variable(
            "DATABASE=postgres://me:hunter2@db/x?y=1",
            "DATABASE=postgres://me:[redacted]@db/x?y=1",
        );
        check_variable("A=x AKIAIOSFODNN7EXAMPLE y", "A=x [redacted] y");
        check_variable("URL=http://host:8080/a@b", "URL=http://host:8080/a@b");
    }

    #[test]
    fn arguments_are_redacted_by_their_names() {
        let check = |arguments: &[&str], redacted: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
            assert_eq!(Redactor::default().arguments(&arguments), redacted);
        };
        check(
            &["serve", "--api-key=k", "--port=80"],
            &["serve", "--api-key=[redacted]", "--port=80"],
        );
        check(&["serve", "--password", "p", "x"], &["serve", "--password", "[redacted]", "x"]);
        check(
            &["curl", "-H", "Authorization: Bearer x"],
            &["curl", "-H", "Authorization: [redacted]"],
        );
        check(&["--no-auth", "--verbose"], &["--no-auth", "--verbose"]);
        check(&["train.py", "--lr", "0.1"], &["train.py", "--lr", "0.1"]);
    }

    #[test]
    fn the_rule_can_be_extended() {
        let redactor = Redactor::new(["(?i)license", "lot-[0-9]+"]).unwrap();
        assert_eq!(redactor.variable("LICENSE_SERVER=a"), "LICENSE_SERVER=[redacted]");
        assert_eq!(redactor.variable("NOTE=of lot-77."), "NOTE=of [redacted].");
        assert!(Redactor::new(["("]).is_err());
    }
}
