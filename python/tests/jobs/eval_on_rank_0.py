"""Rank 0 evaluates for longer than a rank may take between two collectives."""

import time

import torch
import torch.distributed as dist
from fault import FAULT, read_a_dead_disk
from torch.utils.data import DataLoader, TensorDataset

dist.init_process_group("gloo")
model = torch.nn.Linear(4, 1)
for epoch in range(2):
    dist.all_reduce(torch.ones(2))
    if dist.get_rank() == 0:
        with torch.no_grad():
            for step, (inputs,) in enumerate(DataLoader(TensorDataset(torch.randn(8, 4)))):
                model(inputs)
                time.sleep(0.9)
                if FAULT and (epoch, step) == (1, 3):
                    read_a_dead_disk()  # hangs here
    dist.barrier()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
