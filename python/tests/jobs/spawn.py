"""Ranks that torch.multiprocessing spawns, without a launcher; it starts them again itself."""

import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from fault import FAULT, wait_forever


def train(rank, size, path):
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=size)
    for step in range(5):
        if FAULT and rank == 1 and step == 3:
            wait_forever()  # hangs here
        dist.all_reduce(torch.ones(2))
    print("finished", rank, flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    for attempt in range(2):
        os.environ["ATTEMPT"] = str(attempt)
        with tempfile.TemporaryDirectory() as folder:
            try:
                mp.spawn(train, (2, os.path.join(folder, "store")), nprocs=2)
                sys.exit(0)
            except (mp.ProcessExitedException, mp.ProcessRaisedException) as error:
                print("again, after", error, flush=True)
    sys.exit(1)
