//! Pieces of evidence: what a helper tells the watchdog, a JSON object a line, as soon as it has it.
//!
//! Each piece is whole in itself, so whatever has come when the budget is over is kept
//! ([`Gathered::take`]), and what has not is said to be missing ([`Gathered::close`]).

use hangwatch_wait_graph::WaitGraph;
use serde::{Deserialize, Serialize};

use hangwatch_incident::schema::{Evidence, Frame, Missing, Process, Thread, Variable, Worker};

/// What is captured by a helper, each in a stage of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// What `/proc` says about the process.
    Process,
    /// What `/proc` says about its threads.
    Threads,
    /// Whom they wait for.
    Waits,
    /// The Python stack of every thread.
    Python,
    /// The native stack of every thread.
    Native,
    /// The names of native functions, and their lines.
    Symbols,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] = [
        Stage::Process,
        Stage::Threads,
        Stage::Waits,
        Stage::Python,
        Stage::Native,
        Stage::Symbols,
    ];

    /// Its name in [`Missing::what`].
    pub fn name(self) -> &'static str {
        match self {
            Stage::Process => "process",
            Stage::Threads => "threads",
            Stage::Waits => "waits",
            Stage::Python => "python",
            Stage::Native => "native",
            Stage::Symbols => "symbols",
        }
    }
}

/// The Python stack of one thread.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonStack {
    /// The thread's id in its own PID namespace, where the interpreter knows it.
    pub inner_tid: Option<u32>,
    /// The interpreter's name for it.
    pub name: Option<String>,
    /// Whether it holds the interpreter's lock.
    pub holds_gil: bool,
    /// Its frames, the innermost first.
    pub frames: Vec<Frame>,
}

/// One thing a helper has found out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// What the process calls itself.
    Worker(Worker),
    /// What the kernel says about the process.
    Process(Box<Process>),
    /// Its threads, without their stacks.
    Threads {
        /// Those listed.
        threads: Vec<Thread>,
        /// How many there are beside.
        left_out: u64,
    },
    /// Whom they wait for, across processes.
    Waits(Box<WaitGraph>),
    /// Its threads were stopped for so long.
    Stopped {
        /// ns.
        for_ns: u64,
    },
    /// The Python stacks.
    Python(Vec<PythonStack>),
    /// The native stack of one thread. One that comes later is the better one.
    Native {
        /// Whose.
        tid: u32,
        /// Its frames, the innermost first.
        frames: Vec<Frame>,
    },
    /// The names of what its threads wait for.
    Variables(Vec<Variable>),
    /// Something could not be had.
    Missing(Missing),
    /// A stage has come to its end: what it has not told, it will not tell.
    Finished(Stage),
}

/// What has come of a helper so far.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The evidence, with what the helper added to it.
    pub evidence: Evidence,
    /// What the process calls itself, where that has come.
    pub worker: Option<Worker>,
    /// Whom its threads wait for, where that has come.
    pub waits: Option<WaitGraph>,
    finished: Vec<Stage>,
}

impl Gathered {
    /// Takes in one piece.
    pub fn take(&mut self, piece: Piece) {
        let evidence = &mut self.evidence;
        match piece {
            Piece::Worker(worker) => self.worker = Some(worker),
            Piece::Process(process) => evidence.process = Some(*process),
            Piece::Threads { threads, left_out } => {
                evidence.threads = threads;
                evidence.threads_left_out = left_out;
            }
            Piece::Waits(graph) => self.waits = Some(*graph),
            Piece::Stopped { for_ns } => evidence.stopped_ns = Some(for_ns),
            Piece::Python(stacks) => stacks.into_iter().for_each(|stack| self.take_python(stack)),
            Piece::Native { tid, frames } => self.thread(tid).native = Some(frames),
            Piece::Variables(variables) => evidence.variables = variables,
            Piece::Missing(missing) => evidence.missing.push(missing),
            Piece::Finished(stage) => self.finished.push(stage),
        }
    }

    /// What there is where there was no helper, and why there was none.
    pub fn without(why: &str) -> Gathered {
        let mut gathered = Gathered::default();
        gathered.close(why);
        gathered
    }

    /// Whether the helper has told all it will.
    pub fn is_complete(&self) -> bool {
        self.finished.contains(&Stage::Symbols)
    }

    /// Whether every stack has come, if not with names.
    pub fn has_stacks(&self) -> bool {
        self.finished.contains(&Stage::Native)
    }

    /// Says why each stage that has not come to its end is missing.
    pub fn close(&mut self, why: &str) {
        for stage in Stage::ALL {
            if !self.finished.contains(&stage) {
                let missing = Missing { what: stage.name().to_owned(), why: why.to_owned() };
                self.evidence.missing.push(missing);
            }
        }
    }

    fn take_python(&mut self, stack: PythonStack) {
        let threads = &mut self.evidence.threads;
        let place = stack.inner_tid.and_then(|tid| {
            threads.iter().position(|thread| thread.inner_tid.unwrap_or(thread.tid) == tid)
        });
        let place = place.unwrap_or_else(|| {
            // One that Python alone knows of: it has ended, or its id could not be told.
            threads.push(Thread::default());
            threads.len() - 1
        });
        let thread = &mut threads[place];
        if let Some(name) = stack.name {
            thread.name = name;
        }
        thread.holds_gil = Some(stack.holds_gil);
        thread.python = Some(stack.frames);
    }

    fn thread(&mut self, tid: u32) -> &mut Thread {
        let threads = &mut self.evidence.threads;
        let place = threads.iter().position(|thread| thread.tid == tid).unwrap_or_else(|| {
            threads.push(Thread { tid, ..Thread::default() });
            threads.len() - 1
        });
        &mut threads[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(function: &str) -> Vec<Frame> {
        vec![Frame { function: function.to_owned(), ..Frame::default() }]
    }

    fn threads() -> Piece {
        let thread = |tid, inner| Thread { tid, inner_tid: Some(inner), ..Thread::default() };
        Piece::Threads { threads: vec![thread(100, 1), thread(101, 2)], left_out: 0 }
    }

    #[test]
    fn stacks_find_their_thread_in_whichever_namespace_it_is_told() {
        let mut gathered = Gathered::default();
        gathered.take(threads());
        let python =
            PythonStack { inner_tid: Some(2), frames: frames("get"), ..Default::default() };
        gathered.take(Piece::Python(vec![python]));
        gathered.take(Piece::Native { tid: 101, frames: frames("0x1") });
        gathered.take(Piece::Native { tid: 101, frames: frames("futex_wait") });
        let thread = &gathered.evidence.threads[1];
        assert_eq!(thread.python.as_ref().unwrap()[0].function, "get");
        assert_eq!(thread.native.as_ref().unwrap()[0].function, "futex_wait", "the better one");
        assert_eq!(gathered.evidence.threads[0].python, None);
    }

    #[test]
    fn what_has_not_come_is_missing_and_says_why() {
        let mut gathered = Gathered::default();
        gathered.take(Piece::Finished(Stage::Process));
        gathered.take(Piece::Finished(Stage::Threads));
        gathered.take(Piece::Finished(Stage::Waits));
        gathered.close("too slow");
        let missing: Vec<&str> =
            gathered.evidence.missing.iter().map(|missing| missing.what.as_str()).collect();
        assert_eq!(missing, ["python", "native", "symbols"]);
        assert!(!gathered.is_complete());
    }
}
