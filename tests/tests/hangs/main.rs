//! The corpus of hangs: small programs as a stranger would have written them, in `tests/hangs`, each with
//! what `dump` must say of it.
//!
//! A line of the program that begins with `EXPECT` says what the verdict is: its kind, and of a culprit the
//! process, thread, function. The line that hangs ends with `HANGS`. Where the program hangs and what is
//! said of it are two things: the test looks until two looks in a row agree with what is expected, and fails
//! where that does not come about.
//!
//! With `HANGS_TABLE` in the environment, each test adds its line to the table of that file.

mod expectation;
mod kernel;
mod program;

use std::io::Write;

use expectation::Expectation;
use hangwatch_incident::schema::Dump;
use hangwatch_tests::BOUND;
use hangwatch_wait_graph::Kind;
use program::{Built, Running};

macro_rules! corpus {
    ($($name:ident: $file:literal),* $(,)?) => {
        $(#[test] fn $name() { check($file); })*

        #[test]
        fn every_program_of_the_corpus_is_run() {
            let named = [$($file),*];
            let mut files = program::files();
            files.retain(|file| !named.contains(&file.as_str()));
            assert!(files.is_empty(), "not run: {files:?}");
        }
    };
}

corpus! {
    asyncio_lock_py: "asyncio_lock.py",
    asyncio_never_py: "asyncio_never.py",
    asyncio_sync_py: "asyncio_sync.py",
    backlog_py: "backlog.py",
    bank_c: "bank.c",
    barrier_missing_c: "barrier_missing.c",
    barrier_two_missing_c: "barrier_two_missing.c",
    both_send_py: "both_send.py",
    channel_rs: "channel.rs",
    endless_c: "endless.c",
    endless_py: "endless.py",
    endless_rs: "endless.rs",
    event_of_child_c: "event_of_child.c",
    fcntl_lock_c: "fcntl_lock.c",
    fifo_reader_sh: "fifo_reader.sh",
    fifo_writer_sh: "fifo_writer.sh",
    find_exec_sh: "find_exec.sh",
    flock_c: "flock.c",
    flock_sh: "flock.sh",
    fork_lock_c: "fork_lock.c",
    full_pipe_c: "full_pipe.c",
    gil_py: "gil.py",
    init_sh: "init.sh",
    join_stuck_c: "join_stuck.c",
    joinable_queue_py: "joinable_queue.py",
    loader_py: "loader.py",
    lock_order_py: "lock_order.py",
    logging_fork_py: "logging_fork.py",
    lost_wakeup_c: "lost_wakeup.c",
    make_sh: "make.sh",
    malloc_in_handler_c: "malloc_in_handler.c",
    manager_py: "manager.py",
    mutex_order_cc: "mutex_order.cc",
    mutex_order_rs: "mutex_order.rs",
    nested_sh: "nested.sh",
    nested_pool_py: "nested_pool.py",
    own_write_end_c: "own_write_end.c",
    pipeline_sh: "pipeline.sh",
    pool_in_pool_cc: "pool_in_pool.cc",
    pool_worker_py: "pool_worker.py",
    process_join_py: "process_join.py",
    promise_cc: "promise.cc",
    queue_cc: "queue.cc",
    queue_get_py: "queue_get.py",
    readers_c: "readers.c",
    regex_py: "regex.py",
    rlock_py: "rlock.py",
    rlock_held_py: "rlock_held.py",
    robust_c: "robust.c",
    rwlock_c: "rwlock.c",
    scoped_rs: "scoped.rs",
    self_lock_c: "self_lock.c",
    semaphore_c: "semaphore.c",
    server_silent_py: "server_silent.py",
    shared_mutex_c: "shared_mutex.c",
    shared_semaphore_c: "shared_semaphore.c",
    signal_handler_c: "signal_handler.c",
    socketpair_c: "socketpair.c",
    stdin_pipe_py: "stdin_pipe.py",
    stdio_lock_c: "stdio_lock.c",
    stopped_sh: "stopped.sh",
    subprocess_wait_py: "subprocess_wait.py",
    substitution_sh: "substitution.sh",
    sysv_semaphore_c: "sysv_semaphore.c",
    thread_join_py: "thread_join.py",
    traced_c: "traced.c",
    unix_server_c: "unix_server.c",
    vfork_c: "vfork.c",
    waits_for_term_c: "waits_for_term.c",
    xargs_sh: "xargs.sh",
}

/// Runs a program until `dump` says of it what is expected, twice in a row.
fn check(file: &str) {
    let expectation = Expectation::of(file);
    let Some(built) = Built::new(file) else { return };
    let running = Running::start(&built);
    let from = std::time::Instant::now();
    let mut agreed = 0;
    let mut last = Dump::default();
    while agreed < 2 && from.elapsed() < BOUND {
        last = running.dump();
        agreed = if expectation.is_met_by(&last).is_ok() { agreed + 1 } else { 0 };
    }
    let met = expectation.is_met_by(&last);
    write_line(file, &last, met.is_ok());
    drop(running);
    if let Err(why) = met {
        let (said, chain) = (&last.waits.sentence, &last.waits.chain);
        panic!("{file}: {why}\nsaid: {said}\n{chain:#?}\nmissing: {:#?}", last.missing);
    }
}

/// Two processes that pass a byte to and fro: at each moment one of them runs, or has something to read.
const PING_PONG: &str = "
import os
to, back = os.pipe(), os.pipe()
if os.fork() == 0:
    os.close(to[1]); os.close(back[0])
    while os.read(to[0], 1): os.write(back[1], b'x')
    os._exit(0)
os.close(to[0]); os.close(back[1])
while True: os.write(to[1], b'x'); os.read(back[0], 1)
";

#[test]
fn a_healthy_exchange_is_never_called_a_deadlock() {
    let running = Running::start(&Built::of(&["python3", "-c", PING_PONG]));
    for _ in 0..12 {
        let waits = running.dump().waits;
        assert_ne!(waits.verdict.kind, Kind::Deadlock, "{}\n{:#?}", waits.sentence, waits.chain);
    }
}

#[test]
fn an_incident_of_exec_says_the_same() {
    for file in ["bank.c", "full_pipe.c", "nested.sh", "pool_worker.py"] {
        let expectation = Expectation::of(file);
        let Some(built) = Built::new(file) else { continue };
        // Long enough for the program to hang by then, however busy the machine is.
        let mut deadline_s = 2;
        loop {
            let (incident, log) = built.exec(deadline_s);
            let said = Dump { waits: incident.waits.unwrap_or_default(), ..Dump::default() };
            let Err(why) = expectation.is_met_by(&said) else {
                let sentence = &said.waits.sentence;
                assert!(log.contains("\"verdict\""), "{file}: {sentence}: {log}");
                break;
            };
            deadline_s *= 2;
            let missing = incident.evidence.missing;
            assert!(deadline_s < 40, "{file}: {why}: {:#?}\n{missing:#?}", said.waits.sentence);
        }
    }
}

/// A line of the table of results: right, not known or wrong.
fn write_line(file: &str, dump: &Dump, is_right: bool) {
    let Some(path) = std::env::var_os("HANGS_TABLE") else { return };
    let result = match (is_right, dump.waits.verdict.is_known()) {
        (true, _) => "right",
        (false, false) => "not known",
        (false, true) => "wrong",
    };
    let what = program::first_line(file);
    let said =
        program::without_numbers(&dump.waits.sentence).replace('|', "\\|").replace('<', "\\<");
    let mut table = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    writeln!(table, "| `{file}` | {what} | {result} | {said} |").unwrap();
}
