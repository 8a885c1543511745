"""The one scope that the training thread is in, from joining a process group to leaving it.

Everything here may run in any call of the program, so nothing here raises: where hangwatch fails, the
guard ends, and the logger ``hangwatch`` says so once.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable
from threading import get_ident
from typing import Any, TypeVar

from hangwatch import _hangwatch
from hangwatch._auto import times

_F = TypeVar("_F", bound=Callable[..., Any])
_Group = _hangwatch.Group
_log = logging.getLogger("hangwatch")


class Section:
    """What a thread is in, with its time.

    Args:
        name: the scope's name.
        seconds: its time, unless the watchdog's deadlines file has one.
        is_broad: whether sections that begin within it take its place until they end.
    """

    __slots__ = ("is_broad", "is_together", "name", "seconds")

    def __init__(self, name: str, seconds: float, is_broad: bool = True) -> None:
        self.name = name
        self.seconds = seconds
        self.is_broad = is_broad
        self.is_together = name.startswith("together")


def together(what: str, is_broad: bool = False) -> Section:
    """A section that waits for other ranks."""
    return Section(f"together: {what}", times.TOGETHER, is_broad)


def alone(what: str, seconds: float = times.ALONE) -> Section:
    """A section in which a rank is by itself."""
    return Section(f"alone: {what}", seconds)


BETWEEN = alone("between collectives")


class _Guard:
    """Which thread is guarded, and the section it is in."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.section = BETWEEN
        self.is_provisional = False
        self.is_off = False
        self._mine = threading.local()
        # Made once for each section, and group that meets in it: a thread is in one once at a time.
        self._deadlines: dict[tuple[Section, _Group | None], _hangwatch.Expires] = {}
        self._entered: _hangwatch.Expires | None = None

    def begin(self, section: Section) -> None:
        """Guard this thread from now on."""
        if self.is_off or self.thread is not None:
            return
        self._take(section)
        self.is_provisional = True

    def end(self) -> None:
        """Guard nobody any more."""
        if self.thread is not None:
            self.thread = None
            self._exit()

    def enter(self, section: Section, group: _Group | None = None) -> None:
        """Go over from one section to the next one, without a moment between; in that, *group* meets."""
        if self.thread != get_ident():
            return
        try:
            last, self.section = self._entered, section
            deadline = self._deadlines.get((section, group)) or self._make(section, group)
            if last is deadline:
                last.release()
                deadline.__enter__()
            else:
                deadline.__enter__()
                self._entered = deadline
                if last is not None:
                    last.release()
        except Exception as error:
            self._fail(error)

    def _make(self, section: Section, group: _Group | None) -> _hangwatch.Expires:
        if group is None:
            deadline = _hangwatch.expires_by_default(section.seconds, section.name)
        else:
            deadline = group._meeting_by_default(section.name, None, section.seconds)
        self._deadlines[section, group] = deadline
        return deadline

    def is_here(self, section: Section) -> bool:
        """Whether this thread is guarded. The thread that joined the group may not be the one that
        trains: a guard goes over to the first that enters a collective, and to the main thread from
        any other."""
        if self.thread == get_ident():
            if section.is_together:
                self.is_provisional = False
            return True
        if self.thread is None or not section.is_together:
            return False
        if self.is_provisional or threading.current_thread() is threading.main_thread():
            self._take(BETWEEN)
            self.is_provisional = False
            return True
        return False

    def _take(self, section: Section) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._mine.end = _AtEnd(self, get_ident())
        self._exit()
        self.thread = get_ident()
        self.enter(section)

    def _exit(self) -> None:
        try:
            entered, self._entered = self._entered, None
            if entered is not None:
                entered.release()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.thread, self.is_off = None, True
        _log.warning("this process is no longer guarded by hangwatch: %r", error)

    def after_fork(self) -> None:
        """A child is not a rank: it is guarded where it joins a group itself."""
        self.thread, self.section, self._entered = None, BETWEEN, None
        self._deadlines.clear()  # they are the parent's


class _AtEnd:
    """Ends the guard with a thread that is not the main one."""

    def __init__(self, guard: _Guard, thread: int) -> None:
        self._guard = guard
        self._thread = thread

    def __del__(self) -> None:
        if self._guard.thread == self._thread:
            self._guard.end()


GUARD = _Guard()
_NOBODY = _Guard()
_background = threading.local()


def _after_fork() -> None:
    GUARD.after_fork()
    vars(_background).clear()


os.register_at_fork(after_in_child=_after_fork)


def within(
    section: Section, meets: Callable[..., _Group | None] | None = None
) -> Callable[[_F], _F]:
    """A decorator: the guarded thread is in *section* while it is in the function. *meets* says, of its
    arguments, which group meets there."""

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            guard = GUARD
            if guard.thread is None:
                return function(*args, **kwargs)
            if not guard.is_here(section):
                guard = getattr(_background, "guard", _NOBODY)
                if guard is _NOBODY:
                    return function(*args, **kwargs)
            outer = guard.section
            if not outer.is_broad:
                return function(*args, **kwargs)
            guard.enter(section, meets and meets(*args, **kwargs))
            try:
                return function(*args, **kwargs)
            finally:
                guard.enter(outer)

        guarded._hangwatch = section  # type: ignore[attr-defined]
        return guarded  # type: ignore[return-value]

    return decorate


def in_background(section: Section, function: _F) -> _F:
    """Guard a thread other than the one that trains, for as long as it is in *function*: in *section*, or
    in what it waits for within."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if GUARD.thread in (None, get_ident()) or hasattr(_background, "guard"):
            return function(*args, **kwargs)
        _background.guard = guard = _Guard()
        guard.begin(section)
        try:
            return function(*args, **kwargs)
        finally:
            guard.end()
            del _background.guard

    return guarded  # type: ignore[return-value]


def put(
    owner: Any, name: str, section: Section, meets: Callable[..., _Group | None] | None = None
) -> None:
    """Have *owner*'s function *name*, where it has one, run within *section*."""
    function = getattr(owner, name, None)
    if function is not None and not hasattr(function, "_hangwatch"):
        setattr(owner, name, within(section, meets)(function))
