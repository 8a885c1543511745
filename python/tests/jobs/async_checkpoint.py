"""Checkpoints in the background, to a file system that stops answering one rank."""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from fault import FAULT, read_a_dead_disk
from torch.distributed.checkpoint import FileSystemWriter


class Disk(FileSystemWriter):
    def write_data(self, plan, planner):
        if FAULT and dist.get_rank() == 1:
            read_a_dead_disk()  # hangs here
        return super().write_data(plan, planner)


dist.init_process_group("gloo")
folder = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
dist.broadcast_object_list(folder)
group = dist.new_group(backend="gloo")
state = {"weight": torch.randn(8, 8), "step": torch.tensor(3)}
saving = dcp.async_save(state, storage_writer=Disk(folder[0]), process_group=group)
for _ in range(3):
    dist.all_reduce(torch.ones(4))
saving.result()
dist.barrier()
print("finished", dist.get_rank(), flush=True)
dist.destroy_process_group()
