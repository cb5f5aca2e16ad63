"""Trainings whose loss is not finite, from the epoch to the table; and batches of one sample."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import REPO, finish, train
from record_factory import record
from support import STRATEGIES, build_fit, same_tensors, settings, strategy_overrides

from miles_repro import loop
from miles_repro.composing import check_combination
from miles_repro.config import build, target
from miles_repro.context import Segment
from miles_repro.errors import UserError
from miles_repro.records import load_summaries, read_summary
from miles_repro.run import run
from miles_repro.selection import best_trial

NAN = math.nan


@pytest.mark.parametrize(
    ("course", "best"),
    [
        ([(1.0, 0.2), (NAN, 0.9)], 1),  # an argmax of NaN may look good
        ([(NAN, 0.4)], 1),  # nothing else to keep
        ([(NAN, NAN)], 1),
        ([(1.0, 0.2), (math.inf, 0.9)], 1),
    ],
)
def test_an_epoch_that_is_not_finite_is_kept_only_where_no_other_is(
    course: list[tuple[float, float]],
    best: int,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([scores for scores in course for _ in ("train", "val")])

    def scripted(task: Any, logits: Any, y: Any) -> Any:
        loss, metric = next(left)
        return {k: {"loss": loss, "metric": metric} for k in logits}

    monkeypatch.setattr(loop, "score", scripted)
    fit = build_fit(settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), epochs=5))
    weights = []
    for _ in fit.epochs():
        weights.append({k: v.clone() for k, v in fit.model.state_dict().items()})
    assert fit.diverged
    assert fit.epoch == len(course)  # and no further
    assert fit.best_epoch == best
    assert same_tensors(fit.best, weights[best - 1])
    fit.load_best()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_may_diverge(strategy: str, tiny_data: Path, tmp_path: Path) -> None:
    """Search spaces hold bad rates; their runs must end as valid records that say so."""
    for fusion in ("concat", "late", "mmtm"):
        overrides = (*strategy_overrides(strategy, fusion), "optimizer=sgd")
        config = settings(tiny_data, tmp_path, *overrides, **{"optimizer.lr": 1e30})
        try:
            check_combination(config, build(config.strategy), target(config.fusion))
        except UserError:
            continue
        run(config, "test")
        summary = read_summary(config.run_dir)
        assert summary is not None
        assert summary["status"] == "diverged"
        rows = (config.run_dir / "metrics.jsonl").read_text().splitlines()
        for text in ((config.run_dir / "summary.json").read_text(), *rows):
            json.loads(text, parse_constant=pytest.fail)
        return
    raise AssertionError(f"{strategy} goes with none of these fusions")


def reproduce(*arguments: str) -> Any:
    return finish([sys.executable, str(REPO / "scripts" / "reproduce.py"), *arguments])


@pytest.mark.slow
def test_diverged_runs_are_marked_wherever_they_are_shown(tiny_data: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    bad = (
        "strategy=vanilla",
        "fusion=sum",
        "epochs=2",
        "optimizer=sgd",
        "optimizer.weight_decay=1e30",
    )
    swept = finish(train(tiny_data, runs, *bad, "seed=0,1,2"))
    assert swept.returncode == 0, swept.stdout + swept.stderr
    assert swept.stdout.count("DIVERGED (the loss was not finite)") == 3
    again = finish(train(tiny_data, runs, *bad, "seed=0,1,2"))
    assert "3 skipped" in again.stdout
    assert {r["status"] for r in load_summaries(runs)} == {"diverged"}
    status = reproduce("status", "--runs-dir", str(runs))
    assert status.returncode == 0
    assert "0 done, 3 diverged" in status.stdout
    results = tmp_path / "results"
    tables = reproduce("tables", "--runs-dir", str(runs), "--results", str(results))
    assert tables.returncode == 0, tables.stderr
    assert "diverged" in tables.stdout
    found = (results / "tables" / "comparison__tiny__smoke.md").read_text()
    assert "2 (2 diverged)" in found
    assert "Diverged, counted with the rest: 3 runs" in found
    assert "2 (2 diverged)" in (results / "report.html").read_text()


def test_no_number_ranks_below_every_number() -> None:
    runs = [record("ogm", trial=t, seed=0, val=0.01) for t in (0, 1, 2)]
    runs[0]["val"]["fused"]["metric"] = None
    runs[1]["val"]["fused"]["metric"] = NAN
    assert best_trial(runs, "smnist_mini", "concat", "ogm", "mini") == 2


@pytest.mark.parametrize("size", [1, 5, 12, 13, 25, 26, 27])
def test_no_batch_of_one_sample_unless_asked_for(
    size: int, tiny_data: Path, tmp_path: Path
) -> None:
    """26 samples: at 5 and 25 one is left over, which batch normalisation could not take."""
    fit = build_fit(settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), batch_size=size))
    order = torch.randperm(len(fit.train), generator=torch.Generator().manual_seed(1))
    keep = {"image": torch.arange(len(fit.train)) % 2 == 0}
    found = list(loop.batches(fit.ctx, fit.train, [Segment(order, keep)]))
    sizes = [len(batch.y) for batch in found]
    whole, rest = divmod(26, size)
    expected = [size] * whole + [rest] * (rest > 0)
    if rest == 1:
        expected[-2:] = [size + 1]
    assert sizes == expected
    assert torch.equal(torch.cat([batch.rows for batch in found]), order)
    assert torch.equal(torch.cat([batch.y for batch in found]), fit.train.labels[order])
    kept = torch.cat([batch.keep["image"] for batch in found if batch.keep])
    assert torch.equal(kept, keep["image"])


def test_batch_normalisation_with_one_sample_left_over(tiny_data: Path, tmp_path: Path) -> None:
    values = {
        "dataset.modalities.image.encoder": {"_target_": "faults.Normalised", "in_features": 36},
        "batch_size": 25,
    }
    run(settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), **values), "test")
