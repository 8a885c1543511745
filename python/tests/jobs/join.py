"""Uneven inputs under join; one rank hangs among its own."""

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
model = DistributedDataParallel(torch.nn.Linear(4, 1))
with model.join():
    for step in range(4 + 2 * rank):
        model(torch.randn(2, 4)).sum().backward()
        if FAULT and rank == 1 and step == 4:
            wait_forever()  # hangs here
print("finished", rank, flush=True)
dist.destroy_process_group()
