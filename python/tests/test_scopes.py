"""What is told of an overdue scope: its name, however many there are, and what it is inside of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import COMMAND, PATIENCE, Watchdog, environment, program, run, wait_for

import hangwatch


def story(code: str, folder: Path, *options: str) -> tuple[str, str]:
    """What `show` says of the one incident of a program under `hangwatch run`, and the log."""
    incidents = ["--incidents", str(folder / "incidents")]
    unnamed = environment({"HANGWATCH_SEGMENT": None, "HANGWATCH_OPTIONAL": None})
    done = subprocess.run(
        [COMMAND, "run", "--evidence", "scopes", *incidents, *options, "--", *program(code)],
        env=unnamed, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    shown = subprocess.run(
        [COMMAND, "show", *incidents], capture_output=True, text=True, timeout=PATIENCE
    )
    assert shown.returncode == 0, (shown.stderr, done.stderr)
    return " ".join(shown.stdout.split()), done.stderr


FLOOD = """
    import hangwatch, time
    for number in range(100):
        with hangwatch.expires(60, f"GET /{number}"): pass
    with hangwatch.expires(60, "GET /outer"):
        HANG
"""


@pytest.mark.parametrize(
    "hang",
    [
        'with hangwatch.expires(0.3, "GET /hangs"): time.sleep(3600)',
        'with hangwatch.expires(0.3, "GET /hangs", signal=9): time.sleep(3600)',
        'beat = hangwatch.heartbeat(0.3, "GET /hangs"); beat.kick(); time.sleep(3600)',
        'with hangwatch.paused("GET /hangs", max=0.3): time.sleep(3600)',
        'hangwatch.timer.ShmTimerClient().acquire("GET /hangs", time.time() + 0.3); time.sleep(3600)',
    ],
)
def test_a_name_beyond_the_table_is_told(tmp_path: Path, hang: str) -> None:
    code = FLOOD.replace("hangwatch, time", "hangwatch.timer, time").replace("HANG\n", hang + "\n")
    told, log = story(code, tmp_path, "--scopes", "16")
    # Of acquires that have ended before, the names are gone.
    told = told.partition("What its thread")[0]
    assert '"GET /hangs"' in told and "(other)" not in told, told
    assert '"GET /outer"' in told, "the scope around it, too"
    assert "GET /hangs" in log
    assert log.count("every scope name is taken") == 1, log


def test_four_thousand_names_have_statistics_of_their_own(segment: str) -> None:
    for number in range(4_000):
        with hangwatch.expires(30, f"test {number}"):
            pass
    seen = hangwatch.observe(segment)
    assert seen.scopes_overflowed == 0
    assert {f"test {number}" for number in range(4_000)} <= {scope.name for scope in seen.scopes}


TASKS = """
    import asyncio, hangwatch
    async def request(number, allowed):
        with hangwatch.expires(allowed, f"request {number}"):
            await asyncio.sleep(3600)
    async def main():
        with hangwatch.expires(60, "main task"):
            await asyncio.gather(request(1, 60), request(2, 0.5))
    with hangwatch.expires(60, "whole program"):
        asyncio.run(main())
"""


def test_tasks_of_one_thread_are_not_nested(tmp_path: Path) -> None:
    told, _ = story(TASKS, tmp_path)
    assert 'entered "request 2" (inside "whole program")' in told, told


def test_scopes_of_one_task_are_nested(tmp_path: Path) -> None:
    code = """
        import asyncio, hangwatch
        async def other():
            async with hangwatch.expires(60, "other"): await asyncio.sleep(3600)
        async def main():
            task = asyncio.ensure_future(other())
            with hangwatch.expires(60, "outer"):
                await asyncio.sleep(0)
                with hangwatch.expires(0.5, "inner"): await asyncio.sleep(3600)
        asyncio.run(main())
    """
    told, _ = story(code, tmp_path)
    assert 'entered "inner" (inside "outer")' in told, told


def test_a_table_of_names_that_is_full_is_said_once(watchdog: Watchdog) -> None:
    code = """
        import hangwatch
        for number in range(5_000):
            with hangwatch.expires(30, f"test {number}"): pass
    """
    assert run(code, HANGWATCH_SEGMENT=watchdog.name).returncode == 0
    wait_for("the warning", lambda: watchdog.events("scopes_full"))
    assert hangwatch.observe(watchdog.name).scopes_overflowed > 0
    assert len(watchdog.events("scopes_full")) == 1
