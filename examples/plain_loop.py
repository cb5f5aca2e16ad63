"""MILES in a plain training loop, beside an ordinary learning-rate schedule."""

from __future__ import annotations

import torch
from toy import Network, accuracy, dataset, loss

from miles_repro import MILES

torch.manual_seed(0)
x, y = dataset(400, seed=0)
x_val, y_val = dataset(200, seed=1)
network = Network()
optimizer = torch.optim.Adam(network.groups(), lr=0.05)
cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
miles = MILES(optimizer, groups=dict(network.branches.items()), tau=0.05, mu=0.5)

for epoch in range(20):
    optimizer.zero_grad()
    loss(network(**x), y).backward()
    optimizer.step()
    cosine.step()
    with torch.no_grad():
        metrics = accuracy(network(**x_val), y_val)
    factors = miles.step(**metrics)  # fused=..., image=..., audio=...
    rates = [f"{rate:.4f}" for rate in miles.get_last_lr()]
    print(epoch, {k: f"{v:.2f}" for k, v in metrics.items()}, factors, *rates)
