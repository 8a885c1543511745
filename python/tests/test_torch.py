"""hangwatch.torch: torch's own names, scripts and agents over shared memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from conftest import PATIENCE, environment, run

TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]

# As torch's documentation has it; torch's own classes unless something takes their place.
LOCAL_TIMERS = """
    import multiprocessing, sys, time
    import torch.distributed.elastic.timer as timer

    def trainer(queue, stuck):
        timer.configure(timer.LocalTimerClient(queue))
        with timer.expires(after=60):
            pass
        if stuck:
            with timer.expires(after=0.5):
                time.sleep(3600)

    if __name__ == "__main__":
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        server = timer.LocalTimerServer(queue, max_interval=60)
        server.start()
        workers = [context.Process(target=trainer, args=(queue, n == 1)) for n in range(3)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        server.stop()
        print(type(server).__module__, [worker.exitcode for worker in workers])
"""


def test_an_unchanged_script_runs_over_shared_memory(name: str) -> None:
    expected = "hangwatch.torch [0, -9, 0]\n"
    done = run(LOCAL_TIMERS, HANGWATCH_TORCH="1", HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    installed = "    import hangwatch.torch; hangwatch.torch.install()\n" + LOCAL_TIMERS
    done = run(installed, HANGWATCH_TORCH=None, HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stdout) == (0, expected), done.stderr


def test_the_names_are_torchs_until_asked_for() -> None:
    code = """
        import torch.distributed.elastic.timer as timer, sys
        print(timer.FileTimerClient.__module__, "hangwatch" in sys.modules)
    """
    for value in (None, "0"):
        done = run(code, HANGWATCH_TORCH=value)
        assert done.stdout == "torch.distributed.elastic.timer.file_based_local_timer False\n"


def test_every_name_and_signature_is_torchs() -> None:
    code = """
        import inspect
        import torch.distributed.elastic.timer as timer
        from torch.distributed.elastic.timer import file_based_local_timer, local_timer
        names = ["LocalTimerClient", "LocalTimerServer", "FileTimerClient", "FileTimerServer"]
        def signatures():
            return [
                [(p.name, p.default) for p in inspect.signature(getattr(timer, n)).parameters.values()]
                for n in names
            ]
        before = signatures()
        import hangwatch.torch
        hangwatch.torch.install()
        hangwatch.torch.install()
        assert signatures() == before, (signatures(), before)
        for n in names:
            module = local_timer if n.startswith("Local") else file_based_local_timer
            assert getattr(timer, n) is getattr(module, n)
            assert getattr(timer, n).__module__ == "hangwatch.torch"
    """
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_default_scope_is_the_callers_line() -> None:
    code = """
        import linecache, time
        import hangwatch.torch
        from hangwatch import _hangwatch, timer as ours
        hangwatch.torch.install()
        import torch.distributed.elastic.timer as timer
        assert _hangwatch.make_segment("NAME", 0.1)
        timer.configure(ours.ShmTimerClient("NAME"))
        with timer.expires(after=60):
            lanes = hangwatch.observe("NAME").lanes
            print([timer.scope for lane in lanes for timer in lane.timers])
        _hangwatch.remove_segment("NAME")
    """
    name = f"pytest-torch-{os.getpid()}"
    done = run(code.replace("NAME", name))
    assert (done.returncode, done.stdout) == (0, "['<string>#9']\n"), done.stderr


def test_a_worker_whose_agent_is_gone_goes_on(tmp_path: Path) -> None:
    code = f"""
        import pickle
        from hangwatch import timer
        from hangwatch.torch import FileTimerClient
        client = FileTimerClient({str(tmp_path / "timer")!r})
        for client in (client, pickle.loads(pickle.dumps(client))):
            with timer.expires(5, "scope", client): pass
    """
    done = run(code)
    assert done.returncode == 0 and done.stderr.count("not enforced") == 1, done.stderr


def test_the_hook_costs_other_programs_nothing() -> None:
    done = run("import sys, json; print('torch' in sys.modules)", HANGWATCH_TORCH="1")
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_an_absent_or_old_torch_is_told() -> None:
    code = """
        import sys
        {prepare}
        import hangwatch, hangwatch.torch
        try:
            hangwatch.torch.install()
        except hangwatch.TorchError as error:
            assert isinstance(error, ImportError)
            print(error)
    """
    absent = "sys.modules['torch'] = None"
    old = (
        "import torch.distributed.elastic.timer; "
        "sys.modules['torch.distributed.elastic.timer.file_based_local_timer'] = None"
    )
    for prepare in (absent, old):
        done = run(code.format(prepare=prepare))
        assert "install torch 1.13 or newer" in done.stdout, done.stderr


def test_what_is_no_queue_is_refused() -> None:
    code = """
        import hangwatch.torch, multiprocessing, queue
        try:
            hangwatch.torch.LocalTimerClient(queue.Queue())
        except TypeError as error:
            print(error)
        with multiprocessing.Manager() as manager:
            shared = manager.Queue()
            server = hangwatch.torch.LocalTimerServer(shared)
            client = hangwatch.torch.LocalTimerClient(shared)
            import time; client.acquire("scope", time.time() + 60)
            client.release("scope")
            server.stop()
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert "multiprocessing.Queue" in done.stdout and done.returncode == 0, done.stderr


WORKER = """
import os, time
import torch.distributed.elastic.timer as timer

timer.configure(timer.FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"]))
rank, restart = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with timer.expires(after=60, scope="set up"):
    pass
if rank == 1 and restart == 0:
    with timer.expires(after=0.5, scope="stuck"):
        time.sleep(3600)
print(f"rank {rank} finished after restart {restart}", flush=True)
"""


def test_an_unchanged_torchrun_restarts_after_a_reap(name: str, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    options = ["--nproc_per_node", "2", "--max_restarts", "2", "--rdzv_backend", "c10d"]
    options += ["--rdzv_endpoint", "localhost:0", "-r", "1", "-t", "1", "--monitor_interval", "0.2"]
    done = subprocess.run(
        [*TORCHRUN, *options, "--log_dir", str(tmp_path), str(worker)],
        env=environment({
            "TORCHELASTIC_ENABLE_FILE_TIMER": "1",
            "HANGWATCH_TORCH": "1",
            "HANGWATCH_SEGMENT": None,
        }),
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for rank in range(2):
        assert f"rank {rank} finished after restart 1" in done.stdout, done.stdout + done.stderr
