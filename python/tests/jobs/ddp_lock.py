"""One rank waits for a lock between two steps."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from fault import FAULT, wait_forever
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

dist.init_process_group("gloo")
torch.manual_seed(1)
data = TensorDataset(torch.randn(64, 8), torch.randn(64, 1))
sampler = DistributedSampler(data)
net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))
model = DistributedDataParallel(net)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for epoch in range(3):
    sampler.set_epoch(epoch)
    for step, (inputs, targets) in enumerate(DataLoader(data, batch_size=8, sampler=sampler)):
        optimizer.zero_grad()
        F.mse_loss(model(inputs), targets).backward()
        if FAULT and dist.get_rank() == 1 and (epoch, step) == (1, 2):
            wait_forever()  # hangs here
        optimizer.step()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
