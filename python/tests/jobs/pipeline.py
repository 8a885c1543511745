"""Two stages that send and receive; the first one hangs."""

import torch
import torch.distributed as dist
from fault import FAULT, wait_forever

dist.init_process_group("gloo")
rank = dist.get_rank()
stage = torch.nn.Linear(8, 8)
for batch in range(6):
    activation = torch.randn(2, 8)
    if rank == 0:
        if FAULT and batch == 3:
            wait_forever()  # hangs here
        dist.send(stage(activation).detach(), 1)
        dist.irecv(activation, 1).wait()
    else:
        dist.recv(activation, 0)
        dist.isend(stage(activation).detach(), 0).wait()
print("finished", rank, flush=True)
dist.destroy_process_group()
