"""An elastic job of one or two agents."""

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever

dist.init_process_group("gloo")
weights = torch.zeros(4)
for step in range(5):
    gradient = torch.randn(4)
    dist.all_reduce(gradient)
    weights -= gradient
    if FAULT and dist.get_rank() == 1 and step == 2:
        wait_forever()  # hangs here
    objects = [None] * dist.get_world_size()
    dist.all_gather_object(objects, {"step": step})
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
