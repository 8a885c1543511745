"""examples/torch_ddp: a training of which one rank hangs, under `hangwatch run` and torchrun."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, PATIENCE, environment

TRAIN = Path(__file__).parents[2] / "examples" / "torch_ddp" / "train.py"
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--monitor_interval", "0.2", "-r", "1", "-t", "1",
]  # fmt: skip

# Of all hangs: where the example has them, and how long a step of one rank may take, seconds.
RANK, DEADLINE = 1, 3.0
SCOPES = {
    "collective": "prepare batch",
    "data": "load batch",
    "gil": "prepare batch",
    "stop": "prepare batch",
}


C10D = ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "--nproc_per_node", "2"]


class Job:
    """A training under a watchdog of its own, in a directory of its own."""

    def __init__(self, directory: Path, launcher: list[str], train: list[str], **env: str) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)
        launched = [*TORCHRUN, *launcher, "--log_dir", str(directory / "logs"), str(TRAIN)]
        self._command = [COMMAND, "run", "--log", "json", "--", *launched]
        self._command += ["--deadline", str(DEADLINE), *train]
        set_by_us = {
            "HANGWATCH_SEGMENT": None,
            "HANGWATCH_INCIDENTS": str(directory / "incidents"),
            "OMP_NUM_THREADS": "1",
            # torch 2.x: a store of its own for each attempt.
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }
        self._env = environment({**set_by_us, **env})

    def start(self, *prefix: str) -> Job:
        with (self.directory / "out").open("w") as out, (self.directory / "err").open("w") as err:
            self._process = subprocess.Popen(
                [*prefix, *self._command], env=self._env, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip
        return self

    def end(self) -> int:
        """Waits for its end."""
        return self._process.wait(3 * PATIENCE)

    def kill(self) -> None:
        """Leaves nobody behind, whatever has happened."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def out(self) -> str:
        return (self.directory / "out").read_text()

    @property
    def err(self) -> str:
        return (self.directory / "err").read_text()

    @property
    def told(self) -> str:
        return f"{self.out}\n{self.err}"

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the watchdog has logged of one kind."""
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith('{"time')]
        return [line for line in lines if line.get("event") == event]

    def error_files(self) -> dict[Path, dict[str, Any]]:
        """What each rank's error file says, by its path."""
        files = sorted((self.directory / "logs").glob("*/attempt_*/*/error.json"))
        return {file: json.loads(file.read_text())["message"] for file in files}


class Jobs:
    """Starts jobs, and ends what is left of them."""

    def __init__(self) -> None:
        self._started: list[Job] = []

    def start(self, job: Job, *prefix: str) -> Job:
        self._started.append(job.start(*prefix))
        return job

    def kill(self) -> None:
        for job in self._started:
            job.kill()


@pytest.fixture(scope="module")
def jobs() -> Iterator[Jobs]:
    started = Jobs()
    yield started
    started.kill()


def loss_of(out: str) -> str:
    (loss,) = re.findall(r"finished: loss (\S+)", out)
    return str(loss)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, jobs: Jobs) -> str:
    """The loss that the training ends with when nothing hangs."""
    directory = tmp_path_factory.mktemp("undisturbed")
    checkpoint = ["--checkpoint", str(directory / "checkpoint.pt")]
    job = jobs.start(Job(directory, C10D, checkpoint))
    assert job.end() == 0, job.told
    assert not job.events("expired"), job.told
    return loss_of(job.out)


def check_reaped(job: Job, hang: str) -> None:
    """That exactly the rank that hung was reaped, and is told of as the root cause."""
    (expired,) = job.events("expired")
    assert (expired["rank"], expired["scope"]) == (RANK, SCOPES[hang]), job.told
    assert expired["outcome"] == "reaped", job.told
    print(f"{hang}: {expired['late_ms']} ms after its deadline")
    (written,) = job.events("error_file")
    assert "error" not in written, written
    message = json.loads(Path(written["path"]).read_text())["message"]
    hung = f'hangwatch: rank {RANK} (pid {expired["pid"]}) hung in "{SCOPES[hang]}"'
    assert message["message"].startswith(hung)
    assert message["extraInfo"]["py_callstack"].startswith(hung)
    # The root cause is the earliest: torch compares whole seconds.
    stamps = {path: int(text["extraInfo"]["timestamp"]) for path, text in job.error_files().items()}
    own = stamps.pop(Path(written["path"]))
    assert all(own < stamp for stamp in stamps.values()), job.error_files()


@pytest.mark.parametrize("hang", SCOPES)
def test_a_hung_rank_is_reaped_and_the_training_goes_on(
    hang: str, undisturbed: str, tmp_path: Path, jobs: Jobs
) -> None:
    train = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--hang", hang]
    job = jobs.start(Job(tmp_path, [*C10D, "--max_restarts", "3"], train))
    assert job.end() == 0, job.told
    check_reaped(job, hang)
    assert "resumed at epoch 2" in job.out, job.told
    assert loss_of(job.out) == undisturbed


def test_torchruns_own_summary_names_the_hung_rank_and_its_scope(
    tmp_path: Path, jobs: Jobs
) -> None:
    # As a pod has it: what torchrun makes of the failures goes there, too.
    last_words = tmp_path / "termination-log"
    train = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--hang", "gil", "--hang-epoch", "0"]
    launcher = [*C10D, "--max_restarts", "0"]
    job = jobs.start(Job(tmp_path, launcher, train, TORCHELASTIC_ERROR_FILE=str(last_words)))
    assert job.end() == 1, job.told
    check_reaped(job, "gil")
    _, _, root_cause = job.err.partition("Root Cause (first observed failure):")
    assert f"rank      : {RANK} " in root_cause, job.err
    assert re.search(rf'traceback : hangwatch: rank {RANK} .* hung in "prepare batch"', root_cause)
    message = json.loads(last_words.read_text())["message"]
    assert 'hung in "prepare batch"' in message["message"]


def test_a_training_of_its_own_restarts_too(undisturbed: str, tmp_path: Path, jobs: Jobs) -> None:
    """torchrun --standalone; and a fault that comes too late is said to."""
    train = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--hang", "data"]
    launcher = ["--standalone", "--nproc_per_node", "2", "--max_restarts", "3"]
    job = jobs.start(Job(tmp_path, launcher, train))
    assert job.end() == 0, job.told
    check_reaped(job, "data")
    assert loss_of(job.out) == undisturbed
    again = tmp_path / "again"
    job = jobs.start(Job(again, launcher, train))
    assert job.end() == 0 and "--hang data has no effect" in job.out, job.told


def test_the_same_across_two_agents(undisturbed: str, tmp_path: Path, jobs: Jobs) -> None:
    """Two agents on one machine need a host name each, and both names an address."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost node0 node1\n")
    unshare = ["unshare", "--uts", "--mount", "sh", "-c"]
    become = 'hostname "$0" && mount --bind "$1" /etc/hosts && shift && exec "$@"'
    probe = [*unshare, become, "node0", str(hosts), "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True).returncode:
        pytest.skip("only root may give an agent a host name of its own")
    train = ["--checkpoint", str(tmp_path / "checkpoint.pt"), "--hang", "stop"]
    port = 29_000 + os.getpid() % 1_000
    rendezvous = ["--nnodes", "2", "--nproc_per_node", "1", "--max_restarts", "3", "--rdzv_id", "two"]
    rendezvous += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"node0:{port}"]
    agents = []
    for node in range(2):
        launcher = [*rendezvous, "--rdzv_conf", f"is_host={1 - node}"]
        agent = Job(tmp_path / f"node{node}", launcher, train)
        agents.append(jobs.start(agent, *unshare, become, f"node{node}", str(hosts)))
    codes = [agent.end() for agent in agents]
    told = "\n\n".join(agent.told for agent in agents)
    assert codes == [0, 0], told
    (hung,) = [agent for agent in agents if agent.events("expired")]
    check_reaped(hung, "stop")
    out = "".join(agent.out for agent in agents)
    assert "resumed at epoch 2" in out and loss_of(out) == undisturbed
