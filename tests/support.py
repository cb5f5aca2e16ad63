"""What the tests of the training code share: a tiny prepared data set and composed settings."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from rows import rows

from miles_repro import composing, training
from miles_repro import run as running
from miles_repro.config import Config, build
from miles_repro.data.reader import PreparedData
from miles_repro.data.writer import Card, Preparation
from miles_repro.loop import Fit
from miles_repro.records import load_rows, read_summary
from miles_repro.run import run

REPO = Path(__file__).resolve().parents[1]
CONF, TEST_CONF = REPO / "conf", REPO / "tests" / "conf"
STRATEGIES = sorted(p.stem for p in (CONF / "strategy").glob("*.yaml"))
FUSIONS = sorted(p.stem for p in (CONF / "fusion").glob("*.yaml"))
SIZES = {"train": 26, "val": 14, "test": 12}
LR = 0.02


def prepare_tiny(data_dir: Path, *, poison: bool = False, seed: int = 0) -> Path:
    """Write the prepared sets ``tiny``, ``tiny_labels`` and ``tiny_three`` under ``data_dir``.

    ``poison``: the test rows are NaN with wrong labels; all other rows stay as they were.
    """
    rng = np.random.default_rng(seed)
    n = sum(SIZES.values())
    y = np.arange(n) % 3
    centres = {"image": rng.normal(size=(3, 1, 6, 6)), "audio": rng.normal(size=(3, 3, 4))}
    arrays = {
        "image": (centres["image"][y] + 0.7 * rng.normal(size=(n, 1, 6, 6))).astype(np.float32),
        "audio": (centres["audio"][y] + 2.0 * rng.normal(size=(n, 3, 4))).astype(np.float32),
        "text": rng.normal(size=(n, 5)).astype(np.float32) + y[:, None].astype(np.float32) / 2,
    }
    multi = (rng.random((n, 3)) < 0.2).astype(np.uint8)
    multi[np.arange(n), y] = 1
    order = rng.permutation(n)
    bounds = np.cumsum([0, *SIZES.values()])
    rows = {p: order[a:b] for p, a, b in zip(SIZES, bounds[:-1], bounds[1:], strict=True)}
    if poison:
        for array in arrays.values():
            array[rows["test"]] = np.nan
        y[rows["test"]] = 2 - y[rows["test"]]
        multi[rows["test"]] = 1 - multi[rows["test"]]
    for name, labels, used in (
        ("tiny", y, ("image", "audio")),
        ("tiny_labels", multi, ("image", "audio")),
        ("tiny_three", y, ("image", "audio", "text")),
    ):
        task = "multilabel" if labels.ndim == 2 else "multiclass"
        card = Card(name, 1, task, ("a", "b", "c"), "synthetic", "none")
        with Preparation(data_dir / name, card, workers=1) as prep:
            for m in used:
                prep.write(m, arrays[m])
                prep.normalise(m, axes=(1, 2) if m == "image" else ())
            prep.write("labels", labels)
            prep.split("main", **rows)
            prep.finish()
    return data_dir


@cache
def _composed(overrides: tuple[str, ...]) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        search = [f"hydra.searchpath=[file://{TEST_CONF}]"]
        if any(o.startswith("hydra.searchpath=") for o in overrides):
            search = []
        return hydra_compose("config", [*search, "tracker=none", *overrides])


def compose(*overrides: str) -> DictConfig:
    """What train.py gets for these overrides (no tracker, test data sets known)."""
    return copy.deepcopy(_composed(overrides))


def settings(
    data_dir: Path, runs_dir: Path, *overrides: str, dataset: str = "tiny", **values: Any
) -> Config:
    """A checked configuration on a tiny data set.

    ``values`` (full key -> value) are set after composing: cheaper than an override, and not
    counted as fixed by the user.
    """
    composed = compose("dataset=tiny", f"optimizer.lr={LR}", *overrides)
    if dataset != "tiny":
        composed["dataset"] = compose(f"dataset={dataset}")["dataset"]
    paths = {"runtime.data_dir": str(data_dir), "runtime.runs_dir": str(runs_dir)}
    for key, value in {**paths, "runtime.device": "cpu", **values}.items():
        OmegaConf.update(composed, key, value, merge=False, force_add=True)
    return composing.load(composed, overrides)


@cache
def home(strategy: str) -> str:
    """The fusion a strategy is tested with: concat where it is defined for that."""
    node = compose(f"strategy={strategy}", *rows()[strategy].needed)["strategy"]
    fusions = build(OmegaConf.to_container(node)).needs.fusions
    return "concat" if fusions is None or "concat" in fusions else min(fusions)


def strategy_overrides(strategy: str, fusion: str | None = None) -> tuple[str, ...]:
    fusion = fusion or home(strategy)
    # two layers need more than three epochs on 26 samples at the tests' high rate
    small = ("fusion.layers=1", "fusion.width=16") if fusion == "transformer" else ()
    return (f"strategy={strategy}", f"fusion={fusion}", *small, *rows()[strategy].needed)


def build_fit(config: Config) -> Fit:
    """The training of a configuration, built but not begun, as ``run`` builds it.

    Its teachers are trained first where it has some, and kept among its runs.
    """
    strategy, used = running._checked_parts(config)
    data = PreparedData(
        config.runtime.data_dir / config.dataset.name, config.dataset.scheme, used, config.seed
    )
    part = partial(
        data.part,
        device=torch.device("cpu"),
        resident_mb=config.runtime.resident_mb,
        fraction=config.budget.data_fraction,
    )
    teachers = {
        m: running.teacher(one, config, "test", lambda config, row: None)
        for m, one in config.teachers.items()
    }
    return training.build_fit(config, strategy, used, part, torch.device("cpu"), teachers)


def saved(state: Any) -> Any:
    """``state`` after a trip through a file, as a resumed run finds it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def rows_without_time(folder: Path) -> list[dict[str, Any]]:
    """The epoch rows of a run folder, less what a clock wrote."""
    return [{k: v for k, v in row.items() if k != "time"} for row in load_rows(folder)]


def lasting(summary: dict[str, Any]) -> dict[str, Any]:
    """What must be the same in two runs of one configuration."""
    passing = ("cost", "environment", "finished", "command", "config")
    return json.loads(json.dumps({k: v for k, v in summary.items() if k not in passing}))


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit; NaN equals NaN."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k].nan_to_num(7.0), b[k].nan_to_num(7.0)) for k in a
    )


def parameters(fit: Fit, parts: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """Copies of parameters and buffers, by part and name."""
    return {
        f"{part}:{k}": v.detach().clone()
        for part, module in fit.model.parts().items()
        if parts is None or part in parts
        for k, v in module.state_dict().items()
    }


def finished(config: Config, command: str = "test") -> dict[str, Any]:
    outcome = run(config, command)
    assert outcome.summary is not None
    return outcome.summary


def assert_same_record(a: Config, b: Config) -> None:
    assert rows_without_time(a.run_dir) == rows_without_time(b.run_dir)
    one, other = read_summary(a.run_dir), read_summary(b.run_dir)
    assert one is not None
    assert other is not None
    assert lasting(one) == lasting(other)
    assert not list(a.run_dir.glob("*.tmp")) + list(b.run_dir.glob("*.tmp"))
