//! The options for deadlines of programs that set none themselves.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use clap::Args;

use super::value;

/// torchrun's variable that requests a new store for each attempt.
const FRESH_STORE: &str = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE";

/// Which programs get deadlines without a change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Auto {
    /// torch jobs, from joining a process group to leaving it.
    pub torch: bool,
    /// Waits of any Python program.
    pub io: bool,
}

impl Auto {
    /// The value for the Python package, separated by commas.
    fn words(self) -> &'static str {
        match (self.torch, self.io) {
            (true, true) => "torch,io",
            (true, false) => "torch",
            (false, true) => "io",
            (false, false) => "off",
        }
    }
}

/// Parses `torch`, `io`, `torch,io` or `off`; `1` also means torch.
fn auto(text: &str) -> Result<Auto, String> {
    let mut auto = Auto::default();
    for word in text.to_ascii_lowercase().split(',') {
        match word.trim() {
            "torch" | "1" | "true" | "on" => auto.torch = true,
            "io" => auto.io = true,
            "off" | "0" | "false" | "" => {}
            _ => return Err("is not one of torch, io, torch,io, off".to_owned()),
        }
    }
    Ok(auto)
}

/// Deadlines for programs that set none.
#[derive(Debug, Clone, Copy, Args)]
#[command(next_help_heading = "Deadlines")]
pub struct Automatic {
    /// Set deadlines in unchanged Python programs: torch, io or torch,io [default: off]
    ///
    /// torch (the same as --auto alone): torch jobs. From init_process_group to
    /// destroy_process_group, each wait for other ranks gets the timeout --auto-together, and
    /// the work between two such waits gets --auto-alone; so a rank that hangs is overdue
    /// before the ranks that wait for it. Data loader processes, optimizer steps,
    /// checkpoints and compilation have their own scopes. Not for servers, which may wait
    /// for a request for hours. io: waits of any Python program for pools, queues,
    /// subprocesses and sockets get --auto-alone. A timeout in --deadlines overrides both.
    /// The command's Python must have the package hangwatch; it reads HANGWATCH_AUTO.
    #[arg(long, value_name = "torch|io|off", value_parser = auto, num_args = 0..=1,
          require_equals = true, default_missing_value = "torch")]
    pub auto: Option<Auto>,

    /// With --auto: how long a rank may wait for the others
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "10m",
          allow_hyphen_values = true)]
    pub auto_together: Duration,

    /// With --auto: how long a rank may work between two such waits; less than --auto-together
    #[arg(long, value_name = "DURATION", value_parser = value::duration, default_value = "5m",
          allow_hyphen_values = true)]
    pub auto_alone: Duration,
}

impl Automatic {
    /// What `--auto` guards, if it is on.
    pub fn asked(&self) -> Option<Auto> {
        self.auto.filter(|auto| *auto != Auto::default())
    }

    /// The environment variables for the Python package in the command.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let Some(auto) = self.asked() else { return Vec::new() };
        let seconds = |time: Duration| OsString::from(format!("{}s", time.as_secs_f64()));
        let mut variables = vec![
            ("HANGWATCH_AUTO", auto.words().into()),
            ("HANGWATCH_AUTO_TOGETHER", seconds(self.auto_together)),
            ("HANGWATCH_AUTO_ALONE", seconds(self.auto_alone)),
            // `run` has printed the notice; the package need not.
            ("HANGWATCH_AUTO_SAID", "1".into()),
        ];
        // Without it torchrun uses one store for all attempts of a job, and a restarted rank finds the
        // addresses of dead ones there.
        if auto.torch && env::var_os(FRESH_STORE).is_none() {
            variables.push((FRESH_STORE, "1".into()));
        }
        variables
    }

    /// One line for the log: what is guarded, with which timeouts, and how to change them.
    pub fn said(&self) -> Option<String> {
        let auto = self.asked()?;
        let (together, alone) = (self.auto_together, self.auto_alone);
        let torch = || {
            format!(
                "torch jobs are guarded: {} for each wait for other ranks, {} for the work \
                 between (change with --auto-together, --auto-alone or --deadlines)",
                humantime::format_duration(together),
                humantime::format_duration(alone)
            )
        };
        let io = || {
            format!(
                "Python programs are guarded: {} for each wait for a pool, queue, subprocess or \
                 socket (change with --auto-alone)",
                humantime::format_duration(alone)
            )
        };
        let said = [auto.torch.then(torch), auto.io.then(io)];
        Some(said.into_iter().flatten().collect::<Vec<_>>().join("; "))
    }

    /// Whether the timeouts are the wrong way round: waiting ranks would expire before the one that hangs.
    pub fn is_in_vain(&self) -> bool {
        self.asked().is_some_and(|auto| auto.torch) && self.auto_alone >= self.auto_together
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_accepts_names_and_switch_values() {
        let (torch, io) = (Auto { torch: true, io: false }, Auto { torch: false, io: true });
        for text in ["torch", "1", "true", "TORCH"] {
            assert_eq!(auto(text), Ok(torch), "{text}");
        }
        assert_eq!(auto("io"), Ok(io));
        assert_eq!(auto("torch,io"), Ok(Auto { torch: true, io: true }));
        assert_eq!(auto("0"), Ok(Auto::default()));
        assert!(auto("jax").is_err());
    }
}
