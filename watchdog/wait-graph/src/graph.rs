//! The graph as data: nodes, edges, ends.

use serde::{Deserialize, Serialize};

/// A node by its place in [`WaitGraph::nodes`].
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u32);

/// One capture: who waited for whom at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct WaitGraph {
    /// Threads, and what they wait for that is no thread.
    pub nodes: Vec<Node>,
    /// Who waits for whom.
    pub edges: Vec<Edge>,
    /// The nodes that were asked about, the most important first.
    pub roots: Vec<NodeId>,
    /// What could not be read, and why, one sentence each.
    pub missing: Vec<String>,
}

/// A node: who or what it is, and its end where it waits for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Who or what.
    pub what: What,
    /// What it does if it waits for nobody. Ignored where it has edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// Who or what a node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A thread.
    Thread(Thread),
    /// Whichever thread of a process it may be: its edges lead to all of them.
    AnyThread {
        /// The process.
        pid: u32,
        /// Its name.
        process: String,
    },
    /// Something outside of all threads: a remote address, a timer, the terminal, in words.
    Outside(String),
}

/// A thread of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thread {
    /// Its process, by the pid the watchdog sees.
    pub pid: u32,
    /// Its id, as the watchdog sees it.
    pub tid: u32,
    /// The name of the process.
    pub process: String,
    /// The name of the thread.
    pub name: String,
    /// Its number within the process, from 1, in the order of ids. 1 is the main thread.
    pub number: u32,
    /// How many threads the process has.
    pub threads: u32,
    /// The rank that its process states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u64>,
    /// The call in its own code that waits or computes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
}

/// A place in source code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// The function.
    pub function: String,
    /// The source file, or the library where no source file is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
}

/// One waits for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Who waits.
    pub from: NodeId,
    /// For whom.
    pub to: NodeId,
    /// For what of it.
    pub resource: Resource,
    /// How that is known.
    pub source: Source,
}

/// How an edge is known, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel says it.
    Kernel,
    /// The process's memory says it: a lock word, an owner field.
    Memory,
    /// The interpreter's memory says it.
    Interpreter,
    /// The shared segment says it: the worker's own claims.
    Segment,
    /// It is concluded: nobody else can end the wait, or the stacks suggest it.
    Inferred,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// A mutex that records its owner.
    Mutex {
        /// Where it is, in the waiter's memory.
        address: u64,
        /// The variable's name, where symbols tell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A read-write lock that a writer holds.
    RwLock {
        /// Where it is, in the waiter's memory.
        address: u64,
        /// The variable's name, where symbols tell it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A lock, condition variable or semaphore that records no owner: any other thread may release it.
    Unowned {
        /// Where it is, in the waiter's memory.
        address: u64,
    },
    /// A lock of an interpreter, by its kind: `RLock`.
    Lock(String),
    /// The interpreter's lock.
    Gil,
    /// The end of a thread.
    Join,
    /// The end of a child, or of any of so many.
    Child {
        /// How many children it waits for, any of which may end the wait.
        of: u32,
    },
    /// A child that has not yet executed its program.
    Vfork,
    /// Data from the other end.
    Read(Medium),
    /// Room at the other end, which does not read.
    Write(Medium),
    /// Somebody who accepts a connection.
    Accept(Medium),
    /// Somebody who opens the other end.
    Open(Medium),
    /// A lock on a file.
    File(FileLock),
    /// A wake-up by its own process.
    WakeUp,
    /// An answer of the file system's server.
    Server(String),
    /// Its parent's `wait`: it is a zombie.
    Reaping,
    /// Something else, in words: `a timer`.
    Other(String),
}

/// What connects two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Medium {
    /// A pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A UNIX socket.
    UnixSocket,
    /// A TCP connection.
    Tcp,
    /// A terminal.
    Terminal,
}

/// A lock on a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileLock {
    /// The call that takes it: `flock`, `fcntl`.
    pub kind: String,
    /// The file.
    pub path: String,
}

/// What a node does that waits for nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It computes.
    Computing,
    /// It sleeps for a time that it chose, seconds where they are known.
    Sleeping(Option<u64>),
    /// It waits for something from outside, in words: `a timer`, `input from the terminal /dev/pts/1`.
    Waiting(String),
    /// It is in an uninterruptible sleep, or waits for a disk or device, in words.
    Device(String),
    /// It was stopped by a signal.
    Stopped,
    /// A debugger has stopped it: its pid and name.
    Traced {
        /// The tracer's pid; 0 where it is in another PID namespace.
        by: u32,
        /// Its name.
        name: String,
    },
    /// Its control group is frozen.
    Frozen(String),
    /// A remote host: its address, with the queues of the connection.
    Remote(String),
    /// It wants a lock whose owner is no thread any more: the owner ended, or did not survive a fork.
    OwnerGone {
        /// The owner by the lock's word.
        owner: u32,
    },
    /// Nobody has the other end of what it waits on, in words.
    NobodyThere(String),
    /// It has ended.
    Ended,
    /// What it waits for is not known: why, as a sentence without a subject.
    Unknown(String),
}

impl WaitGraph {
    /// Adds a node.
    pub fn add(&mut self, what: What, end: Option<End>) -> NodeId {
        self.nodes.push(Node { what, end });
        NodeId(u32::try_from(self.nodes.len() - 1).expect("a capture is bounded far below"))
    }

    /// Adds an edge, once.
    pub fn connect(&mut self, from: NodeId, to: NodeId, resource: Resource, source: Source) {
        let edge = Edge { from, to, resource, source };
        if !self.edges.contains(&edge) {
            self.edges.push(edge);
        }
    }

    /// A node, if there is one of this id: a graph that was read from a file may name nodes it lacks.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize)
    }

    /// A node's thread, if it is one.
    pub fn thread(&self, id: NodeId) -> Option<&Thread> {
        match &self.node(id)?.what {
            What::Thread(thread) => Some(thread),
            What::AnyThread { .. } | What::Outside(_) => None,
        }
    }

    /// The node of a thread.
    pub fn thread_node(&self, tid: u32) -> Option<NodeId> {
        let is_it = |node: &Node| matches!(&node.what, What::Thread(it) if it.tid == tid);
        let place = self.nodes.iter().position(is_it)?;
        Some(NodeId(u32::try_from(place).ok()?))
    }

    /// The processes of its threads, each once, in the order of the nodes.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for node in &self.nodes {
            if let What::Thread(thread) = &node.what
                && !pids.contains(&thread.pid)
            {
                pids.push(thread.pid);
            }
        }
        pids
    }
}
