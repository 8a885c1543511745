"""A process of one rank's data loader hangs."""

import torch
import torch.distributed as dist
from fault import FAULT, read_a_dead_disk
from torch.utils.data import DataLoader, Dataset


class Samples(Dataset):
    def __init__(self, rank):
        self.rank = rank

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if FAULT and self.rank == 1 and index == 8:
            read_a_dead_disk()  # hangs here
        return torch.full((2,), float(index))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    loader = DataLoader(Samples(dist.get_rank()), batch_size=2, num_workers=2, persistent_workers=True)
    for _ in range(2):
        for batch in loader:
            total = batch.sum()
            dist.all_reduce(total)
    print("finished", dist.get_rank(), flush=True)
    dist.destroy_process_group()
