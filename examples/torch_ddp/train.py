"""A small data-parallel training whose every step has a deadline, and that can be made to hang.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    hangwatch run -- torchrun --standalone --nproc_per_node 2 --max_restarts 3 train.py --hang data

Nothing here knows torchrun or the watchdog: it gives each step a deadline, saves a checkpoint after
each epoch and goes on from it. A rank that hangs is reaped by the watchdog; torchrun restarts all of
them; the result is the same as if nothing had happened.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import record
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

import hangwatch

HANGS = ("collective", "data", "gil", "stop")


class Samples(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """A sine with noise: the same in every process and every run."""

    def __init__(self, count: int) -> None:
        noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(1))
        self.inputs = torch.linspace(-3, 3, count).unsqueeze(1)
        self.outputs = torch.sin(self.inputs) + 0.1 * noise
        self.hang_next = False

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if self.hang_next:
            read_from_a_disk_that_does_not_answer()
        return self.inputs[index], self.outputs[index]


def read_from_a_disk_that_does_not_answer() -> None:
    """Stands for one: a pipe that nobody writes into."""
    reader, _writer = os.pipe()
    os.read(reader, 1)


def hang(how: str) -> None:
    """What can go wrong in one rank while all others are well."""
    if how == "collective":
        threading.Event().wait()  # for something else, and never enters the all-reduce
    elif how == "gil":
        ctypes.PyDLL(None).sleep(3600)  # in C code, without letting the interpreter's lock go
    elif how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)


def is_to_hang(options: argparse.Namespace, epoch: int) -> bool:
    """Whether this rank is to hang now: once, whatever is restarted how often."""
    if not options.hang or (dist.get_rank(), epoch) != (options.hang_rank, options.hang_epoch):
        return False
    with contextlib.suppress(FileExistsError):
        options.checkpoint.with_suffix(".hung").touch(exist_ok=False)
        return True
    return False


def train(options: argparse.Namespace) -> float:
    """Trains, and says what the loss of the last epoch was."""
    alone, together = options.deadline, 4 * options.deadline
    samples = Samples(512)
    sampler: Any = DistributedSampler(samples, seed=1)
    loader = DataLoader(samples, batch_size=32, sampler=sampler)
    torch.manual_seed(1)
    layers = torch.nn.Linear(1, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)
    with hangwatch.expires(together, "wrap the model"):
        model = DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    first, loss = load(options.checkpoint, model, optimizer)
    if options.hang and dist.get_rank() == 0 and first > options.hang_epoch:
        print(f"--hang {options.hang} has no effect: {options.checkpoint} is past epoch "
              f"{options.hang_epoch} already", flush=True)  # fmt: skip

    for epoch in range(first, options.epochs):
        sampler.set_epoch(epoch)
        batches = iter(loader)
        total = torch.zeros(1)
        for step in range(len(loader)):
            hangs_now = step == 1 and is_to_hang(options, epoch)
            # What a rank does alone has a shorter deadline than what it waits for the others in: so
            # when one hangs and its peers wait for it in a collective, it is due first.
            with hangwatch.expires(alone, "load batch"):
                if hangs_now and options.hang == "data":
                    samples.hang_next = True
                inputs, outputs = next(batches)
            with hangwatch.expires(alone, "prepare batch"):
                if hangs_now:
                    hang(options.hang)
                inputs = inputs / 3
            # All of it: DistributedDataParallel waits for the others not in backward() alone.
            with hangwatch.expires(together, "train step"):
                optimizer.zero_grad()
                error = torch.nn.functional.mse_loss(model(inputs), outputs)
                error.backward()
                optimizer.step()
            total += error.detach()
        with hangwatch.expires(together, "all-reduce of the loss"):
            dist.all_reduce(total)
        loss = float(total / (len(loader) * dist.get_world_size()))
        if dist.get_rank() == 0:
            print(f"epoch {epoch}: loss {loss:.9f}", flush=True)
            with hangwatch.expires(10 * together, "save checkpoint"):
                save(options.checkpoint, model, optimizer, epoch + 1, loss)
        with hangwatch.expires(11 * together, "wait for the checkpoint"):
            dist.barrier()
    return loss


def save(path: Path, model: Any, optimizer: Any, epoch: int, loss: float) -> None:
    """Saves a checkpoint whole or not at all."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "epoch": epoch, "loss": loss}, draft := path.with_suffix(".draft"))
    draft.replace(path)


def load(path: Path, model: Any, optimizer: Any) -> tuple[int, float]:
    """Goes on from a checkpoint: the next epoch, and the loss of the last."""
    if not path.exists():
        return 0, float("nan")
    state = torch.load(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if dist.get_rank() == 0:
        print(f"resumed at epoch {state['epoch']}", flush=True)
    return int(state["epoch"]), float(state["loss"])


@record  # a rank that raises tells torchrun why; one that hangs is told of by the watchdog
def main() -> None:
    """Trains one rank."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--deadline", type=float, default=2.0,
                        help="seconds for a step of one rank; one for all has four times that")  # fmt: skip
    parser.add_argument("--hang", choices=HANGS, help="what goes wrong, once")
    parser.add_argument("--hang-rank", type=int, default=1, help="in which rank")
    parser.add_argument("--hang-epoch", type=int, default=2, help="in which epoch")
    options = parser.parse_args()

    torch.set_num_threads(1)
    hangwatch.attach(required=False)  # without a watchdog, every deadline is a no-op
    with hangwatch.expires(60, "join the group"):
        dist.init_process_group("gloo")
    loss = train(options)
    if dist.get_rank() == 0:
        print(f"finished: loss {loss:.9f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
