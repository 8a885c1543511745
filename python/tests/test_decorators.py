"""`@hangwatch.expires(..)` above whatever can be called: the deadline covers the awaiting."""

from __future__ import annotations

import asyncio
import functools
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import pytest
from conftest import PATIENCE, Watchdog, armed, program

import hangwatch


async def work(segment: str) -> list[str]:
    await asyncio.sleep(0)
    return armed(segment)


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """As decorators for tracing, retries or routes are."""

    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


class Handler:
    async def __call__(self, segment: str) -> list[str]:
        return await work(segment)

    async def method(self, segment: str) -> list[str]:
        return await work(segment)


class Later:
    """An awaitable that is neither a coroutine nor a future."""

    kind = "later"

    def __init__(self, segment: str) -> None:
        self.segment = segment

    def __await__(self) -> Generator[Any, None, list[str]]:
        return work(self.segment).__await__()


class LaterOrContext(Later):
    async def __aenter__(self) -> list[str]:
        return await work(self.segment)

    async def __aexit__(self, *raised: object) -> None:
        pass


def task(segment: str) -> Awaitable[list[str]]:
    return asyncio.ensure_future(work(segment))


CALLABLES: dict[str, Callable[[str], Awaitable[list[str]]]] = {
    "plain": work,
    "wrapped": traced(work),
    "wrapped twice": traced(traced(work)),
    "lambda": lambda segment: work(segment),
    "object": Handler(),
    "bound method": Handler().method,
    "wrapped method": traced(Handler().method),
    "partial": functools.partial(work),
    "partial of a wrapper": functools.partial(traced(work)),
    "partial of an object": functools.partial(Handler()),
    "task": task,
    "awaitable": Later,
}


@pytest.mark.parametrize("kind", CALLABLES)
def test_the_deadline_covers_the_awaiting(segment: str, kind: str) -> None:
    function = CALLABLES[kind]
    if isinstance(function, type):
        function = traced(function)  # a class itself is refused
    decorated = hangwatch.expires(30, kind)(function)

    async def main() -> None:
        assert await decorated(segment) == [kind]

    asyncio.run(main())
    assert armed(segment) == []


def test_methods_of_each_kind_are_decorated(segment: str) -> None:
    above_class: Any = hangwatch.expires(30, "above classmethod")
    above_static: Any = hangwatch.expires(30, "above staticmethod")

    class Class:
        @hangwatch.expires(30, "method")
        async def method(self) -> list[str]:
            return await work(segment)

        @classmethod
        @hangwatch.expires(30, "inside classmethod")
        async def inner(cls) -> list[str]:
            return await work(segment)

        outer: Any = above_class(classmethod(lambda cls: work(segment)))
        static: Any = above_static(staticmethod(lambda: work(segment)))

    async def main() -> list[list[str]]:
        thing = Class()
        return [await thing.method(), await Class.inner(), await Class.outer(), await thing.static()]

    assert asyncio.run(main()) == [
        ["method"], ["inside classmethod"], ["above classmethod"], ["above staticmethod"],
    ]  # fmt: skip


def test_an_awaitable_keeps_what_else_it_can_do(segment: str) -> None:
    covered: Any = hangwatch.expires(30, "both")(functools.partial(LaterOrContext, segment))

    async def main() -> None:
        assert covered().kind == "later"
        assert await covered() == ["both"]
        async with covered() as seen:
            assert seen == armed(segment) == ["both"]
        assert armed(segment) == []
        running = hangwatch.expires(30, "task")(traced(task))(segment)
        assert isinstance(running, asyncio.Task) and armed(segment) == ["task"]
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.sleep(0)
        assert armed(segment) == []

    asyncio.run(main())


def test_an_error_in_the_awaited_ends_the_deadline(segment: str) -> None:
    async def fails() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(hangwatch.expires(30, "fails")(traced(fails))())
    assert armed(segment) == []


def test_generators_are_refused_however_they_come(segment: str) -> None:
    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncIterator[int]:
        yield 1

    class Generates:
        async def __call__(self) -> AsyncIterator[int]:
            yield 1

    for known in (generator, async_generator, functools.partial(generator), Generates()):
        with pytest.raises(TypeError, match="generator"):
            hangwatch.expires(30)(known)
    for hidden in (traced(generator), traced(async_generator), traced(traced(generator))):
        decorated = hangwatch.expires(30)(hidden)
        with pytest.raises(TypeError, match="generator"):
            decorated()
    assert armed(segment) == []


def test_frameworks_still_see_a_coroutine_function(segment: str) -> None:
    for function in (work, Handler(), Handler().method, functools.partial(work)):
        assert asyncio.iscoroutinefunction(hangwatch.expires(30)(function))


HANGS = """
    import asyncio, hangwatch, sys
    async def hang(): await asyncio.sleep(3600)
    class Handler:
        async def __call__(self): await hang()
    functions = {"wrapped": lambda: hang(), "object": Handler()}
    asyncio.run(hangwatch.expires(0.3, "hang")(functions[sys.argv[1]])())
"""


@pytest.mark.parametrize("kind", ["wrapped", "object"])
def test_one_that_hangs_is_killed(watchdog: Watchdog, kind: str) -> None:
    assert subprocess.run([*program(HANGS), kind], timeout=PATIENCE).returncode == -9
