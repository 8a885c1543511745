"""``attach(raise_on_term=True)``: a SIGTERM from the watchdog as an exception.

Whose a SIGTERM is, the segment tells and not the signal: a timer of this process is condemned
before the watchdog signals it, and stays so until the process is dead. This holds also where the
watchdog is in another PID namespace, and in a forked child, whose timers are its own.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from hangwatch import _hangwatch
from hangwatch._errors import ArgumentError, Overdue

_previous: Any = signal.SIG_DFL
"""What SIGTERM did before."""

_raised: set[tuple[Any, ...]] = set()
"""The acquires that were raised for: a second SIGTERM means what it always meant."""


def install() -> None:
    """Has SIGTERM raise Overdue from now on, where it is the watchdog's."""
    global _previous
    current = signal.getsignal(signal.SIGTERM)
    if current is _on_term:
        return
    if threading.current_thread() is not threading.main_thread():
        raise ArgumentError(
            "raise_on_term takes a handler of SIGTERM, which only the main thread may set: call "
            "hangwatch.attach(raise_on_term=True) there"
        )
    if current is None:
        raise ArgumentError(
            "SIGTERM has a handler that was not set from Python, and could not be called any more: "
            "attach without raise_on_term"
        )
    _previous = current
    signal.signal(signal.SIGTERM, _on_term)


def _on_term(number: int, frame: FrameType | None) -> None:
    new = [timer for timer in _hangwatch.condemned() if timer["acquire"] not in _raised]
    if new:
        _raised.update(timer["acquire"] for timer in new)
        first = new[0]
        # Deadlines are rounded up to a microsecond, about.
        raise Overdue(first["scope"], round(first["allowance"], 4), first["thread"])
    if callable(_previous):
        _previous(number, frame)
    elif _previous is not signal.SIG_IGN:
        # As if nobody had caught it: this process dies of it, and whoever waits for it sees that.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), number)
