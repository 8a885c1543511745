"""hangwatch.timer: upstream's contract, with its own classes and with torch's."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, armed, program, run, wait_for

import hangwatch
from hangwatch import timer


class Queue(timer.RequestQueue):
    def __init__(self, size: int, requests: list[timer.TimerRequest]) -> None:
        self.size_is, self.requests = size, requests
        self.calls: list[Any] = []

    def size(self) -> int:
        self.calls.append("size")
        return self.size_is

    def get(self, size: int, timeout: float) -> list[timer.TimerRequest]:
        self.calls.append((size, timeout))
        return self.requests


class Server(timer.TimerServer):
    def __init__(self, queue: Queue, reaps: dict[int, Any]) -> None:
        super().__init__(queue, max_interval=0.25)
        self.reaps = reaps
        self.calls: list[Any] = []

    def register_timers(self, timer_requests: list[timer.TimerRequest]) -> None:
        self.calls.append(("register", timer_requests))

    def clear_timers(self, worker_ids: set[Any]) -> None:
        self.calls.append(("clear", worker_ids))

    def get_expired_timers(self, deadline: float) -> dict[Any, list[timer.TimerRequest]]:
        assert abs(deadline - time.time()) < PATIENCE
        return {worker: [timer.TimerRequest(worker, "scope", 0)] for worker in self.reaps}

    def _reap_worker(self, worker_id: int) -> bool:
        self.calls.append(("reap", worker_id))
        if isinstance(result := self.reaps[worker_id], Exception):
            raise result
        return bool(result)


@pytest.mark.parametrize("size, asked", [(0, 1), (1, 1), (7, 7)])
def test_the_contract_of_one_pass(size: int, asked: int) -> None:
    requests = [timer.TimerRequest(1, "scope", 5.0)]
    queue = Queue(size, requests)
    server = Server(queue, {1: RuntimeError("no"), 2: True, 3: False})
    server._run_watchdog()
    assert queue.calls == ["size", (asked, 0.25)]
    assert server.calls == [
        ("register", requests), ("reap", 1), ("reap", 2), ("reap", 3), ("clear", {1, 2}),
    ]  # fmt: skip


def test_a_pass_that_raises_does_not_end_the_watchdog() -> None:
    server = Server(Queue(0, []), {})
    passes: list[int] = []

    def run_watchdog() -> None:
        passes.append(1)
        raise RuntimeError("no")

    server._run_watchdog = run_watchdog  # type: ignore[method-assign]
    server.start()
    wait_for("two passes", lambda: len(passes) >= 2)
    server.stop()


def test_requests_are_compared_by_value() -> None:
    request = timer.TimerRequest(1, "scope", 5.0)
    assert request == timer.TimerRequest(1, "scope", 5.0) != timer.TimerRequest(2, "scope", 5.0)
    assert request != 5 and "scope" in repr(request)


def test_expires_needs_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "_timer_client", None)
    with pytest.raises(RuntimeError, match="configure"):
        timer.expires(5)


def test_a_client_without_a_segment_raises(name: str) -> None:
    client = timer.ShmTimerClient(name)
    with pytest.raises(hangwatch.NoSegmentError):
        client.acquire("scope", time.time() + 5)
    with pytest.raises(hangwatch.NoSegmentError), timer.expires(5, "scope", client):
        pass


def test_scopes_are_keyed_per_process(segment: str) -> None:
    client = timer.ShmTimerClient(segment)
    client.release("nothing")
    for _ in range(3):
        client.acquire("again", time.time() + 60)
    assert armed(segment) == ["again"]
    client.acquire("again", time.time() + 600)
    (left,) = [t.left for lane in hangwatch.observe(segment).lanes for t in lane.timers]
    assert left is not None and 590 < left < 601
    pickle.loads(pickle.dumps(client)).release("again")
    assert armed(segment) == []
    client.acquire("again", time.time() + 60)
    client.acquire("again", -1)
    assert armed(segment) == []
    for odd in (float("nan"), float("inf")):
        with pytest.raises(hangwatch.ArgumentError):
            client.acquire("odd", odd)


def test_the_callers_place_is_the_scope_and_recursion_is_allowed(segment: str) -> None:
    timer.configure(timer.ShmTimerClient(segment))

    def recurse(depth: int) -> None:
        with timer.expires(60):
            (scope,) = armed(segment)
            assert scope.partition("#")[0].endswith("test_timer.py")
            if depth > 0:
                recurse(depth - 1)
                # As upstream: the inner one's release was the outer one's, too.
                assert armed(segment) == []

    recurse(1)


STUCK = """
    import os, time
    from hangwatch import timer
    timer.configure(timer.ShmTimerClient(signal=int(os.environ.get("SIGNAL", 9))))
    with timer.expires(after=0.3, scope="stuck"):
        time.sleep(3600)
"""


def test_a_server_makes_a_segment_and_reaps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HANGWATCH_SEGMENT")
    told: list[tuple[str, Any]] = []
    server = timer.ShmTimerServer(log_event=lambda *event: told.append(event))
    assert os.environ["HANGWATCH_SEGMENT"] == server.segment
    server.start()
    worker = subprocess.Popen(program(STUCK))
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    wait_for("the event", lambda: len(told) == 3)
    server.stop()
    assert [event for event, _ in told] == [
        "watchdog started", "timer expired", "kill worker process", "watchdog stopped",
    ]  # fmt: skip
    request = told[1][1]
    assert (request.worker_pid, request.worker_id) == (worker.pid, worker.pid)
    assert (request.scope_id, request.signal) == ("stuck", 9)
    assert abs(request.expiration_time - time.time()) < PATIENCE
    assert "HANGWATCH_SEGMENT" not in os.environ
    with pytest.raises(hangwatch.NoSegmentError):
        hangwatch.observe(server.segment)


def test_a_timers_signal_is_its_own(name: str) -> None:
    server = timer.ShmTimerServer(name)
    server.start()
    for number in (signal.SIGTERM, signal.SIGUSR1):
        env = {**os.environ, "HANGWATCH_SEGMENT": name, "SIGNAL": str(int(number))}
        assert subprocess.run(program(STUCK), env=env).returncode == -number
    server.stop()


def test_a_segment_is_served_by_one(name: str) -> None:
    first, second = timer.ShmTimerServer(name), timer.ShmTimerServer(name)
    first.start()
    first.start()
    with pytest.raises(hangwatch.ServeError, match="served already"):
        second.start()
    second.stop()
    first.stop()
    first.start()
    first.stop()
    first.stop()


def test_the_servers_own_process_is_never_signalled(name: str) -> None:
    server = timer.ShmTimerServer(name)
    server.start()
    client = timer.ShmTimerClient(name)
    client.acquire("of the agent", time.time() - 5)
    worker = subprocess.Popen(program(STUCK), env={**os.environ, "HANGWATCH_SEGMENT": name})
    assert worker.wait(PATIENCE) == -signal.SIGKILL
    server.stop()


def test_one_pass_reaps_what_is_due(name: str) -> None:
    server = timer.ShmTimerServer(name)
    env = {**os.environ, "HANGWATCH_SEGMENT": name}
    workers = [subprocess.Popen(program(STUCK), env=env) for _ in range(2)]

    def overdue() -> bool:
        timers = [t for lane in hangwatch.observe(name).lanes for t in lane.timers]
        return len(timers) == 2 and all((t.left or 0) < 0 for t in timers)

    wait_for("both are overdue", overdue)
    assert [worker.poll() for worker in workers] == [None, None], "nobody serves yet"
    server.run_once()
    assert [worker.wait(PATIENCE) for worker in workers] == [-signal.SIGKILL] * 2
    server.run_once()


def leave_without_release(name: str) -> None:
    timer.ShmTimerClient(name).acquire("never released", time.time() + 0.2)


def test_a_worker_that_exits_before_a_release_is_forgotten(name: str) -> None:
    told: list[str] = []
    server = timer.ShmTimerServer(name, log_event=lambda event, _: told.append(event))
    server.start()
    worker = multiprocessing.get_context("spawn").Process(
        target=leave_without_release, args=(name,)
    )
    worker.start()
    worker.join(PATIENCE)
    assert worker.exitcode == 0
    wait_for("it is forgotten", lambda: not hangwatch.observe(name).lanes)
    server.stop()
    assert told == ["watchdog started", "watchdog stopped"]


def test_a_stopped_server_costs_the_worker_nothing(name: str) -> None:
    server = timer.ShmTimerServer(name)
    client = timer.ShmTimerClient(name)
    for _ in range(5_000):
        with timer.expires(60, "unwatched", client):
            pass
    server.stop()
    client.acquire("gone", time.time() + 60)
    client.release("gone")


def test_a_log_event_that_raises_is_survived(name: str) -> None:
    def log_event(event: str, request: object) -> None:
        raise RuntimeError(event)

    server = timer.ShmTimerServer(name, log_event=log_event)
    server.start()
    env = {**os.environ, "HANGWATCH_SEGMENT": name}
    assert subprocess.run(program(STUCK), env=env).returncode == -signal.SIGKILL
    server.stop()


def test_a_server_ends_with_its_process_and_leaves_nothing() -> None:
    code = """
        import time
        from hangwatch import timer
        server = timer.ShmTimerServer()
        server.start()
        print(server.segment)
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(hangwatch.NoSegmentError):
        hangwatch.observe(done.stdout.strip())


def test_a_dropped_server_leaves_nothing() -> None:
    code = """
        import gc, os
        from hangwatch import timer
        server = timer.ShmTimerServer()
        name = server.segment
        del server
        gc.collect()
        assert not os.path.exists(f"/dev/shm/hangwatch.{name}"), "never started"
        server = timer.ShmTimerServer()
        server.start()
        print(server.segment)
        del server
        gc.collect()
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(hangwatch.NoSegmentError):
        hangwatch.observe(done.stdout.strip())


@pytest.mark.parametrize("named", [False, True])
def test_a_killed_agent_leaves_nothing(name: str, named: bool) -> None:
    code = f"""
        import sys, time
        from hangwatch import timer
        server = timer.ShmTimerServer({name!r} if {named} else None)
        server.start()
        print(server.segment, flush=True)
        time.sleep(3600)
    """
    env = {key: value for key, value in os.environ.items() if key != "HANGWATCH_SEGMENT"}
    agent = subprocess.Popen(program(code), env=env, stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    left = agent.stdout.readline().strip()
    file = Path(f"/dev/shm/hangwatch.{left}")
    assert file.exists()
    agent.kill()
    agent.wait()
    wait_for("the segment is removed", lambda: not file.exists())


def test_servers_come_and_go_without_leaving_descriptors(name: str) -> None:
    code = """
        import os, sys
        from hangwatch import timer
        def held():
            with open("/proc/self/maps") as maps:
                mapped = sum("/shm/hangwatch." in line for line in maps)
            return mapped, len(os.listdir("/proc/self/fd"))
        first = None
        for number in range(40):
            server = timer.ShmTimerServer(*sys.argv[1:])
            server.start()
            timer.observe(server.segment)
            server.stop()
            server.start()
            server.stop()
            first = first or held()
        assert held() == first and first[0] == 0, (held(), first)
    """
    for names in ([], [name]):
        env = {key: value for key, value in os.environ.items() if key != "HANGWATCH_SEGMENT"}
        done = subprocess.run(
            [*program(code), *names], env=env, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr


def test_a_segment_stays_open_while_anything_uses_it(name: str) -> None:
    server, second = timer.ShmTimerServer(name), timer.ShmTimerServer(name)
    second.stop()
    assert hangwatch.observe(name), "it is the first one's"
    server.start()
    client = timer.ShmTimerClient(name)
    client.acquire("attached", time.time() + 60)
    server.stop()
    client.release("attached")
    client.acquire("again", time.time() + 60)


def test_the_last_progress_is_now_as_long_as_it_serves(name: str) -> None:
    server = timer.ShmTimerServer(name)
    for act in (server.get_last_progress_time, server.start, server.stop):
        act()
        assert abs(server.get_last_progress_time() - time.time()) < PATIENCE


def test_a_timer_that_is_reported_only_is_told(name: str) -> None:
    told: list[tuple[str, Any]] = []
    server = timer.ShmTimerServer(name, log_event=lambda *event: told.append(event))
    server.start()
    env = {**os.environ, "HANGWATCH_SEGMENT": name, "SIGNAL": "0"}
    worker = subprocess.Popen(program(STUCK), env=env)
    wait_for("the event", lambda: len(told) > 1)
    worker.kill()
    worker.wait()
    server.stop()
    event, request = told[1]
    assert (event, request.scope_id, request.signal) == ("timer expired", "stuck", 0)


def test_a_server_that_is_no_daemon_keeps_its_process() -> None:
    code = """
        import threading, time
        from hangwatch import timer
        server = timer.ShmTimerServer(daemon=False)
        server.start()
        def end():
            threading.main_thread().join()
            print("stopping", flush=True)
            server.stop()
        threading.Thread(target=end, daemon=True).start()
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopping\n", "")


def test_it_needs_no_torch() -> None:
    code = """
        import sys
        sys.modules["torch"] = None
        from hangwatch import timer
        assert not [name for name in sys.modules if name.startswith("torch.")]
    """
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_torchs_own_configure_and_expires_take_them(name: str) -> None:
    pytest.importorskip("torch")
    code = """
        import time
        import torch.distributed.elastic.timer as torch_timer
        from hangwatch.timer import ShmTimerClient
        torch_timer.configure(ShmTimerClient())
        with torch_timer.expires(after=60, scope="in time"):
            pass
        with torch_timer.expires(after=0.2, scope="stuck"):
            time.sleep(3600)
    """
    told: list[Any] = []
    server = timer.ShmTimerServer(name, log_event=lambda _, request: told.append(request))
    server.start()
    assert run(code, HANGWATCH_SEGMENT=name).returncode == -signal.SIGKILL
    server.stop()
    assert [request.scope_id for request in told if request] == ["stuck", "stuck"]


def test_threads_share_a_processs_scopes(segment: str) -> None:
    client = timer.ShmTimerClient(segment)
    for scope in ("a", "b"):
        thread = threading.Thread(target=client.acquire, args=(scope, time.time() + 60))
        thread.start()
        thread.join()
    assert armed(segment) == ["a", "b"]
    client.release("a")
    client.release("b")
    assert armed(segment) == []
