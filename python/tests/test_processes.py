"""Worker processes under a watchdog of its own process: forked, spawned, stuck."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from conftest import COMMAND, PATIENCE, Watchdog, armed, program, run, wait_for

import hangwatch
from hangwatch import _hangwatch

METHODS = ["fork", "spawn", "forkserver"]


def start(method: str, target: object, *args: object) -> BaseProcess:
    process = multiprocessing.get_context(method).Process(target=target, args=args)  # type: ignore[attr-defined]
    process.start()
    return process  # type: ignore[no-any-return]


def exit_code(process: BaseProcess) -> int | None:
    process.join(PATIENCE)
    return process.exitcode


def hold_and_wait(name: str) -> None:
    with hangwatch.expires(60, "child"):
        wait_for("the parent has seen it", lambda: "seen" in armed(name))


@pytest.mark.parametrize("method", METHODS)
def test_children_attach_by_themselves(segment: str, method: str) -> None:
    if method == "forkserver":  # one that an earlier test started has that test's environment
        stop_forkserver()
    with hangwatch.expires(60, "parent"):
        own = [lane.lane for lane in hangwatch.observe(segment).lanes if lane.pid == os.getpid()]
        child = start(method, hold_and_wait, segment)
        wait_for("the child's deadline", lambda: armed(segment) == ["child", "parent"])
        lanes = {lane.pid: lane.lane for lane in hangwatch.observe(segment).lanes if lane.timers}
        assert set(lanes) == {os.getpid(), child.pid}
        assert lanes[os.getpid()] in own
        assert child.pid is not None and lanes[child.pid] not in own
        with hangwatch.expires(60, "seen"):
            assert exit_code(child) == 0
    assert armed(segment) == []


def stop_forkserver() -> None:
    server: Any = importlib.import_module("multiprocessing.forkserver")
    server._forkserver._stop()


def test_a_forked_child_leaves_its_parents_deadlines_alone(segment: str) -> None:
    deadline = hangwatch.expires(60, "parent").__enter__()
    beat = hangwatch.heartbeat(60, "parent's beat")
    pid = os.fork()
    if pid == 0:
        failed = 1
        changes: list[Callable[[], None]] = [lambda: deadline.extend(5), beat.kick, beat.pause]
        try:
            for change in changes:
                try:
                    change()
                except hangwatch.NotArmedError:
                    continue
                break
            else:
                failed = 0 if deadline.release() == beat.release() == "not_armed" else 2
            del deadline, beat
            with hangwatch.expires(60, "child"):
                pass
        finally:
            os._exit(failed)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert armed(segment) == ["parent", "parent's beat"]
    assert deadline.release() == beat.release() == "in_time"


def test_a_child_forked_from_a_busy_program_attaches(segment: str) -> None:
    code = """
        import os, threading, hangwatch
        stop = False
        def work():
            while not stop:
                with hangwatch.expires(5, "busy"): pass
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads: thread.start()
        for _ in range(50):
            pid = os.fork()
            if pid == 0:
                with hangwatch.expires(5, "child"), hangwatch.paused("pause"): pass
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
        stop = True
        for thread in threads: thread.join()
    """
    done = run(code, HANGWATCH_SEGMENT=segment)
    assert (done.returncode, done.stderr) == (0, "")


# Holds the interpreter's lock in C code, for an hour.
STUCK_IN_C = """
    import ctypes, hangwatch
    with hangwatch.expires(0.3, "stuck in C"):
        ctypes.PyDLL(None).sleep(3600)
"""
STUCK_IN_A_REGEX = """
    import re, hangwatch
    with hangwatch.expires(0.3, "stuck in C"):
        re.match("(a*)*b", "a" * 60)
"""


@pytest.mark.parametrize("code", [STUCK_IN_C, STUCK_IN_A_REGEX])
def test_a_worker_that_holds_the_interpreters_lock_is_reaped(
    watchdog: Watchdog, code: str
) -> None:
    worker = subprocess.Popen(program(code))
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    (expired,) = wait_for("the event", lambda: watchdog.events("expired"))
    assert (expired["pid"], expired["scope"]) == (worker.pid, "stuck in C")
    assert expired["outcome"] == "reaped"
    assert expired["late_ms"] >= 0


def test_a_worker_without_a_thread_to_spare_is_reaped(watchdog: Watchdog) -> None:
    code = """
        import os, signal, hangwatch
        with hangwatch.expires(0.3, "stopped"):
            os.kill(os.getpid(), signal.SIGSTOP)
    """
    worker = subprocess.Popen(program(code))
    assert worker.wait(PATIENCE) == -signal.SIGKILL


def stuck_or_not(number: int) -> None:
    for _ in range(100):
        with hangwatch.expires(60, "work"):
            pass
    if number % 2 == 1:
        with hangwatch.expires(0.5, "stuck"):
            time.sleep(3600)


def test_of_eight_every_other_one_is_stuck_and_dies(watchdog: Watchdog) -> None:
    workers = [start("spawn", stuck_or_not, number) for number in range(8)]
    codes = [exit_code(worker) for worker in workers]
    assert codes == [0, -signal.SIGKILL] * 4
    wait_for("four events", lambda: len(watchdog.events("expired")) == 4)
    expired = watchdog.events("expired")
    assert {event["pid"] for event in expired} == {worker.pid for worker in workers[1::2]}
    assert {event["scope"] for event in expired} == {"stuck"}


def a_hundred_timers(method: str) -> None:
    assert method in METHODS

    def recurse(depth: int) -> None:
        if depth > 0:
            with hangwatch.expires(300, f"depth {depth % 10}"):
                recurse(depth - 1)

    held = [hangwatch.expires(300, f"timer {number}") for number in range(100)]
    for deadline in held:
        deadline.__enter__()
    recurse(100)
    for _ in range(3):
        for deadline in held:
            assert deadline.release() == "in_time"
            deadline.__enter__()


@pytest.mark.parametrize("method", METHODS)
def test_ten_processes_hold_a_hundred_timers_each(watchdog: Watchdog, method: str) -> None:
    if method == "forkserver":
        stop_forkserver()
    hangwatch.attach(watchdog.name)
    workers = [start(method, a_hundred_timers, method) for _ in range(10)]
    assert [exit_code(worker) for worker in workers] == [0] * 10
    assert watchdog.events("expired") == []


def test_a_reported_only_deadline_kills_nobody(watchdog: Watchdog) -> None:
    hangwatch.attach(watchdog.name)
    with hangwatch.expires(0.05, "reported", signal=0) as deadline:
        wait_for("the report", lambda: watchdog.events("expired"))
        assert deadline.release() == "reported"
    (expired,) = watchdog.events("expired")
    assert (expired["outcome"], expired["signal"]) == ("reported", 0)


def test_a_deadline_without_a_time_is_the_files(name: str, tmp_path: Path) -> None:
    file = tmp_path / "deadlines.toml"
    file.write_text('[scopes]\nforward = "10m"\nhangs = 0.1\n')
    watchdog = Watchdog(name, tmp_path / "watchdog.log", "--deadlines", str(file))
    try:
        wait_for("the file is published", lambda: watchdog.events("deadlines"))
        hangwatch.attach(name)
        for deadline in hangwatch.expires("forward"), hangwatch.expires(scope="forward"):
            with deadline:
                assert deadline.remaining is not None and 599 < deadline.remaining <= 600.001
        with hangwatch.heartbeat("forward") as beat:
            file.write_text('[scopes]\nforward = "5m"\nhangs = 0.1\n')
            watchdog.reread()
            wait_for("the file is read again", lambda: len(watchdog.events("deadlines")) == 2)
            assert beat.remaining is not None and beat.remaining > 300.001
            beat.kick()
            assert beat.remaining is not None and 200 < beat.remaining <= 300.001
        for take in hangwatch.heartbeat, lambda scope: hangwatch.expires(scope).__enter__():
            with pytest.raises(hangwatch.AcquireError, match='scope "unknown".*--deadlines'):
                take("unknown")
        with pytest.raises(TypeError):
            hangwatch.expires("30", "forward")  # type: ignore[arg-type, unused-ignore]
        code = """
            import time, hangwatch
            with hangwatch.expires("hangs"):
                time.sleep(3600)
        """
        worker = subprocess.Popen(program(code))
        assert worker.wait(PATIENCE) == -signal.SIGKILL
    finally:
        watchdog.end()


def test_a_pause_outlasts_the_deadlines_around_it(watchdog: Watchdog) -> None:
    hangwatch.attach(watchdog.name)
    with hangwatch.expires(0.2, "step", signal=0) as step:
        with hangwatch.paused("checkpoint", max=60):
            time.sleep(0.5)
        assert step.release() == "in_time"
    assert watchdog.events("expired") == []


def test_a_pause_that_takes_too_long_is_named(watchdog: Watchdog) -> None:
    code = """
        import time, hangwatch
        with hangwatch.expires(0.1, "step"), hangwatch.paused("checkpoint", max=0.3):
            time.sleep(3600)
    """
    worker = subprocess.Popen(program(code))
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    wait_for("the event", lambda: watchdog.events("expired"))
    assert watchdog.events("expired")[0]["scope"] == "checkpoint"


def test_the_command_is_the_real_one() -> None:
    asked = [COMMAND, "exec", "--deadline", "0.2", "--evidence", "off", "--", "sleep", "3600"]
    assert subprocess.run(asked, capture_output=True, timeout=PATIENCE).returncode == 124
    asked = [COMMAND, "run", "--evidence", "off", "--", sys.executable, "-c", "import hangwatch; hangwatch.attach()"]
    assert subprocess.run(asked, capture_output=True, timeout=PATIENCE).returncode == 0
    asked = [COMMAND, "nonsense"]
    assert subprocess.run(asked, capture_output=True, timeout=PATIENCE).returncode == 2


def test_a_broken_pipe_ends_a_command_and_not_the_watchdog() -> None:
    # Who watches ignores SIGPIPE; who is watched gets it as it was.
    code = "cat /proc/$PPID/status /proc/self/status | grep SigIgn"
    asked = [COMMAND, "run", "--evidence", "off", "--", "sh", "-c", code + "; true"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE)
    ignored = [int(line.split()[1], 16) for line in done.stdout.splitlines()]
    assert [bool(mask >> signal.SIGPIPE - 1 & 1) for mask in ignored] == [True, False], done


def test_the_demo_finds_its_own_program(tmp_path: object) -> None:
    for number in range(8):
        with open(f"{tmp_path}/{number}", "w") as file:
            file.write("x" * 10_000)
    asked = [COMMAND, "demo", str(tmp_path), "--incidents", f"{tmp_path}/incidents"]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=2 * PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Only the worker that hung was killed" in done.stdout
    assert 'Rank 1 hung in "exchange"' in done.stdout
    assert f"--incidents {tmp_path}/incidents" in done.stdout


SERVER = """
    import os, sys, hangwatch
    from hangwatch import timer
    def child(number):
        if pid := os.fork():
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with hangwatch.expires(5, "request") as deadline:
            deadline.extend(5)
        hangwatch.heartbeat(5, "loop").kick()
        with hangwatch.paused("checkpoint"):
            pass
        with timer.expires(5, "keyed", timer.ShmTimerClient()):
            pass
        os._exit(0)
    if sys.argv[1] == "attached":
        with hangwatch.expires(5): pass
    os.unlink(f"/dev/shm/hangwatch.{os.environ['HANGWATCH_SEGMENT']}")
    if sys.argv[1] == "closed":
        os.closerange(3, 64)
    sys.exit(child(1) or child(2))
"""


@pytest.mark.parametrize("kind", ["fresh", "attached", "closed"])
def test_workers_outlive_their_segment(segment: str, kind: str) -> None:
    """Its watchdog has ended, or was killed, and somebody has cleared up."""
    done = subprocess.run(
        [*program(SERVER), kind], env={**os.environ, "HANGWATCH_SEGMENT": segment},
        text=True, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    _hangwatch.make_segment(segment, 0.1)  # for the fixture to remove
    assert done.returncode == 0, done.stderr
    warnings = done.stderr.splitlines()
    assert len(warnings) == 2, "once a process"
    assert all("deadlines are not enforced" in line and segment in line for line in warnings)


def test_a_segment_that_comes_back_is_used(segment: str) -> None:
    code = """
        import os, time, hangwatch
        from hangwatch import _hangwatch
        name = os.environ["HANGWATCH_SEGMENT"]
        os.unlink(f"/dev/shm/hangwatch.{name}")
        with hangwatch.expires(5, "gone") as deadline:
            assert deadline.remaining is None
        assert _hangwatch.make_segment(name, 0.1)
        while True:
            with hangwatch.expires(5, "back") as deadline:
                if deadline.remaining is not None: break
            time.sleep(0.01)
    """
    done = run(code, HANGWATCH_SEGMENT=segment)
    assert done.returncode == 0, done.stderr


def test_a_segment_given_by_name_must_be_there(name: str) -> None:
    for given in (name, None):
        with pytest.raises(hangwatch.NoSegmentError):
            hangwatch.attach(given)
