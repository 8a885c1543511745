"""Deadlines for every step of a worker, enforced from outside through shared memory.

A worker gives its steps deadlines; a watchdog process (``hangwatch run -- CMD``) finds
the worker that misses one, says in which scope, and removes it. A deadline costs less
than a microsecond, waits for nobody and cannot fail because the watchdog is slow,
stopped or gone.

    >>> import hangwatch
    >>> with hangwatch.expires(30, "forward"):   # seconds, or a timedelta
    ...     loss = model(batch)

Threads get lanes of their own, children attach by themselves, and whatever holds the
interpreter's lock does not hold up the watchdog. ``hangwatch.timer`` takes the place of
``torch.distributed.elastic.timer``.

The module needs the interpreter's lock: free-threaded CPython switches the lock on for the
whole process when it imports hangwatch, and warns of it.
"""

from hangwatch._attach import attach
from hangwatch._errors import (
    AcquireError,
    ArgumentError,
    AttachError,
    Error,
    NoSegmentError,
    NotArmedError,
    Overdue,
    SegmentError,
    ServeError,
    TorchError,
)
from hangwatch._hangwatch import (
    Expires,
    Group,
    Heartbeat,
    Paused,
    expires,
    heartbeat,
    meeting,
    paused,
)
from hangwatch._hangwatch import __version__ as __version__
from hangwatch._observe import Lane, Observation, Scope, Timer, observe

__all__ = [
    "AcquireError",
    "ArgumentError",
    "AttachError",
    "Error",
    "Expires",
    "Group",
    "Heartbeat",
    "Lane",
    "NoSegmentError",
    "NotArmedError",
    "Observation",
    "Overdue",
    "Paused",
    "Scope",
    "SegmentError",
    "ServeError",
    "Timer",
    "TorchError",
    "attach",
    "expires",
    "heartbeat",
    "meeting",
    "observe",
    "paused",
]
