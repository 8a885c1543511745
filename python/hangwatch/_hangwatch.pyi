from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar, final

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Ending = Literal["in_time", "reported", "too_late", "not_armed"]
_Event = dict[str, Any]

__all__ = [
    "Client",
    "Expires",
    "Group",
    "Heartbeat",
    "Paused",
    "Server",
    "__version__",
    "attach",
    "close_segment",
    "condemned",
    "expires",
    "expires_by_default",
    "heartbeat",
    "main",
    "make_segment",
    "meeting",
    "observe",
    "paused",
    "remove_segment",
    "remove_stale_segment",
]

__version__: str

@final
class Expires:
    @property
    def remaining(self) -> float | None: ...
    @property
    def scope_name(self) -> str: ...
    def extend(self, seconds: float | timedelta) -> None: ...
    def release(self) -> _Ending: ...
    def _anew(self) -> Expires: ...
    def __enter__(self) -> Expires: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...
    def __aenter__(self) -> Awaitable[Expires]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Awaitable[None]: ...
    def __call__(self, function: Callable[_P, _R], /) -> Callable[_P, _R]: ...

@final
class Group:
    def __new__(cls, name: str, members: Iterable[int] | None = None) -> Group: ...
    @property
    def name(self) -> str: ...
    def meeting(
        self,
        name: str,
        sequence: int | None = None,
        seconds: float | timedelta | None = None,
        *,
        signal: int | str | None = None,
    ) -> Expires: ...
    def _meeting_by_default(
        self, name: str, sequence: int | None, seconds: float | timedelta
    ) -> Expires: ...

@final
class Heartbeat:
    @property
    def remaining(self) -> float | None: ...
    @property
    def scope_name(self) -> str: ...
    def kick(self) -> None: ...
    def pause(self, why: str = "paused") -> None: ...
    def resume(self) -> None: ...
    def release(self) -> _Ending: ...
    def __enter__(self) -> Heartbeat: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...

@final
class Paused:
    @property
    def remaining(self) -> float | None: ...
    def __enter__(self) -> Paused: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
        /,
    ) -> None: ...

def expires(
    seconds: float | timedelta | str | None = None,
    scope: str | None = None,
    *,
    signal: int | str | None = None,
) -> Expires: ...
def expires_by_default(seconds: float | timedelta, scope: str) -> Expires: ...
def heartbeat(
    seconds: float | timedelta | str | None = None,
    scope: str | None = None,
    *,
    signal: int | str | None = None,
) -> Heartbeat: ...
def meeting(
    name: str,
    group: str,
    members: Iterable[int] | None,
    sequence: int,
    seconds: float | timedelta | None = None,
    *,
    signal: int | str | None = None,
) -> Expires: ...
def paused(scope: str | None = None, max: float | timedelta | None = None) -> Paused: ...
def attach(
    name: str | None,
    required: bool,
    clock: str,
    signal: int | str | None,
    job: str | None,
    rank: int | None,
    require_watchdog: bool,
    ptracer: str | None,
) -> str | None: ...
def condemned() -> list[dict[str, Any]]: ...
def observe(name: str | None) -> dict[str, Any]: ...
def main(words: Sequence[str | PathLike[str]]) -> None: ...
def close_segment(name: str) -> None: ...
def make_segment(
    name: str, max_interval: float | timedelta, dies_with_maker: bool = False
) -> bool: ...
def remove_segment(name: str) -> None: ...
def remove_stale_segment(name: str) -> bool: ...
@final
class Client:
    def __new__(cls, segment: str | None, signal: int | str | None, required: bool) -> Client: ...
    def acquire(self, scope: str, seconds: float) -> None: ...
    def release(self, scope: str) -> _Ending: ...

@final
class Server:
    def __new__(cls, name: str, only_reports: bool) -> Server: ...
    def next_event(self, seconds: float) -> _Event | None: ...
    def health(self) -> tuple[int, int, bool]: ...
    def stop(self) -> None: ...
