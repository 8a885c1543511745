"""One rank holds the interpreter's lock in a regular expression."""

import re

import torch
import torch.distributed as dist
from fault import FAULT
from torch.nn.parallel import DistributedDataParallel

dist.init_process_group("gloo")
model = DistributedDataParallel(torch.nn.Linear(4, 4))
optimizer = torch.optim.AdamW(model.parameters())
for step in range(6):
    text = "a" * 64 + "b"
    if FAULT and dist.get_rank() == 1 and step == 3:
        re.match(r"(a+)+$", text)  # hangs here
    loss = model(torch.randn(2, 4)).sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
