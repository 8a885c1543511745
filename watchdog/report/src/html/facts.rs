//! What else was captured: the flight records, the process, and what is missing.

use maud::{Markup, html};

use hangwatch_incident::schema::{Evidence, Incident, Lane, Process};
use hangwatch_incident::{story, words};
use hangwatch_text::{brief_ns, bytes, count, plain, plain_words};

/// Records of one lane in the page: a ring may hold many more than anybody reads.
const MOST_RECORDS: usize = 500;

pub(super) fn flight_records(incident: &Incident) -> Markup {
    let at_ns = story::origin_ns(incident);
    let flown: Vec<&Lane> =
        incident.evidence.lanes.iter().filter(|lane| !lane.records.is_empty()).collect();
    if flown.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="flight" {
            h2 #flight { "What it did last" }
            @for lane in flown {
                details {
                    summary {
                        "Flight record of " code { (plain(&lane.thread)) } " "
                        span.aside { "lane " (lane.lane) ", " (count(lane.records.len(), "record")) }
                    }
                    (records(lane, at_ns))
                }
            }
        }
    }
}

fn records(lane: &Lane, at_ns: u64) -> Markup {
    let left_out = lane.records.len().saturating_sub(MOST_RECORDS);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Flight record" {
            table {
                thead { tr { th.number { "When" } th { "What" } th { "Scope" } th.number { "Due" } } }
                tbody {
                    @for record in lane.records[left_out..].iter().rev() {
                        tr {
                            td.number { (story::offset(record.at_ns, at_ns)) }
                            td { (words::operation(&record.operation)) }
                            td { code { (plain(&record.scope)) } }
                            td.number {
                                @if let Some(due) = record.deadline_ns { (story::offset(due, at_ns)) }
                            }
                        }
                    }
                }
            }
        }
        @if left_out as u64 + lane.records_lost > 0 {
            p.aside { (left_out as u64 + lane.records_lost) " older ones are not here." }
        }
    }
}

pub(super) fn process(incident: &Incident) -> Markup {
    let Some(facts) = &incident.evidence.process else { return html! {} };
    html! {
        section aria-labelledby="process" {
            h2 #process { "Its process" }
            dl.facts {
                (fact("Command", &plain_words(&incident.worker.command)))
                (fact("Executable", facts.executable.as_deref().unwrap_or_default()))
                (fact("Directory", facts.directory.as_deref().unwrap_or_default()))
                (fact("Parent", &facts.parent.map_or_else(String::new, |pid| format!("pid {pid}"))))
                (fact("Memory", &memory(facts)))
                (fact("Control group", &plain_words(&facts.cgroups)))
                (fact("Blocks", &plain_words(&facts.signals_blocked)))
                (fact("Ignores", &plain_words(&facts.signals_ignored)))
                (fact("Catches", &plain_words(&facts.signals_caught)))
                (fact("Waiting for it", &plain_words(&facts.signals_pending)))
            }
            (list("Children", facts.children.len(), facts.children.iter().map(|child| {
                format!("pid {} ({}), {}", child.pid, child.name, words::state(&child.state))
            })))
            (list("Open files", facts.files.len(), facts.files.iter().map(|file| {
                format!("{} {}", file.descriptor, file.target)
            })))
            @if facts.files_left_out > 0 { p.aside { (facts.files_left_out) " more open files are not listed." } }
            (list("Environment", facts.environment.len(), facts.environment.iter().cloned()))
        }
    }
}

fn memory(facts: &Process) -> String {
    let sizes = [
        (facts.resident_bytes, "resident"),
        (facts.virtual_bytes, "virtual"),
        (facts.swap_bytes.filter(|swap| *swap > 0), "swapped out"),
    ];
    let told =
        sizes.into_iter().filter_map(|(size, what)| Some(format!("{} {what}", bytes(size?))));
    told.collect::<Vec<_>>().join(", ")
}

/// A fact, if there is any.
fn fact(label: &str, value: &str) -> Markup {
    html! {
        @if !value.is_empty() { div { dt { (label) } dd { code { (plain(value)) } } } }
    }
}

/// A folded list, if there is anything in it.
fn list(label: &str, number: usize, facts: impl Iterator<Item = String>) -> Markup {
    html! {
        @if number > 0 {
            details {
                summary { (label) " " span.aside { (number) } }
                ul.plain { @for fact in facts { li { code { (plain(&fact)) } } } }
            }
        }
    }
}

pub(super) fn missing(evidence: &Evidence) -> Markup {
    html! {
        section aria-labelledby="missing" {
            h2 #missing { "What is missing" }
            @if evidence.level == "off" {
                p.none { "Everything: the watchdog was run with " code { "--evidence off" } "." }
            } @else if evidence.missing.is_empty() {
                p.none { "Nothing that was asked for." }
            } @else {
                dl.facts {
                    @for missing in &evidence.missing {
                        div {
                            dt { (story::what_was_decided(&missing.what)) }
                            dd { (plain(&missing.why)) }
                        }
                    }
                }
            }
            @if evidence.taken_ns > 0 {
                p.aside {
                    "Evidence of level " code { (plain(&evidence.level)) }
                    ", took " (brief_ns(evidence.taken_ns)) " and was allowed " (brief_ns(evidence.budget_ns)) "."
                }
            }
        }
    }
}
