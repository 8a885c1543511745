//! `hangwatch dump`: prints the verdict, the chain of waits, and the stacks.

use hangwatch::Segment;
use hangwatch_evidence::capture::MayStop;
use hangwatch_evidence::dump::{self, targets};
use hangwatch_evidence::waits;
use hangwatch_report::terminal::{self, Fold, Look};
use hangwatch_text::to_json_pretty;

use super::{Failure, complain, print};
use crate::cli::{Dump, WaitHelper};
use crate::exit::Exit;
use crate::program::own_program;

pub(super) fn perform(options: &Dump) -> Result<Exit, Failure> {
    let mut asked: Vec<u32> = Vec::new();
    let mut exit = Exit::Ok;
    let mut take = |found: Result<Vec<u32>, targets::NoTarget>| match found {
        Ok(pids) => asked.extend(pids),
        Err(why) => {
            complain(&why);
            exit = Exit::Unseen;
        }
    };
    options.processes.iter().for_each(|word| take(targets::of_word(word)));
    if let Some(group) = &options.cgroup {
        take(targets::of_group(group));
    }
    if let Some(name) = &options.segment {
        take(targets::of_segment(&Segment::open(name)?));
    }
    let mut seen = std::collections::BTreeSet::new();
    asked.retain(|&pid| seen.insert(pid));
    if asked.is_empty() {
        return Ok(Exit::Unseen);
    }
    let more = if options.tree { targets::below(&asked) } else { Vec::new() };
    let may_stop = if options.no_stop { MayStop::No } else { MayStop::Yes };
    let dump = dump::take(own_program(), &asked, &more, may_stop);
    if dump.waits.graph.nodes.is_empty() {
        exit = Exit::Unseen;
    }
    if options.json {
        print(&format!("{}\n", to_json_pretty(&dump)?))?;
    } else {
        let fold = if options.all { Fold::Nothing } else { Fold::Long };
        print(&terminal::dump::text(&dump, Look::of_stdout(fold)))?;
    }
    Ok(exit)
}

/// The helper process that finds out what processes wait for.
pub(super) fn help(options: &WaitHelper) -> Result<Exit, Failure> {
    waits::helper::run(&options.pids, options.budget)?;
    Ok(Exit::Ok)
}
