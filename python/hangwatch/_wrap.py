"""The parts of a deadline that are Python: decorators and ``async with``."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from hangwatch._hangwatch import Expires


def wrapped(deadline: Expires, function: Callable[..., Any]) -> Callable[..., Any]:
    """*function*, each call of which has a deadline like *deadline*."""
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"expires() decorates functions and coroutine functions, not {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(
            f"expires() cannot decorate the generator {function.__qualname__}(): its call ends "
            "before its body begins; put `with hangwatch.expires(...)` into the body"
        )
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with deadline._anew():
                return await function(*args, **kwargs)

        return call_async

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with deadline._anew():
            return function(*args, **kwargs)

    return call


async def entered(deadline: Expires) -> Expires:
    """What ``async with`` awaits at its beginning: nothing waits."""
    return deadline.__enter__()


async def left(deadline: Expires) -> None:
    """What ``async with`` awaits at its end."""
    deadline.__exit__(None, None, None)
