"""What the sections share: sizes, a scratch folder, configurations and synthetic data sets."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from miles_repro import composing
from miles_repro.config import Config
from miles_repro.data.writer import Card, Preparation

REPO = Path(__file__).resolve().parents[2]
CONF = REPO / "conf"
MODULES = {"PYTHONPATH": os.pathsep.join((str(REPO / "scripts"), str(REPO)))}
"""Environment in which ``python -m bench.<module>`` is found."""

Encoder = Literal["cnn", "mlp"]
NAMES: dict[Encoder, str] = {"cnn": "small CNN", "mlp": "MLP"}
WIDTHS = {"image": 784, "audio": 507}
"""Values in one sample of smnist_mini, which the MLP flattens."""
RATES = "+strategy.rates={image:0.001,audio:0.002}"
"""Learning rates for MSLR, which otherwise takes them from finished unimodal runs."""


@dataclass(frozen=True)
class Size:
    """How much to measure. ``full`` is for numbers, ``quick`` for finding out that all runs."""

    repeats: int
    epochs: int
    sweep_runs: int
    sweep_epochs: int
    records: tuple[int, ...]
    seeds: int
    samples: tuple[int, ...]
    data_rows: int
    feature_rows: int
    decision: tuple[str, int]  # budget, most seeds
    fraction: float = 1.0


FULL = Size(5, 5, 16, 5, (6000, 60000), 5, (1000, 4000, 16000, 64000), 512, 2000, ("mini", 30))
QUICK = Size(1, 2, 2, 2, (60, 120), 2, (200, 400), 24, 160, ("smoke", 3), fraction=0.05)


@dataclass
class Work:
    """One run of the benchmark."""

    size: Size
    scratch: Path
    data_dir: Path = REPO / "data"
    device: str = "cpu"
    _numbers: Any = field(default_factory=itertools.count, repr=False)

    def folder(self) -> Path:
        """A new folder, so that no run finds another's record."""
        folder = self.scratch / f"{next(self._numbers):04d}"
        folder.mkdir(parents=True)
        return folder

    def config(self, encoder: Encoder, *overrides: str) -> Config:
        """A checked configuration on smnist_mini whose run has a records folder of its own."""
        return compose(*common(encoder, self), f"runtime.runs_dir={self.folder()}", *overrides)


def common(encoder: Encoder, work: Work, tracker: str = "none") -> list[str]:
    """Overrides of every configuration here, on the command line and in this process."""
    return [
        "dataset=smnist_mini",
        "dataset.scheme=speaker",  # one split for all: what is compared knows no rotation
        "budget=mini",
        f"budget.data_fraction={work.size.fraction}",
        f"tracker={tracker}",
        f"runtime.data_dir={work.data_dir}",
        f"runtime.device={work.device}",
        *(encoder_overrides(WIDTHS) if encoder == "mlp" else ()),
    ]


def encoder_overrides(widths: Mapping[str, int]) -> list[str]:
    """Make the encoder of each modality an MLP over so many values."""
    nodes = {m: ",".join(f"{k}:{v}" for k, v in mlp(n).items()) for m, n in widths.items()}
    return [f"dataset.modalities.{m}.encoder={{{node}}}" for m, node in nodes.items()]


def mlp(values: int) -> dict[str, Any]:
    """The configuration of a small MLP over so many values."""
    target = "miles_repro.encoders.mlp.MLP"
    return {"_target_": target, "in_features": values, "width": 64, "depth": 1, "norm": "none"}


def cheap(work: Work, folder: Path, seed: object) -> list[str]:
    """Overrides of the cheapest real run."""
    own = ["strategy=vanilla_aux", "epochs=1", f"seed={seed}", f"runtime.runs_dir={folder}"]
    few = [o for o in common("cnn", work) if not o.startswith("budget.data_fraction")]
    return [*few, "budget.data_fraction=0.02", *own]


def compose(*overrides: str, dataset: Mapping[str, Any] | None = None) -> Config:
    """What ``train.py`` would make of these overrides; ``dataset`` replaces the data set's node."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    with initialize_config_dir(str(CONF), version_base="1.3"):
        composed = hydra_compose("config", list(overrides))
    if dataset is not None:
        with open_dict(composed):
            composed.dataset = OmegaConf.create(dict(dataset))
    return composing.load(composed, overrides)


def synthetic(
    out: Path, train: int, modalities: Sequence[str], classes: int, shape: Sequence[int] = (784,)
) -> None:
    """A prepared folder of bytes in which the class can be learnt; val and test: an eighth each."""
    rng = np.random.default_rng(0)
    parts = {"train": train, "val": max(8, train // 8), "test": max(8, train // 8)}
    n = sum(parts.values())
    labels = rng.integers(0, classes, n)
    card = Card(out.name, 1, "multiclass", tuple(map(str, range(classes))), "synthetic", "none")
    with Preparation(out, card, workers=1) as prep:
        for m in modalities:
            centres = rng.integers(0, 128, (classes, *shape), dtype=np.uint8)
            noise = rng.integers(0, 128, (n, *shape), dtype=np.uint8)
            prep.write(m, centres[labels] + noise)
            prep.normalise(m, constants=(np.float32(127.0), np.float32(52.0)))
        prep.write("labels", labels)
        bounds = np.cumsum([0, *parts.values()])
        rows = {p: np.arange(a, b) for p, a, b in zip(parts, bounds, bounds[1:], strict=False)}
        prep.split("main", **rows)
        prep.finish()


def synthetic_node(
    name: str, modalities: Sequence[str], classes: int, encoder: Mapping[str, Any]
) -> dict[str, Any]:
    """The data set's node for what :func:`synthetic` wrote; ``encoder`` reads every modality."""
    return {
        "name": name,
        "task": "multiclass",
        "num_classes": classes,
        "scheme": "main",
        "strong": modalities[0],
        "weak": modalities[1],
        "modalities": {m: {"encoder": dict(encoder)} for m in modalities},
    }
