"""One rank is stopped by a signal."""

import os
import signal

import torch
import torch.distributed as dist
from fault import FAULT
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(4, 4))
for step in range(6):
    if FAULT and dist.get_rank() == 1 and step == 3:
        os.kill(os.getpid(), signal.SIGSTOP)  # hangs here
    model(torch.randn(2, 4)).sum().backward()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
