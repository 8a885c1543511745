"""What the tests share: segments, a watchdog, and Python programs as worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hangwatch
from hangwatch import _hangwatch

COMMAND = str(Path(sys.executable).with_name("hangwatch"))
"""The console script that `pip install` has put beside this interpreter."""

PATIENCE = 60.0
"""Seconds after which a condition that a test waits for will never come."""


def wait_for(what: str, condition: Callable[[], Any]) -> Any:
    """Waits until *condition* gives something, and gives that."""
    until = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < until, f"{what}: not within {PATIENCE} s"
        time.sleep(0.005)
    return result


def program(code: str) -> list[str]:
    """The command that runs *code*."""
    return [sys.executable, "-c", textwrap.dedent(code)]


def run(code: str, **env: str | None) -> subprocess.CompletedProcess[str]:
    """Runs *code* to its end; a variable that is None is taken out of its environment."""
    return subprocess.run(
        program(code), env=environment(env), text=True, capture_output=True, timeout=PATIENCE
    )


def environment(changes: dict[str, str | None]) -> dict[str, str]:
    """This process's environment, changed."""
    wanted = {**os.environ, **changes}
    return {key: value for key, value in wanted.items() if value is not None}


def armed(name: str) -> list[str]:
    """The scopes armed in a segment."""
    lanes = hangwatch.observe(name).lanes
    return sorted(t.scope for lane in lanes for t in lane.timers if t.state == "armed")


class Watchdog:
    """A `hangwatch run` of its own process."""

    def __init__(self, name: str, log: Path, *options: str) -> None:
        self.name = name
        self._log = log
        # A test that is about evidence says where it is kept.
        evidence = [] if "--evidence" in options else ["--evidence", "off"]
        command = [COMMAND, "run", "--segment", name, "--log", "json", *evidence, *options]
        with log.open("w") as stderr:
            self._process = subprocess.Popen(command, stderr=stderr)
        wait_for("the watchdog serves", lambda: self.events("serving"))

    def events(self, event: str) -> list[dict[str, Any]]:
        """What it has logged of one kind."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line]
        found = [line.get("fields", line) for line in lines]
        return [fields for fields in found if fields.get("event") == event]

    def reread(self) -> None:
        """Has it read its files again."""
        self._process.send_signal(signal.SIGHUP)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)


@pytest.fixture
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A name for a segment; what is attached to it changes no other test's environment."""
    monkeypatch.setenv("HANGWATCH_SEGMENT", "none")
    monkeypatch.setenv("HANGWATCH_OPTIONAL", "0")
    unique = f"pytest-{os.getpid()}-{abs(hash(request.node.nodeid)) % 10**8}"
    yield unique
    try:
        _hangwatch.remove_segment(unique)
    except hangwatch.SegmentError:
        pass  # the test has removed it


@pytest.fixture(autouse=True)
def incidents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers of this process and of what it starts keep what they find out."""
    place = tmp_path / "incidents-of-servers"
    monkeypatch.setenv("HANGWATCH_INCIDENTS", str(place))
    return place


@pytest.fixture
def segment(name: str) -> str:
    """A segment that nobody watches; this process is attached to it."""
    assert _hangwatch.make_segment(name, 0.1)
    assert hangwatch.attach(name)
    return name


@pytest.fixture
def watchdog(name: str, tmp_path: Path) -> Iterator[Watchdog]:
    """A segment with a watchdog; this process's environment names it."""
    served = Watchdog(name, tmp_path / "watchdog.log")
    os.environ["HANGWATCH_SEGMENT"] = name
    yield served
    served.end()
