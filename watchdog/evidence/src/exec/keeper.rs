//! The keeper: has one incident written to disk, by a process of its own that nobody waits for longer
//! than a disk should take: one that hangs would hold any thread of this process, and so its end.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::options::Keep;
use crate::writer::Recorder;
use hangwatch_incident::schema::Incident;
use hangwatch_incident::store::{NoStateDirectory, Store};

/// How long the end of a command waits for its incident to be written.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Writes the states of an incident.
#[derive(Debug)]
pub(super) struct Keeper {
    states: Sender<Incident>,
    /// How the last write ended.
    done: Receiver<Result<(), String>>,
}

impl Keeper {
    /// Starts one, whose writer `program` has as a command. Without a program, or where it cannot be
    /// started, a thread of this process writes.
    ///
    /// # Errors
    /// Why nothing can be kept.
    pub(super) fn start(keep: Option<&Keep>, program: Option<&Path>) -> Result<Keeper, String> {
        let keep = keep.ok_or_else(|| NoStateDirectory.to_string())?;
        let store = Store::new(keep.dir.clone(), keep.limits);
        let (states, to_write) = channel::<Incident>();
        let (tell, done) = channel();
        let program = program.map(Path::to_owned);
        let write = move || {
            let mut recorder = Recorder::new(program, store);
            let mut put =
                |incident: Incident| recorder.put(&incident).map_err(|error| error.to_string());
            let last = to_write.iter().map(&mut put).last();
            let last = last.unwrap_or_else(|| Err("there was none".to_owned()));
            let _ = tell.send(last.map(|_dir| ())); // nobody waits any more
        };
        let named = thread::Builder::new().name("hangwatch-store".to_owned());
        named.spawn(write).map_err(|error| format!("no thread to write it: {error}"))?;
        Ok(Keeper { states, done })
    }

    /// Has a state written, in place of those before it.
    pub(super) fn put(&self, incident: &Incident) {
        let _ = self.states.send(incident.clone()); // who panicked is told by its silence
    }

    /// Waits until the last state is written, for a while.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn close(self) -> Result<(), String> {
        drop(self.states);
        match self.done.recv_timeout(LAST_WRITES) {
            Ok(last) => last,
            Err(RecvTimeoutError::Timeout) => Err("its disk does not answer".to_owned()),
            Err(RecvTimeoutError::Disconnected) => Err("hangwatch failed over it".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_incident::store::Limits;

    #[test]
    fn the_last_state_is_kept_or_it_says_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let keep = Keep { dir: dir.path().join("a"), limits: Limits::default() };
        let incident = |host: &str| Incident {
            id: "20261123T155237.123456Z-exec-7".to_owned(),
            host: host.to_owned(),
            ..Incident::default()
        };
        let keeper = Keeper::start(Some(&keep), None).unwrap();
        keeper.put(&incident("before"));
        keeper.put(&incident("after"));
        keeper.close().unwrap();
        let path = keep.dir.join(incident("").id).join("incident.json");
        assert!(std::fs::read_to_string(path).unwrap().contains("\"after\""));

        std::fs::write(dir.path().join("file"), "").unwrap();
        let nowhere = Keep { dir: dir.path().join("file"), ..keep };
        let keeper = Keeper::start(Some(&nowhere), None).unwrap();
        keeper.put(&incident(""));
        assert!(keeper.close().unwrap_err().contains("Not a directory"));
        assert!(Keeper::start(None, None).unwrap_err().contains("--incidents"));
    }
}
