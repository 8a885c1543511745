//! `cargo xtask sanitize`: the tests under the address and the thread sanitizer, with a nightly
//! compiler.
//!
//! Where the nightly has its source (the component `rust-src`), the standard library is built along,
//! instrumented. Else it is linked as it ships, what synchronises within it is not seen, and the thread
//! sanitizer reports races that are none: it is then run for its reports alone, and fails nothing.

use std::process::{Command, ExitCode};

use clap::Args;

use crate::runner::{self, say};
use crate::step::Step;
use crate::tools::Tool;

/// The sanitizers only come with the compilers of this one.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A sanitizer, by the compiler's word for it.
const SANITIZERS: [(&str, &str); 2] = [
    ("address", "every test, with each access to memory checked"),
    ("thread", "every test, with each access by two threads checked"),
];

/// Which sanitizer, over which tests.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Run under this sanitizer only: address or thread
    #[arg(value_name = "SANITIZER", value_parser = SANITIZERS.map(|(name, _)| name))]
    only: Option<String>,

    /// Options of `cargo test`: -p PACKAGE, --test NAME, a test's name, ...
    #[arg(last = true, value_name = "OPTION")]
    options: Vec<String>,
}

/// Runs the tests under the sanitizers.
pub(crate) fn run(options: &Options) -> ExitCode {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let std = Std::found();
    if std == Std::Shipped && wanted("thread") {
        say(
            "the nightly compiler has no rust-src: reports of the thread sanitizer that name std's locks \
             or the test harness are none, and none fails this. To have it judge, install it: rustup \
             component add rust-src --toolchain nightly\n",
        );
    }
    let steps: Vec<Step> = SANITIZERS
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, what)| step(name, what, std, options))
        .collect();
    runner::run(&steps, Some("cargo xtask sanitize"))
}

/// How the standard library comes into a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Std {
    /// Built along, instrumented like the rest.
    Instrumented,
    /// As it ships.
    Shipped,
}

impl Std {
    fn found() -> Std {
        let sysroot = ["run", "nightly", "rustc", "--print", "sysroot"];
        let output = Command::new("rustup").args(sysroot).env_remove("RUSTUP_TOOLCHAIN").output();
        let sysroot = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
        let source =
            sysroot.map(|sysroot| format!("{}/lib/rustlib/src/rust/library", sysroot.trim()));
        let has_source = source.is_some_and(|source| std::path::Path::new(&source).exists());
        if has_source { Std::Instrumented } else { Std::Shipped }
    }
}

fn step(name: &'static str, what: &'static str, std: Std, options: &Options) -> Step {
    let mut args = vec!["test", "--target", TARGET, "--no-fail-fast"];
    if options.options.is_empty() {
        args.extend(["--workspace", "--lib", "--bins", "--tests"]);
        // Programs that have no runtime of the sanitizer's load the one; the other's contenders leak.
        args.extend(["--exclude", "hangwatch-python", "--exclude", "hangwatch-bench"]);
    }
    if std == Std::Instrumented {
        args.push("-Zbuild-std");
    }
    // Newer compilers refuse to link code with a sanitizer and code without, else.
    let flags = format!("-Zsanitizer={name} -Cunsafe-allow-abi-mismatch=sanitizer");
    // Tests fork processes with threads, and the children start threads of their own.
    let fails = if std == Std::Instrumented { "" } else { " exitcode=0" };
    Step::nightly_cargo(name, what, &args)
        .needs(Tool::Nightly)
        .args(options.options.iter().map(Into::into))
        .flags("RUSTFLAGS", &flags)
        // What lives as long as its process is leaked on purpose: mappings, registries.
        .env_default("ASAN_OPTIONS", "detect_leaks=0")
        .env_default("TSAN_OPTIONS", &format!("die_after_fork=0{fails}"))
        .own_target_dir(name)
}

#[cfg(test)]
mod tests {
    use super::{Options, SANITIZERS, Std, step};

    #[test]
    fn each_sanitizer_has_its_flag_and_a_directory_of_its_own() {
        for (name, what) in SANITIZERS {
            let options = Options { only: None, options: vec![] };
            let shown = step(name, what, Std::Shipped, &options).to_string();
            assert!(shown.contains(&format!("-Zsanitizer={name} ")), "{shown}");
            assert!(shown.contains(&format!("target/{name}")), "{shown}");
            let shown = step(name, what, Std::Instrumented, &options).to_string();
            assert!(shown.contains("-Zbuild-std"), "{shown}");
        }
    }
}
