"""The usual recipe: one run as most published code of the field does it, in a process of its own.

    python -m bench.peer settings.json result.json

What makes it the recipe: a ``Dataset`` that transforms item by item behind a ``DataLoader``;
torch's default number of threads and default Adam; a loss read back at every step; after every
epoch a scoring pass with a Python loop over samples and heads; the best weights saved to disk; a
tracker opened for every run. What it is spared, so that the comparison errs on its side: no
decoding (the arrays lie in memory), no loader processes (slower here), batched forward passes in
evaluation, a true validation split. Model, data, batches, epochs and losses are those of the run
it is compared with; the weights start from the same seeds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bench import bare
from miles_repro.config import Config
from miles_repro.model import Multimodal
from miles_repro.seeding import derive

Item = tuple[dict[str, Tensor], int]


class Samples(Dataset[Item]):
    """One split, transformed item by item."""

    def __init__(self, config: Config, part: str) -> None:
        folder, scheme = config.runtime.data_dir / config.dataset.name, config.dataset.scheme
        rows = np.load(folder / "splits.npz")[f"{scheme}.{part}"]
        self.rows = rows[: max(1, round(config.budget.data_fraction * len(rows)))]
        self.labels = np.load(folder / "labels.npy")
        self.arrays = {m: np.load(folder / f"{m}.npy") for m in config.dataset.modalities}
        stats = np.load(folder / "stats.npz")
        self.mean = {m: torch.from_numpy(stats[f"{scheme}.{m}.mean"]) for m in self.arrays}
        self.std = {m: torch.from_numpy(stats[f"{scheme}.{m}.std"]) for m in self.arrays}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Item:
        row = self.rows[index]
        x = {m: self.transform(m, array[row]) for m, array in self.arrays.items()}
        return x, int(self.labels[row])

    def transform(self, modality: str, value: Any) -> Tensor:
        x = torch.from_numpy(np.asarray(value)).float()
        return (x - self.mean[modality]) / self.std[modality]


class Shuffled(Sampler[int]):
    """The permutations a run with this seed takes."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        generator = torch.Generator().manual_seed(derive(self.seed, "order", self.epoch))
        return iter(torch.randperm(self.n, generator=generator).tolist())


def logits(model: Multimodal, x: dict[str, Tensor]) -> dict[str, Tensor]:
    z = {m: net(x[m]) for m, net in model.encoders.items()}
    return {"fused": model.fusion(z), **{m: head(z[m]) for m, head in model.heads.items()}}


def score(model: Multimodal, loader: DataLoader[Item], classes: int) -> dict[str, float]:
    """Accuracy of each head, sample by sample."""
    model.eval()
    softmax = torch.nn.Softmax(dim=1)
    total = [0] * classes
    right: dict[str, list[int]] = {}
    with torch.no_grad():
        for x, y in loader:
            predictions = {k: softmax(v) for k, v in logits(model, x).items()}
            for i in range(len(y)):
                total[int(y[i])] += 1
                for k, p in predictions.items():
                    counts = right.setdefault(k, [0] * classes)
                    if np.argmax(p[i].cpu().data.numpy()) == int(y[i]):
                        counts[int(y[i])] += 1
    return {k: sum(counts) / sum(total) for k, counts in right.items()}


def main(settings: Path, result: Path) -> None:
    import wandb

    config = Config.model_validate_json(settings.read_text())
    tracker = wandb.init(project="bench", mode="offline", dir=settings.parent)
    train_set = Samples(config, "train")
    order = Shuffled(len(train_set), config.seed)
    size = config.batch_size
    train = DataLoader(train_set, batch_size=size, sampler=order, num_workers=0)
    val = DataLoader(Samples(config, "val"), batch_size=size, num_workers=0)
    test = DataLoader(Samples(config, "test"), batch_size=size, num_workers=0)
    model = bare.model_of(config, heads=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr)
    best, best_file = -1.0, settings.with_suffix(".pt")
    for epoch in range(config.epochs):
        model.train()
        total = 0.0
        for x, y in train:
            optimizer.zero_grad()
            loss = torch.stack([F.cross_entropy(v, y) for v in logits(model, x).values()]).sum()
            loss.backward()
            optimizer.step()
            total += loss.item()
        scores = score(model, val, config.dataset.num_classes)
        tracker.log({"epoch": epoch, "loss": total / len(train), **scores})
        if scores["fused"] > best:
            best = scores["fused"]
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, best_file
            )
    model.load_state_dict(torch.load(best_file, weights_only=True)["model"])
    scores = score(model, test, config.dataset.num_classes)
    tracker.finish()
    result.write_text(json.dumps({"val": best, "test": scores}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
