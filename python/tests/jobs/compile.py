"""A compiled model, whose compilation takes longer than any deadline between collectives."""

import time

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever
from torch.nn.parallel import DistributedDataParallel


def slow_backend(graph, example_inputs):
    time.sleep(8)
    return graph


dist.init_process_group("gloo")
model = torch.compile(DistributedDataParallel(torch.nn.Linear(4, 4)), backend=slow_backend)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for step in range(5):
    model(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    if FAULT and dist.get_rank() == 1 and step == 2:
        wait_forever()  # hangs here
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
