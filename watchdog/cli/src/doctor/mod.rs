//! `hangwatch doctor`: checks what works on this host, and says what to change.
//!
//! `facts` gathers facts, `checks` judges them; this module prints the findings.

mod checks;
mod facts;

use std::fmt::Write;

use serde::Serialize;

use self::checks::{Finding, Verdict, examine};
use self::facts::Facts;

/// The result of all checks.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether everything that hangwatch needs works.
    fit: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Checks this host and the permissions of this process.
    ///
    /// Locks this process's memory and lowers its OOM score, so the process should end soon after.
    pub(crate) fn of_here() -> Report {
        Report::of(examine(&Facts::gather()))
    }

    fn of(findings: Vec<Finding>) -> Report {
        Report { fit: findings.iter().all(|it| it.verdict != Verdict::Missing), findings }
    }

    /// Whether everything that hangwatch needs works.
    pub(crate) fn is_fit(&self) -> bool {
        self.fit
    }

    /// One paragraph for each finding, wrapped to this width.
    pub(crate) fn text(&self, columns: usize) -> String {
        let mut text = String::new();
        for Finding { topic, verdict, found, advice } in &self.findings {
            let word = match verdict {
                Verdict::Works => "ok",
                Verdict::Weaker => "weaker",
                Verdict::Missing => "MISSING",
            };
            paragraph(&mut text, &format!("{word:<8} {topic:<15}"), found, columns);
            if let Some(advice) = advice {
                paragraph(&mut text, &format!("{:24}", ""), &format!("-> {advice}"), columns);
            }
        }
        let count = |verdict| self.findings.iter().filter(|it| it.verdict == verdict).count();
        let (weaker, missing) = (count(Verdict::Weaker), count(Verdict::Missing));
        let _ = match (missing, weaker) {
            (0, 0) => writeln!(text, "\nEverything works."),
            (0, weaker) => {
                writeln!(text, "\nEverything that hangwatch needs works; {weaker} could be better.")
            }
            (missing, _) => {
                writeln!(text, "\nhangwatch cannot work here: {missing} missing, see above.")
            }
        };
        text
    }
}

/// Writes `head` followed by `body`, wrapped with a hanging indent.
fn paragraph(text: &mut String, head: &str, body: &str, columns: usize) {
    let indent = head.len() + 1;
    let mut at = indent;
    text.push_str(head);
    text.push(' ');
    for word in body.split(' ') {
        let is_first = at == indent;
        if !is_first && at + 1 + word.len() > columns {
            let _ = write!(text, "\n{:indent$}", "");
            at = indent;
        } else if !is_first {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += word.len();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(verdict: Verdict) -> Finding {
        let found = "4 of 64 MiB free, mode 1777: a segment of the default size takes 8 MiB".into();
        let advice = (verdict != Verdict::Works).then(|| "free some, or make it larger".into());
        Finding { topic: "/dev/shm", verdict, found, advice }
    }

    #[test]
    fn a_report_fits_its_columns() {
        let report = Report::of(vec![finding(Verdict::Works), finding(Verdict::Missing)]);
        assert!(!report.is_fit());
        assert_eq!(
            report.text(60),
            "ok       /dev/shm        4 of 64 MiB free, mode 1777: a\n\
             \x20                        segment of the default size takes 8\n\
             \x20                        MiB\n\
             MISSING  /dev/shm        4 of 64 MiB free, mode 1777: a\n\
             \x20                        segment of the default size takes 8\n\
             \x20                        MiB\n\
             \x20                        -> free some, or make it larger\n\
             \n\
             hangwatch cannot work here: 1 missing, see above.\n"
        );
    }

    #[test]
    fn weaker_findings_are_fit() {
        let report = Report::of(vec![finding(Verdict::Weaker)]);
        assert!(report.is_fit());
        assert!(
            report
                .text(80)
                .ends_with("Everything that hangwatch needs works; 1 could be better.\n")
        );
    }
}
