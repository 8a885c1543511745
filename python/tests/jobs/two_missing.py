"""Two of three ranks hang."""

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever

dist.init_process_group("gloo")
for step in range(4):
    if FAULT and dist.get_rank() in (1, 2) and step == 2:
        wait_forever()  # hangs here
    pieces = [torch.zeros(1) for _ in range(dist.get_world_size())]
    dist.all_gather(pieces, torch.ones(1))
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
