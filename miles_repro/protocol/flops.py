"""Floating-point operations of a run, counted on two rows of its data, and the GPU-hours they are.

A count of what the model computes, multiply and add as two: forward of every training row times
three (forward and backward) times the strategy's passes a batch, and forward of every validation
row, for all epochs. Data loading, optimizer and evaluation after training are left out.
"""

from __future__ import annotations

from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from miles_repro.config import Config, build
from miles_repro.data.manifest import part_sizes
from miles_repro.data.reader import PreparedData
from miles_repro.model import build_model

BACKWARD = 3
"""Forward and backward, in forwards: the backward pass computes two products for each of its."""


def run_flops(config: Config, modalities: list[str], passes: float) -> float:
    """Of one whole run with these modalities. Reads two rows of the prepared data."""
    name, scheme = config.dataset.name, config.dataset.scheme
    data = PreparedData(config.runtime.data_dir / name, scheme, modalities)
    part = data.part("train", torch.device("cpu"), resident_mb=0)
    x, _ = part.batch(torch.arange(2))
    encoders = {m: partial(build, config.dataset.modalities[m].encoder) for m in modalities}
    fusion = partial(build, config.fusion)
    model = build_model(encoders, fusion, config.dataset.num_classes, "none", config.seed).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(x)
    sizes = part_sizes(data.manifest, scheme)
    fraction = config.budget.data_fraction
    rows = BACKWARD * passes * fraction * sizes["train"] + fraction * sizes["val"]
    return float(counter.get_total_flops() / 2 * rows * config.epochs)
