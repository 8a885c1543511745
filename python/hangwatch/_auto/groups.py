"""Which ranks meet in a collective: torch's process groups as hangwatch's.

Each member of a group calls its collectives in the same order, so that each counts them for itself: whoever
has entered fewer than the others is the one that they wait for.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from hangwatch import _hangwatch

# Between two ranks only, of some ranks only, or of ranks that do not know each other yet.
_NO_MEETINGS = {
    "monitored_barrier", "new_group", "new_subgroups", "new_subgroups_by_enumeration", "recv",
    "recv_object_list", "send", "send_object_list", "shrink_group", "split_group",
}  # fmt: skip

_known: dict[Any, _hangwatch.Group | None] = {}
_named: dict[tuple[str, tuple[int, ...]], _hangwatch.Group] = {}
"""Kept for the life of the process: what a group has counted must not begin anew when it is joined anew."""


def forget() -> None:
    """Forget which of torch's groups is which: the job has left them."""
    _known.clear()


def meets_in(function: Any) -> Callable[..., _hangwatch.Group | None] | None:
    """What says of a collective's arguments which group meets there; None where none does."""
    if function.__name__ in _NO_MEETINGS:
        return None
    try:
        place = list(inspect.signature(function).parameters).index("group")
    except ValueError:
        return None

    def meets(*args: Any, **kwargs: Any) -> _hangwatch.Group | None:
        group = kwargs.get("group", args[place] if len(args) > place else None)
        try:
            return _known[group]
        except KeyError:
            return _learn(group)
        except TypeError:  # not hashable: nothing that is known here
            return None

    return meets


def _learn(group: Any) -> _hangwatch.Group | None:
    try:
        found = _of_torch(group)
    except Exception:
        found = None  # a group of a kind that is not known here
    _known[group] = found
    return found


def _of_torch(group: Any) -> _hangwatch.Group | None:
    c10d: Any = sys.modules["torch.distributed.distributed_c10d"]
    world = c10d.GroupMember.WORLD
    if group is None and world is not None:
        group = world
    if group is world and world is not None and None in _known:
        return _known[None]
    if group is None or group is c10d.GroupMember.NON_GROUP_MEMBER:
        return None
    # Of torch 1.13 the world has no list of its ranks.
    ranks = range(c10d.get_world_size()) if group is world else c10d.get_process_group_ranks(group)
    name = getattr(group, "group_name", None) or c10d._pg_names[group]
    key = (f"process group {name}", tuple(ranks))
    found = _named.setdefault(key, _hangwatch.Group(*key))
    if group is world:
        _known[world] = _known[None] = found
    return found
