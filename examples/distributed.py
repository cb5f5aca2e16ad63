"""MILES under DistributedDataParallel: two processes on this machine.

Each rank validates on its own shard; the counts are summed over the ranks before ``MILES.step``,
which then follows rank 0 everywhere.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel
from toy import Network, dataset, loss

from miles_repro import MILES

RANKS = 2


def worker(rank: int, store: str) -> None:
    distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=RANKS)
    torch.manual_seed(0)
    network = Network()
    replica = DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.groups(), lr=0.05)
    miles = MILES(optimizer, groups=dict(network.branches.items()), tau=0.05)
    x, y = dataset(200, seed=rank)
    x_val, y_val = dataset(100, seed=RANKS + rank)
    for epoch in range(10):
        optimizer.zero_grad()
        loss(replica(**x), y).backward()
        optimizer.step()
        with torch.no_grad():
            logits = network(**x_val)
        right = torch.tensor([float((out.argmax(1) == y_val).sum()) for out in logits.values()])
        counts = torch.cat([right, torch.tensor([float(len(y_val))])])
        distributed.all_reduce(counts)  # over all ranks' shards
        values = (counts[:-1] / counts[-1]).tolist()
        factors = miles.step(**dict(zip(logits, values, strict=True)))
        if rank == 0:
            print(epoch, {k: f"{v:.2f}" for k, v in zip(logits, values, strict=True)}, factors)
    weights = torch.cat([p.detach().flatten() for p in network.parameters()])
    others = [torch.empty_like(weights) for _ in range(RANKS)]
    distributed.all_gather(others, weights)
    if rank == 0:
        print("replicas agree:", all(torch.equal(weights, other) for other in others))
    distributed.destroy_process_group()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        multiprocessing.spawn(worker, (store,), nprocs=RANKS)  # type: ignore[attr-defined]
