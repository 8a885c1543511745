//! `hangwatch fleet`: the watchdogs of many hosts in one table.

mod page;

use hangwatch_process::limits::raise_descriptor_limit;
use rustix::stdio::stdout;
use rustix::termios::isatty;

use super::demo::screen;
use super::{Failure, Reader, complain, print, show};
use crate::cli::fleet::Fleet as Options;
use crate::exit::Exit;
use hangwatch_http::fleet::{Asker, Asking, Fleet, Target, TargetsError, targets};
use hangwatch_text::to_json_pretty;
use page::{screenful, table};

/// Descriptors needed besides the connections, such as for name lookups.
const SPARE_DESCRIPTORS: u64 = 128;
/// Moves to the top left corner of the terminal.
const HOME: &str = "\u{1b}[H";
/// Clears from the cursor to the end of the line.
const REST_OF_LINE: &str = "\u{1b}[K";
/// Clears from the cursor to the end of the screen.
const REST_OF_SCREEN: &str = "\u{1b}[J";

pub(super) fn perform(options: &Options) -> Result<Exit, Failure> {
    let asker = Asker::new()?;
    let mut whom = targets_of(options)?;
    let Some(pause) = options.watch else {
        let fleet = look(&asker, &whom, options);
        if options.json {
            print(&(to_json_pretty(&fleet)? + "\n"))?;
        } else {
            print(&table(&fleet, options.limit.unwrap_or(usize::MAX)))?;
        }
        let answered = fleet.targets.iter().any(|target| target.status == "ok");
        return Ok(if answered { Exit::Ok } else { Exit::Failed });
    };
    let mut trouble = None;
    loop {
        let reader = show_look(&look(&asker, &whom, options), trouble.as_deref(), options)?;
        if reader == Reader::Gone || super::pause(pause)? == Reader::Gone {
            return Ok(Exit::Ok);
        }
        // A file that is being rewritten may be incomplete: the targets before stay.
        match targets_of(options) {
            Ok(now) => (whom, trouble) = (now, None),
            Err(error) => trouble = Some(format!("! {error}; using the targets read before")),
        }
    }
}

/// The targets without duplicates. The files are read each time.
fn targets_of(options: &Options) -> Result<Vec<Target>, TargetsError> {
    let mut whom = options.urls.clone();
    for file in &options.file {
        whom.extend(targets::read(file)?);
    }
    let mut seen = std::collections::HashSet::new();
    whom.retain(|target| seen.insert(target.place.clone()));
    Ok(whom)
}

/// Asks all targets once.
fn look(asker: &Asker, whom: &[Target], options: &Options) -> Fleet {
    let asking = Asking { timeout: options.timeout, at_once: at_once(options, whom.len()) };
    Fleet::of(whom, &asker.ask(whom, asking))
}

/// Shows one of several rounds; on a terminal over the last one.
fn show_look(fleet: &Fleet, trouble: Option<&str>, options: &Options) -> Result<Reader, Failure> {
    let limit = options.limit.unwrap_or(usize::MAX);
    if !isatty(stdout()) {
        trouble.into_iter().for_each(|trouble| complain(&trouble));
        return show(&(table(fleet, limit) + "\n"));
    }
    let size = screen::size();
    let text = screen::clipped(&screenful(fleet, trouble, limit, size), size);
    // Overwrites line by line: clearing the screen first would flicker.
    let lines = text.replace('\n', &format!("{REST_OF_LINE}\n"));
    show(&format!("{HOME}{lines}{REST_OF_SCREEN}"))
}

/// How many targets to ask at once: no more than there are descriptors, else healthy hosts would be shown
/// as down.
fn at_once(options: &Options, targets: usize) -> usize {
    let wanted = u64::from(options.at_once).min(targets as u64);
    let allowed = raise_descriptor_limit(wanted + SPARE_DESCRIPTORS);
    let allowed = allowed.unwrap_or_else(|error| error.allowed());
    wanted.min(allowed.saturating_sub(SPARE_DESCRIPTORS)).max(1) as usize
}
