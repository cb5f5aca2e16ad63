"""The bare loop: what a careful person writes by hand for one model, and nothing around it.

It holds the split in memory as normalised float32, steps through a permutation, trains with the
sum of the given heads' losses and torch's fused Adam in one parameter group, and once an epoch
takes the fused metric on the validation split in large batches and keeps the best weights. It has
no hooks, writes no records, looks at no unimodal or training metric, and cannot be resumed.
Weights and permutations start from the same seeds as a run of this suite, so the metrics agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from miles_repro.config import Config, build
from miles_repro.model import Multimodal, build_model
from miles_repro.seeding import derive


@dataclass
class Result:
    """Fused accuracy by epoch on validation, and at the best epoch on test."""

    val: list[float] = field(default_factory=list)
    test: float = 0.0


def load(config: Config) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Normalised inputs and labels by split."""
    folder = config.runtime.data_dir / config.dataset.name
    splits, stats = np.load(folder / "splits.npz"), np.load(folder / "stats.npz")
    labels = np.load(folder / "labels.npy")
    x: dict[str, dict[str, Tensor]] = {}
    y: dict[str, Tensor] = {}
    for part in ("train", "val", "test"):
        rows = splits[f"{config.dataset.scheme}.{part}"]
        rows = rows[: max(1, round(config.budget.data_fraction * len(rows)))]
        y[part] = torch.from_numpy(labels[rows])
        x[part] = {}
        for m in config.dataset.modalities:
            mean, std = (stats[f"{config.dataset.scheme}.{m}.{k}"] for k in ("mean", "std"))
            values = np.load(folder / f"{m}.npy")[rows].astype(np.float32)
            x[part][m] = torch.from_numpy((values - mean) / std)
    return x, y


def model_of(config: Config, heads: bool) -> Multimodal:
    """The configured model with the weights a run with this seed starts from."""
    return build_model(
        {m: partial(build, c.encoder) for m, c in config.dataset.modalities.items()},
        partial(build, config.fusion),
        config.dataset.num_classes,
        "trained" if heads else "none",
        config.seed,
    )


def train(config: Config, heads: bool, on_epoch: Callable[[], Any] = lambda: None) -> Result:
    """Train with L_AB, and with ``heads`` with L_AB + L_A + L_B."""
    torch.set_num_threads(config.runtime.threads)
    x, y = load(config)
    model = model_of(config, heads)
    layout = torch.channels_last if config.precision.channels_last else torch.contiguous_format
    model.to(memory_format=layout)

    def taken(m: str, rows: Tensor) -> Tensor:
        batch = x["train"][m].index_select(0, rows)
        return batch.contiguous(memory_format=layout) if batch.ndim == 4 else batch

    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr, fused=True)
    result, best = Result(), {}
    for epoch in range(1, config.epochs + 1):
        model.train()
        generator = torch.Generator().manual_seed(derive(config.seed, "order", epoch))
        order = torch.randperm(len(y["train"]), generator=generator)
        for rows in order.split(config.batch_size):
            target = y["train"].index_select(0, rows)
            z = {m: net(taken(m, rows)) for m, net in model.encoders.items()}
            loss = F.cross_entropy(model.fusion(z), target)
            for m, head in model.heads.items():
                loss = loss + F.cross_entropy(head(z[m]), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        result.val.append(accuracy(model, x["val"], y["val"]))
        if result.val[-1] == max(result.val) and result.val.count(result.val[-1]) == 1:
            best = {k: v.clone() for k, v in model.state_dict().items()}
        on_epoch()
    model.load_state_dict(best)
    result.test = accuracy(model, x["test"], y["test"])
    return result


@torch.inference_mode()
def accuracy(model: Multimodal, x: dict[str, Tensor], y: Tensor, batch: int = 512) -> float:
    """Share of samples the fused head gets right."""
    model.eval()
    right = 0
    for i in range(0, len(y), batch):
        z = {m: net(x[m][i : i + batch]) for m, net in model.encoders.items()}
        right += int((model.fusion(z).argmax(1) == y[i : i + batch]).sum())
    return right / len(y)
