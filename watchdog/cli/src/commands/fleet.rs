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

/// Descriptors beside the connections: those of names that are looked up, too.
const SPARE_DESCRIPTORS: u64 = 128;
/// Goes to a terminal's first corner.
const HOME: &str = "\u{1b}[H";
/// Clears what is right of the cursor.
const REST_OF_LINE: &str = "\u{1b}[K";
/// Clears what is right of the cursor and below it.
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
        // A file that is just being written anew says nothing of the hosts that were in it.
        match targets_of(options) {
            Ok(now) => (whom, trouble) = (now, None),
            Err(error) => trouble = Some(format!("! {error}; those of before are asked")),
        }
    }
}

/// Whom to ask, each once, however it is written. A file is read anew each time.
fn targets_of(options: &Options) -> Result<Vec<Target>, TargetsError> {
    let mut whom = options.urls.clone();
    for file in &options.file {
        whom.extend(targets::read(file)?);
    }
    let mut seen = std::collections::HashSet::new();
    whom.retain(|target| seen.insert(target.place.clone()));
    Ok(whom)
}

/// Asks everybody once.
fn look(asker: &Asker, whom: &[Target], options: &Options) -> Fleet {
    let asking = Asking { timeout: options.timeout, at_once: at_once(options, whom.len()) };
    Fleet::of(whom, &asker.ask(whom, asking))
}

/// Shows one look of several: on a terminal over the last one.
fn show_look(fleet: &Fleet, trouble: Option<&str>, options: &Options) -> Result<Reader, Failure> {
    let limit = options.limit.unwrap_or(usize::MAX);
    if !isatty(stdout()) {
        trouble.into_iter().for_each(|trouble| complain(&trouble));
        return show(&(table(fleet, limit) + "\n"));
    }
    let size = screen::size();
    let text = screen::clipped(&screenful(fleet, trouble, limit, size), size);
    // Each line over what stood there: a screen that is cleared first would flicker.
    let lines = text.replace('\n', &format!("{REST_OF_LINE}\n"));
    show(&format!("{HOME}{lines}{REST_OF_SCREEN}"))
}

/// How many are asked at once: as many as there may be descriptors, or hosts that are well would be
/// called down for want of one.
fn at_once(options: &Options, targets: usize) -> usize {
    let wanted = u64::from(options.at_once).min(targets as u64);
    let allowed = raise_descriptor_limit(wanted + SPARE_DESCRIPTORS);
    let allowed = allowed.unwrap_or_else(|error| error.allowed());
    wanted.min(allowed.saturating_sub(SPARE_DESCRIPTORS)).max(1) as usize
}
