//! The teller: runs a stage, tells what it finds, and says what it could not.

use std::any::Any;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::target::Target;
use crate::piece::{Piece, Stage};
use hangwatch_incident::schema::Missing;

/// Writes pieces to standard output.
pub(super) struct Teller<'t> {
    target: &'t Target,
}

/// Why something could not be had, in one sentence.
pub(super) type Why = String;

impl Teller<'_> {
    pub(super) fn new(target: &Target) -> Teller<'_> {
        Teller { target }
    }

    /// Runs a stage to its end.
    pub(super) fn stage<T>(
        &mut self,
        stage: Stage,
        body: impl FnOnce(&mut dyn FnMut(Piece)) -> Result<T, Why>,
    ) -> Option<T> {
        let result = self.part(stage, body);
        tell(&Piece::Finished(stage));
        result
    }

    /// Runs a part of a stage that has more parts to come.
    pub(super) fn part<T>(
        &mut self,
        stage: Stage,
        body: impl FnOnce(&mut dyn FnMut(Piece)) -> Result<T, Why>,
    ) -> Option<T> {
        let target = self.target;
        let mut checked = |piece: Piece| {
            // Of a process that was alive after it was read: then it was read of that process.
            if !target.is_dead() {
                tell(&piece);
            }
        };
        let done = catch_unwind(AssertUnwindSafe(|| body(&mut checked)));
        let why = match done {
            Ok(Ok(result)) if !target.is_dead() => return Some(result),
            _ if target.is_dead() => "the process is gone".to_owned(),
            Ok(Ok(result)) => return Some(result),
            Ok(Err(why)) => why,
            Err(payload) => format!("hangwatch failed over it: {}", said(&*payload)),
        };
        tell(&Piece::Missing(Missing { what: stage.name().to_owned(), why }));
        None
    }
}

/// One line. A watchdog that does not listen any more has had enough.
fn tell(piece: &Piece) {
    let Ok(mut line) = serde_json::to_vec(piece) else { return };
    line.push(b'\n');
    let mut out = io::stdout().lock();
    if out.write_all(&line).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// What a panic said.
fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}
