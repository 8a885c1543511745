"""One rank never comes to a monitored barrier."""

import datetime

import torch.distributed as dist
from fault import FAULT, wait_forever

dist.init_process_group("gloo")
for step in range(4):
    if FAULT and dist.get_rank() == 1 and step == 2:
        wait_forever()  # hangs here
    dist.monitored_barrier(timeout=datetime.timedelta(hours=1))
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
