"""Where ranks wait for each other: process groups, their collectives, and what is built of them.

The guard begins with ``init_process_group`` and ends with ``destroy_process_group``.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hangwatch import _hangwatch
from hangwatch._auto import groups, times
from hangwatch._auto.guard import BETWEEN, GUARD, alone, put, together, within
from hangwatch._imports import when_imported

_COLLECTIVES = """
    all_gather all_gather_coalesced all_gather_into_tensor all_gather_multigpu all_gather_object all_reduce
    all_reduce_coalesced all_reduce_multigpu all_to_all all_to_all_single barrier broadcast
    broadcast_multigpu broadcast_object_list gather gather_object monitored_barrier new_group new_subgroups
    new_subgroups_by_enumeration recv recv_object_list reduce reduce_multigpu reduce_scatter
    reduce_scatter_multigpu reduce_scatter_tensor scatter scatter_object_list send send_object_list
    split_group _all_gather_base _reduce_scatter_base
""".split()
"""Of torch 1.13, which logs no exceptions of them, and those of later ones that do not."""

_STORE_WAITS = ("get", "multi_get", "queue_pop", "wait")
_CUDA_READS = ("__bool__", "__float__", "__index__", "__int__", "cpu", "item", "tolist")


def register() -> None:
    """Change torch's modules, when and if the program imports them."""
    changes: dict[str, Callable[[ModuleType], None]] = {
        "torch.distributed.c10d_logger": _exception_logger,
        "torch.distributed.distributed_c10d": _process_groups,
        "torch.distributed.rendezvous": _stores,
        "torch.distributed._functional_collectives": _functional_collectives,
        "torch.distributed.algorithms.join": _join,
        "torch.distributed.fsdp.fully_sharded_data_parallel": _fsdp,
        "torch.nn.parallel.distributed": _ddp,
        "torch.autograd.graph": _engine,
        "torch.autograd": _backward,
        "torch._tensor": _hooks_of_gradients,
        "torch.cuda": _cuda,
        "torch.cuda.streams": _cuda_streams,
    }
    for name, change in changes.items():
        when_imported(name, change)


def _exception_logger(module: ModuleType) -> None:
    """torch decorates its collectives with this: so ours, too, are decorated as torch adds some."""
    theirs = module._exception_logger

    @functools.wraps(theirs)
    def ours(function: Any) -> Any:
        logged = theirs(function)
        if function.__name__ in ("init_process_group", "destroy_process_group"):
            return logged
        return within(together(function.__name__), groups.meets_in(function))(logged)

    module._exception_logger = ours  # type: ignore[attr-defined]


def _process_groups(module: ModuleType) -> None:
    for name in _COLLECTIVES:
        if function := getattr(module, name, None):
            put(module, name, together(name), groups.meets_in(function))
    put(module.Work, "wait", together("wait for a collective"))
    store = module.Store
    for name in _STORE_WAITS:
        put(store, name, together("wait for the store"))
    module.init_process_group = _joining(module.init_process_group)  # type: ignore[attr-defined]
    module.destroy_process_group = _leaving(module)  # type: ignore[attr-defined]


def _joining(init_process_group: Any) -> Any:
    signature = inspect.signature(init_process_group)
    joining = together("init_process_group", is_broad=False)

    @functools.wraps(init_process_group)
    def joined(*args: Any, **kwargs: Any) -> Any:
        if not os.environ.get("HANGWATCH_SEGMENT"):
            times.say_once("this torch job is not guarded: start it by `hangwatch run --auto -- CMD`")
            return init_process_group(*args, **kwargs)
        if GUARD.thread is not None:
            return init_process_group(*args, **kwargs)
        try:
            given: dict[str, Any] = signature.bind(*args, **kwargs).arguments
            _say_who_this_is(given)
        except Exception:
            given = {}  # a call that fails says so itself
        GUARD.begin(joining)
        try:
            result = init_process_group(*args, **kwargs)
        except BaseException:
            GUARD.end()
            raise
        GUARD.enter(BETWEEN)
        if "nccl" in str(given.get("backend") or "nccl"):
            _read_from_cuda()
        return result

    return joined


def _say_who_this_is(given: dict[str, Any]) -> None:
    """Attaches this process. Its rank is the process group's where the launcher has said none."""
    rank, size = given.get("rank", -1), given.get("world_size", -1)
    if not isinstance(rank, int) or rank < 0:
        rank = None
    if rank is not None and os.environ.get("RANK") != str(rank):
        # In the environment, because the loader's children are of this rank, too.
        os.environ["HANGWATCH_RANK"] = str(rank)
        if isinstance(size, int) and size > 0:
            os.environ["HANGWATCH_WORLD_SIZE"] = str(size)
    _hangwatch.attach(None, False, "counter", None, None, None, False, None)
    if (rank if rank is not None else os.environ.get("RANK")) in (0, "0"):
        times.say_once(
            f"this torch job is guarded: {times.length(times.TOGETHER)} for what waits for other ranks, "
            f"{times.length(times.ALONE)} for the stretches between; HANGWATCH_AUTO_TOGETHER and "
            "HANGWATCH_AUTO_ALONE change them"
        )


def _stores(module: Any) -> None:
    """torch 2.x has one store for all attempts of a job, in which gloo finds the addresses of ranks that
    are dead: each attempt gets keys of its own. (With more than one agent, hangwatch may not be in each.)
    """
    theirs = module._create_c10d_store

    @functools.wraps(theirs)
    def create(*args: Any, **kwargs: Any) -> Any:
        store = theirs(*args, **kwargs)
        is_shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        if not is_shared or attempt == "0" or os.environ.get("GROUP_WORLD_SIZE") != "1":
            return store
        from torch.distributed.distributed_c10d import PrefixStore  # by now the program has imported it

        if isinstance(store, PrefixStore):
            return store
        return PrefixStore(f"hangwatch/attempt_{attempt}", store)

    module._create_c10d_store = create


def _leaving(module: Any) -> Any:
    destroy = within(together("destroy_process_group"))(module.destroy_process_group)

    @functools.wraps(module.destroy_process_group)
    def left(group: Any = None) -> Any:
        world = getattr(getattr(module, "GroupMember", None), "WORLD", None)
        if group is not None and group is not world:
            return destroy(group)
        try:
            return destroy(group)
        finally:
            GUARD.end()
            groups.forget()

    return left


def _functional_collectives(module: ModuleType) -> None:
    tensor = getattr(module, "AsyncCollectiveTensor", None)
    put(tensor, "trigger_wait", together("wait for a collective"))


def _join(module: ModuleType) -> None:
    put(module.Join, "__exit__", together("join", is_broad=True))


def _fsdp(module: ModuleType) -> None:
    put(module.FullyShardedDataParallel, "__init__", together("FSDP", is_broad=True))


def _ddp(module: ModuleType) -> None:
    """The model's own forward is not waiting, nor is what comes after it but for its buffers."""
    model = module.DistributedDataParallel
    put(model, "__init__", together("DDP", is_broad=True))
    waits = together("DDP forward", is_broad=True)
    if hasattr(model, "_pre_forward"):
        put(model, "_pre_forward", waits)
        put(model, "_post_forward", waits)
    else:
        put(model, "forward", waits)
        put(model, "_run_ddp_forward", alone("forward"))


_BACKWARD = together("backward", is_broad=True)


def _engine(module: ModuleType) -> None:
    """The reducer's all-reduces are in C++, below the engine."""
    put(module, "_engine_run_backward", _BACKWARD)


def _backward(module: ModuleType) -> None:
    if not hasattr(module, "_engine_run_backward"):
        put(module, "backward", _BACKWARD)
        put(module, "grad", _BACKWARD)


def _hooks_of_gradients(module: ModuleType) -> None:
    """What the program does within the backward pass, such as an optimizer's step, it does alone."""
    section = alone("gradient hook")

    def guarding(register: Any) -> Any:
        @functools.wraps(register)
        def registered(self: Any, hook: Any) -> Any:
            if GUARD.thread is not None and callable(hook):
                hook = within(section)(hook)
            return register(self, hook)

        return registered

    for name in ("register_hook", "register_post_accumulate_grad_hook"):
        if register := getattr(module.Tensor, name, None):
            setattr(module.Tensor, name, guarding(register))


_ON_DEVICE = together("wait for the GPU")


def _cuda(module: ModuleType) -> None:
    put(module, "synchronize", _ON_DEVICE)


def _cuda_streams(module: ModuleType) -> None:
    put(module.Event, "synchronize", _ON_DEVICE)
    put(module.Stream, "synchronize", _ON_DEVICE)


def _read_from_cuda() -> None:
    """A read of a tensor on a GPU waits for every collective before it."""
    import torch  # the program has imported it

    if hasattr(torch.Tensor.item, "_hangwatch") or not torch.cuda.is_available():
        return
    for name in _CUDA_READS:
        setattr(torch.Tensor, name, _read(getattr(torch.Tensor, name)))


def _read(theirs: Any) -> Any:
    waiting = within(_ON_DEVICE)(theirs)

    @functools.wraps(theirs)
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.is_cuda and GUARD.thread is not None:
            return waiting(self, *args, **kwargs)
        return theirs(self, *args, **kwargs)

    read._hangwatch = _ON_DEVICE  # type: ignore[attr-defined]
    return read
