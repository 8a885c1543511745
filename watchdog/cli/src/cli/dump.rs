//! The options of `hangwatch dump`.

use clap::Args;

/// The options of `hangwatch dump`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
#[command(after_long_help = "\
Exit codes:
  0    every process was inspected
  1    a process does not exist or cannot be inspected; a line says which and why
  2    the command line is wrong
  125  hangwatch itself failed

Examples:
  hangwatch dump 4711
  hangwatch dump gunicorn
  sudo hangwatch dump --cgroup system.slice/app.service
  hangwatch dump --tree $(pgrep -o make)")]
pub struct Dump {
    /// Processes, by pid or by name; a name stands for all processes of that name
    #[arg(value_name = "PID|NAME", required_unless_present_any = ["segment", "cgroup"])]
    pub processes: Vec<String>,

    /// The workers of this segment
    #[arg(long, value_name = "NAME")]
    pub segment: Option<String>,

    /// The processes of this cgroup and of the cgroups below it
    ///
    /// A path below /sys/fs/cgroup, or an absolute one.
    #[arg(long, value_name = "CGROUP")]
    pub cgroup: Option<String>,

    /// Also show the stacks of descendants
    ///
    /// Descendants in the chain of waits are always shown.
    #[arg(long)]
    pub tree: bool,

    /// Do not stop the processes for their native stacks
    ///
    /// A stop lasts some milliseconds. By it, a few system calls of a process that
    /// runs on end with EINTR (epoll_wait, semop), as by SIGSTOP and SIGCONT.
    #[arg(long)]
    pub no_stop: bool,

    /// Write JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// Show every frame of every stack
    #[arg(long)]
    pub all: bool,
}
