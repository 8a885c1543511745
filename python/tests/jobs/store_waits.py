"""One rank waits for a key that the other one does not set."""

import torch.distributed as dist
from fault import FAULT, wait_forever

dist.init_process_group("gloo")
store = dist.distributed_c10d._get_default_store()
for step in range(4):
    if dist.get_rank() == 0:
        if FAULT and step == 2:
            wait_forever()  # hangs here
        store.set(f"learning-rate-{step}", str(0.1 / (step + 1)))
    else:
        float(store.get(f"learning-rate-{step}"))
    dist.barrier()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
