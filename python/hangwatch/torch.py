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

import functools
import hashlib
import importlib
import inspect
import os
import signal as signals
import sys
from types import ModuleType
from typing import Any

from hangwatch import timer
from hangwatch._errors import TorchError

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


class _Client(timer.ShmTimerClient):
    """A client whose segment this module names: one that is gone makes its timers no-ops."""

    _named_by_caller = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Client, (self._segment, self.signal))


class LocalTimerClient(_Client):
    """torch's, over shared memory: only *mp_queue*'s identity is used.

    Args:
        mp_queue: the queue that the server was given.

    Raises:
        TypeError: it is no multiprocessing queue.
        AttachError: on first use, where the segment has no free lane.

    Example:
        >>> torch.distributed.elastic.timer.configure(LocalTimerClient(mp_queue))
    """

    def __init__(self, mp_queue: Any) -> None:
        super().__init__(_segment_of_queue(mp_queue))


class FileTimerClient(_Client):
    """torch's, over shared memory: *file_path* is a name, no file is made.

    Args:
        file_path: the path that the server was given.
        signal: sent at the deadline, 1 to 64; 0 or less: it is reported only.

    Raises:
        AttachError: on first use, where the segment has no free lane.

    Example:
        >>> client = FileTimerClient(os.environ["TORCHELASTIC_TIMER_FILE"])
    """

    def __init__(self, file_path: str, signal: int = signals.SIGKILL) -> None:
        super().__init__(_segment_of_path(file_path), signal)


class _Server(timer.ShmTimerServer):
    def __init__(
        self, segment: str, max_interval: float, daemon: bool, log_event: timer.LogEvent | None
    ) -> None:
        # As torch's, which takes the pipe of one before it away: an agent makes a server at
        # each restart of its workers.
        for other in list(timer._servers):
            if other.segment == segment:
                other.stop()
        least, most = _INTERVAL
        super().__init__(segment, min(max(max_interval, least), most), daemon, log_event)


class LocalTimerServer(_Server):
    """torch's, over shared memory: only *mp_queue*'s identity is used.

    Args:
        mp_queue: the queue that the clients are given.
        max_interval: in seconds; more than 0.1 counts as that.
        daemon: whether this process may end while the server runs.

    Example:
        >>> server = LocalTimerServer(mp_queue)
        >>> server.start()
    """

    def __init__(self, mp_queue: Any, max_interval: float = 60, daemon: bool = True) -> None:
        super().__init__(_segment_of_queue(mp_queue), max_interval, daemon, None)


class FileTimerServer(_Server):
    """torch's of before ``run_id``, over shared memory: *file_path* is a name.

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
        super().__init__(_segment_of_path(file_path), max_interval, daemon, log_event)


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
        self.run_id = run_id
        super().__init__(file_path, max_interval, daemon, log_event)


def install() -> None:
    """Put this module's classes in the place of torch's. Doing it again changes nothing.

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
    api = _module("api")
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
