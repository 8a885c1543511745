"""What ``HANGWATCH_TORCH=1`` does: hangwatch.torch.install() once torch's timers load.

``hangwatch.pth``, in site-packages, imports this module where the variable is set.
"""

from __future__ import annotations

from types import ModuleType

from hangwatch._imports import when_imported


def _install(_: ModuleType) -> None:
    from hangwatch.torch import install

    install()


when_imported("torch.distributed.elastic.timer", _install)
