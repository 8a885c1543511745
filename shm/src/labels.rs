//! Labels: what a worker says about its place in a job, taken at attach from the environment that
//! launchers set.
//!
//! | | first of these that says something |
//! | --- | --- |
//! | rank, world size, local rank | ours, torchrun, Open MPI, MVAPICH2, MPICH and Intel MPI, Slurm, `PMIx`, Kubernetes |
//! | job | ours, torchrun, Slurm, `PMIx`, Open MPI, Kubernetes |
//! | host | ours, Slurm, Kubernetes' downward API, the kernel |
//!
//! Rank, world size and local rank are taken from one launcher, the innermost: `mpirun` in a Slurm
//! allocation leaves Slurm's variables in the environment, and they are those of its own daemon.

use std::env;

use crate::sys::host::host_name;

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
    /// The host, up to 64 bytes.
    pub host: String,
}

/// The variables of one launcher; empty where it has none.
struct Launcher {
    rank: &'static str,
    world_size: &'static str,
    local_rank: &'static str,
}

/// The launchers, those first that may run within the later ones.
const LAUNCHERS: [Launcher; 8] = [
    Launcher {
        rank: "HANGWATCH_RANK",
        world_size: "HANGWATCH_WORLD_SIZE",
        local_rank: "HANGWATCH_LOCAL_RANK",
    },
    // torchrun, and whatever else follows torch's `env://`.
    Launcher { rank: "RANK", world_size: "WORLD_SIZE", local_rank: "LOCAL_RANK" },
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world_size: "OMPI_COMM_WORLD_SIZE",
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
    },
    Launcher {
        rank: "MV2_COMM_WORLD_RANK",
        world_size: "MV2_COMM_WORLD_SIZE",
        local_rank: "MV2_COMM_WORLD_LOCAL_RANK",
    },
    // MPICH's and Intel's Hydra.
    Launcher { rank: "PMI_RANK", world_size: "PMI_SIZE", local_rank: "MPI_LOCALRANKID" },
    // Its own PMIx (`srun --mpi=pmix`) tells the same rank, and less.
    Launcher { rank: "SLURM_PROCID", world_size: "SLURM_NTASKS", local_rank: "SLURM_LOCALID" },
    Launcher { rank: "PMIX_RANK", world_size: "", local_rank: "" },
    // An indexed job; how many completions it has, the pod is not told.
    Launcher { rank: "JOB_COMPLETION_INDEX", world_size: "", local_rank: "" },
];
const JOB: [&str; 6] = [
    "HANGWATCH_JOB",
    "TORCHELASTIC_RUN_ID",
    "SLURM_JOB_ID",
    "PMIX_NAMESPACE",
    "OMPI_MCA_ess_base_jobid",
    "JOB_NAME",
];
const HOST: [&str; 3] = ["HANGWATCH_HOST", "SLURMD_NODENAME", "NODE_NAME"];
/// What torchrun says where nobody gave the job an id.
const NO_RUN_ID: &str = "none";

impl Labels {
    /// The names of the labels that differ.
    pub(crate) fn differences(&self, other: &Labels) -> Vec<&'static str> {
        let each = [
            ("job", self.job != other.job),
            ("rank", self.rank != other.rank),
            ("world size", self.world_size != other.world_size),
            ("local rank", self.local_rank != other.local_rank),
            ("host", self.host != other.host),
        ];
        each.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    /// The labels this process's environment names.
    pub fn from_environment() -> Labels {
        let labels = Labels::from_variables(|name| env::var(name).ok());
        let host = if labels.host.is_empty() { host_name() } else { labels.host };
        Labels { host, ..labels }
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Labels {
        let text = |name: &str| variable(name).filter(|value| !value.is_empty());
        let number = |name: &str| text(name)?.trim().parse().ok();
        let job = JOB.iter().find_map(|&name| {
            text(name).filter(|id| name != "TORCHELASTIC_RUN_ID" || id != NO_RUN_ID)
        });
        let host = HOST.iter().find_map(|&name| text(name));
        let launcher = LAUNCHERS.iter().find(|launcher| number(launcher.rank).is_some());
        Labels {
            job: job.unwrap_or_default(),
            rank: launcher.and_then(|launcher| number(launcher.rank)),
            world_size: launcher.and_then(|launcher| number(launcher.world_size)),
            local_rank: launcher.and_then(|launcher| number(launcher.local_rank)),
            host: host.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables = &'static [(&'static str, &'static str)];

    fn labels(
        job: &str,
        rank: impl Into<Option<u32>>,
        world_size: impl Into<Option<u32>>,
        local_rank: impl Into<Option<u32>>,
        host: &str,
    ) -> Labels {
        Labels {
            job: job.into(),
            rank: rank.into(),
            world_size: world_size.into(),
            local_rank: local_rank.into(),
            host: host.into(),
        }
    }

    fn check(launcher: &str, variables: &[(&str, &str)], expected: &Labels) {
        let found = Labels::from_variables(|name| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some((*value).to_owned())
        });
        assert_eq!(found, *expected, "{launcher}");
    }

    const TORCHRUN: Variables = &[
        ("RANK", "11"),
        ("WORLD_SIZE", "16"),
        ("LOCAL_RANK", "3"),
        ("LOCAL_WORLD_SIZE", "8"),
        ("GROUP_RANK", "1"),
        ("ROLE_RANK", "11"),
        ("TORCHELASTIC_RUN_ID", "gpt-7"),
        ("TORCHELASTIC_RESTART_COUNT", "0"),
    ];
    const SRUN: Variables = &[
        ("SLURM_JOB_ID", "4711"),
        ("SLURM_PROCID", "5"),
        ("SLURM_NTASKS", "8"),
        ("SLURM_LOCALID", "1"),
        ("SLURM_NODEID", "2"),
        ("SLURMD_NODENAME", "gpu-b3"),
        ("SLURM_JOB_NAME", "train"),
    ];
    const MPIRUN: Variables = &[
        ("OMPI_COMM_WORLD_RANK", "2"),
        ("OMPI_COMM_WORLD_SIZE", "4"),
        ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
        ("PMIX_RANK", "2"),
        ("PMIX_NAMESPACE", "prterun-a-912@1"),
    ];

    #[test]
    fn each_launcher_is_understood() {
        check("none", &[], &Labels::default());
        check("torchrun", TORCHRUN, &labels("gpt-7", 11, 16, 3, ""));
        check("srun", SRUN, &labels("4711", 5, 8, 1, "gpu-b3"));
        check("mpirun", MPIRUN, &labels("prterun-a-912@1", 2, 4, 0, ""));
        let old = [
            ("OMPI_COMM_WORLD_RANK", "0"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "0"),
            ("OMPI_MCA_ess_base_jobid", "3735879681"),
        ];
        check("mpirun of Open MPI 4", &old, &labels("3735879681", 0, 2, 0, ""));
        let hydra = [("PMI_RANK", "1"), ("PMI_SIZE", "4"), ("MPI_LOCALRANKID", "1")];
        check("mpiexec of MPICH", &hydra, &labels("", 1, 4, 1, ""));
        let mvapich = [
            ("MV2_COMM_WORLD_RANK", "6"),
            ("MV2_COMM_WORLD_SIZE", "8"),
            ("MV2_COMM_WORLD_LOCAL_RANK", "2"),
        ];
        check("mpirun of MVAPICH2", &mvapich, &labels("", 6, 8, 2, ""));
        let indexed = [
            ("JOB_COMPLETION_INDEX", "3"),
            ("HOSTNAME", "sweep-3-x7k2p"),
            ("NODE_NAME", "node-17"),
            ("JOB_NAME", "sweep"),
        ];
        check("an indexed job of Kubernetes", &indexed, &labels("sweep", 3, None, None, "node-17"));
        let other = [("PMIX_RANK", "2"), ("PMIX_NAMESPACE", "dvm@1")];
        check("another launcher with PMIx", &other, &labels("dvm@1", 2, None, None, ""));
    }

    #[test]
    fn launchers_within_launchers_are_not_mixed() {
        const PMIX: Variables = &[("PMIX_RANK", "5"), ("PMIX_NAMESPACE", "slurm.pmix.4711.0")];
        const OURS: Variables =
            &[("HANGWATCH_RANK", "99"), ("HANGWATCH_JOB", "mine"), ("HANGWATCH_HOST", "h")];
        const INDEXED: Variables = &[("JOB_COMPLETION_INDEX", "1")];
        let both = |inner: Variables, outer: Variables| [inner, outer].concat();
        check("torchrun in Slurm", &both(TORCHRUN, SRUN), &labels("gpt-7", 11, 16, 3, "gpu-b3"));
        let expected = labels("4711", 2, 4, 0, "gpu-b3");
        check("mpirun in Slurm: SLURM_PROCID is its daemon's", &both(MPIRUN, SRUN), &expected);
        check("srun --mpi=pmix", &both(PMIX, SRUN), &labels("4711", 5, 8, 1, "gpu-b3"));
        let expected = labels("gpt-7", 11, 16, 3, "");
        check("torchrun in an indexed job", &both(TORCHRUN, INDEXED), &expected);
        check("ours", &both(OURS, TORCHRUN), &labels("mine", 99, None, None, "h"));
    }

    #[test]
    fn what_says_nothing_is_passed_over() {
        let rude = [("RANK", ""), ("WORLD_SIZE", "eight"), ("TORCHELASTIC_RUN_ID", "none")];
        check("empty and absurd", &rude, &Labels::default());
        check("before srun's", &[&rude[..], SRUN].concat(), &labels("4711", 5, 8, 1, "gpu-b3"));
        for rank in ["-1", "4294967296", "1.5", "0x1", "\u{1b}[2J"] {
            check(rank, &[("RANK", rank)], &Labels::default());
        }
        check("blanks", &[("RANK", " 7 ")], &labels("", 7, None, None, ""));
        let half = [("RANK", "7"), ("WORLD_SIZE", "many")];
        check("a world size that is none", &half, &labels("", 7, None, None, ""));
    }

    #[test]
    fn a_host_is_always_known() {
        assert!(!Labels::from_environment().host.is_empty());
    }
}
