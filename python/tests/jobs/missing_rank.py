"""One rank leaves a collective out, and waits for something else."""

import torch
import torch.distributed as dist
from fault import FAULT, read_a_dead_disk

dist.init_process_group("gloo")
rank = dist.get_rank()
for step in range(4):
    loss = torch.rand(1)
    if FAULT and rank == 1 and step == 2:
        read_a_dead_disk()  # hangs here
    else:
        dist.reduce(loss, 0)
    dist.barrier()
print("finished", rank, flush=True)
dist.destroy_process_group()
