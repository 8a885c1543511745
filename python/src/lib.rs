//! The native half of the `hangwatch` Python package: `hangwatch._hangwatch`.
//!
//! The modules in the order of a call: `attachment` is the process's worker, made on first use;
//! `time`, `scope` and `task` are what a deadline is given; `expires`, `meeting`, `heartbeat`, `pause` and
//! `client` are the deadlines; `observe` is what anyone may read; `server` is the watchdog in a
//! thread, `segments` closes what it has used, `command` the `hangwatch` command; `errors` turns what fails into the exceptions of
//! `hangwatch/_errors.py`. What needs no speed is Python, in hangwatch/.
//!
//! Rules that hold everywhere here: nothing waits with the interpreter's lock held, and nothing calls
//! Python from a thread that Python does not know. The module needs that lock (`gil_used`): free-threaded
//! CPython switches it on when it imports the module, and says so.

#![expect(
    clippy::doc_markdown,
    reason = "docs of what Python sees are its docstrings, no Markdown"
)]
#![expect(clippy::needless_pass_by_value, reason = "what Python hands over comes by value")]

mod attachment;
mod client;
mod command;
mod errors;
mod expires;
mod heartbeat;
mod meeting;
mod observe;
mod pause;
mod scope;
mod segments;
mod server;
mod task;
mod time;

/// The native module; its public face is the package `hangwatch`.
#[pyo3::pymodule(gil_used = true)]
mod _hangwatch {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::attachment::attach;
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::command::main;
    #[pymodule_export]
    use crate::expires::{Expires, expires, expires_by_default};
    #[pymodule_export]
    use crate::heartbeat::{Heartbeat, heartbeat};
    #[pymodule_export]
    use crate::meeting::{Group, meeting};
    #[pymodule_export]
    use crate::observe::{condemned, observe};
    #[pymodule_export]
    use crate::pause::{Paused, paused};
    #[pymodule_export]
    use crate::server::{
        Server, close_segment, make_segment, remove_segment, remove_stale_segment,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
