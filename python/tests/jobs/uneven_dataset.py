"""One rank has a batch less: it goes to the barrier, the other one on with a step."""

import torch
import torch.distributed as dist
from fault import FAULT
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
rank = dist.get_rank()
model = DistributedDataParallel(torch.nn.Linear(4, 1))
batches = 3 if FAULT and rank == 1 else 4
for _ in range(batches):
    model(torch.randn(2, 4)).sum().backward()
dist.barrier()  # hangs here
print("finished", rank, flush=True)
dist.destroy_process_group()
