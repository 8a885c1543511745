"""What one ``with`` costs: hangwatch beside threading.Lock, torch's elastic timers and the
sections and heartbeats of NVIDIA's resiliency extension.

    cargo xtask bench python

One line a figure: the median of 99 short rounds, in nanoseconds of the thread's own CPU
time for one turn of a loop; the first line is the loop alone; then how many times that of
threading.Lock it is, the loop taken off both. The rounds of all contenders alternate, so
that what disturbs the machine disturbs all. torch's file timer raises once its pipe is full,
so it has few turns a round; each of torch's timers has a server that reads, and NVIDIA's
client its monitor. What a worker waits for its server is no CPU time of its own: NVIDIA's
client waits for each answer, and costs a worker several times what stands here.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hangwatch
from hangwatch import timer

ROUNDS = 99

# The block is compiled into the loop as a program has it: a callable that makes the
# context manager would cost as much as the context manager.
LOOP = """
def measure(turns, now=thread_time_ns):
    loop = range(turns)
    begun = now()
    for _ in loop:
        {body}
    return (now() - begun) / turns
"""


def measured(body: str, turns: int, **names: Any) -> Callable[[], float]:
    """Gives the nanoseconds a turn of *body*, in which *names* are global names."""
    names["thread_time_ns"] = time.thread_time_ns
    exec(LOOP.format(body=body), names)
    measure: Callable[[int], float] = names["measure"]
    return lambda: measure(turns)


def serve_local(queue: multiprocessing.Queue[object]) -> None:
    torch_timer = importlib.import_module("torch.distributed.elastic.timer")
    torch_timer.LocalTimerServer(queue, 1.0).start()
    time.sleep(600)


def serve_file(path: str) -> None:
    torch_timer = importlib.import_module("torch.distributed.elastic.timer")
    torch_timer.FileTimerServer(path, max_interval=0.01).start()
    time.sleep(600)


def torch_contenders(folder: str) -> dict[str, Callable[[], float]]:
    """torch's timers, each with its server in a process of its own."""
    torch_timer = importlib.import_module("torch.distributed.elastic.timer")
    queue: multiprocessing.Queue[object] = multiprocessing.Queue()
    path = os.path.join(folder, "file_timer")
    for target, argument in ((serve_local, queue), (serve_file, path)):
        multiprocessing.Process(target=target, args=(argument,), daemon=True).start()
    while not os.path.exists(path):
        time.sleep(0.01)
    body = 'with expires(60, "forward", client): pass'

    def contender(client: object, turns: int) -> Callable[[], float]:
        return measured(body, turns, expires=torch_timer.expires, client=client)

    return {
        "torch's expires, LocalTimerClient": contender(torch_timer.LocalTimerClient(queue), 500),
        "torch's expires, FileTimerClient": contender(torch_timer.FileTimerClient(path), 20),
        "torch's expires, ShmTimerClient": contender(timer.ShmTimerClient(), 2_000),
    }


def nvidia_contenders(folder: str) -> dict[str, Callable[[], float]]:
    """The sections and heartbeats of NVIDIA's resiliency extension, with its monitor."""
    fault_tolerance = importlib.import_module("nvidia_resiliency_ext.fault_tolerance")
    data = importlib.import_module("nvidia_resiliency_ext.fault_tolerance.data")
    config = fault_tolerance.FaultToleranceConfig(
        initial_rank_heartbeat_timeout=600.0,
        rank_heartbeat_timeout=600.0,
        rank_section_timeouts={"forward": 600.0},
    )
    socket = os.path.join(folder, "monitor.socket")
    fault_tolerance.RankMonitorServer.run_in_subprocess(
        cfg=config, ipc_socket_path=socket, is_restarter_logger=False,
        mp_ctx=multiprocessing.get_context("fork"),
    )  # fmt: skip
    while not os.path.exists(socket):
        time.sleep(0.01)
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    store = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20_000 + os.getpid() % 10_000)}
    os.environ.update(place | store, **{data.FT_RANK_MONITOR_IPC_SOCKET_ENV_VAR: socket})
    importlib.import_module("torch.distributed").init_process_group("gloo")
    client = fault_tolerance.RankMonitorClient()
    client.init_workload_monitoring()
    section = 'client.start_section("forward"); client.end_section("forward")'
    return {
        "NVIDIA's section": measured(section, 20, client=client),
        "NVIDIA's heartbeat": measured("client.send_heartbeat()", 20, client=client),
    }


def main() -> None:
    logging.disable(logging.CRITICAL)
    if "HANGWATCH_SEGMENT" not in os.environ:
        command = str(Path(sys.executable).with_name("hangwatch"))
        again = [command, "run", "--", sys.executable, *sys.argv]
        sys.exit(subprocess.run(again, stderr=subprocess.DEVNULL).returncode)
    hangwatch.attach()
    turns = 10_000
    contenders = {
        "an empty loop": measured("pass", turns),
        "threading.Lock": measured("with lock: pass", turns, lock=threading.Lock()),
        "hangwatch.expires(30, scope)": measured(
            "with hangwatch.expires(30, scope): pass", turns, hangwatch=hangwatch, scope="forward"
        ),
        "the same, entered only": measured(
            "with deadline: pass", turns, deadline=hangwatch.expires(30, "forward")
        ),
        "heartbeat.kick()": measured("beat.kick()", turns, beat=hangwatch.heartbeat(60, "loop")),
        "hangwatch.timer.expires, Shm": measured(
            'with expires(60, "forward", client): pass',
            2_000,
            expires=timer.expires,
            client=timer.ShmTimerClient(),
        ),
    }
    with tempfile.TemporaryDirectory() as folder:
        contenders |= torch_contenders(folder) | nvidia_contenders(folder)
        figures: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(ROUNDS):
            for name, measure in contenders.items():
                figures[name].append(measure())
    medians = {name: statistics.median(rounds) for name, rounds in figures.items()}
    loop, lock = medians["an empty loop"], medians["threading.Lock"]
    for name, median in medians.items():
        ratio = (median - loop) / (lock - loop)
        print(f"{name:36} {median:9.0f} ns  {ratio:8.1f} x   best {min(figures[name]):9.0f}")
    sys.stdout.flush()
    for server in multiprocessing.active_children():
        server.kill()
        server.join()
    os._exit(0)  # torch's queue would wait for a reader


if __name__ == "__main__":
    main()
