"""``hangwatch.observe``: a picture of a segment, as plain objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hangwatch import _hangwatch


@dataclass(frozen=True)
class Timer:
    """One timer that is not idle.

    Example:
        >>> [timer.scope for lane in observe("train").lanes for timer in lane.timers]
        ['forward']
    """

    timer: int
    """Its index in the lane."""
    state: str
    """``armed``, ``reported``, ``paused``, ``condemned`` or ``braked``."""
    scope: str
    """The name it carries."""
    kind: str
    """``guard``, ``keyed`` or ``heartbeat``."""
    signal: int | None
    """Sent at the deadline; 0: none, it is reported only; None: the watchdog's."""
    age: float
    """Seconds since it was acquired or last kicked."""
    allowance: float
    """Seconds it had from then on."""
    left: float | None
    """Seconds left, negative once overdue; None while paused."""
    group: str | None = None
    """The group that meets there, if it is a meeting."""
    sequence: int | None = None
    """The meeting's number in the group."""


@dataclass(frozen=True)
class Lane:
    """One worker thread's part of the segment. What it says is its owner's claim.

    Example:
        >>> [(lane.rank, lane.pid) for lane in observe("train").lanes]
        [(0, 4711), (1, 4712)]
    """

    lane: int
    """Its index."""
    pid: int
    """The process, in its own PID namespace."""
    tid: int
    """The thread."""
    state: str
    """``claimed``, ``attached`` or ``recycling``."""
    quarantined: bool
    """Whether the watchdog found it lying."""
    thread: str
    """The thread's name, if it has one."""
    job: str
    """The job, from attach() or the launcher's environment."""
    host: str
    """The host, from the launcher's environment or the kernel."""
    rank: int | None
    """The rank in the job."""
    world_size: int | None
    """The number of ranks."""
    local_rank: int | None
    """The rank on its host."""
    clock: str
    """``counter``, ``system`` or ``coarse``."""
    attached_at: float
    """When it attached, in seconds of the monotonic clock."""
    records: int
    """Records its owners have written since the segment was made."""
    timers: tuple[Timer, ...]
    """The timers that are not idle, the last acquired first."""


@dataclass(frozen=True)
class Scope:
    """One scope's counts over all lanes that are and were.

    Example:
        >>> {scope.name: scope.longest for scope in observe("train").scopes}  # seconds
        {'forward': 0.82, 'load batch': 4.03}
    """

    name: str
    """Its name."""
    acquired: int
    """How often it began."""
    released: int
    """How often it ended by a release, in time or after a report."""
    reported: int
    """Releases after the deadline of a timer that signals nobody."""
    condemned: int
    """Ended by the watchdog."""
    abandoned: int
    """Its process ended first."""
    rearmed: int
    """Changes of a deadline: extensions, kicks, acquires by the same name."""
    total: float
    """Seconds that released ones took together."""
    longest: float
    """Seconds that the longest of them took."""
    durations: tuple[tuple[float, int], ...]
    """A histogram: from so many seconds on, so many releases; empty steps left out."""


@dataclass(frozen=True)
class Observation:
    """A picture of a segment at one time.

    Example:
        >>> seen = observe("train")
        >>> seen.watched, len(seen.lanes)
        (True, 8)
    """

    segment: str
    """Its name."""
    at: float
    """When it was taken, in seconds of the monotonic clock."""
    watched: bool
    """Whether another process serves it as its watchdog."""
    watchdog_pid: int | None
    """That process, where it can be seen."""
    last_tick_at: float | None
    """When its last tick ended, in seconds of the monotonic clock."""
    braked: bool
    """Whether its brake holds: it signals nobody."""
    lanes: tuple[Lane, ...]
    """Every lane that somebody owns."""
    lane_count: int
    """How many lanes there are."""
    scopes: tuple[Scope, ...]
    """Every scope there ever was."""
    scopes_overflowed: int
    """Names that found no room and count as ``(other)``."""
    counters: dict[str, int]
    """The watchdog's counters, by name."""


def observe(name: str | None = None) -> Observation:
    """Take a picture of a segment, disturbing nobody.

    Args:
        name: the segment; by default the one that HANGWATCH_SEGMENT names.

    Raises:
        NoSegmentError: there is none.
        AttachError: it cannot be read.

    Example:
        >>> for lane in hangwatch.observe("train").lanes:
        ...     for timer in lane.timers:
        ...         print(lane.pid, timer.scope, timer.left)
    """
    seen: dict[str, Any] = _hangwatch.observe(name)
    seen["lanes"] = tuple(
        Lane(**{**lane, "timers": tuple(Timer(**timer) for timer in lane["timers"])})
        for lane in seen["lanes"]
    )
    seen["scopes"] = tuple(
        Scope(**{**scope, "durations": tuple(scope["durations"])}) for scope in seen["scopes"]
    )
    return Observation(**seen)
