//! One incident as text for a terminal: what happened, the thread that hung with its stacks, the rest.
//!
//! [`text`] writes all of it, [`in_brief`] the beginning; `page` does the layout. Names come from workers, so
//! [`plain`] escapes all of them.

use std::sync::Arc;

use hangwatch_incident::schema::{Descendant, Incident, Lane, Missing, Peer, Process, Record};
use hangwatch_incident::{crowd, story, words};
use hangwatch_text::{brief_ns, bytes, count, plain, plain_words};

use page::Page;
pub use page::{Colour, Fold, Look};

pub mod dump;
mod page;
mod stacks;

/// The most records, and facts of one kind about a process, that are shown when folded.
const FEW: usize = 12;

/// More workers than this are shown in groups.
const MANY_PEERS: usize = 8;

/// The whole text of the incident with the name `id`.
pub fn text(id: &str, incident: &Incident, look: Look) -> String {
    let mut page = Page::new(look);
    answer(&mut page, incident);
    page.aside(&format!("{id}, {} UTC", story::date_time(&incident.at)));
    for paragraph in story::paragraphs(incident) {
        page.gap();
        page.paragraph(&paragraph);
    }
    let origin_ns = story::origin_ns(incident);
    decisions(&mut page, origin_ns, incident);
    stacks::write(&mut page, &incident.evidence);
    descendants(&mut page, incident);
    peers(&mut page, &incident.others);
    if let Some(left_out) = story::others_left_out(incident) {
        page.remark(&left_out);
    }
    flight_records(&mut page, origin_ns, &incident.evidence.lanes);
    if let Some(facts) = &incident.evidence.process {
        process(&mut page, &incident.worker.command, facts);
    }
    missing(&mut page, incident);
    page.finish()
}

/// The short text: headline, scope, and the call that hung.
pub fn in_brief(incident: &Incident, look: Look) -> String {
    let mut page = Page::new(look);
    answer(&mut page, incident);
    if let Some(entered) = story::entered(incident) {
        page.paragraph(&entered);
    }
    stacks::in_brief(&mut page, &incident.evidence);
    page.finish()
}

/// Why it hung, where that is known, and who it was.
fn answer(page: &mut Page, incident: &Incident) {
    if let Some(verdict) = story::verdict(incident) {
        page.title(&verdict);
        story::chain(incident).iter().for_each(|line| page.item("  ", line));
        page.paragraph(&format!("{}.", story::headline(incident)));
        return;
    }
    page.title(&story::headline(incident));
    if let Some(why) = story::not_known(incident) {
        page.paragraph(&why);
        story::chain(incident).iter().for_each(|line| page.item("  ", line));
    }
}

fn decisions(page: &mut Page, origin_ns: u64, incident: &Incident) {
    if incident.decisions.is_empty() {
        return;
    }
    page.heading(story::decisions_heading(incident));
    for decision in &incident.decisions {
        let when = story::offset(decision.at.monotonic_ns, origin_ns);
        let what = story::what_was_decided(&decision.what);
        let why = plain(&decision.why);
        page.item(&format!("{when:>8}  "), &format!("{what}: {why}"));
    }
}

/// The descendants of a command, each with its stacks.
fn descendants(page: &mut Page, incident: &Incident) {
    for Descendant { worker, evidence } in &incident.descendants {
        let spoken = plain_words(&worker.command);
        let spoken = if spoken.is_empty() { plain(&worker.name) } else { spoken };
        page.heading(&format!("Below it: {}, {spoken}", story::who(worker)));
        if page.folds() {
            stacks::in_brief(page, evidence);
        } else {
            stacks::all(page, evidence);
        }
    }
    if page.folds() && !incident.descendants.is_empty() {
        page.folded("their stacks");
    }
    if incident.descendants_left_out > 0 {
        let more = incident.descendants_left_out;
        page.remark(&format!("{more} more processes below it were not looked at"));
    }
}

fn peers(page: &mut Page, others: &[Arc<Peer>]) {
    if others.is_empty() {
        return;
    }
    page.heading("What the other workers were doing");
    if others.len() > MANY_PEERS && page.folds() {
        for crowd in crowd::crowds(others) {
            page.item("  ", &told(&crowd));
        }
        return;
    }
    for peer in others {
        let pid = peer.worker.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        let pid = if peer.worker.rank.is_some() { pid } else { String::new() };
        page.item("  ", &format!("{}{pid}: {}", story::who(&peer.worker), plain(&peer.doing)));
    }
}

/// `61 workers in "all_reduce" for 9.8s to 10.1s: ranks 0, 3-63`.
fn told(crowd: &crowd::Crowd) -> String {
    let workers = count(crowd.number, "worker");
    match &crowd.scope {
        None => format!("{workers} in no scope: {}", crowd.who),
        Some(scope) => {
            format!("{workers} in {}{}: {}", story::quoted(scope), ages(crowd), crowd.who)
        }
    }
}

fn ages(crowd: &crowd::Crowd) -> String {
    let (least, most) = (brief_ns(crowd.ages_ns.0), brief_ns(crowd.ages_ns.1));
    if least == most { format!(" for {least}") } else { format!(" for {least} to {most}") }
}

fn flight_records(page: &mut Page, at_ns: u64, lanes: &[Lane]) {
    let flown = lanes.iter().filter(|lane| !lane.records.is_empty());
    let shown = if page.folds() { 1 } else { usize::MAX };
    for lane in flown.take(shown) {
        page.heading(&format!("What its thread {:?} did last", plain(&lane.thread)));
        let most = if page.folds() { FEW } else { usize::MAX };
        let left_out = lane.records.len().saturating_sub(most);
        if left_out > 0 {
            page.folded(&format!("{} before these", count(left_out, "record")));
        }
        for record in &lane.records[left_out..] {
            page.line(&format!("  {}", recorded(record, at_ns)));
        }
        if lane.records_lost > 0 {
            page.remark(&format!("{} older ones were overwritten", lane.records_lost));
        }
    }
}

/// `-1.5s  acquired "step", due +8.5s`.
fn recorded(record: &Record, at_ns: u64) -> String {
    let when = story::offset(record.at_ns, at_ns);
    let due = match record.deadline_ns {
        Some(deadline) => format!(", due {}", story::offset(deadline, at_ns)),
        None => String::new(),
    };
    let operation = words::operation(&record.operation);
    format!("{when:>8}  {operation} {}{due}", story::quoted(&record.scope))
}

fn process(page: &mut Page, command: &[String], facts: &Process) {
    page.heading("Its process");
    page.fact("command", &plain_words(command));
    page.fact("executable", &plain(facts.executable.as_deref().unwrap_or_default()));
    page.fact("directory", &plain(facts.directory.as_deref().unwrap_or_default()));
    page.fact("parent", &facts.parent.map_or_else(String::new, |pid| format!("pid {pid}")));
    let memory: Vec<String> = [
        (facts.resident_bytes, "resident"),
        (facts.virtual_bytes, "virtual"),
        (facts.swap_bytes.filter(|swap| *swap > 0), "swapped out"),
    ]
    .into_iter()
    .filter_map(|(size, what)| Some(format!("{} {what}", bytes(size?))))
    .collect();
    page.fact("memory", &memory.join(", "));
    page.fact("blocks", &plain_words(&facts.signals_blocked));
    page.fact("ignores", &plain_words(&facts.signals_ignored));
    page.fact("catches", &plain_words(&facts.signals_caught));
    page.fact("waiting", &plain_words(&facts.signals_pending));
    some(page, "cgroup", facts.cgroups.iter().map(|cgroup| plain(cgroup).into_owned()));
    let child = |child: &hangwatch_incident::schema::Child| {
        format!("pid {} ({}), {}", child.pid, plain(&child.name), words::state(&child.state))
    };
    some(page, "child", facts.children.iter().map(child));
    let file = |file: &hangwatch_incident::schema::File| {
        format!("{} {}", file.descriptor, plain(&file.target))
    };
    some(page, "file", facts.files.iter().map(file));
    if facts.files_left_out > 0 {
        page.remark(&format!("{} more open files were not listed", facts.files_left_out));
    }
    if !page.folds() {
        some(page, "variable", facts.environment.iter().map(|word| plain(word).into_owned()));
    }
}

/// Facts of one kind, one per line, up to a limit.
fn some(page: &mut Page, label: &str, facts: impl ExactSizeIterator<Item = String>) {
    let most = if page.folds() { FEW } else { usize::MAX };
    let left_out = facts.len().saturating_sub(most);
    for fact in facts.take(most) {
        page.fact(label, &fact);
    }
    if left_out > 0 {
        page.folded(&format!("{left_out} more of \"{label}\""));
    }
}

fn missing(page: &mut Page, incident: &Incident) {
    let evidence = &incident.evidence;
    if evidence.missing.is_empty() && evidence.level != "off" {
        return;
    }
    page.heading("What is missing");
    if evidence.level == "off" {
        page.item("  ", "everything: the watchdog was run with --evidence off");
    }
    for Missing { what, why } in &evidence.missing {
        page.item("  ", &format!("{}: {}", story::what_was_decided(what), plain(why)));
    }
}
