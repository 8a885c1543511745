"""``hangwatch.attach``: which segment this process's deadlines are in."""

from __future__ import annotations

import os
import signal as signals
from typing import Literal

from hangwatch import _hangwatch, _term


def attach(
    name: str | None = None,
    required: bool = True,
    *,
    clock: Literal["counter", "system", "coarse"] = "counter",
    signal: int | str | None = None,
    job: str | None = None,
    rank: int | None = None,
    require_watchdog: bool = False,
    raise_on_term: bool = False,
    ptracer: Literal["nobody", "watchdog", "any"] | None = None,
) -> bool:
    """Attach this process to a segment, and say whether it is.

    Without it the first deadline attaches, to the segment that HANGWATCH_SEGMENT
    names. Each thread takes a lane of its own when it first needs one. Children
    attach by themselves, to the same segment: they find its name in
    HANGWATCH_SEGMENT, which this sets. (A ``forkserver`` that was started before
    has the environment of its own start.)

    *clock*, *job*, *rank* and *ptracer* are settled by a thread's first deadline:
    attach before it. Another value after that is an error.

    Args:
        name: the segment; by default the one that HANGWATCH_SEGMENT names.
        required: if False, a missing segment is no error: every deadline is a
            no-op then, here and in children (HANGWATCH_OPTIONAL=1 says so to them).
        clock: what times the scopes: the CPU's counter, the system's clock, or its
            coarse one (4 ms), the cheapest.
        signal: sent at this process's deadlines, by number (1 to 64) or name; 0 or
            "none": they are reported only; None: the watchdog's.
        job, rank: this process's place in a job, for the reports; by default what
            the launcher's environment says (torchrun, Slurm, Open MPI, ...).
        require_watchdog: refuse a segment that no watchdog serves. Otherwise
            deadlines hold from when one comes.
        raise_on_term: turn the watchdog's SIGTERM into an Overdue exception in the
            main thread, so that it can clean up before SIGKILL follows (the watchdog's
            --grace, at least 0.1 s, says when). Deadlines are signalled with SIGTERM
            then, unless *signal* says otherwise. A SIGTERM of anybody else does what it
            did before. In an asyncio program it is raised in the task that is running;
            while all of them wait, out of asyncio.run(), which cancels them. Main
            threads that are in C code are not interrupted, as by any Python handler.
            What sets a handler of SIGTERM later takes its place.
        ptracer: whom to allow to read this process's stacks where the kernel lets only
            ancestors (kernel.yama.ptrace_scope=1, as on Ubuntu): the segment's watchdog
            at the attach, with its helpers, or any process of the user; by default what
            HANGWATCH_PTRACER says, else nobody.

    Raises:
        NoSegmentError: there is no such segment.
        AttachError: it cannot be attached to; no watchdog serves it.
        ArgumentError: a clock, signal or ptracer that is none; raise_on_term elsewhere than in
            the main thread.

    Example:
        >>> hangwatch.attach("train")
        True
        >>> hangwatch.attach(required=False)  # runs without a watchdog, too
        False
        >>> hangwatch.attach(raise_on_term=True)
        True
        >>> try:
        ...     with hangwatch.expires(30, "serve"):
        ...         serve()
        ... except hangwatch.Overdue as overdue:
        ...     tell_the_client(overdue.scope)
    """
    if raise_on_term:
        _term.install()
        signal = signals.SIGTERM if signal is None else signal
    attached = _hangwatch.attach(
        name, required, clock, signal, job, rank, require_watchdog, ptracer
    )
    if attached is None:
        os.environ["HANGWATCH_OPTIONAL"] = "1"
        return False
    os.environ["HANGWATCH_SEGMENT"] = attached
    return True
