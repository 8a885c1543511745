"""Sharded parameters; one rank hangs in the model's own forward."""

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever
from torch.distributed.fsdp import fully_shard

count = 0


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, x):
        global count
        count += 1
        if FAULT and dist.get_rank() == 1 and count == 5:
            wait_forever()  # hangs here
        return torch.relu(self.linear(x))


dist.init_process_group("gloo")
mesh = dist.device_mesh.init_device_mesh("cpu", (dist.get_world_size(),))
model = torch.nn.Sequential(Block(), Block())
for block in model:
    fully_shard(block, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(4):
    model(torch.randn(2, 16)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
