//! Finds the frame of a stack that hung: the innermost one of the program's own code.
//!
//! A hung thread is usually inside shared runtime code: the C library, the loader, an interpreter, a standard
//! library. The interesting line is the one that called into it.
//!
//! Runtime code is recognised by
//!
//! * its file on disk: glibc and musl with all their parts, the C++ and GCC runtimes, a Python
//!   interpreter, the vDSO;
//! * its source file: Rust's own library, the headers of C++'s, Python's standard library (not what is
//!   installed in `site-packages` or `dist-packages`);
//! * where no source file is known, its name: `std::`, `core::`, `alloc::`, also within `<... as ...>`.
//!
//! If a stack has only runtime code, the innermost frame is used.

use crate::schema::Frame;

/// Runtime libraries, by their names up to a version or `.so`.
const LIBRARIES: [&str; 12] = [
    "libc",
    "libpthread",
    "libm",
    "librt",
    "libdl",
    "libresolv",
    "ld",
    "libstdc++",
    "libc++",
    "libc++abi",
    "libgcc_s",
    "libpython",
];

/// The index of the frame that hung: the innermost outside runtime code, else the innermost.
///
/// `None` for an empty stack.
pub fn where_it_hangs(frames: &[Frame]) -> Option<usize> {
    let own = frames.iter().position(|frame| !is_machinery(frame));
    own.or((!frames.is_empty()).then_some(0))
}

/// Whether a frame is runtime code.
fn is_machinery(frame: &Frame) -> bool {
    if frame.module.as_deref().is_some_and(is_runtime) {
        return true;
    }
    match frame.file.as_deref() {
        Some(file) => is_library_source(file),
        None => is_library_name(&frame.function),
    }
}

/// Whether a file that is mapped is of a runtime: `/usr/lib/x86_64-linux-gnu/libc.so.6`.
fn is_runtime(module: &str) -> bool {
    let path = module.trim_end_matches(" (deleted)");
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split(".so").next().unwrap_or(name);
    let has_version = |rest: &str| {
        let rest = rest.strip_prefix(['-', '.']).unwrap_or(rest);
        rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_digit())
    };
    // `ld-linux-x86-64`, `ld-musl-aarch64`.
    let is_loader = ["ld-linux-", "ld-musl-", "libc.musl-"].iter().any(|it| stem.starts_with(it));
    let is_called = |known: &str| stem.strip_prefix(known).is_some_and(has_version);
    let is_library = stem != name && LIBRARIES.into_iter().any(is_called);
    name == "[vdso]" || is_loader || is_library || (stem == name && is_called("python"))
}

/// Whether a source file is of a language's own library.
fn is_library_source(file: &str) -> bool {
    let is_rust = file.contains("/rustlib/src/rust/library/")
        || file.split_once("/rustc/").is_some_and(|(_, rest)| rest.contains("/library/"));
    // Also in a directory of the processor: `/usr/include/x86_64-linux-gnu/c++/12/bits/gthr-default.h`.
    let is_cxx = file
        .split_once("/include/")
        .is_some_and(|(_, rest)| rest.split('/').take(2).any(|directory| directory == "c++"));
    is_rust || is_cxx || file.starts_with("<frozen ") || is_of_python(file)
}

/// Whether it is of Python's standard library: `/usr/lib/python3.13/threading.py`.
fn is_of_python(file: &str) -> bool {
    let mut parts = file.split('/');
    let is_versioned = |part: &str| {
        let version = part.strip_prefix("python").unwrap_or_default();
        version.contains('.') && version.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let is_there = parts.by_ref().any(|part| part.starts_with("lib"))
        && parts.next().is_some_and(is_versioned);
    is_there && !matches!(parts.next(), None | Some("site-packages" | "dist-packages"))
}

/// Whether a function is of a language's own library, by its name.
fn is_library_name(function: &str) -> bool {
    let name = function.trim_start_matches(['<', '&', '*', '(', '[']).trim_start_matches("mut ");
    ["std::", "core::", "alloc::"].iter().any(|library| name.starts_with(library))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn native(function: &str, file: Option<&str>, module: &str) -> Frame {
        let file = file.map(str::to_owned);
        Frame { function: function.into(), file, line: None, module: Some(module.into()) }
    }

    fn python(function: &str, file: &str) -> Frame {
        Frame { function: function.into(), file: Some(file.into()), ..Frame::default() }
    }

    fn check(frames: &[Frame], function: &str) {
        let hangs = where_it_hangs(frames).map(|place| frames[place].function.as_str());
        assert_eq!(hangs, Some(function), "{frames:?}");
    }

    #[test]
    fn the_line_that_called_into_a_lock_is_where_a_native_thread_hangs() {
        let rustc = "/rustc/0123/library/std/src/sync/poison/mutex.rs";
        check(
            &[
                native("syscall", None, "/usr/lib/x86_64-linux-gnu/libc.so.6"),
                native("futex_wait", Some(rustc), "/opt/job"),
                native("std::sync::mutex::Mutex<T>::lock", None, "/opt/job"),
                native("<std::sync::Mutex<T> as core::Any>::x", None, "/opt/job"),
                native("job::exchange", Some("src/exchange.rs"), "/opt/job"),
                native("job::main", Some("src/main.rs"), "/opt/job"),
            ],
            "job::exchange",
        );
        check(
            &[
                native("__futex_abstimed_wait", None, "/lib64/libpthread-2.31.so"),
                native("std::condition_variable::wait", None, "/usr/lib/libstdc++.so.6.0.30"),
                native("lock", Some("/usr/include/x86_64-linux-gnu/c++/13/gthr.h"), "/opt/job"),
                native("wait", Some("/usr/include/c++/13/condition_variable"), "/opt/job"),
                native("ncclAllReduce", None, "/opt/nccl/libnccl.so.2"),
            ],
            "ncclAllReduce",
        );
        check(
            &[
                native("x", None, "/lib/ld-linux-x86-64.so.2 (deleted)"),
                native("y", None, "[vdso]"),
                native("<job::Ring as core::ops::Drop>::drop", None, "/opt/job"),
            ],
            "<job::Ring as core::ops::Drop>::drop",
        );
    }

    #[test]
    fn the_line_that_called_into_its_library_is_where_a_python_thread_hangs() {
        check(
            &[
                python("Condition.wait", "/usr/lib/python3.13/threading.py"),
                python("Queue.get", "/opt/lib64/python3.11/queue.py"),
                python("load_batch", "/home/ada/train.py"),
            ],
            "load_batch",
        );
        check(
            &[
                python("_find", "<frozen importlib._bootstrap>"),
                python("all_reduce", "/venv/lib/python3.12/site-packages/torch/distributed.py"),
                python("train", "train.py"),
            ],
            "all_reduce",
        );
        check(&[python("f", "/usr/lib/python3/dist-packages/x.py")], "f");
    }

    #[test]
    fn what_only_looks_like_machinery_is_somebodys_own() {
        for module in ["/opt/libcuda.so.1", "/opt/libmine.so", "/opt/ldap", "/opt/pythonic"] {
            let libc = native("read", None, "/usr/lib/libc.so.6");
            check(&[libc, native("own", None, module)], "own");
        }
        check(&[python("own", "/srv/libs/stdlib.py"), python("main", "main.py")], "own");
        check(&[native("standard::wait", None, "/opt/job")], "standard::wait");
    }

    #[test]
    fn where_there_is_nothing_else_the_innermost_frame_is_it() {
        let libc = |function| native(function, None, "/usr/lib/libc.so.6");
        check(&[libc("pause"), libc("__libc_start_main")], "pause");
        assert_eq!(where_it_hangs(&[]), None);
    }
}
