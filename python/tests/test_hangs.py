"""Real hangs of Python workers: reaped on time, with the line that hangs in the incident."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, Watchdog, wait_for

Incident = dict[str, Any]


class Scene:
    """A watchdog that captures everything, and a place for programs and incidents."""

    def __init__(self, name: str, path: Path) -> None:
        self.incidents, self._program = path / "incidents", path / "worker.py"
        # Long enough for a debug build on a busy machine; most hangs need a fiftieth of it.
        options = ["--evidence", "full", "--evidence-budget", "30s"]
        options += ["--incidents", str(self.incidents)]
        self.watchdog = Watchdog(name, path / "watchdog.log", *options)

    def incident_of(self, code: str) -> Incident:
        """The incident of a worker that runs *code* and hangs, which must have been reaped."""
        self._program.write_text(textwrap.dedent(code))
        env = {**os.environ, "HANGWATCH_SEGMENT": self.watchdog.name}
        worker = subprocess.Popen([sys.executable, str(self._program)], env=env)
        try:
            assert worker.wait(PATIENCE) == -signal.SIGKILL
        finally:
            worker.kill()
            worker.wait()
        incident: Incident = wait_for("the incident is complete", self._complete)
        assert incident["worker"]["pid"] == worker.pid
        return incident

    def _complete(self) -> Incident | None:
        found = [json.loads(file.read_text()) for file in self.incidents.glob("*/incident.json")]
        return next((incident for incident in found if incident["ending"]), None)

    def line(self, mark: str) -> tuple[str, int]:
        """The file and the line that ends with the comment *mark*."""
        lines = self._program.read_text().splitlines()
        number = next(n for n, line in enumerate(lines, 1) if line.endswith(f"# here: {mark}"))
        return (str(self._program), number)


@pytest.fixture
def scene(name: str, tmp_path: Path) -> Iterator[Scene]:
    """One for a test."""
    scene = Scene(name, tmp_path)
    yield scene
    scene.watchdog.end()


def check_reaped(incident: Incident, scope: str) -> None:
    """It says who hung where, misses nothing, and the signal came on time."""
    timer, evidence = incident["timers"][0], incident["evidence"]
    assert (timer["scope"], timer["kind"]) == (scope, "guard")
    assert (incident["ending"]["outcome"], incident["ending"]["signal"]) == ("reaped", 9)
    assert evidence["missing"] == []
    condemned, signalled = incident["decisions"]
    assert (condemned["what"], signalled["what"]) == ("condemned", "signalled")
    # No later than promised, and never early.
    deadline = timer["deadline"]["monotonic_ns"]
    assert deadline <= condemned["at"]["monotonic_ns"]
    assert signalled["at"]["monotonic_ns"] <= deadline + evidence["budget_ns"]
    assert incident["ending"]["late_ns"] <= evidence["budget_ns"]


def thread_of(incident: Incident, name: str) -> dict[str, Any]:
    """A thread by its name."""
    return next(t for t in incident["evidence"]["threads"] if t["name"] == name)


def places(thread: dict[str, Any]) -> list[tuple[str, int]]:
    """The files and lines of a Python stack, the innermost first."""
    return [(frame["file"], frame["line"]) for frame in thread["python"]]


def check_held(scene: Scene, code: str, function: str) -> None:
    incident = scene.incident_of(code)
    check_reaped(incident, "exchange")
    thread = incident["evidence"]["threads"][0]
    assert thread["holds_gil"] is True
    assert places(thread) == [scene.line("hangs"), scene.line("calls")]
    assert any(function in frame["function"] for frame in thread["native"]), thread["native"]
    # Nobody else of the process gets to run Python.
    assert thread_of(incident, "beside")["holds_gil"] is False


BESIDE = """
import ctypes, os, threading, hangwatch
started = threading.Event()
def beside():
    started.set()
    while True:
        pass
threading.Thread(target=beside, name="beside", daemon=True).start()
started.wait()
"""


def test_a_thread_that_sleeps_in_c_with_the_interpreters_lock(scene: Scene) -> None:
    code = """
def exchange():
    with hangwatch.expires(0.5, "exchange"):
        ctypes.PyDLL(None).pause()  # here: hangs
exchange()  # here: calls
"""
    check_held(scene, BESIDE + code, "pause")


def test_a_thread_that_reads_in_c_with_the_interpreters_lock(scene: Scene) -> None:
    code = """
reader, writer = os.pipe()
def exchange():
    with hangwatch.expires(0.5, "exchange"):
        ctypes.PyDLL(None).read(reader, ctypes.create_string_buffer(1), 1)  # here: hangs
exchange()  # here: calls
"""
    check_held(scene, BESIDE + code, "read")


def test_a_queue_that_nobody_feeds(scene: Scene) -> None:
    code = """
import queue, threading, hangwatch
batches = queue.Queue()
def consume():
    with hangwatch.expires(0.5, "batch"):
        batches.get()  # here: hangs
with hangwatch.expires(60, "epoch"):
    consumer = threading.Thread(target=consume, name="consumer")
    consumer.start()
    consumer.join()  # here: waits for it
"""
    incident = scene.incident_of(code)
    check_reaped(incident, "batch")
    # The thread that hangs comes first, and it is in `get`, called from that line.
    first = incident["evidence"]["threads"][0]
    assert (first["name"], first["holds_gil"]) == ("consumer", False)
    functions = [frame["function"].rpartition(".")[2] for frame in first["python"]]
    assert functions.index("get") < functions.index("consume")
    assert scene.line("hangs") in places(first)
    main = next(t for t in incident["evidence"]["threads"] if t["tid"] == incident["worker"]["pid"])
    assert scene.line("waits for it") in places(main)
    # What the segment says, thread by thread: the lane of the one that hangs first.
    lanes = incident["evidence"]["lanes"]
    open_scopes = [[timer["scope"] for timer in lane["timers"]] for lane in lanes]
    assert open_scopes == [["batch"], ["epoch"]]
