"""What ``HANGWATCH_TORCH=1`` does: hangwatch.torch.install() once torch's timers load.

``hangwatch.pth``, in site-packages, imports this module where the variable is set.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_TIMER = "torch.distributed.elastic.timer"


class _Finder(MetaPathFinder):
    """Finds torch's module as it would be found, and adds to its loading."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _TIMER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            loader = spec.loader
            exec_module = loader.exec_module

            def load_and_install(module: ModuleType) -> None:
                exec_module(module)
                from hangwatch.torch import install

                install()

            loader.exec_module = load_and_install  # type: ignore[method-assign]
        return spec


if _TIMER not in sys.modules:
    sys.meta_path.insert(0, _Finder())
