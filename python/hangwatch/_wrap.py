"""The parts of a deadline that are Python: decorators and ``async with``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from hangwatch._hangwatch import Expires


def wrapped(deadline: Expires, function: Any) -> Any:
    """Returns *function* with a deadline like *deadline* around each call.

    A call that returns an awaitable gets the deadline a second time, from the first await to
    the end: what a function is (a wrapper, a partial, an object with ``async __call__``) does
    not say what it returns.
    """
    if isinstance(function, (classmethod, staticmethod)):
        return type(function)(wrapped(deadline, function.__func__))
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"expires() decorates functions and coroutine functions, not {function!r}")
    if _is(function, inspect.isgeneratorfunction) or _is(function, inspect.isasyncgenfunction):
        raise _not_covered(function)
    if _is(function, inspect.iscoroutinefunction):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with deadline._anew():
                return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with deadline._anew():
            result = function(*args, **kwargs)
        return _covered(deadline, function, result)

    return call


def _is(function: Any, kind: Callable[[Any], bool]) -> bool:
    """Whether a function, or an object by its ``__call__``, is of this *kind*."""
    return kind(function) or kind(getattr(type(function), "__call__", None))


def _not_covered(function: Any) -> TypeError:
    name = getattr(function, "__qualname__", None) or repr(function)
    return TypeError(
        f"expires() cannot decorate the generator {name}(): its call ends before its body "
        "begins; put `with hangwatch.expires(...)` into the body"
    )


def _covered(deadline: Expires, function: Any, result: Any) -> Any:
    """Returns what a call returned, with the deadline around the awaiting of it."""
    if inspect.iscoroutine(result):
        return _awaited(deadline, result)
    if inspect.isgenerator(result) and not inspect.isawaitable(result):
        result.close()
        raise _not_covered(function)
    if inspect.isasyncgen(result):
        raise _not_covered(function)
    if not inspect.isawaitable(result):
        return result
    if callable(getattr(result, "add_done_callback", None)):
        return _until_done(deadline, result)
    is_context = hasattr(type(result), "__aenter__") and hasattr(type(result), "__aexit__")
    return (_CoveredContext if is_context else _Covered)(deadline, result)


async def _awaited(deadline: Expires, awaitable: Awaitable[Any]) -> Any:
    with deadline._anew():
        return await awaitable


def _until_done(deadline: Expires, future: Any) -> Any:
    """Returns a task or future that runs already: its deadline begins now."""
    if not future.done():
        entered = deadline._anew().__enter__()
        future.add_done_callback(lambda _: entered.__exit__(None, None, None))
    return future


class _Covered:
    """An awaitable that is not a coroutine, with a deadline around the awaiting."""

    def __init__(self, deadline: Expires, awaitable: Any) -> None:
        self._deadline = deadline
        self._awaitable = awaitable

    def __await__(self) -> Generator[Any, None, Any]:
        return _awaited(self._deadline, self._awaitable).__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._awaitable, name)


class _CoveredContext(_Covered):
    """An awaitable that ``async with`` takes, too: the deadline covers the whole block."""

    async def __aenter__(self) -> Any:
        self._entered = self._deadline._anew().__enter__()
        try:
            return await type(self._awaitable).__aenter__(self._awaitable)
        except BaseException:
            self._entered.__exit__(None, None, None)
            raise

    async def __aexit__(self, *raised: Any) -> Any:
        try:
            return await type(self._awaitable).__aexit__(self._awaitable, *raised)
        finally:
            self._entered.__exit__(None, None, None)


async def entered(deadline: Expires) -> Expires:
    """What ``async with`` awaits at its beginning: nothing waits."""
    return deadline.__enter__()


async def left(deadline: Expires) -> None:
    """What ``async with`` awaits at its end."""
    deadline.__exit__(None, None, None)
