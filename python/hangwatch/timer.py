"""Countdown timers of worker processes, in the shape of torch.distributed.elastic.timer.

The same names and contract, over shared memory, without torch: a server in the agent's
process watches, its clients in the workers acquire and release timers by scope, and
whoever does not release in time is removed. torch's own ``configure`` and ``expires``
take these classes, too.

    >>> from hangwatch import timer
    >>> server = timer.ShmTimerServer()          # in the agent
    >>> server.start()
    >>> timer.configure(timer.ShmTimerClient())  # in each worker
    >>> with timer.expires(after=60):
    ...     torch.distributed.all_reduce(tensor)

The rules are upstream's: the same scope acquired again replaces its deadline, in each
process; a release of nothing is nothing; a worker that exits before a release is
forgotten, not signalled. Times are ``time.time()`` at this border, and turned into
monotonic deadlines at once: a later step of the wall clock moves none.
"""

from __future__ import annotations

import abc
import atexit
import json
import logging
import os
import secrets
import shutil
import signal as signals
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from hangwatch import _hangwatch
from hangwatch._errors import SegmentError
from hangwatch._observe import observe

__all__ = [
    "RequestQueue",
    "ShmTimerClient",
    "ShmTimerRequest",
    "ShmTimerServer",
    "TimerClient",
    "TimerRequest",
    "TimerServer",
    "configure",
    "expires",
]

_log = logging.getLogger(__name__)

_SEGMENT_VARIABLE = "HANGWATCH_SEGMENT"


class TimerRequest:
    """An acquire or, where the expiration time is negative, a release of a timer.

    Args:
        worker_id: whatever the server and its clients know a worker by.
        scope_id: the scope.
        expiration_time: when it expires, in seconds of ``time.time()``.

    Example:
        >>> TimerRequest(os.getpid(), "forward", time.time() + 30)
    """

    __slots__ = ["expiration_time", "scope_id", "worker_id"]

    def __init__(self, worker_id: Any, scope_id: str, expiration_time: float) -> None:
        self.worker_id = worker_id
        self.scope_id = scope_id
        self.expiration_time = expiration_time

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TimerRequest):
            return False
        return (self.worker_id, self.scope_id, self.expiration_time) == (
            other.worker_id,
            other.scope_id,
            other.expiration_time,
        )

    __hash__ = None  # type: ignore[assignment]  # as upstream: it can be changed

    def __repr__(self) -> str:
        return f"TimerRequest({self.worker_id!r}, {self.scope_id!r}, {self.expiration_time!r})"


class TimerClient(abc.ABC):
    """The worker's side: acquires and releases timers.

    Example:
        >>> class MyClient(TimerClient):
        ...     def acquire(self, scope_id, expiration_time): ...
        ...     def release(self, scope_id): ...
    """

    @abc.abstractmethod
    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """Begin a scope that must be released by *expiration_time*, in seconds of
        ``time.time()``."""

    @abc.abstractmethod
    def release(self, scope_id: str) -> None:
        """End a scope; afterwards its timer is no longer in effect."""


class RequestQueue(abc.ABC):
    """Where a TimerServer has its requests from.

    Example:
        >>> size = queue.size()
        >>> assert size == len(queue.get(size, timeout=0))
    """

    @abc.abstractmethod
    def size(self) -> int:
        """How many requests wait. It does not shrink before get() is called."""

    @abc.abstractmethod
    def get(self, size: int, timeout: float) -> list[TimerRequest]:
        """At most *size* requests, waiting at most *timeout* seconds for them."""


class TimerServer(abc.ABC):
    """The watchdog as a loop over a queue, for servers of one's own making.

    One pass asks the queue for its size once, gets ``max(1, size)`` requests within
    *max_interval*, registers them, takes the expired timers of each worker, reaps each
    of these workers, and clears the timers of those that were reaped. A reap that
    returns False keeps its timers, and is tried again in the next pass. One that raises
    counts as reaped, and is logged.

    Args:
        request_queue: where requests come from.
        max_interval: the longest wait for a request, in seconds.
        daemon: whether the watchdog's thread lets the process end.

    Example:
        >>> class MyServer(TimerServer):
        ...     def register_timers(self, timer_requests): ...
        ...     def clear_timers(self, worker_ids): ...
        ...     def get_expired_timers(self, deadline): ...
        ...     def _reap_worker(self, worker_id): ...
    """

    def __init__(
        self, request_queue: RequestQueue, max_interval: float, daemon: bool = True
    ) -> None:
        super().__init__()
        self._request_queue = request_queue
        self._max_interval = max_interval
        self._daemon = daemon
        self._watchdog_thread: threading.Thread | None = None
        self._stop_signaled = False

    @abc.abstractmethod
    def register_timers(self, timer_requests: list[TimerRequest]) -> None:
        """Take in requests; one with a negative expiration time is a release."""

    @abc.abstractmethod
    def clear_timers(self, worker_ids: set[Any]) -> None:
        """Forget every timer of these workers."""

    @abc.abstractmethod
    def get_expired_timers(self, deadline: float) -> dict[Any, list[TimerRequest]]:
        """The timers that expire at or before *deadline*, by worker."""

    @abc.abstractmethod
    def _reap_worker(self, worker_id: Any) -> bool:
        """Remove a worker, and say whether it is gone. A worker whose reap raises
        counts as gone."""

    def _reap_worker_no_throw(self, worker_id: Any) -> bool:
        try:
            return self._reap_worker(worker_id)
        except Exception:
            _log.exception("the reap of worker %r failed; it counts as reaped", worker_id)
            return True

    def _watchdog_loop(self) -> None:
        while not self._stop_signaled:
            try:
                self._run_watchdog()
            except Exception:
                _log.exception("a pass of the watchdog failed; the next one follows")

    def _run_watchdog(self) -> None:
        batch_size = max(1, self._request_queue.size())
        self.register_timers(self._request_queue.get(batch_size, self._max_interval))
        reaped_worker_ids = set()
        for worker_id, expired_timers in self.get_expired_timers(time.time()).items():
            scopes = self._get_scopes(expired_timers)
            _log.info("reaping worker %r, whose timers expired: %s", worker_id, scopes)
            if self._reap_worker_no_throw(worker_id):
                reaped_worker_ids.add(worker_id)
            else:
                _log.error("worker %r was not reaped; the next pass tries again", worker_id)
        self.clear_timers(reaped_worker_ids)

    def _get_scopes(self, timer_requests: list[TimerRequest]) -> list[str]:
        return [request.scope_id for request in timer_requests]

    def start(self) -> None:
        """Start the watchdog's thread."""
        self._watchdog_thread = threading.Thread(
            target=self._watchdog_loop, name="hangwatch", daemon=self._daemon
        )
        self._watchdog_thread.start()

    def stop(self) -> None:
        """End it, waiting at most *max_interval* for it."""
        self._stop_signaled = True
        if self._watchdog_thread is not None:
            self._watchdog_thread.join(self._max_interval)
            self._watchdog_thread = None


_timer_client: TimerClient | None = None


def configure(timer_client: TimerClient) -> None:
    """Set the client that expires() uses.

    Example:
        >>> configure(ShmTimerClient())
    """
    global _timer_client
    _timer_client = timer_client


@contextmanager
def _held(client: TimerClient, scope: str, after: float) -> Iterator[None]:
    client.acquire(scope, time.time() + after)
    try:
        yield
    finally:
        client.release(scope)


def expires(
    after: float, scope: str | None = None, client: TimerClient | None = None
) -> AbstractContextManager[None]:
    """Give a block *after* seconds; if it takes longer, this worker may be reaped.

    Args:
        after: how long the block may take, in seconds.
        scope: its name; file#line of the caller by default.
        client: the client to use instead of the one that configure() set.

    Raises:
        RuntimeError: neither a client was given nor configure() called.
        Whatever the client's acquire() raises.

    Example:
        >>> with expires(after=10):
        ...     torch.distributed.all_reduce(tensor)
    """
    client = client or _timer_client
    if client is None:
        raise RuntimeError("call hangwatch.timer.configure(client) first, or pass a client")
    if scope is None:
        caller = sys._getframe(1)
        scope = f"{caller.f_code.co_filename}#{caller.f_lineno}"
    return _held(client, scope, after)


class ShmTimerRequest(TimerRequest):
    """A timer of a ShmTimerServer, as its *log_event* is told of it.

    ``worker_id`` and ``worker_pid`` are the process's id, ``signal`` is what was sent to
    it, 0 for nothing; ``expiration_time`` is in seconds of the wall clock.

    Example:
        >>> def log_event(event, request):
        ...     if request is not None:
        ...         print(event, request.worker_pid, request.scope_id)
        >>> server = ShmTimerServer(log_event=log_event)
    """

    __slots__ = ["signal", "version"]

    def __init__(
        self, worker_pid: int, scope_id: str, expiration_time: float, signal: int = 0
    ) -> None:
        super().__init__(worker_pid, scope_id, expiration_time)
        self.version = 1
        self.signal = signal

    @property
    def worker_pid(self) -> int:
        """The process's id."""
        return int(self.worker_id)

    def to_json(self) -> str:
        """As upstream writes it."""
        return json.dumps({
            "version": self.version,
            "pid": self.worker_pid,
            "scope_id": self.scope_id,
            "expiration_time": self.expiration_time,
            "signal": self.signal,
        })  # fmt: skip


class ShmTimerClient(TimerClient):
    """The worker's side over shared memory. It never waits, and never fails because the
    server is slow, stopped or gone.

    Args:
        segment: the segment's name; by default the one that HANGWATCH_SEGMENT names,
            which a server exports to its children.
        signal: sent at the deadline, 1 to 64; 0 or less: it is reported only.

    Raises:
        NoSegmentError: on the first acquire() or release(), where the segment given does
            not exist, or none is named. (One that HANGWATCH_SEGMENT names and that is gone
            makes the timers no-ops, and a warning says so once.)
        AttachError: likewise, where it cannot be attached to.

    Example:
        >>> client = ShmTimerClient()
        >>> client.acquire("forward", time.time() + 30)
        >>> client.release("forward")
    """

    def __init__(self, segment: str | None = None, signal: int = signals.SIGKILL) -> None:
        super().__init__()
        self.signal = signal
        self._segment = segment
        required = segment is not None and self._named_by_caller
        self._client = _hangwatch.Client(segment, max(0, int(signal)), required)

    _named_by_caller = True
    """Whether a segment's name is the caller's: then a missing one is the caller's mistake."""

    def acquire(self, scope_id: str, expiration_time: float) -> None:
        """Begin a scope that must be released by *expiration_time*, in seconds of
        ``time.time()``; a negative one is a release. The same scope again replaces its
        deadline. What has passed already is due at once."""
        if expiration_time < 0:
            self.release(scope_id)
        else:
            self._client.acquire(scope_id, expiration_time - time.time())

    def release(self, scope_id: str) -> None:
        """End a scope; a release of nothing is nothing."""
        self._client.release(scope_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self._segment, self.signal))


LogEvent = Callable[[str, ShmTimerRequest | None], object]

_servers: weakref.WeakSet[ShmTimerServer] = weakref.WeakSet()

_running: set[ShmTimerServer] = set()
"""Those that serve: like a thread, each goes on until stop(), also where nobody refers to it."""


class ShmTimerServer:
    """The watchdog, in threads of this process that need nothing of Python's.

    Workers are found by their deadlines, not by a scan; a reap that fails is tried
    again; this process is never signalled itself. A forked child of this process has no
    part in it. A started server serves until stop() or the end of this process, also where
    nobody refers to it any more. If this process is killed, a small process of its own
    removes the segment.

    Evidence and incidents are as of ``hangwatch run``, whose settings hold here, too
    (HANGWATCH_EVIDENCE, HANGWATCH_INCIDENTS, ...): where the ``hangwatch`` command is beside
    this interpreter.

    Args:
        segment: the segment to serve, made if there is none; by default the one that
            HANGWATCH_SEGMENT names, else one with a name of its own, which is exported
            to children in HANGWATCH_SEGMENT.
        max_interval: of a new segment, the longest time between two looks, 0.001 to 60
            seconds. It does not make a reap late.
        daemon: whether this process may end while the server runs.
        log_event: called with ``"watchdog started"``, ``"timer expired"``, ``"kill worker
            process"`` (after it, unless the timer is reported only), ``"watchdog stopped"``
            and the timer there is to it, in a thread of its own.

    Raises:
        ArgumentError: a max_interval that is none.
        SegmentError: the segment cannot be made.
        AttachError: the one that is there cannot be used.

    Example:
        >>> server = ShmTimerServer(log_event=print)
        >>> server.start()
        >>> ...  # start workers, wait for them
        >>> server.stop()
    """

    def __init__(
        self,
        segment: str | None = None,
        max_interval: float = 0.1,
        daemon: bool = True,
        log_event: LogEvent | None = None,
    ) -> None:
        named = segment or os.environ.get(_SEGMENT_VARIABLE) or None
        self._daemon = daemon
        self._max_interval = max_interval
        self._log_event: LogEvent = log_event or (lambda name, request: None)
        self._server: _hangwatch.Server | None = None
        self._thread: threading.Thread | None = None
        self._sweeper: _Sweeper | None = None
        self._pid = os.getpid()
        self.segment: str = named or f"timer-{self._pid}-{secrets.token_hex(4)}"
        """The segment's name."""
        self._export = segment is None or _SEGMENT_VARIABLE not in os.environ
        self._is_open = False
        self._open()

    def _open(self) -> None:
        """Makes the segment if there is none, and exports its name."""
        if self._is_open:
            return
        self._made = _hangwatch.make_segment(self.segment, self._max_interval, True)
        if self._export:
            os.environ[_SEGMENT_VARIABLE] = self.segment
        self._is_open = True
        _servers.add(self)

    def start(self) -> None:
        """Serve, until stop().

        Raises:
            ServeError: another watchdog serves the segment.
        """
        if self._server is not None:
            return
        self._open()
        _know_the_command()
        self._server = _hangwatch.Server(self.segment, self._only_reports())
        _running.add(self)
        if self._made and self._sweeper is None:
            self._sweeper = _Sweeper(self.segment)
        self._thread = threading.Thread(
            target=_tell,
            args=(self._server, self._tell_one),
            name="hangwatch-events",
            daemon=self._daemon,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving, tell the last events, and remove the segment if this server made
        it. Armed timers are no longer enforced then."""
        self._end_server()
        self._close()

    def run_once(self) -> None:
        """Do what is due now, and stop: every worker whose timer has expired is reaped,
        within 10 seconds at most."""
        self.start()
        server = self._server
        assert server is not None
        first = server.health()[0]
        until = time.monotonic() + 10
        while time.monotonic() < until:
            ticks, _, serving = server.health()
            if not serving or (ticks >= first + 2 and not self._is_due()):
                break
            time.sleep(0.001)
        self.stop()

    def get_last_progress_time(self) -> int:
        """When the watchdog last looked at its timers, in seconds of ``time.time()``; now where
        it does not serve. torch's agent takes it for its health check."""
        server = self._server
        if server is None or not server.health()[2]:
            return int(time.time())
        seen = observe(self.segment)
        return int(time.time() - (seen.at - (seen.last_tick_at or seen.at)))

    def __del__(self) -> None:
        # Never started, or it would be among those running: its segment is nobody's.
        if getattr(self, "_is_open", False):
            self._close()

    def _only_reports(self) -> bool:
        """Whether what is to be done about an expired timer is done elsewhere."""
        return False

    def _tell_one(self, event: dict[str, Any]) -> None:
        _tell_one(event, self._log_event, self._request_kind())

    def _request_kind(self) -> type[Any]:
        """Of which class the requests are that log_event is told."""
        return ShmTimerRequest

    def _is_due(self) -> bool:
        timers = (timer for lane in observe(self.segment).lanes for timer in lane.timers)
        return any(
            timer.state == "condemned"
            or (timer.state == "armed" and timer.left is not None and timer.left <= 0)
            for timer in timers
        )

    def _end_server(self) -> None:
        _running.discard(self)
        server, self._server = self._server, None
        thread, self._thread = self._thread, None
        if server is None or os.getpid() != self._pid:
            return
        server.stop()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _close(self) -> None:
        if os.getpid() != self._pid or not self._is_open:
            return
        self._is_open = False
        if self._made:
            with suppress(SegmentError):  # somebody else has removed it
                _hangwatch.remove_segment(self.segment)
        _hangwatch.close_segment(self.segment)
        if self._sweeper is not None:
            self._sweeper.end()
            self._sweeper = None
        if self._export and os.environ.get(_SEGMENT_VARIABLE) == self.segment:
            del os.environ[_SEGMENT_VARIABLE]


def _know_the_command() -> None:
    """Names the ``hangwatch`` command, whose helpers look at workers, if it is beside this interpreter."""
    if "HANGWATCH_PROGRAM" not in os.environ:
        program = shutil.which("hangwatch", path=os.path.dirname(sys.executable))
        if program is not None:
            os.environ["HANGWATCH_PROGRAM"] = program


_SWEEP = """
import os, select, sys
maker, name, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
wait = select.poll()
wait.register(0, select.POLLIN)
try:
    wait.register(os.pidfd_open(maker), select.POLLIN)
except OSError:
    pass
if os.getppid() == maker:
    wait.poll()
if select.select([0], [], [], 0)[0] and os.read(0, 1):
    sys.exit()
sys.path.insert(0, path)
from hangwatch import _hangwatch
_hangwatch.remove_stale_segment(name)
"""


class _Sweeper:
    """A process that removes a segment when the process that made it is killed."""

    def __init__(self, segment: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        command = [sys.executable, "-S", "-c", _SWEEP, str(os.getpid()), segment, package]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            _log.warning("if this process is killed, segment %s stays: %s", segment, error)

    def end(self) -> None:
        """Tell it that there is nothing to remove."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            with suppress(OSError):
                process.stdin.write(b".")
                process.stdin.close()
            process.wait()


def _tell(server: _hangwatch.Server, tell_one: Callable[[dict[str, Any]], None]) -> None:
    """Tells what the server has to tell, until it has ended."""
    while True:
        try:
            event = server.next_event(3600)
        except StopIteration:
            return
        if event is not None:
            try:
                tell_one(event)
            except Exception:
                _log.exception("log_event raised; the watchdog goes on")


def _tell_one(
    event: dict[str, Any], log_event: LogEvent, kind: type[Any] = ShmTimerRequest
) -> None:
    name = event["event"]
    if name == "serving":
        log_event("watchdog started", None)
    elif name == "ended":
        log_event("watchdog stopped", None)
    elif name == "expired":
        _log.warning("%s", _told(event))
        request = _request(event, kind)
        log_event("timer expired", request)
        if event["signal"]:
            log_event("kill worker process", request)
    elif name == "trouble" or "error" in event:
        _log.error("%s", _told(event))
    else:
        _log.debug("%s", _told(event))


def _told(event: dict[str, Any]) -> str:
    """One line: what happened, and the fields there are to it."""
    fields = (f"{key}={value!r}" for key, value in event.items() if key != "event")
    return " ".join([event["event"], *fields])


def _request(event: dict[str, Any], kind: type[Any] = ShmTimerRequest) -> Any:
    """The timer of an event, its deadline in the wall clock's time as that is now."""
    expiration_time = event["deadline"] - time.monotonic() + time.time()
    return kind(event.get("pid", 0), event["scope"], expiration_time, event["signal"])


@atexit.register
def _stop_all() -> None:
    """Leaves no segment behind; a server that is no daemon has been stopped already."""
    for server in list(_servers):
        server.stop()
