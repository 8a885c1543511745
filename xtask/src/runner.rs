//! Runs a list of steps one after another and tells how each of them went.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::step::Step;

/// How a step went.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Ok(Duration),
    Failed(Duration),
    Skipped(String),
    NotRun,
}

/// Runs the steps in order and stops at the first that fails.
///
/// `rerun` is the command line that, with a step's name appended, runs that step alone; `None`
/// where that makes no sense.
pub(crate) fn run(steps: &[Step], rerun: Option<&str>) -> ExitCode {
    let mut outcomes = vec![Outcome::NotRun; steps.len()];
    let mut why_failed = None;
    for (step, outcome) in steps.iter().zip(&mut outcomes) {
        say(&format!("\n== {}: {}\n   {step}\n", step.name, step.what));
        if let Some(why) = step.unless.and_then(|why_not| why_not()) {
            say(&format!("-- {}: skipped: {why}\n", step.name));
            *outcome = Outcome::Skipped(why);
            continue;
        }
        let started = Instant::now();
        let result = run_one(step);
        let took = started.elapsed();
        match result {
            Ok(()) => {
                say(&format!("-- {}: ok, {}\n", step.name, Seconds(took)));
                *outcome = Outcome::Ok(took);
            }
            Err(why) => {
                say(&format!("-- {}: FAILED, {}\n", step.name, Seconds(took)));
                *outcome = Outcome::Failed(took);
                let alone = rerun.map(|rerun| format!("Alone: {rerun} {}\n", step.name));
                let alone = alone.unwrap_or_default();
                why_failed = Some(format!("{}: {why}\n{alone}", step.name));
                break;
            }
        }
    }
    say(&table(steps, &outcomes));
    match why_failed {
        None => ExitCode::SUCCESS,
        Some(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

fn run_one(step: &Step) -> Result<(), String> {
    for tool in &step.needs {
        tool.ensure()?;
    }
    let status = step.command().status().map_err(|error| format!("cannot start it: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}")) }
}

fn table(steps: &[Step], outcomes: &[Outcome]) -> String {
    let mut text = String::from("\nstep          result      time  what\n");
    for (step, outcome) in steps.iter().zip(outcomes) {
        let (word, took) = match outcome {
            Outcome::Ok(took) => ("ok", Seconds(*took).to_string()),
            Outcome::Failed(took) => ("FAILED", Seconds(*took).to_string()),
            Outcome::Skipped(_) => ("skipped", String::new()),
            Outcome::NotRun => ("not run", String::new()),
        };
        let _ = writeln!(text, "{:<12}  {word:<7}  {took:>7}  {}", step.name, step.what);
    }
    for (step, outcome) in steps.iter().zip(outcomes) {
        if let Outcome::Skipped(why) = outcome {
            let _ = writeln!(text, "Skipped: {}: {why}", step.name);
        }
    }
    text
}

/// Seconds with one decimal.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// Prints, and does not mind a reader who has gone: the exit code still counts.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Outcome, table};
    use crate::test::steps;

    #[test]
    fn the_last_lines_say_what_was_skipped_and_why() {
        let steps = &steps()[..1];
        let text = table(steps, &[Outcome::Skipped("no room".to_owned())]);
        assert!(text.ends_with(&format!("Skipped: {}: no room\n", steps[0].name)), "{text}");
    }

    #[test]
    fn the_closing_table_fits_80_columns() {
        let steps = steps();
        let took = Duration::from_mins(90);
        let outcomes = vec![Outcome::Failed(took); steps.len()];
        for line in table(&steps, &outcomes).lines() {
            assert!(line.len() <= 80, "{} columns: {line}", line.len());
        }
    }
}
