//! The options for cascades: one worker hangs, and the others expire because they wait for it.

use std::time::Duration;

use clap::Args;
use hangwatch_core::watchdog::policy;
use hangwatch_core::wire::time::duration_ns;

use super::value;

/// What happens when the workers of a job expire because they wait for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CascadePolicy {
    /// Each is killed at its own deadline.
    Off,
    /// Each is killed at its own deadline; the log names the suspect.
    Report,
    /// The suspect is killed first, the others are held back.
    Hold,
}

/// The options for cascades.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Cascades")]
pub struct Cascade {
    /// Kill the worker that the others wait for first, and give the others this much more time
    ///
    /// When one rank hangs, all others expire in the same scope. If all workers of a job but
    /// one are overdue in one scope (at least two), and that one has not been in the scope
    /// since they entered, it is killed first, even if its own deadline has not passed. Each
    /// of the others gets this much time beyond its own deadline; then it is killed as usual.
    /// Labels tell jobs apart. If no worker or more than one is missing, or the suspect may
    /// not be killed, all are killed as usual, and the log says why.
    ///
    /// WARNING: this rule uses only times and scopes; it does not know which worker waits
    /// for which. It can kill an innocent worker and leave the culprit: in a loop of
    /// back-to-back steps, where ranks enter the same scope again at once; where a rank has
    /// helper processes that arm timers, too; and where workers wait in a scope that another
    /// worker never uses. Use --cascade-policy report first, to see which worker it would
    /// name in your job.
    #[arg(id = "cascade", long = "cascade", value_name = "DURATION",
          value_parser = value::duration, allow_hyphen_values = true)]
    pub hold: Option<Duration>,

    /// off, report (only log the suspect) or hold [default: hold with --cascade, else off]
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
    /// The policy; `None` if others are to be held back but `--cascade` does not say how long.
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
