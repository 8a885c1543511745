//! `hangwatch doctor`: what works here, what does not, and what to change.
//!
//! `facts` finds out, `checks` judges; here the findings are shown.

mod checks;
mod facts;

use std::fmt::Write;

use serde::Serialize;

use self::checks::{Finding, Verdict, examine};
use self::facts::Facts;

/// What the doctor has to say.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Whether everything that is needed works.
    fit: bool,
    findings: Vec<Finding>,
}

impl Report {
    /// Examines this host, and this process's rights on it. Locks its memory and lowers its OOM score
    /// on the way: for processes that end soon.
    pub(crate) fn of_here() -> Report {
        Report::of(examine(&Facts::gather()))
    }

    fn of(findings: Vec<Finding>) -> Report {
        Report { fit: findings.iter().all(|it| it.verdict != Verdict::Missing), findings }
    }

    /// Whether everything that is needed works.
    pub(crate) fn is_fit(&self) -> bool {
        self.fit
    }

    /// A paragraph a finding, at most so wide.
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
            (0, weaker) => writeln!(text, "\nEverything needed works; {weaker} could be better."),
            (missing, _) => writeln!(text, "\nhangwatch cannot work here: {missing} missing."),
        };
        text
    }
}

/// Writes `head` and, hanging behind it, `body` in lines of so many columns.
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
    fn a_report_is_laid_out_within_its_columns() {
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
             hangwatch cannot work here: 1 missing.\n"
        );
    }

    #[test]
    fn what_is_only_weaker_is_fit() {
        let report = Report::of(vec![finding(Verdict::Weaker)]);
        assert!(report.is_fit());
        assert!(report.text(80).ends_with("Everything needed works; 1 could be better.\n"));
    }
}
