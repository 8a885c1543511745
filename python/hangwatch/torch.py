"""torch's elastic timers over shared memory, without a change to scripts or agents.

    >>> import hangwatch.torch
    >>> hangwatch.torch.install()

From then on ``LocalTimerClient``, ``LocalTimerServer``, ``FileTimerClient`` and
``FileTimerServer`` of ``torch.distributed.elastic.timer`` are the classes of this module,
with torch's own arguments: so for a ``torchrun`` with
``TORCHELASTIC_ENABLE_FILE_TIMER=1``, whose agent runs the server. ``HANGWATCH_TORCH=1`` in
the environment does the same in every Python program that loads torch's module, and
nothing in any other.

Unlike torch's own: the agent is never signalled with a worker, a reap that fails is tried
again, a slow or dead server never raises into the training loop, and a worker that holds
the interpreter's lock is found all the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import json
import logging
import os
import queue
import signal as signals
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hangwatch import timer
from hangwatch._errors import NoSegmentError, TorchError
from hangwatch._observe import observe

__all__ = [
    "FileTimerClient",
    "FileTimerServer",
    "LocalTimerClient",
    "LocalTimerServer",
    "install",
]

_TIMER = "torch.distributed.elastic.timer"
_MODULES = {
    "LocalTimerClient": "local_timer",
    "LocalTimerServer": "local_timer",
    "FileTimerClient": "file_based_local_timer",
    "FileTimerServer": "file_based_local_timer",
}
_log = logging.getLogger(__name__)

_INTERVAL = (0.001, 0.1)
"""Bounds of a segment's interval: torch's own defaults, 10 and 60 s, made reaps late."""


def _segment_of_path(file_path: str | os.PathLike[str]) -> str:
    path = os.path.abspath(file_path)
    return "file-" + hashlib.sha256(os.fsencode(path)).hexdigest()[:24]


def _segment_of_queue(mp_queue: Any) -> str:
    """The same name wherever the same queue is: by its pipe, or by a manager's token."""
    if (reader := getattr(mp_queue, "_reader", None)) is not None:
        pipe = os.fstat(reader.fileno())
        return f"queue-{pipe.st_dev}-{pipe.st_ino}"
    if (token := getattr(mp_queue, "_token", None)) is not None:
        known_by = f"{token.address}#{token.id}".encode()
        return "queue-" + hashlib.sha256(known_by).hexdigest()[:24]
    raise TypeError(
        f"mp_queue is {type(mp_queue).__qualname__}; give a multiprocessing.Queue, the same one "
        "to the server and its clients"
    )


class _NoServerError(NoSegmentError, BrokenPipeError):
    """What torch's client raises where no server has been started."""


class _Client(timer.ShmTimerClient):
    """A client whose segment this module names. Once attached, it does without a server that is gone."""

    _patience = 1.0
    """Seconds for which a server that has not started yet is waited for, as by torch's."""

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        self._having_a_server(lambda: super(_Client, self).acquire(scope_id, expiration_time))

    def release(self, scope_id: str) -> None:
        self._having_a_server(lambda: super(_Client, self).release(scope_id))

    def _having_a_server(self, do: Callable[[], None]) -> None:
        until = time.monotonic() + self._patience
        while True:
            try:
                return do()
            except NoSegmentError as error:
                if time.monotonic() >= until:
                    raise _NoServerError(f"no timer server has been started: {error}") from error
            time.sleep(0.05)

    def __reduce__(self) -> tuple[Any, ...]:
        return (_restored, (type(self), self._segment, self.signal))


def _restored(kind: type[_Client], segment: str, signal: int) -> _Client:
    client = kind.__new__(kind)
    timer.ShmTimerClient.__init__(client, segment, signal)
    return client


class LocalTimerClient(_Client):
    """torch's, over shared memory: only *mp_queue*'s identity is used.

    Args:
        mp_queue: the queue that the server was given.

    Raises:
        TypeError: it is no multiprocessing queue.
        NoSegmentError: on first use, where no server has been started; it is a BrokenPipeError.
        AttachError: on first use, where the segment has no free lane.

    Example:
        >>> torch.distributed.elastic.timer.configure(LocalTimerClient(mp_queue))
    """

    def __init__(self, mp_queue: Any) -> None:
        super().__init__(_segment_of_queue(mp_queue))


class FileTimerClient(_Client):
    """torch's, over shared memory: *file_path* is a name.

    Args:
        file_path: the path that the server was given.
        signal: sent at the deadline, 1 to 64; 0 or less: it is reported only.

    Raises:
        NoSegmentError: on first use, where no server has been started; it is a BrokenPipeError,
            as of torch's.
        AttachError: on first use, where the segment has no free lane.

    Example:
        >>> client = FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"])
    """

    def __init__(self, file_path: str, signal: int = signals.SIGKILL) -> None:
        self._file_path = file_path
        super().__init__(_segment_of_path(file_path), signal)

    def _send_request(self, request: Any) -> None:
        """torch's own way in. A process sets timers for itself only; what the server's own process sends
        for another one is registered by a call."""
        if request.worker_pid != os.getpid():
            for server in list(timer._servers):
                if isinstance(server, _Server) and server.segment == self._segment:
                    return server.register_timers([request])
            raise ValueError(f"process {os.getpid()} sets no timer for process {request.worker_pid}")
        if request.expiration_time < 0:
            self.release(request.scope_id)
        else:
            self.acquire(request.scope_id, request.expiration_time)


def _worker(request: Any) -> Any:
    """Whose a request is; torch 1.13 has two names for it."""
    return request.worker_id if hasattr(request, "worker_id") else request.worker_pid


class _Server(timer.ShmTimerServer):
    """A server with what torch's have beside start() and stop().

    Requests that are registered by a call, and not by a client, are kept here and dealt with by
    _run_watchdog(), when that is called.
    """

    def __init__(
        self, segment: str, max_interval: float, daemon: bool, log_event: timer.LogEvent | None
    ) -> None:
        # As torch's, which takes the pipe of one before it away: an agent makes a server at
        # each restart of its workers.
        for other in list(timer._servers):
            if other.segment == segment:
                other.stop()
        self._registered: dict[tuple[Any, str], Any] = {}
        least, most = _INTERVAL
        super().__init__(segment, min(max(max_interval, least), most), daemon, log_event)

    @property
    def _timers(self) -> dict[tuple[Any, str], Any]:
        """Every timer there is now: those registered by a call, and those of clients."""
        timers = dict(self._registered)
        if self._is_open:
            seen = observe(self.segment)
            to_wall = time.time() - seen.at
            for lane in seen.lanes:
                for one in lane.timers:
                    if one.state != "idle" and one.left is not None:
                        request = self._request(lane.pid, one.scope, seen.at + one.left + to_wall, one.signal)
                        timers[lane.pid, one.scope] = request
        return timers

    def _request(self, pid: int, scope: str, expiration_time: float, signal: int | None) -> Any:
        return _requests["file"](pid, scope, expiration_time, signals.SIGKILL if signal is None else signal)

    def register_timers(self, timer_requests: list[Any]) -> None:
        """Take in requests; one with a negative expiration time is a release."""
        for request in timer_requests:
            key = (_worker(request), request.scope_id)
            if request.expiration_time < 0:
                self._registered.pop(key, None)
            else:
                self._registered[key] = request

    def clear_timers(self, worker_ids: set[Any]) -> None:
        """Forget the registered timers of these workers. Those of clients end with their processes."""
        for key in list(self._registered):
            if key[0] in worker_ids:
                del self._registered[key]

    def get_expired_timers(self, deadline: float) -> dict[Any, list[Any]]:
        """The timers that expire at or before *deadline*, by worker."""
        expired: dict[Any, list[Any]] = {}
        for request in self._timers.values():
            if request.expiration_time <= deadline:
                expired.setdefault(_worker(request), []).append(request)
        return expired

    def _get_scopes(self, timer_requests: list[Any]) -> list[str]:
        return [request.scope_id for request in timer_requests]

    def _reap_worker(self, worker_id: Any, signal: int = signals.SIGKILL) -> bool:
        """Signal a process by its id. The watchdog itself does it otherwise: by a descriptor, of a
        process that the kernel has attested. Where a class overrides this, the watchdog signals nobody
        and calls that instead."""
        try:
            os.kill(worker_id, signal)
        except ProcessLookupError:
            return True
        except OSError:
            _log.exception("process %r was not signalled", worker_id)
            return False
        return True

    def _request_kind(self) -> type[Any]:
        kind: type[Any] = _requests["file"]
        return kind

    def _only_reports(self) -> bool:
        return type(self)._reap_worker is not _REAP or "_reap_worker" in vars(self)

    def run_once(self) -> None:
        """As ShmTimerServer's; with what was registered by a call."""
        super().run_once()
        self._reap_registered()

    def _tell_debug_info(self, expired: dict[int, list[Any]]) -> None:
        """To torch's own log of expired timers, where there is one."""

    def _tell_one(self, event: dict[str, Any]) -> None:
        if event["event"] == "expired":
            request = timer._request(event)
            about = self._request(request.worker_pid, request.scope_id, request.expiration_time,
                                  request.signal)  # fmt: skip
            self._tell_debug_info({request.worker_pid: [about]})
        if event["event"] == "expired" and self._only_reports():
            self._reap_by_override(event)
        super()._tell_one(event)

    def _reap_by_override(self, event: dict[str, Any]) -> None:
        """Calls what overrides _reap_worker, for a timer that asks for a signal."""
        pid, scope = event.get("pid", 0), event["scope"]
        request = self._timers.get((pid, scope))
        signal = signals.SIGKILL if request is None else getattr(request, "signal", signals.SIGKILL)
        if signal > 0 and self._call_reap(pid, signal):
            event["signal"] = signal

    def _call_reap(self, pid: int, signal: int) -> bool:
        return bool(self._reap_worker(pid, signal))

    def _reap_registered(self) -> None:
        reaped = set()
        expired = self.get_expired_timers(time.time())
        self._tell_debug_info(expired)
        for pid, requests in expired.items():
            mine = [one for one in requests if (pid, one.scope_id) in self._registered]
            wanted = [getattr(one, "signal", signals.SIGKILL) for one in mine]
            signal = next((signal for signal in wanted if signal > 0), 0)
            if mine and (signal <= 0 or self._call_reap(pid, signal)):
                reaped.add(pid)
        self.clear_timers(reaped)


_REAP = _Server._reap_worker


class LocalTimerServer(_Server):
    """torch's, over shared memory: clients need only *mp_queue*'s identity.

    Args:
        mp_queue: the queue that the clients are given.
        max_interval: in seconds; more than 0.1 counts as that.
        daemon: whether this process may end while the server runs.

    Example:
        >>> server = LocalTimerServer(mp_queue)
        >>> server.start()
    """

    def __init__(self, mp_queue: Any, max_interval: float = 60, daemon: bool = True) -> None:
        self._mp_queue = mp_queue
        super().__init__(_segment_of_queue(mp_queue), max_interval, daemon, None)

    def _request(self, pid: int, scope: str, expiration_time: float, signal: int | None) -> Any:
        return _requests["local"](pid, scope, expiration_time)

    def _run_watchdog(self) -> None:
        """One pass over what was put into the queue itself. The watchdog needs none."""
        requests = []
        for _ in range(max(1, self._mp_queue.qsize())):
            try:
                requests.append(self._mp_queue.get(timeout=self._max_interval))
            except queue.Empty:
                break
        self.register_timers(requests)
        self._reap_registered()

    def _call_reap(self, pid: int, signal: int) -> bool:
        return bool(self._reap_worker(pid))


class FileTimerServer(_Server):
    """torch's of before ``run_id``, over shared memory: *file_path* is a name. A pipe is made there, as
    by torch's, that nobody reads: a client of torch's own fails at it, and does not wait in vain.

    Args:
        file_path: the path that the clients are given.
        max_interval: in seconds; more than 0.1 counts as that.
        daemon: whether this process may end while the server runs.
        log_event: see ShmTimerServer.

    Example:
        >>> server = FileTimerServer("/tmp/timer")
        >>> server.start()
    """

    def __init__(
        self,
        file_path: str,
        max_interval: float = 10,
        daemon: bool = True,
        log_event: timer.LogEvent | None = None,
    ) -> None:
        self._file_path = file_path
        super().__init__(_segment_of_path(file_path), max_interval, daemon, log_event)

    def _open(self) -> None:
        if not self._is_open:
            super()._open()
            with contextlib.suppress(FileNotFoundError):
                os.remove(self._file_path)
            os.mkfifo(self._file_path, 0o600)

    def _close(self) -> None:
        if self._is_open and os.getpid() == self._pid:
            with contextlib.suppress(OSError):
                os.remove(self._file_path)
        super()._close()

    @staticmethod
    def is_process_running(pid: int) -> bool:
        """Whether there is a process of this id; one that may not be signalled is there, too."""
        try:
            os.kill(pid, 0)
        except PermissionError:
            return True
        except OSError:
            return False
        return True

    def _run_watchdog(self, fd: Any = None) -> None:
        """One pass over requests that were registered by a call, or are read from *fd*."""
        for line in fd or ():
            told = json.loads(line)
            words = (told["pid"], told["scope_id"], told["expiration_time"], told["signal"])
            self.register_timers([_requests["file"](*words)])
        self._reap_registered()


    def _tell_debug_info(self, expired: dict[int, list[Any]]) -> None:
        theirs = sys.modules.get(f"{_TIMER}.file_based_local_timer")
        log = getattr(theirs, "log_debug_info_for_expired_timers", None)
        if log is not None and expired:
            run_id = getattr(self, "run_id", "")
            log(run_id, {pid: [one.to_json() for one in timers] for pid, timers in expired.items()})


class _FileTimerServerWithRunId(FileTimerServer):
    """torch's of today: with the run's id, which it puts into its logs."""

    def __init__(
        self,
        file_path: str,
        run_id: str,
        max_interval: float = 10,
        daemon: bool = True,
        log_event: timer.LogEvent | None = None,
    ) -> None:
        self._run_id = self.run_id = run_id
        super().__init__(file_path, max_interval, daemon, log_event)


_requests: dict[str, Any] = {"file": timer.ShmTimerRequest, "local": timer.TimerRequest}
"""Of which classes requests are: torch's own, once there is torch."""


def install() -> None:
    """Put this module's classes in the place of torch's, in this process and in those that it starts
    (HANGWATCH_TORCH=1 says so to them). Doing it again changes nothing.

    Names that were imported from torch's module before keep torch's classes.

    Raises:
        TorchError: torch is absent, or too old to have these timers.

    Example:
        >>> hangwatch.torch.install()
        >>> from torch.distributed.elastic.timer import FileTimerClient  # this module's
    """
    try:
        package = importlib.import_module(_TIMER)
        theirs = {name: _module(module) for name, module in _MODULES.items()}
        file_server = theirs["FileTimerServer"].FileTimerServer
    except (ImportError, AttributeError) as error:
        raise TorchError(
            f"{_TIMER} cannot be had ({error}): install torch 1.13 or newer, built with "
            "distributed, or use hangwatch.timer, which needs no torch"
        ) from error
    ours: dict[str, type] = {
        "LocalTimerClient": LocalTimerClient,
        "LocalTimerServer": LocalTimerServer,
        "FileTimerClient": FileTimerClient,
        "FileTimerServer": FileTimerServer,
    }
    if "run_id" in inspect.signature(file_server.__init__).parameters:
        ours["FileTimerServer"] = _FileTimerServerWithRunId
    for name, replacement in ours.items():
        setattr(theirs[name], name, replacement)
        setattr(package, name, replacement)
    _requests["file"] = theirs["FileTimerServer"].FileTimerRequest
    api = _module("api")
    _requests["local"] = api.TimerRequest
    api.TimerClient.register(_Client)
    api.TimerServer.register(_Server)
    # Programs that this one starts, its spawned workers among them.
    os.environ["HANGWATCH_TORCH"] = "1"
    if not hasattr(api.expires, "_of_hangwatch"):
        api.expires = package.expires = _with_callers_line(api.expires)  # type: ignore[attr-defined]


def _with_callers_line(expires: Any) -> Any:
    """torch's ``expires``, whose default scope is its caller's line and not contextlib's."""

    @functools.wraps(expires)
    def expires_here(after: float, scope: str | None = None, client: Any = None) -> Any:
        if scope is None:
            caller = sys._getframe(1)
            scope = f"{caller.f_code.co_filename}#{caller.f_lineno}"
        return expires(after, scope, client)

    expires_here._of_hangwatch = True  # type: ignore[attr-defined]
    return expires_here


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{_TIMER}.{name}")
