//! The text of `hangwatch dump`: verdict, chain of waits, stacks with equal ones merged.

use hangwatch_incident::schema::{Descendant, Dump, Missing, Thread};
use hangwatch_incident::story;
use hangwatch_text::{count, plain, plain_words};

use super::page::Page;
use super::{Look, stacks};

/// The most threads that are named for one stack.
const OWNERS: usize = 8;

/// The whole text.
pub fn text(dump: &Dump, look: Look) -> String {
    let mut page = Page::new(look);
    page.verdict(&dump.waits.sentence);
    for line in &dump.waits.chain {
        page.chain(line);
    }
    for crowd in crowds(&dump.processes) {
        page.heading(&crowd.owners());
        stacks::stacks(&mut page, crowd.thread);
    }
    if dump.left_out > 0 {
        let left_out = usize::try_from(dump.left_out).unwrap_or(usize::MAX);
        page.remark(&format!("the stacks of {} were not taken", count(left_out, "more process")));
    }
    missing(&mut page, dump);
    page.finish()
}

/// Threads with equal stacks.
struct Crowd<'d> {
    thread: &'d Thread,
    owners: Vec<(&'d Descendant, &'d Thread)>,
}

impl Crowd<'_> {
    /// `python3 train.py (pid 7): thread 7 "MainThread"; 3 more threads with the same stack: ...`
    fn owners(&self) -> String {
        let mut named: Vec<String> = Vec::new();
        for (process, thread) in self.owners.iter().take(OWNERS) {
            let spoken = plain_words(&process.worker.command);
            let spoken = if spoken.is_empty() { plain(&process.worker.name) } else { spoken };
            let thread = format!("thread {} {}", thread.tid, story::quoted(&thread.name));
            named.push(format!("{} ({}), {thread}", story::who(&process.worker), spoken.end(48)));
        }
        let more = self.owners.len().saturating_sub(OWNERS);
        let more =
            if more > 0 { format!("; and {}", count(more, "more thread")) } else { String::new() };
        named.join("; ") + &more
    }
}

/// The threads grouped by stack, in the order of their first thread.
fn crowds(processes: &[Descendant]) -> Vec<Crowd<'_>> {
    let mut crowds: Vec<Crowd<'_>> = Vec::new();
    for process in processes {
        for thread in &process.evidence.threads {
            match crowds.iter_mut().find(|crowd| is_same(crowd.thread, thread)) {
                Some(crowd) => crowd.owners.push((process, thread)),
                None => crowds.push(Crowd { thread, owners: vec![(process, thread)] }),
            }
        }
    }
    crowds
}

fn is_same(one: &Thread, other: &Thread) -> bool {
    let has_stack = one.python.is_some() || one.native.is_some();
    has_stack
        && one.python == other.python
        && one.native == other.native
        && one.state == other.state
}

fn missing(page: &mut Page, dump: &Dump) {
    let of_processes = dump.processes.iter().flat_map(|process| {
        let who = story::who(&process.worker);
        let told = move |Missing { what, why }: &Missing| format!("{who}: {what}: {why}");
        process.evidence.missing.iter().map(told)
    });
    let all: Vec<String> = dump.missing.iter().cloned().chain(of_processes).collect();
    if all.is_empty() {
        return;
    }
    page.heading("What is missing");
    for line in all {
        page.item("  ", &plain(&line));
    }
}
