"""How long the scopes of ``--auto`` may take, and what is said of it."""

from __future__ import annotations

import logging
import os
import re
import sys

_UNITS = {"ms": 0.001, "us": 1e-6, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|us|s|m|h|d|)\s*")

_log = logging.getLogger("hangwatch")


def seconds(text: str) -> float:
    """The seconds that *text* stands for: ``90``, ``1.5s``, ``1m30s``, as on the command line.

    Raises:
        ValueError: it is no duration, or zero.
    """
    parts = list(_PART.finditer(text.strip()))
    if not parts or "".join(part.group() for part in parts) != text.strip():
        raise ValueError(f"{text!r} is no duration: write a number with a unit, such as 30s or 10m")
    total = sum(float(part[1]) * _UNITS[part[2]] for part in parts)
    if total <= 0:
        raise ValueError(f"{text!r} is no duration: it must be longer than zero")
    return total


def _setting(variable: str, default: float) -> float:
    text = os.environ.get(variable)
    if not text:
        return default
    try:
        return seconds(text)
    except ValueError as error:
        _log.warning("%s: %s; it counts as %g s", variable, error, default)
        return default


TOGETHER = _setting("HANGWATCH_AUTO_TOGETHER", 600.0)
"""Seconds for whatever waits for other ranks."""

ALONE = min(_setting("HANGWATCH_AUTO_ALONE", 300.0), TOGETHER)
"""Seconds for the stretches between."""

LONG = (ALONE + TOGETHER) / 2
"""Seconds for what a rank does alone and takes longer than most: checkpoints, and waiting for its own
loader's processes, each of which has ALONE. Shorter than TOGETHER: the others wait meanwhile."""

COMPILE = max(1800.0, 2 * TOGETHER)
"""Seconds for one compilation."""


def say_once(text: str) -> None:
    """Write one line to standard error, once for the program and its children."""
    if os.environ.get("HANGWATCH_AUTO_SAID") == "1":
        return
    os.environ["HANGWATCH_AUTO_SAID"] = "1"
    if sys.stderr is not None:
        print(f"hangwatch: {text}", file=sys.stderr, flush=True)


def length(time: float) -> str:
    """A time as one would say it: ``10 min``, ``90 s``."""
    return f"{time / 60:g} min" if time >= 120 and time % 60 == 0 else f"{time:g} s"
