"""Two groups, in another order in one rank than in the other: each waits for the other."""

import torch
import torch.distributed as dist
from fault import FAULT

dist.init_process_group("gloo")
groups = [dist.new_group([0, 1]), dist.new_group([0, 1])]
for step in range(4):
    order = groups
    if FAULT and dist.get_rank() == 1 and step == 2:
        order = groups[::-1]
    for group in order:
        dist.all_reduce(torch.ones(2), group=group)  # hangs here
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
