"""The exceptions of hangwatch. The native module raises them by name."""


class Error(Exception):
    """Whatever hangwatch raises that is no plain TypeError.

    Example:
        >>> try:
        ...     hangwatch.attach("train")
        ... except hangwatch.Error as error:
        ...     print(error)
    """


class ArgumentError(Error, ValueError):
    """A time, scope, signal or clock that is none.

    Example:
        >>> hangwatch.expires(float("nan"))
        Traceback (most recent call last):
        hangwatch.ArgumentError: nan is no deadline: ...
    """


class AttachError(Error):
    """This process could not attach to the segment: no lane is free, no watchdog
    serves it though one was required, or the segment is not to be trusted.

    Example:
        >>> hangwatch.attach("train", require_watchdog=True)
        Traceback (most recent call last):
        hangwatch.AttachError: no watchdog serves segment "train"; ...
    """


class NoSegmentError(AttachError):
    """There is no segment of that name, or none was named.

    Example:
        >>> hangwatch.attach("nonsense")
        Traceback (most recent call last):
        hangwatch.NoSegmentError: cannot open segment "nonsense": ...
    """


class AcquireError(Error):
    """A deadline could not be set: no timer is free, or its block was entered
    already.

    Example:
        >>> with deadline, deadline: ...
        Traceback (most recent call last):
        hangwatch.AcquireError: the deadline is entered already: ...
    """


class NotArmedError(AcquireError):
    """Too late: the deadline has passed and the watchdog has acted; or it was
    released, or belongs to the parent of this forked process.

    Example:
        >>> deadline = hangwatch.expires(30)
        >>> deadline.extend(5)
        Traceback (most recent call last):
        hangwatch.NotArmedError: the deadline is not entered: ...
    """


class Overdue(Error):
    """The deadline of a scope has passed, and the watchdog has sent SIGTERM for it: raised in
    the main thread after ``attach(raise_on_term=True)``.

    What there is to clean up must be done within the watchdog's ``--grace``; SIGKILL
    follows. No deadline can be saved any more: condemned is final.

    Attributes:
        scope: the scope that is overdue; of several, the one that is so the longest.
        allowance: how long it had, in seconds.
        thread: the name of the thread it is in, "" where it has none.

    Example:
        >>> try:
        ...     with hangwatch.expires(30, "fetch"):
        ...         queue.get()
        ... except hangwatch.Overdue as overdue:
        ...     print(overdue, overdue.scope)
        "fetch" is overdue: it had 30 s fetch
    """

    def __init__(self, scope: str, allowance: float, thread: str = "") -> None:
        super().__init__(scope, allowance, thread)
        self.scope = scope
        self.allowance = allowance
        self.thread = thread

    def __str__(self) -> str:
        where = f" in thread {self.thread}" if self.thread else ""
        return f'"{self.scope}"{where} is overdue: it had {self.allowance:g} s'


class SegmentError(Error):
    """A segment could not be made or removed.

    Example:
        >>> ShmTimerServer("no/name")
        Traceback (most recent call last):
        hangwatch.SegmentError: ...
    """


class ServeError(Error):
    """A segment could not be served: another watchdog serves it.

    Example:
        >>> ShmTimerServer("train").start()
        Traceback (most recent call last):
        hangwatch.ServeError: segment "train" is served already, by process 4711; ...
    """


class TorchError(Error, ImportError):
    """torch is absent, or has no elastic timers to take the place of.

    Example:
        >>> hangwatch.torch.install()
        Traceback (most recent call last):
        hangwatch.TorchError: torch cannot be imported (No module named 'torch'): ...
    """


for _error in [Error, *Error.__subclasses__(), NoSegmentError, NotArmedError]:
    _error.__module__ = "hangwatch"  # as which they are known
