//! `hangwatch analyze`: finds the ranks at fault in Flight Recorder dumps.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use hangwatch_flight_recorder::{Analysis, AtFault, Mismatch, Wait, read};

use super::{Failure, complain, print};
use crate::cli::Analyze;
use crate::exit::Exit;
use hangwatch_text::{count, plain};

/// How many waits are shown for one rank at fault; the others are counted.
const WAITS_SHOWN: usize = 4;
/// The width of the last lines.
const COLUMNS: usize = 80;
/// The most ranges of ranks that a line lists.
const RANGES_SHOWN: usize = 12;

#[derive(Debug, thiserror::Error)]
#[error(
    "no Flight Recorder dump found: torch writes them to /tmp/nccl_trace_rank_N by default, or to \
     the path in TORCH_NCCL_DEBUG_INFO_TEMP_FILE"
)]
struct NoDumps;

pub(super) fn perform(options: &Analyze) -> Result<Exit, Failure> {
    let (dumps, unread) = read(&options.paths)?;
    for file in &unread {
        let path = file.path.to_string_lossy();
        complain(&format_args!("skipped {}: {}", plain(&path), plain(&file.why.to_string())));
    }
    if dumps.is_empty() {
        return Err(NoDumps.into());
    }
    let analysis = Analysis::of(&dumps);
    if options.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&analysis)?))?;
    } else {
        print(&story(&analysis))?;
    }
    Ok(Exit::Ok)
}

/// The verdict, then the evidence for it.
fn story(analysis: &Analysis) -> String {
    let mut text = format!("{}\n", verdict(analysis));
    for fault in &analysis.at_fault {
        add_fault(&mut text, fault);
    }
    for mismatch in &analysis.mismatches {
        add_mismatch(&mut text, mismatch);
    }
    for wait in analysis.waits_for_no_dump.iter().take(WAITS_SHOWN) {
        let _ = writeln!(
            text,
            "  {} {} for {}, without a dump, {}",
            ranks(&wait.waiters),
            verb(&wait.waiters, "waits", "wait"),
            ranks(&wait.behind),
            place(wait)
        );
    }
    text.push('\n');
    for line in basis(analysis) {
        text.push_str(&textwrap::fill(&line, COLUMNS));
        text.push('\n');
    }
    text
}

/// The dumps that were used, and what was left out.
fn basis(analysis: &Analysis) -> Vec<String> {
    let mut lines = vec![format!("Dumps read: {}.", analysis.dumps)];
    if !analysis.no_dump.is_empty() {
        lines.push(format!("No dump: {}.", ranks(&analysis.no_dump)));
    }
    if !analysis.left_out.is_empty() {
        let groups: Vec<_> =
            analysis.left_out.iter().take(WAITS_SHOWN).map(|name| plain(name)).collect();
        lines.push(format!(
            "Left out: {} with point-to-point operations, whose counters differ by design ({}).",
            count(analysis.left_out.len(), "group"),
            groups.join(", ")
        ));
    }
    if analysis.unnamed > 0 {
        let groups = count(analysis.unnamed, "group");
        lines.push(format!("Left out: the counters of {groups} that no entry names."));
    }
    lines
}

fn verdict(analysis: &Analysis) -> String {
    let single: BTreeSet<u32> = analysis
        .at_fault
        .iter()
        .filter(|fault| fault.ranks.len() == 1)
        .flat_map(|fault| fault.ranks.iter().copied())
        .collect();
    if !single.is_empty() {
        return format!(
            "{} {} at fault: the others wait for {}, and {} for nobody.",
            capital(&ranks(&single)),
            verb(&single, "is", "are"),
            verb(&single, "it", "them"),
            verb(&single, "it waits", "they wait")
        );
    }
    if let Some(cycle) = analysis.at_fault.first() {
        return format!("Deadlock: {} wait for each other.", ranks(&cycle.ranks));
    }
    if let Some(mismatch) = analysis.mismatches.first() {
        let odd = &mismatch.calls[0].ranks;
        return format!(
            "{} called another collective than the others of the group.",
            capital(&ranks(odd))
        );
    }
    if let Some(wait) = analysis.waits_for_no_dump.first() {
        return format!(
            "Not known: {} left no dump, and others wait for {}.",
            ranks(&wait.behind),
            verb(&wait.behind, "it", "them")
        );
    }
    if analysis.waiting.is_empty() {
        return "No hang: every collective has completed.".to_owned();
    }
    format!(
        "Not known: {} {} in a collective that every member has entered, or in groups that cannot \
        be compared.",
        ranks(&analysis.waiting),
        verb(&analysis.waiting, "waits", "wait")
    )
}

fn add_fault(text: &mut String, fault: &AtFault) {
    let _ = writeln!(text, "  {}:", ranks(&fault.ranks));
    for wait in fault.waits.iter().take(WAITS_SHOWN) {
        let _ = writeln!(
            text,
            "    {} {} {}",
            ranks(&wait.waiters),
            verb(&wait.waiters, "waits", "wait"),
            place(wait)
        );
    }
    if let Some(more) = fault.waits.len().checked_sub(WAITS_SHOWN).filter(|more| *more > 0) {
        let _ = writeln!(text, "    and in {}", count(more, "more group"));
    }
}

fn add_mismatch(text: &mut String, mismatch: &Mismatch) {
    let _ = writeln!(text, "  collective #{} of {}:", mismatch.sequence, plain(&mismatch.group));
    for call in mismatch.calls.iter().take(WAITS_SHOWN) {
        let at = if call.line.is_empty() { String::new() } else { format!(" at {}", call.line) };
        let called = format!("{} {} {}", call.operation, call.types, call.sizes);
        let _ = writeln!(
            text,
            "    {}: {}{}",
            ranks(&call.ranks),
            plain(called.trim_end()),
            plain(&at)
        );
    }
}

fn place(wait: &Wait) -> String {
    let collective = match wait.collective.as_str() {
        "" => String::new(),
        collective => format!("in {}, ", plain(collective)),
    };
    format!("{collective}group {}", plain(&wait.group))
}

/// `rank 3`, `ranks 0-2, 7`.
fn ranks(ranks: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &rank in ranks {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == rank => *last = rank,
            _ => ranges.push((rank, rank)),
        }
    }
    let cut = ranges.len() > RANGES_SHOWN;
    let shown = ranges.iter().take(RANGES_SHOWN).map(|&(first, last)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}-{last}"),
    });
    let list = shown.collect::<Vec<_>>().join(", ");
    let more = if cut { format!(" and others, {} in all", ranks.len()) } else { String::new() };
    format!("{} {list}{more}", verb(ranks, "rank", "ranks"))
}

fn verb<'a>(ranks: &BTreeSet<u32>, one: &'a str, many: &'a str) -> &'a str {
    if ranks.len() == 1 { one } else { many }
}

fn capital(text: &str) -> String {
    text.replacen('r', "R", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(waiters: &[u32], behind: &[u32]) -> Wait {
        Wait {
            group: "default_pg (0)".to_owned(),
            collective: "all_reduce #9 at train.py:41".to_owned(),
            waiters: waiters.iter().copied().collect(),
            behind: behind.iter().copied().collect(),
        }
    }

    #[test]
    fn ranks_are_shown_as_ranges() {
        let check =
            |list: &[u32], shown: &str| assert_eq!(ranks(&list.iter().copied().collect()), shown);
        check(&[3], "rank 3");
        check(&[0, 1], "ranks 0, 1");
        check(&[0, 1, 2, 7], "ranks 0-2, 7");
    }

    #[test]
    fn first_line_is_the_verdict() {
        let fault = |ranks: &[u32]| AtFault {
            ranks: ranks.iter().copied().collect(),
            waits: vec![wait(&[0, 2], ranks)],
        };
        let check = |analysis: Analysis, first: &str| {
            assert_eq!(story(&analysis).lines().next(), Some(first));
        };
        let of = |at_fault| Analysis { at_fault, ..Analysis::default() };
        check(
            of(vec![fault(&[1])]),
            "Rank 1 is at fault: the others wait for it, and it waits for nobody.",
        );
        check(
            of(vec![fault(&[1]), fault(&[4])]),
            "Ranks 1, 4 are at fault: the others wait for them, and they wait for nobody.",
        );
        check(of(vec![fault(&[0, 1])]), "Deadlock: ranks 0, 1 wait for each other.");
        check(Analysis::default(), "No hang: every collective has completed.");
    }

    #[test]
    fn control_characters_in_dumps_are_escaped() {
        let mut wait = wait(&[0], &[1]);
        wait.group = "a\u{1b}[2J\nb".to_owned();
        let fault = AtFault { ranks: BTreeSet::from([1]), waits: vec![wait] };
        let text = story(&Analysis { at_fault: vec![fault], ..Analysis::default() });
        assert!(text.contains("a\\u{1b}[2J\\nb"), "{text}");
    }
}
