"""attach(raise_on_term=True): the watchdog's SIGTERM as an exception in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Watchdog, run, wait_for


@pytest.fixture
def patient(name: str, tmp_path: Path) -> Iterator[Watchdog]:
    """A watchdog that gives a worker time to clean up."""
    watchdog = Watchdog(name, tmp_path / "watchdog.log", "--grace", "60s")
    yield watchdog
    watchdog.end()


ATTACHED = "import hangwatch, signal, sys, threading, time, os, asyncio\n"
ATTACHED += "hangwatch.attach(raise_on_term=True)\n"


def outcome(code: str, name: str) -> tuple[int, str]:
    """How a worker that runs *code* ended, and what it said."""
    done = run(ATTACHED + code, HANGWATCH_SEGMENT=name)
    return done.returncode, done.stdout + done.stderr


def test_an_overdue_scope_is_raised_and_can_be_cleaned_up(patient: Watchdog) -> None:
    code = """
try:
    with hangwatch.expires(60, "outer"), hangwatch.expires(0.2, "fetch"):
        threading.Event().wait()
except hangwatch.Overdue as overdue:
    assert isinstance(overdue, hangwatch.Error)
    print(overdue, overdue.scope, overdue.allowance, overdue.thread == "")
"""
    told = '"fetch" is overdue: it had 0.2 s fetch 0.2 True\n'
    assert outcome(code, patient.name) == (0, told)
    wait_for("the end is logged", lambda: patient.events("expired"))
    (expired,) = patient.events("expired")
    assert (expired["signal"], expired["outcome"], expired["scope"]) == (15, "reaped", "fetch")


def test_an_uncaught_one_ends_the_worker_with_its_traceback(patient: Watchdog) -> None:
    code = "with hangwatch.expires(0.2, 'fetch'): time.sleep(3600)"
    returncode, told = outcome(code, patient.name)
    assert returncode == 1
    assert told.endswith('hangwatch.Overdue: "fetch" is overdue: it had 0.2 s\n'), told


def test_a_scope_of_another_thread_is_raised_in_the_main_thread(patient: Watchdog) -> None:
    code = """
def work():
    with hangwatch.expires(0.2, "in a thread"):
        time.sleep(3600)
threading.Thread(target=work, daemon=True).start()
try:
    time.sleep(3600)
except hangwatch.Overdue as overdue:
    print(overdue.scope, threading.current_thread() is threading.main_thread())
"""
    assert outcome(code, patient.name) == (0, "in a thread True\n")


def test_anybody_elses_sigterm_does_what_it_did_before(patient: Watchdog) -> None:
    code = """
with hangwatch.expires(60, "in time"):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)
"""
    assert outcome(code, patient.name)[0] == -signal.SIGTERM
    code = """
import hangwatch, os, signal
def own(number, frame): print("its own", number)
signal.signal(signal.SIGTERM, own)
hangwatch.attach(raise_on_term=True)
hangwatch.attach(raise_on_term=True)
with hangwatch.expires(60, "in time"):
    os.kill(os.getpid(), signal.SIGTERM)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
hangwatch.attach(raise_on_term=True)
os.kill(os.getpid(), signal.SIGTERM)
print("ignored")
"""
    done = run(code, HANGWATCH_SEGMENT=patient.name)
    assert (done.stdout, done.stderr) == ("its own 15\nignored\n", "")


def test_a_second_sigterm_means_what_it_always_meant(patient: Watchdog) -> None:
    code = """
try:
    with hangwatch.expires(0.2, "fetch"):
        time.sleep(3600)
except hangwatch.Overdue:
    print("cleaning up", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(3600)
"""
    assert outcome(code, patient.name) == (-signal.SIGTERM, "cleaning up\n")


def test_who_does_not_leave_within_the_grace_is_killed(name: str, tmp_path: Path) -> None:
    watchdog = Watchdog(name, tmp_path / "watchdog.log", "--grace", "0.2s")
    code = """
try:
    with hangwatch.expires(0.2, "fetch"):
        time.sleep(3600)
except hangwatch.Overdue:
    time.sleep(3600)
"""
    assert outcome(code, name)[0] == -signal.SIGKILL
    watchdog.end()


def test_a_timers_own_signal_goes_before(patient: Watchdog) -> None:
    code = "with hangwatch.expires(0.2, 'fetch', signal=signal.SIGKILL): time.sleep(3600)"
    assert outcome(code, patient.name)[0] == -signal.SIGKILL


def test_a_forked_child_is_told_of_its_own(patient: Watchdog) -> None:
    code = """
pid = os.fork()
if pid == 0:
    try:
        with hangwatch.expires(0.2, "in the child"):
            time.sleep(3600)
    except hangwatch.Overdue as overdue:
        os._exit(7 if overdue.scope == "in the child" else 8)
with hangwatch.expires(60, "in the parent"):
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert outcome(code, patient.name) == (0, "7\n")


def test_a_waiting_asyncio_program_ends_with_it(patient: Watchdog) -> None:
    code = """
async def bystander():
    try:
        await asyncio.sleep(3600)
    finally:
        print("bystander cancelled")
async def main():
    task = asyncio.create_task(bystander())
    async with hangwatch.expires(0.2, "await"):
        await asyncio.sleep(3600)
try:
    asyncio.run(main())
except hangwatch.Overdue as overdue:
    print(overdue.scope)
"""
    assert outcome(code, patient.name) == (0, "bystander cancelled\nawait\n")


def test_an_asyncio_task_that_blocks_the_loop_has_it_raised(patient: Watchdog) -> None:
    code = """
async def blocks():
    with hangwatch.expires(0.2, "blocks"):
        time.sleep(3600)
async def main():
    other = asyncio.create_task(asyncio.sleep(0.001, "goes on"))
    try:
        await asyncio.create_task(blocks())
    except hangwatch.Overdue as overdue:
        print(overdue.scope, await other)
asyncio.run(main())
"""
    assert outcome(code, patient.name) == (0, "blocks goes on\n")


def test_what_cannot_be_installed_is_told(segment: str) -> None:
    code = """
import hangwatch, threading
def attach():
    try:
        hangwatch.attach(raise_on_term=True)
    except hangwatch.ArgumentError as error:
        print(error)
thread = threading.Thread(target=attach); thread.start(); thread.join()
"""
    assert "main thread" in run(code, HANGWATCH_SEGMENT=segment).stdout


def test_nothing_is_condemned_where_nothing_is_attached() -> None:
    code = """
from hangwatch import _hangwatch
print(_hangwatch.condemned())
"""
    assert run(code, HANGWATCH_SEGMENT=None).stdout == "[]\n"


def test_who_waits_in_a_lock_is_interrupted(patient: Watchdog) -> None:
    code = """
import queue
try:
    with hangwatch.expires(0.2, "a queue nobody feeds"):
        queue.Queue().get()
except hangwatch.Overdue as overdue:
    print(overdue.scope)
"""
    assert outcome(code, patient.name) == (0, "a queue nobody feeds\n")
