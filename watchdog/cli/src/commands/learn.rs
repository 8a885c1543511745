//! `hangwatch learn`: writes the deadlines that the statistics suggest to a file.

use std::path::Path;
use std::time::Duration;

use hangwatch::{Observation, ScopeView, Segment};
use hangwatch_core::wire::scope::OTHER_NAME;

use super::scopes::{advice, remarks};
use super::status::{brief, observed};
use super::{Failure, complain, print};
use crate::cli::learning::Learn;
use crate::deadlines::edit::{Change, Draft, Lesson, Lowering};
use crate::deadlines::time_text;
use crate::exit::Exit;
use hangwatch_files::output;
use hangwatch_text::{count, plain};

#[derive(Debug, thiserror::Error)]
enum LearnError {
    #[error("{0} already exists: use --merge to raise its deadlines, or --replace to overwrite it")]
    Exists(String),
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: std::io::Error },
    #[error("{0} is not a regular file and holds nothing to merge: leave out --merge")]
    NothingToMerge(String),
    #[error("no readable segment; `hangwatch run --segment NAME` creates one")]
    NoSegment,
    #[error("there are several segments ({0}): choose one with --segment")]
    Several(String),
}

pub(super) fn perform(options: &Learn) -> Result<Exit, Failure> {
    let seen = the_segment(options.segment.as_deref())?;
    let file = options.output.as_deref().filter(|path| *path != Path::new("-"));
    let mut draft = match file {
        Some(path) => draft_for(path, options)?,
        None => Draft::new(),
    };
    let lowering = if options.lower { Lowering::Lowered } else { Lowering::Kept };
    let learned = learn(&seen, options.min_acquires, &mut draft, lowering);
    let Some(path) = file else {
        print(&draft.text())?;
        return Ok(Exit::Ok);
    };
    draft.save(path).map_err(|source| LearnError::Write { path: shown(path), source })?;
    // On standard error, because the file may be standard output.
    complain(&format_args!("{}: {} written", shown(path), count(learned, "deadline")));
    Ok(Exit::Ok)
}

/// The draft to start with. Only a regular file has contents to keep.
fn draft_for(path: &Path, options: &Learn) -> Result<Draft, Failure> {
    let failed = |source| LearnError::Write { path: shown(path), source };
    let is_plain = output::is_plain_file(path).map_err(failed)?;
    match () {
        () if is_plain && options.merge => Ok(Draft::read(path)?),
        () if is_plain && !options.replace => Err(LearnError::Exists(shown(path)).into()),
        () if path.exists() && !is_plain && options.merge => {
            Err(LearnError::NothingToMerge(shown(path)).into())
        }
        () => Ok(Draft::new()),
    }
}

fn shown(path: &Path) -> String {
    plain(&path.display().to_string()).into_owned()
}

/// The segment of this name, else the only one.
fn the_segment(name: Option<&str>) -> Result<Observation, Failure> {
    if let Some(name) = name {
        return Ok(Segment::observe(name)?);
    }
    let (mut seen, _) = observed(None)?;
    let names: Vec<&str> = seen.iter().map(|seen| seen.segment.as_str()).collect();
    match names.len() {
        0 => Err(LearnError::NoSegment.into()),
        1 => Ok(seen.remove(0)),
        _ => Err(LearnError::Several(names.join(", ")).into()),
    }
}

/// Adds all scopes to the draft and prints remarks on standard error; returns how many were added.
fn learn(seen: &Observation, min_acquires: u64, draft: &mut Draft, lowering: Lowering) -> usize {
    let mut learned = 0;
    for scope in seen.scopes.iter().filter(|scope| scope.counts.acquired > 0) {
        let name = plain(&scope.name);
        match lesson(scope, min_acquires) {
            Ok(lesson) => {
                learned += 1;
                if let Some(text) = told(&draft.take_in(&lesson, lowering)) {
                    complain(&format_args!("{name}: {text}"));
                }
                remarks(scope)
                    .iter()
                    .for_each(|remark| complain(&format_args!("{name}: {remark}")));
            }
            Err(why) => complain(&format_args!("{name}: left out: {why}")),
        }
    }
    learned
}

fn lesson(scope: &ScopeView, min_acquires: u64) -> Result<Lesson, String> {
    let advice = advice(scope);
    if scope.name == OTHER_NAME {
        return Err("it stands for many scopes that did not fit into the segment".to_owned());
    }
    let Some(deadline_ns) = advice.deadline_ns.filter(|_| advice.samples >= min_acquires) else {
        let samples = advice.samples;
        return Err(format!("only {samples} acquires have ended (--min-acquires {min_acquires})"));
    };
    Ok(Lesson {
        scope: scope.name.clone(),
        deadline: Duration::from_nanos(deadline_ns),
        confidence: advice.confidence.name(),
        acquires: advice.samples,
        longest: brief(Duration::from_nanos(advice.longest_ns)),
    })
}

fn told(change: &Change) -> Option<String> {
    let text = |time: &Duration| time_text(*time);
    match change {
        Change::Added { .. } | Change::Same => None,
        Change::Raised { from, to } => Some(format!("raised from {} to {}", text(from), text(to))),
        Change::Lowered { from, to } => {
            Some(format!("lowered from {} to {}", text(from), text(to)))
        }
        Change::Kept { at, could } => {
            Some(format!("kept at {}; {} would be enough (--lower)", text(at), text(could)))
        }
    }
}
