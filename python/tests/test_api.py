"""The API in one process: deadlines, their arguments, their errors."""

from __future__ import annotations

import asyncio
import gc
import signal as signals
import threading
from datetime import timedelta
from importlib import metadata

import pytest
from conftest import armed, run

import hangwatch
from hangwatch import _hangwatch


def test_a_block_is_armed_while_it_lasts(segment: str) -> None:
    with hangwatch.expires(30, "outer") as outer:
        with hangwatch.expires(timedelta(seconds=20), "inner"):
            assert armed(segment) == ["inner", "outer"]
        assert armed(segment) == ["outer"]
        assert outer.remaining is not None and 29 < outer.remaining <= 30.001
        assert "30" in repr(outer) and "outer" in repr(outer)
    assert armed(segment) == []
    assert outer.remaining is None


def test_a_block_that_raises_is_released(segment: str) -> None:
    with pytest.raises(KeyError), hangwatch.expires(30, "raises"):
        raise KeyError
    assert armed(segment) == []


def test_the_scope_is_the_callers_place_by_default(segment: str) -> None:
    with hangwatch.expires(30):
        (scope,) = armed(segment)
    assert scope.partition("#")[0].endswith("test_api.py"), scope
    beat = hangwatch.heartbeat(30)
    assert beat.scope_name.partition("#")[0].endswith("test_api.py")
    assert int(beat.scope_name.partition("#")[2]) > int(scope.partition("#")[2])


def test_a_deadline_is_extended_and_released(segment: str) -> None:
    with hangwatch.expires(30, "extended") as deadline:
        deadline.extend(5)
        deadline.extend(timedelta(seconds=5))
        assert deadline.remaining is not None and 39 < deadline.remaining
        assert deadline.release() == "in_time"
        assert deadline.release() == "not_armed"
        with pytest.raises(hangwatch.NotArmedError):
            deadline.extend(5)


def test_a_deadline_may_be_used_again_but_not_within_itself(segment: str) -> None:
    deadline = hangwatch.expires(30, "again")
    for _ in range(3):
        with deadline:
            assert armed(segment) == ["again"]
    with deadline, pytest.raises(hangwatch.AcquireError), deadline:
        pass
    assert armed(segment) == []


@pytest.mark.parametrize(
    "time", [0, -1, -0.0, float("nan"), float("inf"), -float("inf"), 1e300, 10**400,
             timedelta(0), timedelta(days=-1), timedelta.max]
)  # fmt: skip
def test_what_is_no_time_is_refused(segment: str, time: float) -> None:
    for take in (hangwatch.expires, hangwatch.heartbeat):
        with pytest.raises(hangwatch.ArgumentError):
            take(time, "scope")
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.paused("scope", max=time)
    with pytest.raises(ValueError), hangwatch.expires(30, "scope") as deadline:
        deadline.extend(time)
    assert armed(segment) == []


@pytest.mark.parametrize("time", ["5", None, True, [], object()])
def test_what_is_no_number_is_a_type_error(segment: str, time: object) -> None:
    if time is None:  # without a time, a scope has that of the deadlines file
        return
    for take in (hangwatch.expires, hangwatch.heartbeat):
        with pytest.raises(TypeError):
            take(time, "scope")  # type: ignore[arg-type]


@pytest.mark.parametrize("scope", [5, b"scope", ("a",)])
def test_a_scope_is_a_string(segment: str, scope: object) -> None:
    with pytest.raises(TypeError):
        hangwatch.expires(5, scope)  # type: ignore[arg-type]
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.expires(5, "")


def test_odd_scopes_cost_no_deadline(segment: str) -> None:
    for scope in ("x" * 10_000, "\udcff", "\0", "ü→✓"):
        for _ in range(2):
            with hangwatch.expires(30, scope):
                assert len(armed(segment)) == 1


def test_scopes_beyond_the_table_are_counted_as_other(segment: str) -> None:
    for number in range(4_600):
        with hangwatch.expires(30, f"scope {number}"):
            pass
    seen = hangwatch.observe(segment)
    assert seen.scopes_overflowed > 0
    assert sum(scope.acquired for scope in seen.scopes) == 4_600


@pytest.mark.parametrize("signal", [-1, 65, 10**9, 10**30, 19, "STOP", "BANG", ""])
def test_what_is_no_signal_is_refused(segment: str, signal: int | str) -> None:
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.expires(5, "scope", signal=signal)
    with pytest.raises(TypeError):
        hangwatch.expires(5, "scope", signal=9.5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "signal, number",
    [(9, 9), ("KILL", 9), ("sigterm", 15), (signals.SIGUSR1, 10), (40, 40), ("RTMIN+1", 35),
     (64, 64), ("64", 64), (0, 0), ("none", 0), (None, None)],
)  # fmt: skip
def test_signals_are_what_the_command_line_takes(
    segment: str, signal: int | str | None, number: int | None
) -> None:
    with hangwatch.expires(5, "scope", signal=signal):
        ((timer,),) = (lane.timers for lane in hangwatch.observe(segment).lanes)
        assert timer.signal == number


def test_a_missing_segment_raises_unless_none_is_required(name: str) -> None:
    with pytest.raises(hangwatch.NoSegmentError, match="start the watchdog"):
        hangwatch.attach(name)
    code = """
        import hangwatch
        assert hangwatch.attach(required=False) is False
        with hangwatch.expires(5, "forward") as deadline:
            deadline.extend(5)
            assert deadline.remaining is None
        beat = hangwatch.heartbeat(5); beat.kick(); beat.pause(); beat.resume(); beat.release()
        with hangwatch.paused("checkpoint"): pass
        import multiprocessing
        def child():
            with hangwatch.expires(5, "child"): pass
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start(); process.join(); assert process.exitcode == 0
    """
    for missing in (None, name):
        done = run(code, HANGWATCH_SEGMENT=missing, HANGWATCH_OPTIONAL=None)
        assert (done.returncode, done.stderr) == (0, "")


def test_the_first_deadline_attaches(segment: str) -> None:
    code = "import hangwatch\nwith hangwatch.expires(5, 'first'): pass"
    assert run(code, HANGWATCH_SEGMENT=segment).returncode == 0
    assert "first" in [scope.name for scope in hangwatch.observe(segment).scopes]
    done = run(code, HANGWATCH_SEGMENT=None, HANGWATCH_OPTIONAL=None)
    assert done.returncode == 1 and "HANGWATCH_SEGMENT" in done.stderr


def test_a_watchdog_can_be_required(segment: str) -> None:
    with pytest.raises(hangwatch.AttachError, match="no watchdog"):
        hangwatch.attach(segment, require_watchdog=True)
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.attach(segment, clock="sundial")  # type: ignore[arg-type]


def test_errors_are_one_family() -> None:
    for error in (
        hangwatch.ArgumentError, hangwatch.AttachError, hangwatch.NoSegmentError,
        hangwatch.AcquireError, hangwatch.NotArmedError, hangwatch.SegmentError,
        hangwatch.ServeError,
    ):  # fmt: skip
        assert issubclass(error, hangwatch.Error)


def test_a_heartbeat_is_kicked_paused_and_resumed(segment: str) -> None:
    with hangwatch.heartbeat(60, "loop") as beat:
        beat.kick()
        beat.pause("waiting for work")
        with pytest.raises(hangwatch.NotArmedError):
            beat.pause()
        assert armed(segment) == []
        beat.resume()
        with pytest.raises(hangwatch.NotArmedError):
            beat.resume()
        assert armed(segment) == ["loop"]
        assert beat.remaining is not None and beat.remaining > 59
    assert beat.release() == "not_armed"
    with pytest.raises(hangwatch.NotArmedError):
        beat.kick()


def test_a_pause_keeps_the_time_left(segment: str) -> None:
    with hangwatch.expires(60, "step") as step:
        with hangwatch.paused("checkpoint", max=600) as pause:
            assert armed(segment) == ["checkpoint", "step"]
            assert step.remaining is not None and step.remaining > 600
            assert pause.remaining is not None and pause.remaining > 590
        assert step.remaining is not None and 50 < step.remaining < 60.1
    assert pause.remaining is None


def test_a_pause_within_a_pause_holds_up_the_outer_ones_own_deadline(segment: str) -> None:
    with hangwatch.expires(60, "step") as step:
        with hangwatch.paused("outer", max=100) as outer:
            with hangwatch.paused("inner", max=600) as inner:
                assert armed(segment) == ["inner", "outer", "step"]
                assert outer.remaining is not None and outer.remaining > 600
                assert step.remaining is not None and step.remaining > outer.remaining
                with pytest.raises(hangwatch.AcquireError):
                    inner.__enter__()
            assert inner.remaining is None
            assert outer.remaining is not None and 90 < outer.remaining < 100.1
            assert step.remaining is not None and step.remaining > 100
        assert step.remaining is not None and 50 < step.remaining < 60.1
    assert armed(segment) == []


def test_functions_are_decorated(segment: str) -> None:
    @hangwatch.expires(30, "decorated")
    def fibonacci(n: int) -> int:
        """Adds."""
        assert "decorated" in armed(segment)
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(5) == 5
    assert fibonacci.__name__ == "fibonacci" and fibonacci.__doc__ == "Adds."
    assert armed(segment) == []


def test_a_decorator_attaches_nothing_before_its_first_call(segment: str) -> None:
    code = """
        import hangwatch
        @hangwatch.expires(5)
        def work(): pass
        try:
            work()
        except hangwatch.NoSegmentError:
            print("as it should")
    """
    assert run(code, HANGWATCH_SEGMENT=None, HANGWATCH_OPTIONAL=None).stdout == "as it should\n"


def test_what_cannot_be_decorated_is_refused(segment: str) -> None:
    def generator():  # type: ignore[no-untyped-def]
        yield 1

    async def async_generator():  # type: ignore[no-untyped-def]
        yield 1

    class Class:
        pass

    for odd in (generator, async_generator, Class, 5):
        with pytest.raises(TypeError):
            hangwatch.expires(5)(odd)  # type: ignore[arg-type]


def test_coroutines_have_deadlines(segment: str) -> None:
    @hangwatch.expires(30, "coroutine")
    async def work(number: int) -> int:
        async with hangwatch.expires(30, "async with") as deadline:
            await asyncio.sleep(0)
            assert deadline.remaining is not None
            assert "coroutine" in armed(segment) and "async with" in armed(segment)
        return number

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*(work(number) for number in range(20)))

    assert asyncio.iscoroutinefunction(work)
    assert asyncio.run(all_of_them()) == list(range(20))
    assert armed(segment) == []


def test_one_thread_holds_ten_thousand_timers(segment: str) -> None:
    async def work(started: list[int], go: asyncio.Event) -> None:
        async with hangwatch.expires(300, "concurrent"):
            started.append(1)
            await go.wait()

    async def all_of_them() -> int:
        started: list[int] = []
        go = asyncio.Event()
        tasks = [asyncio.create_task(work(started, go)) for _ in range(10_000)]
        while len(started) < len(tasks):
            await asyncio.sleep(0)
        count = len(armed(segment))
        go.set()
        await asyncio.gather(*tasks)
        return count

    assert asyncio.run(all_of_them()) == 10_000
    assert armed(segment) == []


def test_more_timers_than_there_are_is_an_error(segment: str) -> None:
    held = []
    with pytest.raises(hangwatch.AcquireError, match="lane"):
        for _ in range(256 * 64 + 1):
            held.append(hangwatch.expires(300, "too many").__enter__())
    assert len(held) == 256 * 64
    held.clear()
    assert armed(segment) == []


def test_the_collector_releases(segment: str) -> None:
    class Holder:
        def __init__(self) -> None:
            self.deadline = hangwatch.expires(30, "collected").__enter__()
            self.itself = self

    Holder()
    gc.collect()
    assert armed(segment) == []
    hangwatch.heartbeat(30, "collected")
    assert armed(segment) == []


def test_each_thread_has_a_lane_and_another_may_release(segment: str) -> None:
    deadlines: list[hangwatch.Expires] = []
    barrier = threading.Barrier(5)

    def work(number: int) -> None:
        deadlines.append(hangwatch.expires(30, f"thread {number}").__enter__())
        barrier.wait()
        barrier.wait()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    barrier.wait()
    busy = [lane for lane in hangwatch.observe(segment).lanes if lane.timers]
    assert len(busy) == 4 and len({lane.tid for lane in busy}) == 4
    barrier.wait()
    for thread in threads:
        thread.join()
    assert len(armed(segment)) == 4, "a deadline outlives its thread"
    assert [deadline.release() for deadline in deadlines] == ["in_time"] * 4
    assert armed(segment) == []


def test_an_observation_is_made_of_plain_objects(segment: str) -> None:
    with hangwatch.expires(30, "seen", signal=15):
        seen = hangwatch.observe(segment)
    (lane,) = [lane for lane in seen.lanes if lane.timers]
    (timer,) = lane.timers
    assert (timer.scope, timer.kind, timer.state, timer.signal) == ("seen", "guard", "armed", 15)
    assert timer.left is not None and 29 < timer.left <= timer.allowance < 31
    (scope,) = [s for s in hangwatch.observe(segment).scopes if s.name == "seen"]
    assert (scope.acquired, scope.released, scope.condemned) == (1, 1, 0)
    assert 0 < scope.total == scope.longest and sum(count for _, count in scope.durations) == 1
    assert not seen.watched and seen.segment == segment
    with pytest.raises(hangwatch.NoSegmentError):
        hangwatch.observe("pytest-nonsense")


def test_a_segments_interval_is_checked(name: str) -> None:
    for interval in (0, -1, float("nan"), 1e-9, 1e6):
        with pytest.raises(hangwatch.Error):
            _hangwatch.make_segment(name, interval)


def test_the_end_of_the_interpreter_is_survived(segment: str) -> None:
    code = """
        import atexit, sys, threading, time, hangwatch
        class Late:
            def __init__(self): self.deadline = hangwatch.expires(30, "late").__enter__()
            def __del__(self):
                try:
                    with hangwatch.expires(5, "in del"): pass
                except Exception: pass
        late = sys.late = Late()
        held = hangwatch.heartbeat(60, "held")
        def after():
            with hangwatch.expires(5, "at exit"): pass
        atexit.register(after)
        def busy():
            while True:
                with hangwatch.expires(5, "daemon"): pass
        for _ in range(4): threading.Thread(target=busy, daemon=True).start()
        time.sleep(0.2)
    """
    for _ in range(3):
        done = run(code, HANGWATCH_SEGMENT=segment)
        assert (done.returncode, done.stderr) == (0, "")


def test_who_may_trace_it_is_said_at_the_attach(segment: str) -> None:
    for ptracer in ("nobody", "watchdog", "any", None):
        code = f"import hangwatch\nassert hangwatch.attach({segment!r}, ptracer={ptracer!r})"
        assert run(code).returncode == 0
    with pytest.raises(hangwatch.ArgumentError, match='"everybody" is nobody to trace it'):
        hangwatch.attach(segment, ptracer="everybody")  # type: ignore[arg-type]


def test_options_that_come_too_late_are_refused(segment: str) -> None:
    assert hangwatch.attach(segment), "again, without options"
    with pytest.raises(hangwatch.AttachError, match="with another clock"):
        hangwatch.attach(segment, clock="coarse")


def test_it_has_a_version() -> None:
    assert hangwatch.__version__ == metadata.version("hangwatch")


def test_free_threaded_python_keeps_its_lock() -> None:
    code = "import sys, hangwatch\nassert getattr(sys, '_is_gil_enabled', lambda: True)()"
    done = run(code)
    assert done.returncode == 0, done.stderr
