"""Changes to modules of other packages, made when and if a program imports them.

A change must not break the program: where it raises, because the module is of a version that it does
not know, the module stays as it is and the logger ``hangwatch`` says so.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Change = Callable[[ModuleType], None]

_log = logging.getLogger("hangwatch")


def when_imported(name: str, change: Change) -> None:
    """Call *change* with the module *name* after its code has run; now, where that is over."""
    module = sys.modules.get(name)
    if module is not None and not _is_being_imported(module):
        _apply(change, module)
        return
    _finder.changes.setdefault(name, []).append(change)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)


def _is_being_imported(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _apply(change: Change, module: ModuleType) -> None:
    try:
        change(module)
    except Exception as error:
        _log.warning("%s is not changed for hangwatch: %r", module.__name__, error)


class _Finder(MetaPathFinder):
    """Finds a module as the other finders do, and adds to its loading."""

    def __init__(self) -> None:
        self.changes: dict[str, list[Change]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.changes:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            if finder is self or find_spec is None:
                continue
            spec: ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                _add_to_loading(spec, self.changes.pop(fullname))
                return spec
        return None


def _add_to_loading(spec: ModuleSpec, changes: list[Change]) -> None:
    loader: Loader | None = spec.loader
    if loader is None or not hasattr(loader, "exec_module"):
        return
    exec_module = loader.exec_module

    def load_and_change(module: ModuleType) -> None:
        exec_module(module)
        for change in changes:
            _apply(change, module)

    try:
        loader.exec_module = load_and_change  # type: ignore[method-assign]
    except AttributeError:  # a loader that is a class for all modules, as that of builtins
        _log.warning("%s is not changed for hangwatch: %r loads it", spec.name, loader)


_finder = _Finder()
