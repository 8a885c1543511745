"""`hangwatch run --auto`: torch jobs that know nothing of hangwatch, each hung and then not.

A job of ``jobs/`` hangs in its first attempt, at the line that ends in ``# hangs here``. What is expected:
the rank that hangs is the first to be reaped, in the right scope and at that line; the job is started
again, and that attempt, which does not hang, ends undisturbed.

``pytest -m all_jobs`` runs all of them, the rest of the tests a few.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, PATIENCE, Watchdog, environment, run, wait_for

JOBS = Path(__file__).with_name("jobs")
TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--monitor_interval", "0.2", "-r", "1", "-t", "1",
    "--max_restarts", "1",
]  # fmt: skip
ALONE, TOGETHER = 6, 12
BETWEEN = "alone: between collectives"


def has_torch_2() -> bool:
    import importlib.metadata

    return int(importlib.metadata.version("torch").split(".")[0]) >= 2


@dataclass(frozen=True)
class Job:
    """A job, who hangs in it, and in what."""

    name: str
    scope: str | tuple[str, ...] = BETWEEN
    ranks: tuple[int, ...] = (1,)
    size: int = 2
    needs_torch_2: bool = False
    launcher: tuple[str, ...] = ("--nproc_per_node", "2")
    is_in_gate: bool = False


ALL = [
    Job("ddp_lock", is_in_gate=True),
    Job("ddp_gil", is_in_gate=True),
    Job("ddp_stop"),
    Job("fsdp2", needs_torch_2=True),
    Job("pipeline", ranks=(0,)),
    Job("loader_worker", "alone: load a batch", is_in_gate=True),
    Job("join"),
    Job("monitored_barrier"),
    Job("async_checkpoint", "alone: save a checkpoint", needs_torch_2=True),
    Job("spawn", launcher=(), is_in_gate=True),
    Job("elastic", launcher=("--nnodes", "1:2", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
                             "--rdzv_endpoint", "localhost:0")),  # fmt: skip
    Job("compile", needs_torch_2=True),
    Job("missing_rank"),
    Job("two_missing", ranks=(1, 2), size=3, launcher=("--nproc_per_node", "3")),
    Job("mismatched", "together: all_reduce", ranks=(0, 1)),
    Job("peer_returned"),
    Job("store_waits", ranks=(0,)),
    Job("eval_on_rank_0", ranks=(0,)),
    Job("uneven_dataset", ("together: barrier", "together: backward"), ranks=(0, 1)),
    Job("optimizer_hook", "alone: optimizer step", needs_torch_2=True, is_in_gate=True),
]  # fmt: skip


def params() -> list[Any]:
    def marks(job: Job) -> list[Any]:
        missing = job.needs_torch_2 and not has_torch_2()
        skip = [pytest.mark.skip(reason="torch 1.13 has nothing of the kind")] if missing else []
        return skip + ([] if job.is_in_gate else [pytest.mark.all_jobs])

    return [pytest.param(job, id=job.name, marks=marks(job)) for job in ALL]


class Run:
    """A job under `hangwatch run --auto`, to its end."""

    def __init__(self, job: Job, directory: Path, *options: str, **env: str | None) -> None:
        self.incidents = directory / "incidents"
        script = str(JOBS / f"{job.name}.py")
        launcher = [*TORCHRUN, *job.launcher] if job.launcher else [sys.executable]
        times = ["--auto", "--auto-together", f"{TOGETHER}s", "--auto-alone", f"{ALONE}s"]
        changes = {
            "HANGWATCH_SEGMENT": None,
            "HANGWATCH_INCIDENTS": str(self.incidents),
            "OMP_NUM_THREADS": "1",
            "FAULT": "1",
            **env,
        }
        with (directory / "out").open("w") as out, (directory / "err").open("w") as err:
            process = subprocess.Popen(
                [COMMAND, "run", "--log", "json", *times, *options, "--", *launcher, script],
                env=environment(changes), stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip
            try:
                self.code = process.wait(4 * PATIENCE)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self.out, self.err = (directory / "out").read_text(), (directory / "err").read_text()

    @property
    def told(self) -> str:
        return f"{self.out}\n{self.err}"

    def events(self, event: str) -> list[dict[str, Any]]:
        """What the watchdog has logged of one kind."""
        # What the ranks write to the same pipe may stand before it in its line.
        found = re.findall(r'\{"timestamp".*\}', self.err)
        lines = [json.loads(line) for line in found]
        return [line for line in lines if line.get("event") == event]

    def stacks(self, expired: dict[str, Any]) -> str:
        """The stacks that were taken of who has expired."""
        directory = self.incidents / str(expired["incident"])
        return (directory / "stacks.txt").read_text()


@pytest.mark.parametrize("job", params())
def test_an_unmodified_job_is_guarded(job: Job, tmp_path: Path) -> None:
    done = Run(job, tmp_path)
    expired = done.events("expired")
    assert expired, done.told
    first = expired[0]
    scopes = job.scope if isinstance(job.scope, tuple) else (job.scope,)
    assert first["rank"] in job.ranks and first["scope"] in scopes, done.told
    assert {one["rank"] for one in expired} <= set(job.ranks), done.told
    source = (JOBS / f"{job.name}.py").read_text().splitlines()
    (line,) = [n for n, text in enumerate(source, 1) if text.endswith("# hangs here")]
    # Where two wait for each other, one of them is there.
    stacks = "".join(done.stacks(one) for one in (expired if len(scopes) > 1 else [first]))
    assert f"{job.name}.py:{line}" in stacks, stacks
    assert done.code == 0, done.told
    assert done.out.count("finished") >= job.size, done.told
    print(f"{job.name}: rank {first['rank']}, {first['scope']}, line {line}, {first['late_ms']} ms late")


def torchless(code: str, directory: Path, **env: str | None) -> subprocess.CompletedProcess[str]:
    """Runs *code* under ``HANGWATCH_AUTO=1`` with the folder's own `torch`."""
    changes = {"HANGWATCH_AUTO": "1", "PYTHONPATH": str(directory), **env}
    return run(code, **changes)


def test_the_hook_imports_nothing_that_the_program_does_not() -> None:
    code = """
        import sys
        print(sorted(m for m in sys.modules if m.split(".")[0] in ("torch", "subprocess", "socket")))
    """
    plain, hooked = run(code, HANGWATCH_AUTO=None), run(code, HANGWATCH_AUTO="torch,io")
    assert (hooked.stdout, hooked.stderr) == (plain.stdout, ""), hooked.stderr


def test_a_torch_of_another_shape_is_left_alone(tmp_path: Path) -> None:
    package = tmp_path / "torch" / "distributed"
    package.mkdir(parents=True)
    (tmp_path / "torch" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "distributed_c10d.py").write_text("def all_reduce(x): return x + 1\n")
    code = """
        import torch.distributed.distributed_c10d as c10d
        print(c10d.all_reduce(1))
    """
    done = torchless(code, tmp_path)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "is not changed for hangwatch" in done.stderr


def test_a_program_without_torch_sees_the_same_error() -> None:
    code = """
        import sys
        sys.modules["torch"] = None
        try:
            import torch.distributed
        except ModuleNotFoundError as error:
            print(error)
    """
    plain, hooked = run(code, HANGWATCH_AUTO=None), run(code, HANGWATCH_AUTO="1")
    assert plain.stdout and hooked.stdout == plain.stdout, hooked.stderr


GUARDED = """
    import hangwatch, os, threading
    from hangwatch._auto import guard
    def scopes():
        lanes = hangwatch.observe("NAME").lanes
        return [t.scope for lane in lanes for t in lane.timers if t.state == "armed"]
    inner = guard.within(guard.together("inner"))(scopes)
    outer = guard.within(guard.together("outer", is_broad=True))(lambda: (scopes(), inner(), scopes()))
    class Failing:
        @guard.within(guard.alone("failing"))
        def run(self):
            raise KeyError(scopes())
    assert scopes() == [] and inner() == []
    guard.GUARD.begin(guard.BETWEEN)
"""


def check_guard(name: str, code: str) -> None:
    whole = (textwrap.dedent(GUARDED) + textwrap.dedent(code)).replace("NAME", name)
    done = run(whole, HANGWATCH_SEGMENT=name)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_a_guarded_thread_is_in_exactly_one_scope(name: str, segment: str) -> None:
    check_guard(name, """
        assert scopes() == ["alone: between collectives"]
        assert inner() == ["together: inner"]
        assert outer() == (["together: outer"], ["together: inner"], ["together: outer"])
        try:
            Failing().run()
        except KeyError as error:
            assert error.args == (["alone: failing"],)
        assert scopes() == ["alone: between collectives"]
        guard.GUARD.end()
        assert scopes() == [] and inner() == []
    """)  # fmt: skip


def test_the_guard_follows_the_thread_that_trains(name: str, segment: str) -> None:
    check_guard(name, """
        seen = []
        trains = threading.Thread(target=lambda: seen.extend([inner(), scopes(), inner()]))
        trains.start()
        trains.join()
        assert seen == [["together: inner"], ["alone: between collectives"], ["together: inner"]]
        assert scopes() == []      # with its thread the guard has ended
        assert inner() == []
        guard.GUARD.begin(guard.BETWEEN)
        assert inner() == ["together: inner"]
        helper = threading.Thread(target=lambda: seen.append(inner()))
        helper.start()
        helper.join()
        assert seen[-1] == ["alone: between collectives"]  # the main thread's
    """)  # fmt: skip


def test_a_forked_child_is_no_rank(name: str, segment: str) -> None:
    check_guard(name, """
        def in_child():
            child = os.fork()
            if child == 0:
                mine = [t.scope for lane in hangwatch.observe("NAME").lanes if lane.pid == os.getpid()
                        for t in lane.timers if t.state == "armed"]
                inner()
                os._exit(mine != [])
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert in_child() == 0
        assert guard.within(guard.together("forks"))(in_child)() == 0
        assert scopes() == ["alone: between collectives"]
    """)  # fmt: skip


def test_a_guard_that_fails_ends_and_the_program_goes_on(name: str) -> None:
    code = textwrap.dedent("""
        from hangwatch._auto import guard
        def broken(*_):
            raise OSError("no lane")
        guard._hangwatch.expires_by_default = broken
        inner = guard.within(guard.together("inner"))(lambda: 7)
        guard.GUARD.begin(guard.BETWEEN)
        assert inner() == inner() == 7
        guard.GUARD.end()
    """)
    done = run(code)
    assert done.returncode == 0 and done.stderr.count("no longer guarded") == 1, done.stderr


def test_times_are_written_as_on_the_command_line() -> None:
    from hangwatch._auto.times import length, seconds

    for text, expected in (("90", 90), ("1.5s", 1.5), ("1m30s", 90), ("250ms", 0.25), ("10m", 600)):
        assert seconds(text) == expected
    for text in ("", "soon", "5x", "0s"):
        with pytest.raises(ValueError):
            seconds(text)
    assert (length(600), length(12)) == ("10 min", "12 s")


def test_learned_times_count_more(name: str, tmp_path: Path) -> None:
    learned = tmp_path / "deadlines.toml"
    learned.write_text('[scopes."alone: between collectives"]\ndeadline = "77s"\n')
    served = Watchdog(name, tmp_path / "log", "--deadlines", str(learned))
    try:
        check_guard(name, """
            (between,) = [t for lane in hangwatch.observe("NAME").lanes for t in lane.timers
                          if t.state == "armed"]
            assert 76 < between.allowance < 78, between
        """)  # fmt: skip
    finally:
        served.end()


def test_io_guards_waits_of_any_program(name: str, watchdog: Watchdog) -> None:
    code = """
        import queue, socket, subprocess
        from concurrent.futures import ThreadPoolExecutor
        import hangwatch
        def scopes():
            lanes = hangwatch.observe().lanes
            return [t.scope for lane in lanes for t in lane.timers if t.state == "armed"]
        def seen():
            while not (waits := scopes()):
                pass
            return waits
        with ThreadPoolExecutor() as pool:
            print(pool.submit(seen).result())
        subprocess.run(["true"])
        queue.Queue().get()
    """
    done = run(code, HANGWATCH_AUTO="io", HANGWATCH_AUTO_ALONE="1s", HANGWATCH_SEGMENT=name)
    assert done.returncode == -signal.SIGKILL and "io: wait for a future" in done.stdout, done.stderr
    (expired,) = wait_for("the event", lambda: watchdog.events("expired"))
    assert expired["scope"] == "io: read a queue"


def test_a_job_without_a_watchdog_says_so_once(tmp_path: Path) -> None:
    code = f"""
        import torch.distributed as dist
        for n in range(2):
            dist.init_process_group("gloo", init_method="file://{tmp_path}/store" + str(n), rank=0, world_size=1)
            dist.barrier()
            dist.destroy_process_group()
    """
    done = run(code, HANGWATCH_AUTO="1", HANGWATCH_SEGMENT=None)
    assert done.returncode == 0 and done.stderr.count("is not guarded") == 1, done.stderr
