"""hangwatch.torch: torch's own names, scripts and agents over shared memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
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
        from hangwatch import timer
        from hangwatch.torch import FileTimerClient, FileTimerServer
        server = FileTimerServer({str(tmp_path / "timer")!r})
        server.start()
        client = FileTimerClient({str(tmp_path / "timer")!r})
        with timer.expires(60, "scope", client): pass
        server.stop()
        with timer.expires(60, "scope", client): pass
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert done.returncode == 0, done.stderr


def test_a_client_without_a_server_fails_as_torchs_does(tmp_path: Path) -> None:
    code = f"""
        import hangwatch
        from hangwatch import timer
        from hangwatch.torch import FileTimerClient
        FileTimerClient._patience = 0.1
        try:
            with timer.expires(5, "scope", FileTimerClient({str(tmp_path / "timer")!r})): pass
        except BrokenPipeError as error:
            assert isinstance(error, hangwatch.NoSegmentError)
            print("refused")
    """
    done = run(code)
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_what_programs_ask_of_torchs_objects_holds(tmp_path: Path) -> None:
    code = f"""
        import json, os, pickle, stat, time
        import hangwatch.torch
        import torch.distributed.elastic.timer as timer
        from torch.distributed.elastic.timer.api import TimerClient, TimerRequest
        hangwatch.torch.install()
        path = {str(tmp_path / "timer")!r}
        server = timer.FileTimerServer(path, *["run"][: "WithRunId" in timer.FileTimerServer.__name__])
        assert stat.S_ISFIFO(os.stat(path).st_mode)
        server.start()
        client = timer.FileTimerClient(path)
        again = pickle.loads(pickle.dumps(client))
        assert type(again) is type(client) and isinstance(client, TimerClient)
        assert isinstance(server, timer.FileTimerServer)
        again.acquire("here", time.time() + 60)
        (request,) = server._timers.values()
        assert isinstance(request, (TimerRequest, timer.file_based_local_timer.FileTimerRequest))
        if hasattr(request, "to_json"):
            assert json.loads(request.to_json())["scope_id"] == "here"
        assert server.get_expired_timers(time.time()) == {{}}
        assert list(server.get_expired_timers(time.time() + 120)) == [os.getpid()]
        assert abs(server.get_last_progress_time() - time.time()) < 60
        assert server.is_process_running(os.getpid()) and not server.is_process_running(2**22 + 1)
        valid, release = request, type(request)(4711, "there", -1)
        server.register_timers([type(request)(4711, "there", time.time() + 60)])
        assert (4711, "there") in server._timers
        server.register_timers([release])
        assert (4711, "there") not in server._timers
        server.stop()
        assert not os.path.exists(path)
    """
    done = run(code, HANGWATCH_SEGMENT=None)
    assert (done.returncode, done.stderr) == (0, "")


OVERRIDING = """
    import multiprocessing, os, signal, time
    import hangwatch.torch
    hangwatch.torch.install()
    import torch.distributed.elastic.timer as timer

    def hang(queue):
        timer.configure(timer.LocalTimerClient(queue))
        with timer.expires(after=0.3, scope="stuck"):
            time.sleep(3600)

    class Gentle(timer.LocalTimerServer):
        def _reap_worker(self, worker_id):
            os.kill(worker_id, signal.SIGUSR1)
            return True

    if __name__ == "__main__":
        context = multiprocessing.get_context("METHOD")
        queue = context.Queue()
        server = CLASS(queue)
        server.start()
        worker = context.Process(target=hang, args=(queue,))
        worker.start()
        worker.join()
        server.stop()
        print(worker.exitcode)
"""


def test_an_overridden_reap_is_called_and_nothing_else(tmp_path: Path) -> None:
    code = OVERRIDING.replace("METHOD", "fork").replace("CLASS", "Gentle")
    done = run(code, HANGWATCH_SEGMENT=None, HANGWATCH_TORCH=None)
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGUSR1}\n"), done.stderr


def test_spawned_children_are_guarded_without_a_word_from_them(tmp_path: Path) -> None:
    script = tmp_path / "spawns.py"
    code = textwrap.dedent(OVERRIDING.replace("METHOD", "spawn").replace("CLASS", "timer.LocalTimerServer"))
    # The child imports the script anew: only the parent asks for hangwatch.
    code = code.replace("hangwatch.torch.install()", 'if __name__ == "__main__": hangwatch.torch.install()')
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, str(script)], text=True, capture_output=True, timeout=2 * PATIENCE,
        env=environment({"HANGWATCH_SEGMENT": None, "HANGWATCH_TORCH": None}),
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "-9\n"), done.stderr


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
            "HANGWATCH_INCIDENTS": str(tmp_path / "incidents"),
            # Of torch 2.x: the agent then asks the server how it is.
            "TORCHELASTIC_HEALTH_CHECK_PORT": "0",
        }),
        text=True,
        capture_output=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "trouble" not in done.stderr, done.stderr
    for rank in range(2):
        assert f"rank {rank} finished after restart 1" in done.stdout, done.stdout + done.stderr
    # Evidence as under `hangwatch run`.
    (incident,) = (tmp_path / "incidents").iterdir()
    assert "worker.py" in (incident / "stacks.txt").read_text()
