"""What a rank does alone: input, optimizer steps, checkpoints, compilation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hangwatch import _hangwatch
from hangwatch._auto import times
from hangwatch._auto.guard import GUARD, Section, alone, in_background, put, together, within
from hangwatch._imports import when_imported


def register() -> None:
    """Change torch's modules, when and if the program imports them."""
    changes: dict[str, Callable[[ModuleType], None]] = {
        "torch.utils.data.dataloader": _loader,
        "torch.utils.data._utils.worker": _loaders_process,
        "torch.utils.data._utils.fetch": _fetch,
        "torch.optim.optimizer": _optimizer,
        "torch.serialization": _files,
        "torch.distributed.checkpoint.state_dict_saver": _saver,
        "torch.distributed.checkpoint.state_dict_loader": _reader,
        "torch.distributed.checkpoint._async_process_executor": _savers_process,
        "torch._dynamo.callback": _compiler,
        "torch._dynamo.trace_rules": _not_traced,
        "torch._dynamo.skipfiles": _not_traced,
    }
    for name, change in changes.items():
        when_imported(name, change)


def _loader(module: ModuleType) -> None:
    put(module._BaseDataLoaderIter, "__next__", alone("next batch"))
    # It waits for a process of its own, which has the shorter time: so that one is named.
    put(module._MultiProcessingDataLoaderIter, "_next_data", alone("wait for the loader", times.LONG))


_is_loaders_process = False


def _loaders_process(module: ModuleType) -> None:
    theirs = module._worker_loop

    @functools.wraps(theirs)
    def loop(*args: Any, **kwargs: Any) -> Any:
        global _is_loaders_process
        _is_loaders_process = True
        return theirs(*args, **kwargs)

    module._worker_loop = loop  # type: ignore[attr-defined]


def _fetch(module: ModuleType) -> None:
    """In the loader's processes, each of which loads a batch at a time."""

    def guarding(theirs: Any) -> Any:
        @functools.wraps(theirs)
        def fetch(self: Any, indices: Any) -> Any:
            if not _is_loaders_process:
                return theirs(self, indices)
            with _hangwatch.expires_by_default(times.ALONE, "alone: load a batch"):
                return theirs(self, indices)

        return fetch

    for fetcher in (module._MapDatasetFetcher, module._IterableDatasetFetcher):
        fetcher.fetch = guarding(fetcher.fetch)


def _optimizer(module: ModuleType) -> None:
    """With the hooks of the program, which torch puts around the ``step`` of a class at its first use."""
    section = alone("optimizer step")
    for name in ("_patch_step_function", "_hook_for_profile"):
        if theirs := getattr(module.Optimizer, name, None):
            setattr(module.Optimizer, name, _then_guarded(theirs, section))


def _then_guarded(theirs: Any, section: Section) -> Any:
    @functools.wraps(theirs)
    def patch(self: Any) -> Any:
        done = theirs(self)
        put(type(self), "step", section)
        return done

    return patch


def _files(module: ModuleType) -> None:
    put(module, "save", alone("torch.save", times.LONG))
    put(module, "load", alone("torch.load", times.LONG))


def _saver(module: ModuleType) -> None:
    section = alone("save a checkpoint", times.LONG)
    put(module, "save", section)
    put(module, "save_state_dict", section)
    # async_save() has another thread call it.
    module.save = in_background(section, module.save)  # type: ignore[attr-defined]
    theirs = module.async_save

    @functools.wraps(theirs)
    def async_save(*args: Any, **kwargs: Any) -> Any:
        saved = theirs(*args, **kwargs)
        futures: list[Any] = [saved, getattr(saved, "upload_completion", None)]
        for future in futures:
            if hasattr(future, "result"):
                future.result = within(together("wait for a checkpoint"))(future.result)
        return saved

    module.async_save = within(section)(async_save)  # type: ignore[attr-defined]


def _reader(module: ModuleType) -> None:
    section = alone("load a checkpoint", times.LONG)
    put(module, "load", section)
    put(module, "load_state_dict", section)


def _savers_process(module: ModuleType) -> None:
    """It joins a group of its own, and idles from one checkpoint to the next."""
    process = module._AsyncCheckpointProcess
    theirs = process._checkpointing_subprocess

    @functools.wraps(theirs)
    def subprocess(*args: Any, **kwargs: Any) -> Any:
        GUARD.is_off = True
        return theirs(*args, **kwargs)

    process._checkpointing_subprocess = staticmethod(subprocess)


def _compiler(module: ModuleType) -> None:
    """Compilation takes its time, in one rank more than in another."""
    section = Section("alone: torch.compile", times.COMPILE, is_broad=False)
    handler = module.CompilationCallbackHandler
    outer: list[Section] = []
    start, end = handler.run_start_callbacks, handler.run_end_callbacks

    @functools.wraps(start)
    def started(self: Any, *args: Any, **kwargs: Any) -> Any:
        if GUARD.thread is not None and GUARD.is_here(section) and not outer:
            outer.append(GUARD.section)
            GUARD.enter(section)
        return start(self, *args, **kwargs)

    @functools.wraps(end)
    def ended(self: Any, *args: Any, **kwargs: Any) -> Any:
        if outer:
            GUARD.enter(outer.pop())
        return end(self, *args, **kwargs)

    handler.run_start_callbacks, handler.run_end_callbacks = started, ended


def _not_traced(module: ModuleType) -> None:
    """What stands around torch's functions is not for its compiler."""
    if hasattr(module, "add"):
        module.add("hangwatch")
