//! The options about who is reaped first.

use std::time::Duration;

use clap::Args;
use hangwatch_core::watchdog::policy;
use hangwatch_core::wire::time::duration_ns;

use super::value;

/// What is done where several workers of a job run out of time waiting for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CascadePolicy {
    /// Each is reaped at its deadline; the others are not looked at.
    Off,
    /// Each is reaped at its deadline; the suspect is named in the log.
    Report,
    /// The suspect is reaped first, the others are held back.
    Hold,
}

/// Who is reaped first.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Cascades")]
pub struct Cascade {
    /// Kill the worker that the others wait for first, and hold the others back so long
    ///
    /// When one rank hangs, all others run out of time in the same scope. If every worker
    /// of a job but one is overdue in one scope (at least two), and that one has not been
    /// in it since they entered, it is killed before them, whether or not a deadline of
    /// its own has passed. Each of the others may go on or leave until its own deadline
    /// and this much more; then it is killed as usual. Labels tell jobs apart. If no
    /// worker or more than one is missing, or the one may not be killed, all are killed
    /// as usual, and the log says why.
    ///
    /// WARNING: this rule uses times and scopes; it does not know which worker waits for
    /// which. It can kill an innocent worker and leave the culprit: in a loop of
    /// back-to-back steps, where ranks are in the same scope again at once; where a rank
    /// has helper processes with lanes (thread slots) of their own; and where workers wait
    /// in a scope that another worker never uses. Use --cascade-policy report first, to
    /// see which worker it would name in your job.
    #[arg(id = "cascade", long = "cascade", value_name = "DURATION",
          value_parser = value::duration, allow_hyphen_values = true)]
    pub hold: Option<Duration>,

    /// Off, only report the suspect, or hold the others back [default: hold with --cascade, else off]
    #[arg(
        id = "cascade_policy",
        long = "cascade-policy",
        value_name = "off|report|hold",
        value_enum,
        hide_possible_values = true
    )]
    pub policy: Option<CascadePolicy>,
}

impl Cascade {
    /// What was asked for; `None` where others are to be held back, but not for how long.
    pub fn asked(&self) -> Option<policy::Cascade> {
        let otherwise = self.hold.map_or(CascadePolicy::Off, |_| CascadePolicy::Hold);
        match self.policy.unwrap_or(otherwise) {
            CascadePolicy::Off => Some(policy::Cascade::Off),
            CascadePolicy::Report => Some(policy::Cascade::Report),
            CascadePolicy::Hold => {
                self.hold.map(|hold| policy::Cascade::Hold { hold_ns: duration_ns(hold) })
            }
        }
    }
}
