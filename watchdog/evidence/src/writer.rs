//! The writer: a process of its own that writes incidents down.
//!
//! A disk that hangs holds whoever writes to it, SIGKILL or not, and a process cannot end while one of
//! its threads is held. So the watchdog has a [`Writer`] write: what is held then is not the watchdog.
//! It is `hangwatch incident-writer`; it reads an incident a line, and tells a line for each how that
//! went. It ends when nobody can tell it any more, once it has written what it was told.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use hangwatch_incident::schema::Incident;
use hangwatch_incident::store::{Store, StoreError};
use hangwatch_process::answering::answer_lines;
use hangwatch_process::children;

/// How long the start of a writer is waited for.
const START: Duration = Duration::from_secs(1);

/// A writer at work. Dropped, it is told no more, and waited for.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    dir: PathBuf,
    /// `None` once it is told no more.
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
    /// Keeps the thread that started it: a process may be told of its end by the kernel, and end, too.
    starter: Option<Sender<()>>,
}

/// Why an incident was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store refused it.
    #[error(transparent)]
    Refused(#[from] StoreError),
    /// The store refused it, as the writer tells.
    #[error("{0}")]
    Told(String),
    /// The writer is no more.
    #[error("its writer ended: {0}")]
    Ended(#[from] io::Error),
}

impl Writer {
    /// Starts one, which `program` has as a command.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn start(program: &Path, store: &Store) -> io::Result<Writer> {
        let limits = store.limits();
        let mut command = Command::new(program);
        command.arg("incident-writer").arg("--dir").arg(store.dir());
        command.args(["--count", &limits.count.to_string()]);
        command.args(["--bytes", &limits.bytes.to_string()]);
        command.env_remove("HANGWATCH_SEGMENT").env_remove("HANGWATCH_LOG");
        // Held, it must not keep open what others wait for the end of; nor does a terminal's Ctrl-C
        // mean it, which has the last to write.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.process_group(0);
        let starting = children::starting();
        let mut child = command.spawn()?;
        starting.has_begun(child.id());
        let no_pipe = || io::Error::other("no pipe to it");
        let to = Some(child.stdin.take().ok_or_else(no_pipe)?);
        let from = BufReader::new(child.stdout.take().ok_or_else(no_pipe)?);
        Ok(Writer { child, dir: store.dir().to_owned(), to, from, starter: None })
    }

    /// Has an incident written, and waits until it is. Returns its directory.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn put(&mut self, incident: &Incident) -> Result<PathBuf, WriteError> {
        let mut line = serde_json::to_vec(incident).map_err(io::Error::other)?;
        line.push(b'\n');
        let to = self.to.as_mut().ok_or(io::ErrorKind::BrokenPipe);
        to.map_err(io::Error::from)?.write_all(&line)?;
        let mut answer = String::new();
        if self.from.read_line(&mut answer)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match serde_json::from_str(&answer).map_err(io::Error::other)? {
            None => Ok(self.dir.join(&incident.id)),
            Some(why) => Err(WriteError::Told(why)),
        }
    }
}

/// Writes incidents by a [`Writer`], or by itself where none can be started in time: its program may lie
/// on another disk, which hangs.
#[derive(Debug)]
pub struct Recorder {
    program: Option<PathBuf>,
    store: Store,
    writer: Option<Writer>,
    /// One that is being started.
    starting: Option<Receiver<io::Result<Writer>>>,
}

impl Recorder {
    /// One that writes to `store`; its writers `program` has as a command.
    pub fn new(program: Option<PathBuf>, store: Store) -> Recorder {
        Recorder { program, store, writer: None, starting: None }
    }

    /// Writes an incident, and waits until it is written. Returns its directory.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn put(&mut self, incident: &Incident) -> Result<PathBuf, WriteError> {
        if self.writer.is_none() {
            self.writer = self.started();
        }
        let written = match &mut self.writer {
            Some(writer) => writer.put(incident),
            None => self.store.put(incident).map_err(WriteError::from),
        };
        if matches!(written, Err(WriteError::Ended(_))) {
            self.writer = None; // the next incident gets another
        }
        written
    }

    /// Ends the writer, until there is something to write again.
    pub fn rest(&mut self) {
        self.writer = None;
    }

    /// A writer, if one starts in time. One that is late is there for a later incident.
    fn started(&mut self) -> Option<Writer> {
        let (program, store) = (self.program.clone()?, self.store.clone());
        let most = match self.starting {
            Some(_) => Duration::ZERO, // it has had its time
            None => START,
        };
        let starting = self.starting.get_or_insert_with(|| {
            let (tell, started) = sync_channel(1);
            let start = move || {
                let (hold, end) = channel();
                let mut writer = Writer::start(&program, &store);
                match &mut writer {
                    Ok(writer) => writer.starter = Some(hold),
                    Err(_) => drop(hold),
                }
                let _ = tell.send(writer); // nobody may want it any more
                let _ = end.recv();
            };
            // Without a thread, nothing comes.
            let _ = thread::Builder::new().name("hangwatch-start".to_owned()).spawn(start);
            started
        });
        match starting.recv_timeout(most) {
            Err(RecvTimeoutError::Timeout) => None,
            started => {
                self.starting = None;
                started.ok()?.ok()
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.to = None;
        // It has nothing left to write: what it was told it has answered, or it has ended.
        let _ = self.child.wait();
        children::ended(self.child.id());
    }
}

/// Writes what it is told, and tells how that went, until nobody tells it anything.
///
/// # Errors
/// Where it cannot hear or tell any more.
pub fn run(store: &Store, told: impl BufRead, tell: impl Write) -> io::Result<()> {
    // Answered is why it could not be written, if so.
    answer_lines(told, tell, |incident: Incident| {
        store.put(&incident).err().map(|error| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use hangwatch_incident::store::{INCIDENT_FILE, Limits};

    #[test]
    fn each_incident_is_written_and_answered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), Limits::default());
        let incident = |id: &str| Incident { id: id.to_owned(), ..Incident::default() };
        std::fs::write(dir.path().join("second"), "in its way").unwrap();
        let told: Vec<String> = ["first", "second", "third"]
            .map(|id| serde_json::to_string(&incident(id)).unwrap())
            .to_vec();
        let mut answers = Vec::new();
        run(&store, told.join("\n").as_bytes(), &mut answers).unwrap();
        let answers = String::from_utf8(answers).unwrap();
        let lines: Vec<&str> = answers.lines().collect();
        assert_eq!((lines.len(), lines[0], lines[2]), (3, "null", "null"), "{answers}");
        assert!(lines[1].contains("second"), "{answers}");
        assert!(dir.path().join("third").join(INCIDENT_FILE).exists());
    }

    #[test]
    fn a_writer_that_ends_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path().to_owned(), Limits::default());
        let mut writer = Writer::start(Path::new("/bin/true"), &store).unwrap();
        let error = writer.put(&Incident::default()).unwrap_err().to_string();
        assert!(error.starts_with("its writer ended"), "{error}");
        assert!(Writer::start(Path::new("/nonexistent/hangwatch"), &store).is_err());
    }
}
