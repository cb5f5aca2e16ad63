"""MILES with Hugging Face accelerate: after ``prepare``, on what it returns."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset
from toy import Network, dataset, loss

from miles_repro import MILES

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
torch.manual_seed(0)
network = Network()
optimizer = torch.optim.Adam(network.groups(), lr=0.02)
(x, y), (x_val, y_val) = dataset(400, seed=0), dataset(200, seed=1)
train = DataLoader(TensorDataset(x["image"], x["audio"], y), batch_size=50, shuffle=True)
val = DataLoader(TensorDataset(x_val["image"], x_val["audio"], y_val), batch_size=50)
model, optimizer, train, val = accelerator.prepare(network, optimizer, train, val)
branches = accelerator.unwrap_model(model).branches
miles = MILES(optimizer, groups=dict(branches.items()), tau=0.05)
accelerator.register_for_checkpointing(miles)  # save_state and load_state include it

for epoch in range(6):
    model.train()
    for image, audio, labels in train:
        with accelerator.accumulate(model):
            accelerator.backward(loss(model(image, audio), labels))
            optimizer.step()
            optimizer.zero_grad()
    model.eval()
    right: dict[str, int] = {}
    seen = 0
    with torch.no_grad():
        for image, audio, labels in val:
            logits, labels = accelerator.gather_for_metrics((model(image, audio), labels))
            seen += len(labels)
            for k, out in logits.items():
                right[k] = right.get(k, 0) + int((out.argmax(1) == labels).sum())
    metrics = {k: n / seen for k, n in right.items()}
    factors = miles.step(**metrics)
    accelerator.print(epoch, {k: f"{v:.2f}" for k, v in metrics.items()}, factors)
