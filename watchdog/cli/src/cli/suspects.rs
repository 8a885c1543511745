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
    /// Reap the worker that the others wait for first, and hold those back for so long
    ///
    /// When one rank hangs, all the others run out of time in the same scope. Where
    /// every worker of a job but one is overdue in one scope (two at least), and that
    /// one has not been in it since they entered, it is reaped before them, whether or
    /// not a deadline of its own has passed. Each of the others may go on or leave
    /// until its own deadline and this much more; then it is reaped as usual. Jobs are
    /// told apart by their labels. Where nobody or more than one is missing, or the
    /// one may not be reaped, all are reaped as usual, and the log says why.
    ///
    /// WARNING: this rule goes by times and by scopes, not by who waits for whom. It
    /// can kill an innocent worker and leave the culprit: in a loop of back-to-back
    /// steps, where ranks are in the same scope again at once; where a rank has helper
    /// processes with lanes (thread slots) of their own; and where workers wait in a
    /// scope that another one never uses. Use --cascade-policy report to see first
    /// whom it would name in your job.
    #[arg(id = "cascade", long = "cascade", value_name = "DURATION",
          value_parser = value::duration, allow_hyphen_values = true)]
    pub hold: Option<Duration>,

    /// Off, report the suspect only, or hold the others back [default: hold with --cascade, else off]
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
