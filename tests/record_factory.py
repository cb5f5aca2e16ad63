"""Synthetic run records of the summary.json schema, for tests of everything that reads records."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

# Test accuracy of fused / strong head / weak head, near what small encoders reach on digits.
LEVELS = {
    "vanilla": (0.961, 0.621, 0.695),
    "vanilla_aux": (0.970, 0.894, 0.779),
    "mslr_k": (0.962, 0.640, 0.710),
    "mslr_s": (0.963, 0.650, 0.700),
    "mslr_d": (0.963, 0.660, 0.705),
    "ogm": (0.962, 0.618, 0.690),
    "ogm_ge": (0.964, 0.618, 0.661),
    "mses": (0.968, 0.890, 0.776),
    "gblend": (0.971, 0.892, 0.778),
    "miles": (0.972, 0.894, 0.781),
    "static_lr": (0.970, 0.885, 0.780),
    "random_lr": (0.969, 0.891, 0.777),
    "modality_dropout": (0.966, 0.880, 0.770),
    "mimo": (0.968, 0.860, 0.772),
    "unimodal_image": (0.931, 0.931, None),
    "unimodal_audio": (0.842, None, 0.842),
}
# Label and family, as the strategies' configurations say.
NAMES = {
    "vanilla": ("Vanilla", "controls"),
    "vanilla_aux": ("Vanilla + aux", "losses"),
    "mslr_k": ("MSLR-K", "learning rates"),
    "mslr_s": ("MSLR-S", "learning rates"),
    "mslr_d": ("MSLR-D", "learning rates"),
    "ogm": ("OGM", "gradients"),
    "ogm_ge": ("OGM-GE", "gradients"),
    "mses": ("MSES", "losses"),
    "gblend": ("G-Blend", "losses"),
    "miles": ("MILES", "learning rates"),
    "static_lr": ("Static LR", "controls"),
    "random_lr": ("Random LR", "controls"),
    "modality_dropout": ("Modality dropout", "data"),
    "mimo": ("MIMO", "losses"),
}
TRAINED = ("vanilla_aux", "mses", "gblend", "miles", "static_lr", "random_lr")
MODALITIES = {
    "cremad": ("audio", "video"),
    "luma": ("audio", "image"),
    "mmimdb": ("text", "image"),
}


def record(
    strategy: str = "miles",
    *,
    dataset: str = "smnist_mini",
    fusion: str = "concat",
    budget: str = "mini",
    trial: int = 0,
    seed: int = 0,
    level: Sequence[float | None] | None = None,
    val: float | None = None,
    noise: float = 0.002,
    pinned: Sequence[str] = (),
    strategy_values: dict[str, Any] | None = None,
    lr: float = 0.001,
    modalities: Sequence[str] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One finished run (summary.json, schema 2); numbers follow LEVELS (or `level`: fused and each
    modality) with seeded noise of that size. Its probes find what its heads find."""
    names = tuple(modalities or MODALITIES.get(dataset, ("image", "audio")))
    strong, weak = names[0], names[-1]
    values = {"tau": 0.05, "mu": 0.5, "source": "val"} if strategy == "miles" else {}
    values |= strategy_values or {}
    config = {
        "dataset": {"name": dataset, "scheme": "speaker"},
        "fusion": {"name": fusion},
        "strategy": {"name": strategy, **values},
        "optimizer": {"name": "adam", "lr": lr},
        "budget": {"name": budget},
        "epochs": 10,
        "batch_size": 64,
        "seed": seed,
        "trial": trial,
    }
    run_id = hashlib.sha256(json.dumps([config, *pinned], sort_keys=True).encode()).hexdigest()[:12]
    draw = random.Random(f"{dataset} {fusion} {strategy} {budget} {trial} {seed} {values} {lr}")
    name = strategy
    if strategy.startswith("unimodal_"):
        name = "unimodal_image" if strategy.endswith(strong) else "unimodal_audio"
    label, family = NAMES.get(strategy, (strategy, ""))
    if strategy.startswith("unimodal_"):
        label, family = f"{strategy[9:]} alone", "unimodal"
    numbers = dict(zip(("fused", *names), level or LEVELS[name], strict=True))
    shift = draw.gauss(0, noise)  # what a seed has in common for all heads of a run

    def scores(offset: float) -> dict[str, Any]:
        return {
            head: {
                "loss": round(2 * (1 - x), 4),
                "metric": round(min(1.0, x + offset + shift + draw.gauss(0, noise)), 4),
            }
            for head, x in numbers.items()
            if x is not None
        }

    at_val, at_test = scores(0.005), scores(0.0)
    if val is not None:
        at_val["fused"]["metric"] = val
    heads = [m for m in names if m in at_test]
    both = len(heads) == len(names)
    subsets = [c for k in range(1, len(names)) for c in combinations(sorted(names), k)]
    probes = {"val": _heads(at_val, heads), "test": _heads(at_test, heads)}
    lost = {"loss": 2.0, "metric": 0.4}
    return {
        "schema": 2,
        "status": "done",
        "run_id": run_id,
        "dataset": dataset,
        "fusion": fusion,
        "strategy": strategy,
        "label": label,
        "family": family,
        "unimodal_source": "trained" if strategy in TRAINED else "split",
        "instruments": {"split": copy.deepcopy(probes), "probe": probes},
        "code": {},
        "keep": [],
        "trial": trial,
        "seed": seed,
        "budget": budget,
        "pinned": list(pinned),
        "config": config,
        "data_fingerprint": "feed",
        "modalities": list(names),
        "strong": strong,
        "weak": weak,
        "metric": "f1_micro" if dataset == "mmimdb" else "accuracy",
        "epochs": 10,
        "best_epoch": draw.randint(6, 10),
        "val": at_val,
        "test": at_test,
        "gap": round(at_test[strong]["metric"] - at_test[weak]["metric"], 4) if both else None,
        "utilization": {
            "val": None,
            "test": {**{m: 0.1 / (1 + i) for i, m in enumerate(names)}, "delta": 0.05},
        },
        "missing": {"+".join(c): {"zero": lost, "mean": lost} for c in subsets} if both else {},
        "noise": {m: {"0.5": lost, "1.0": lost} for m in names} if both else {},
        "cost": {
            "wall_s": round(9 + 3 * (strategy == "gblend") + draw.random(), 2),
            "cpu_s": 9.0,
            "train_samples_per_s": 3900.0,
            "peak_rss_mb": 700.0,
            "peak_gpu_mb": None,
            "energy_j": None,
        },
        "environment": {
            "python": "3.11.7",
            "torch": "2.14.1",
            "device": "cpu",
            "threads": 1,
            "platform": "Linux",
            "commit": "abc1234",
            "dirty": False,
            "version": "0.1.0",
        },
        "command": f"python train.py dataset={dataset} fusion={fusion} strategy={strategy}",
        "finished": f"2026-01-01T00:00:{seed:02d}Z",
        **changes,
    }


def _heads(scores: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: dict(scores[name]) for name in names}


def record_of(folder: Path, **changes: Any) -> dict[str, Any]:
    """A finished run as it would lie in this run folder."""
    dataset, fusion, strategy, run_id = folder.parts[-4:]
    values = {"level": LEVELS["vanilla"], "run_id": run_id, **changes}
    return record(strategy, dataset=dataset, fusion=fusion, **values)


def population(
    datasets: Sequence[str] = ("smnist_mini",),
    strategies: Sequence[str] = tuple(LEVELS),
    fusions: Sequence[str] = ("concat", "sum"),
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    trials: int = 1,
    budget: str = "mini",
    **same: Any,
) -> list[dict[str, Any]]:
    """All cells; with several trials the search is on seed 0 and trial 0, the best, has `seeds`."""
    found = []
    for dataset in datasets:
        strong, weak = MODALITIES.get(dataset, ("image", "audio"))
        for strategy in strategies:
            own = {"unimodal_image": f"unimodal_{strong}", "unimodal_audio": f"unimodal_{weak}"}
            alone = strategy in own
            for fusion in fusions[:1] if alone else fusions:
                for trial in range(trials):
                    rest = seeds if trial == 0 else ()
                    for seed in dict.fromkeys([*[0] * (trials > 1), *rest]):
                        found.append(
                            record(
                                own.get(strategy, strategy),
                                dataset=dataset,
                                fusion=fusion,
                                budget=budget,
                                trial=trial,
                                seed=seed,
                                lr=0.001 * (trial + 1),
                                val=0.5 if trial else None,
                                **same,
                            )
                        )
    return found


def ablation(
    parameter: str,
    values: Sequence[float | str],
    seeds: Sequence[int] = (1, 2, 3, 4, 5),
    **same: Any,
) -> list[dict[str, Any]]:
    """MILES along one hyper-parameter: strong head rises with it, weak head falls, fused peaks."""
    found = []
    for fusion in ("concat", "sum"):
        for i, value in enumerate(values):
            middle = abs(i - (len(values) - 1) / 2) / len(values)
            level = (0.972 - 0.02 * middle, 0.88 + 0.02 * i, 0.80 - 0.03 * i)
            found += [
                record(
                    "miles",
                    fusion=fusion,
                    seed=seed,
                    level=level,
                    pinned=[f"strategy.{parameter}"],
                    strategy_values={parameter: value},
                    **same,
                )
                for seed in seeds
            ]
    return found


def epoch_rows(run: dict[str, Any], epochs: int = 30, tau: float = 0.2) -> list[dict[str, Any]]:
    """The metrics.jsonl of a run: heads that grow at different speeds, MILES' rule on the rates."""
    draw = random.Random(run["run_id"])
    strong, weak = run["modalities"][0], run["modalities"][-1]
    present = [head for head in ("fused", *run["modalities"]) if head in run["test"]]
    pace = {"fused": 4, strong: 5, weak: 12}
    rates = {"encoder": 1.0, "other": 1.0}
    rows = []
    for epoch in range(1, epochs + 1):
        scores = {}
        for head in present:
            level = run["test"][head]["metric"] * (1 - 0.9 ** (epoch * 12 / pace.get(head, 8)))
            scores[head] = {"loss": 1.0, "metric": max(0.05, level + draw.gauss(0, 0.01))}
        lr = {f"{part}.{m}": 0.001 for part in ("encoder", "head") for m in run["modalities"]}
        lr["fusion"] = 0.001
        used: dict[str, float | None] = dict.fromkeys([*run["modalities"], "delta"])
        if len(present) == 1 + len(run["modalities"]):
            lr[f"encoder.{strong}"] = lr[f"head.{strong}"] = 0.001 * rates["encoder"]
            fused = scores["fused"]["metric"]
            for m in run["modalities"]:
                used[m] = (fused - scores[weak if m != weak else strong]["metric"]) / fused
            used["delta"] = abs(used[strong] - used[weak])
            rates["encoder"] = 0.5 if used["delta"] > tau else 1.0
        rows.append(
            {
                "epoch": epoch,
                "train": scores,
                "val": scores,
                "utilization": used,
                "lr": lr,
                "strategy": {},
                "time": {"epoch_s": 0.8, "elapsed_s": 0.8 * epoch},
            }
        )
    return rows
