"""``--auto=io``: waits of any Python program that take longer than ``--auto-alone``.

Only of the main thread: threads of pools wait for work as long as there is none, by design.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hangwatch import _hangwatch
from hangwatch._auto import times
from hangwatch._imports import when_imported

_RECEIVES = ("accept", "connect", "recv", "recv_into", "recvfrom", "recvfrom_into", "recvmsg", "sendall")


def register() -> None:
    """Change the modules of the standard library, when and if the program imports them."""
    changes: dict[str, Callable[[ModuleType], None]] = {
        "concurrent.futures._base": _futures,
        "multiprocessing.pool": _pools,
        "multiprocessing.process": _processes,
        "multiprocessing.queues": _process_queues,
        "queue": _queues,
        "socket": _sockets,
        "ssl": _encrypted_sockets,
        "subprocess": _subprocesses,
    }
    for name, change in changes.items():
        when_imported(name, change)


def _put(owner: Any, name: str, what: str) -> None:
    theirs = getattr(owner, name, None)
    if theirs is None:
        return
    scope = f"io: {what}"

    @functools.wraps(theirs)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return theirs(*args, **kwargs)
        try:
            deadline = _hangwatch.expires_by_default(times.ALONE, scope).__enter__()
        except Exception:  # without a lane, or a segment
            return theirs(*args, **kwargs)
        try:
            return theirs(*args, **kwargs)
        finally:
            deadline.release()

    setattr(owner, name, waiting)


def _futures(module: ModuleType) -> None:
    _put(module.Future, "result", "wait for a future")
    _put(module.Future, "exception", "wait for a future")
    _put(module, "wait", "wait for futures")


def _pools(module: ModuleType) -> None:
    _put(module.ApplyResult, "wait", "wait for a pool")
    _put(module.IMapIterator, "next", "wait for a pool")
    module.IMapIterator.__next__ = module.IMapIterator.next
    _put(module.Pool, "join", "wait for a pool")


def _processes(module: ModuleType) -> None:
    _put(module.BaseProcess, "join", "wait for a process")


def _process_queues(module: ModuleType) -> None:
    _put(module.Queue, "get", "read a queue")


def _queues(module: ModuleType) -> None:
    _put(module.Queue, "get", "read a queue")
    _put(module.Queue, "join", "wait for a queue")


def _sockets(module: ModuleType) -> None:
    for name in _RECEIVES:
        _put(module.socket, name, f"socket {name}")


def _encrypted_sockets(module: ModuleType) -> None:
    for name in ("read", "recv", "recv_into", "sendall", "do_handshake"):
        _put(module.SSLSocket, name, f"TLS {name}")


def _subprocesses(module: ModuleType) -> None:
    _put(module.Popen, "wait", "wait for a subprocess")
    _put(module.Popen, "communicate", "wait for a subprocess")
