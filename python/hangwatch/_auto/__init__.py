"""``hangwatch run --auto`` and ``HANGWATCH_AUTO``: deadlines for programs that have none.

``hangwatch.pth``, in site-packages, imports this package where the variable is set. It registers
changes to modules that the program may import, and imports none of them itself.

From ``init_process_group`` to ``destroy_process_group``, the thread that trains is in exactly one
scope at any moment: *together*, in whatever waits for other ranks, or *alone*, between two of these.
*Alone* is shorter. So the rank that hangs by itself is overdue before those that wait for it.

``times`` reads the settings, ``guard`` keeps the scope that the thread is in, ``ranks`` says where
ranks wait and what they do alone, ``training`` has input, optimizer, checkpoints and compilation,
``waits`` is ``--auto=io``.
"""

from __future__ import annotations

import os

_words = {word.strip() for word in os.environ.get("HANGWATCH_AUTO", "").lower().split(",")}

if _words & {"1", "true", "torch", "on"}:
    from hangwatch._auto import ranks, training

    ranks.register()
    training.register()
if "io" in _words and os.environ.get("HANGWATCH_SEGMENT"):
    from hangwatch._auto import waits

    waits.register()
