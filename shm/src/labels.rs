//! Labels: what a worker says about its place in a job, taken at attach from the environment that
//! launchers set.

use std::env;

/// A worker's place in its job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The job, up to 128 bytes.
    pub job: String,
    /// The rank in the job.
    pub rank: Option<u32>,
    /// The number of ranks.
    pub world_size: Option<u32>,
    /// The rank on this host.
    pub local_rank: Option<u32>,
}

/// Variables by launcher: ours, torchrun, Slurm, Open MPI, PMI; Kubernetes' indexed jobs.
const JOB: [&str; 5] =
    ["HANGWATCH_JOB", "TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "OMPI_MCA_ess_base_jobid", "JOB_NAME"];
const RANK: [&str; 5] =
    ["RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "JOB_COMPLETION_INDEX"];
const WORLD_SIZE: [&str; 4] = ["WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
const LOCAL_RANK: [&str; 3] = ["LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK"];

impl Labels {
    /// The labels this process's environment names.
    pub fn from_environment() -> Labels {
        Labels::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Labels {
        let first = |names: &[&str]| {
            names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
        };
        let number = |names: &[&str]| first(names).and_then(|value| value.parse().ok());
        Labels {
            job: first(&JOB).unwrap_or_default(),
            rank: number(&RANK),
            world_size: number(&WORLD_SIZE),
            local_rank: number(&LOCAL_RANK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_launcher_that_says_something_counts() {
        let labels = Labels::from_variables(|name| match name {
            "SLURM_JOB_ID" => Some("77".into()),
            "SLURM_PROCID" => Some("3".into()),
            "RANK" => Some(String::new()),
            "WORLD_SIZE" => Some("eight".into()),
            _ => None,
        });
        let expected = Labels { job: "77".into(), rank: Some(3), ..Labels::default() };
        assert_eq!(labels, expected);
    }
}
