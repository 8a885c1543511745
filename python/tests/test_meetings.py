"""Meetings: what `hangwatch.meeting` and `hangwatch.Group` write is what an observer sees."""

from __future__ import annotations

import pytest

import hangwatch


def seen(name: str) -> list[tuple[str, str | None, int | None]]:
    """The armed timers of a segment, with their meetings."""
    lanes = hangwatch.observe(name).lanes
    return [(t.scope, t.group, t.sequence) for lane in lanes for t in lane.timers]


def test_a_meeting_shows_its_group_and_number(segment: str) -> None:
    with hangwatch.meeting("all_reduce", "dp", [0, 2], 9, seconds=60) as deadline:
        assert seen(segment) == [("all_reduce", "dp", 9)]
        assert deadline.scope_name == "all_reduce" and deadline.remaining is not None
    with hangwatch.expires(60, "load"):
        assert seen(segment) == [("load", None, None)]


def test_a_group_counts_its_meetings(segment: str) -> None:
    group = hangwatch.Group("dp", range(0, 8, 2))
    for number in (1, 2):
        with group.meeting("all_reduce", seconds=60):
            assert seen(segment) == [("all_reduce", "dp", number)]
    with group.meeting("broadcast", 7, 60):
        assert seen(segment) == [("broadcast", "dp", 7)]

    @group.meeting("barrier", seconds=60)
    def barrier() -> list[tuple[str, str | None, int | None]]:
        return seen(segment)

    assert [barrier(), barrier()] == [[("barrier", "dp", 3)], [("barrier", "dp", 4)]]
    assert repr(group) == "<hangwatch.Group('dp', 4 ranks)>"
    assert hangwatch.Group("world").name == "world"


def test_arguments_that_are_none_are_refused(segment: str) -> None:
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.Group("")
    with pytest.raises(hangwatch.ArgumentError):
        hangwatch.meeting("", "dp", None, 1, 60)
    with pytest.raises(ValueError):
        hangwatch.Group("dp", [])
    with pytest.raises(TypeError):
        hangwatch.Group("dp", 3)  # type: ignore[arg-type]
    with pytest.raises(OverflowError):
        hangwatch.Group("dp", [-1])
    with pytest.raises(OverflowError):
        hangwatch.meeting("all_reduce", "dp", None, -1, 60)
