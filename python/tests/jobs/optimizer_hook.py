"""A hook of one rank's optimizer hangs."""

import torch
import torch.distributed as dist
from fault import FAULT, read_a_dead_disk
from torch.nn.parallel import DistributedDataParallel

steps = 0


def log_to_a_file(optimizer, args, kwargs):
    global steps
    steps += 1
    if FAULT and dist.get_rank() == 1 and steps == 3:
        read_a_dead_disk()  # hangs here


dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(4, 4))
optimizer = torch.optim.Adam(model.parameters())
optimizer.register_step_post_hook(log_to_a_file)
for _ in range(5):
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
