"""One rank returns from its training early, and waits for a thread of its own."""

import threading

import torch
import torch.distributed as dist
from fault import FAULT


def train(steps):
    for _ in range(steps):
        dist.all_reduce(torch.ones(2))


dist.init_process_group("gloo")
rank = dist.get_rank()
returns_early = FAULT and rank == 1
train(3 if returns_early else 5)
done = threading.Event()
uploads = threading.Thread(target=done.wait)
uploads.start()
if not returns_early:
    done.set()
uploads.join()  # hangs here
print("finished", rank, flush=True)
dist.destroy_process_group()
