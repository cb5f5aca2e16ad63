"""One run from configuration to record: the same bits every time, whatever happens on the way."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from support import (
    REPO,
    STRATEGIES,
    TEST_CONF,
    build_fit,
    lasting,
    prepare_tiny,
    rows_without_time,
    same_tensors,
    saved,
    settings,
    strategy_overrides,
)
from torch import Tensor, nn

from miles_repro import loop, records, training
from miles_repro import run as running
from miles_repro.config import Config
from miles_repro.data.reader import PreparedData
from miles_repro.errors import UserError
from miles_repro.evaluate import score
from miles_repro.records import CONFIG, LAST, LOCK, ROWS, SUMMARY, RunRecord, read_summary
from miles_repro.run import run


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.fixture(autouse=True)
def _state_saved_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SAVE_EVERY_S", 0.0)


def stop_at(*epochs: int) -> Callable[[Config, dict[str, Any]], None]:
    def report(config: Config, row: dict[str, Any]) -> None:
        if row["epoch"] in epochs:
            raise Interrupted

    return report


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


class Jitter:
    """An augmentation with random numbers of its own."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x + 0.5 * torch.randn(x.shape, generator=generator)


class Dropping(nn.Module):
    """An encoder that draws from torch's global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Dropout(0.5))
        self.dim = 8

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


# --- the loop itself --------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine", "step"])
def test_the_loop_is_these_lines(schedule: str, tiny_data: Path, tmp_path: Path) -> None:
    """Vanilla training of two modalities, written out by hand."""
    values = {
        "optimizer.clip_norm": 1.0,
    }
    values["optimizer.weight_decay"] = 0.01
    if schedule == "step":
        values["optimizer.schedule.every"] = 1
    choice = f"optimizer/schedule={schedule}"
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), choice, **values)
    fit = build_fit(config)
    model = copy.deepcopy(fit.model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr, weight_decay=0.01)
    by_torch: dict[str, Any] = {
        "constant": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
        "cosine": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, config.epochs),
        "step": lambda o: torch.optim.lr_scheduler.StepLR(o, 1, 0.1),
    }
    torch_schedule = by_torch[schedule](optimizer)
    for row in fit.epochs():
        model.train()
        wrong = total = 0
        summed = 0.0
        for index in fit.recipe.order(len(fit.train), row["epoch"]).split(config.batch_size):
            x, y = fit.train.batch(index)
            z = {m: model.encoders[m](x[m]) for m in ("image", "audio")}
            logits = model.fusion.linear(torch.cat([z["image"], z["audio"]], dim=1))
            loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            wrong += int((logits.argmax(1) != y).sum())
            total += len(y)
            summed += loss.item() * len(y)
        assert row["lr"]["fusion"] == pytest.approx(optimizer.param_groups[0]["lr"])
        torch_schedule.step()
        assert total == 26  # the last, smaller batch counts too
        assert row["train"]["fused"]["metric"] == pytest.approx(1 - wrong / total)
        assert row["train"]["fused"]["loss"] == pytest.approx(summed / total, rel=1e-4)
        model.eval()
        x, y = fit.val.batch(torch.arange(len(fit.val)))
        with torch.no_grad():
            expected = F.cross_entropy(model(x).fused, y).item()
        assert row["val"]["fused"]["loss"] == pytest.approx(expected, rel=1e-4)


def test_linear_unimodal_scores_belong_to_the_fused_ones(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running training logits of all heads come from the same weights, before the step."""
    seen: list[dict[str, Tensor]] = []

    def spy(task: Any, logits: dict[str, Tensor], y: Tensor) -> Any:
        seen.append(logits)
        return score(task, logits, y)

    monkeypatch.setattr(loop, "score", spy)
    list(build_fit(settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))).epochs())
    for logits in seen:
        torch.testing.assert_close(logits["image"] + logits["audio"], logits["fused"])


# --- the same bits ----------------------------------------------------------------------------


def test_the_same_command_twice_gives_the_same_rows(tiny_data: Path, tmp_path: Path) -> None:
    """In this process and in another one."""
    overrides = ("strategy=ogm_ge", "fusion=film", "strategy.ends=1.0", "optimizer.lr=0.02")
    config = settings(tiny_data, tmp_path / "here", *overrides)
    here = finished(config)
    ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none", "dataset=tiny")
    place = (f"runtime.runs_dir={tmp_path / 'there'}", "runtime.device=cpu")
    command = [sys.executable, str(REPO / "train.py"), *ours, *overrides, *place]
    environment = {**os.environ, "MILES_DATA": str(tiny_data)}
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=environment)
    there = tmp_path / "there" / config.run_dir.relative_to(tmp_path / "here")
    assert rows_without_time(there) == rows_without_time(config.run_dir)
    summary = read_summary(there)
    assert summary is not None
    assert lasting(summary) == lasting(here)
    assert (there / CONFIG).read_bytes() == (config.run_dir / CONFIG).read_bytes()


@pytest.mark.parametrize("fusion", ["concat", "gated"])
def test_where_the_data_lies_moves_nothing(fusion: str, tiny_data: Path, tmp_path: Path) -> None:
    overrides = strategy_overrides("miles", fusion)
    configs = [
        settings(tiny_data, tmp_path / str(mb), *overrides, **{"runtime.resident_mb": mb})
        for mb in (2048, 0)
    ]
    for config in configs:
        finished(config)
    assert_same_record(*configs)


def test_the_size_of_evaluation_batches_moves_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """Up to rounding of the losses; noise included."""
    summaries = [
        finished(
            settings(
                tiny_data,
                tmp_path / str(size),
                *strategy_overrides("miles"),
                **{"runtime.eval_batch_size": size},
            )
        )
        for size in (512, 5)
    ]

    def flat(value: Any, path: str = "") -> dict[str, float]:
        if isinstance(value, dict):
            return {k: v for key, x in value.items() for k, v in flat(x, f"{path}.{key}").items()}
        return {path: value}

    for part in ("val", "test", "missing", "noise", "utilization"):
        assert flat(summaries[0][part]) == pytest.approx(flat(summaries[1][part]), rel=1e-5)


def test_a_finished_run_is_skipped(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    summary = finished(config)
    before = {p.name: p.read_bytes() for p in config.run_dir.iterdir()}
    monkeypatch.setattr(running, "_train", None)
    outcome = run(config, "again")
    assert outcome.status == "skipped"
    assert outcome.summary == json.loads(json.dumps(summary))
    assert {p.name: p.read_bytes() for p in config.run_dir.iterdir()} == before


def test_a_run_held_by_another_process_is_left_alone(tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"))
    config.run_dir.mkdir(parents=True)
    with FileLock(config.run_dir / LOCK):
        assert run(config, "test").status == "busy"
        assert not (config.run_dir / CONFIG).exists()
    assert run(config, "test").status == "done"


# --- interruptions ----------------------------------------------------------------------------

SGD = {
    "optimizer": {
        "name": "sgd",
        "_target_": "torch.optim.SGD",
        "lr": 0.02,
        "momentum": 0.9,
        "clip_norm": None,
        "schedule": {"name": "constant", "_target_": "miles_repro.recipe.Constant"},
    }
}
LONG: list[tuple[str, dict[str, Any]]] = [
    ("miles", {"strategy.reset_other": False}),
    ("mslr_d", {}),
    ("mses", {"strategy.patience": 0.4}),
    ("mses", {"strategy.patience": 0.2, "strategy.criterion": "loss", **SGD}),
    ("gblend", {"strategy.mode": "online", "strategy.warmup": 2, "strategy.super_epoch": 2}),
    ("ogm_ge", {}),
    ("random_lr", {"optimizer.schedule._target_": "miles_repro.recipe.Cosine"}),
    ("modality_dropout", SGD),
    ("vanilla", {"optimizer.clip_norm": 1.0}),
    ("miles", {"precision.amp": "fp16"}),
    ("vanilla", {"dataset.modalities.image.augment": {"_target_": "test_run.Jitter"}}),
    ("gblend", {"dataset.modalities.audio.encoder": {"_target_": "test_run.Dropping"}}),
]


@pytest.mark.parametrize(
    "strategy, values", LONG, ids=[f"{s}-{'-'.join(v)}".replace("strategy.", "") for s, v in LONG]
)
def test_any_number_of_interruptions_changes_nothing(
    strategy: str, values: dict[str, Any], tiny_data: Path, tmp_path: Path
) -> None:
    overrides = strategy_overrides(strategy)
    whole, cut = (
        settings(tiny_data, tmp_path / name, *overrides, epochs=6, **values)
        for name in ("whole", "cut")
    )
    finished(whole)
    sittings = 0
    while read_summary(cut.run_dir) is None:  # stopped after each epoch in turn
        sittings += 1
        try:
            run(cut, "test", stop_at(sittings))
        except Interrupted:
            assert [r["epoch"] for r in records.load_rows(cut.run_dir)] == [*range(1, sittings + 1)]
    assert sittings > 3
    assert_same_record(whole, cut)


@pytest.mark.parametrize("strategy", ["mses", "miles", "gblend", "mslr_d", "ogm"])
def test_a_resumed_training_ends_in_the_same_state(
    strategy: str, tiny_data: Path, tmp_path: Path
) -> None:
    """Weights, buffers, optimizer moments, best weights, strategy: all bits of ``last.pt``."""
    values = {"strategy.patience": 0.4} if strategy == "mses" else {}
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy), epochs=5, **values)
    whole = build_fit(config)
    halves = []
    for epoch, _ in enumerate(whole.epochs(), start=1):
        if epoch == 3:
            halves.append(saved(whole.state_dict()))
    resumed = build_fit(config)
    resumed.load_state_dict(halves[0])
    list(resumed.epochs())

    def flat(value: Any, path: str = "") -> dict[str, Any]:
        if isinstance(value, dict):
            return {k: v for key, x in value.items() for k, v in flat(x, f"{path}/{key}").items()}
        if isinstance(value, (list, tuple)):
            return {k: v for i, x in enumerate(value) for k, v in flat(x, f"{path}/{i}").items()}
        return {path: value}

    expected, found = flat(saved(whole.state_dict())), flat(saved(resumed.state_dict()))
    assert expected.keys() == found.keys()
    tensors = {k for k, v in expected.items() if isinstance(v, Tensor)}
    assert len(tensors) > 30
    assert same_tensors({k: expected[k] for k in tensors}, {k: found[k] for k in tensors})
    rest = expected.keys() - tensors - {"/train_seconds"}
    assert {k: expected[k] for k in rest} == {k: found[k] for k in rest}


def test_a_kill_in_the_middle_of_an_epoch(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("ogm_ge"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    steps = 0
    original = loop.Strategy.backward

    def backward(*args: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 4 * 2 + 3:  # third batch of the third epoch
            raise Interrupted
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Strategy, "backward", backward)
        with pytest.raises(Interrupted):
            run(cut, "test")
    finished(cut)
    assert_same_record(whole, cut)


def test_a_kill_between_the_row_and_the_state(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("mslr_d"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    original = RunRecord.save_state

    def save_state(self: RunRecord, state: dict[str, Any]) -> None:
        if state["fit"]["epoch"] == 3:
            raise Interrupted
        original(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(RunRecord, "save_state", save_state)
        with pytest.raises(Interrupted):
            run(cut, "test")
    assert len(records.load_rows(cut.run_dir)) == 3  # one more than the state knows of
    finished(cut)
    assert_same_record(whole, cut)


def test_a_kill_during_the_final_evaluation(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("mses")) for name in ("w", "c")
    )
    finished(whole)

    def results(*args: Any) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(training, "results", results)
        with pytest.raises(Interrupted):
            run(cut, "test")
    finished(cut)
    assert_same_record(whole, cut)


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated state": lambda folder: truncate(folder / LAST),
    "empty state": lambda folder: (folder / LAST).write_bytes(b""),
    "garbage as state": lambda folder: (folder / LAST).write_bytes(os.urandom(5000)) and None,
    "no state": lambda folder: (folder / LAST).unlink(),
    "truncated rows": lambda folder: truncate(folder / ROWS),
    "no rows": lambda folder: (folder / ROWS).unlink(),
    "no configuration": lambda folder: (folder / CONFIG).unlink(),
    "truncated summary": lambda folder: (folder / SUMMARY).write_text('{"status": "do') and None,
    "another model's state": lambda folder: RunRecord(folder).save_state(
        {"fit": {"epoch": 1, "model": {"w": torch.zeros(3)}}, "history": [], "spent": {}}
    ),
    "half-written files": lambda folder: (folder / f"{LAST}.tmp").write_bytes(b"x") and None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_mends_itself(
    damage: str, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = (
        settings(tiny_data, tmp_path / name, *strategy_overrides("miles"), epochs=4)
        for name in ("whole", "cut")
    )
    finished(whole)
    with pytest.raises(Interrupted):
        run(cut, "test", stop_at(3))
    DAMAGE[damage](cut.run_dir)
    finished(cut)
    assert_same_record(whole, cut)
    assert (cut.run_dir / CONFIG).read_bytes() == (whole.run_dir / CONFIG).read_bytes()
    warned = "this run starts again from its first epoch" in capsys.readouterr().out
    assert warned == ("state" in damage and damage != "no state")


# --- the test split ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poisoned_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny sets with NaN and wrong labels in every test row, the rest as it was."""
    return prepare_tiny(tmp_path_factory.mktemp("poisoned"), poison=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_test_sample_before_the_end(
    strategy: str, tiny_data: Path, poisoned_data: Path, tmp_path: Path
) -> None:
    clean, poisoned = (
        settings(data, tmp_path, *strategy_overrides(strategy))
        for data in (tiny_data, poisoned_data)
    )
    assert clean.run_dir != poisoned.run_dir
    one, other = finished(clean), finished(poisoned)
    assert rows_without_time(clean.run_dir) == rows_without_time(poisoned.run_dir)
    assert one["val"] == other["val"]
    assert one["best_epoch"] == other["best_epoch"]
    assert one["utilization"]["val"] == other["utilization"]["val"]
    assert one["test"] != other["test"]
    written = json.loads((poisoned.run_dir / SUMMARY).read_text())
    assert written["test"]["fused"]["loss"] is None  # NaN is null in JSON


@pytest.mark.parametrize("strategy", ["miles", "gblend"])
def test_the_test_split_is_opened_once_after_training(
    strategy: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    original = PreparedData.part

    def part(self: PreparedData, name: str, *args: Any, **kwargs: Any) -> Any:
        events.append(name)
        return original(self, name, *args, **kwargs)

    monkeypatch.setattr(PreparedData, "part", part)
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy))
    run(config, "test", lambda config, row: events.append(f"epoch {row['epoch']}"))
    assert events == ["train", "val", "epoch 1", "epoch 2", "epoch 3", "test"]


# --- selection inside a run -------------------------------------------------------------------


@pytest.mark.parametrize(
    "course, best",
    [([0.1, 0.5, 0.5, 0.4], 2), ([0.3, 0.3, 0.3, 0.3], 1), ([0.1, 0.2, 0.3, 0.9], 4)],
)
def test_best_epoch_is_the_first_best_by_validation(
    course: list[float],
    best: int,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter([v for x in course for v in (1.0 - x, x)])  # training scores say the opposite

    def scripted(task: Any, logits: dict[str, Tensor], y: Tensor) -> Any:
        value = next(left)
        return {k: {"loss": value, "metric": value} for k in logits}

    monkeypatch.setattr(loop, "score", scripted)
    config = settings(tiny_data, tmp_path, *strategy_overrides("vanilla"), epochs=4)
    weights: list[dict[str, Tensor]] = []
    fit = build_fit(config)
    for _ in fit.epochs():
        weights.append({k: v.clone() for k, v in fit.model.state_dict().items()})
    assert fit.best_epoch == best
    assert same_tensors(fit.best, weights[best - 1])


@pytest.mark.parametrize("fusion", ["concat", "film"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_weights_tested_are_those_validated(
    strategy: str, fusion: str, tiny_data: Path, tmp_path: Path
) -> None:
    """The best epoch's scores belong to the weights kept, also where a strategy edits weights."""
    fit = build_fit(settings(tiny_data, tmp_path, *strategy_overrides(strategy, fusion), epochs=5))
    rows = list(fit.epochs())
    metrics = [row["val"]["fused"]["metric"] for row in rows]
    if strategy != "mses":
        assert fit.best_epoch == metrics.index(max(metrics)) + 1
    assert fit.best_metric >= max(metrics)
    fit.load_best()
    assert score(fit.task, fit.ctx.observe("val").logits, fit.val.labels) == fit.best_scores
    if strategy != "mses":  # whose restored composite is scored after the row was made
        assert fit.best_scores == rows[fit.best_epoch - 1]["val"]


# --- the record -------------------------------------------------------------------------------

SCORE = {"loss", "metric"}


@pytest.mark.parametrize("dataset", ["tiny", "tiny_labels", "tiny_three"])
def test_summary(dataset: str, tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides("miles"), dataset=dataset)
    finished(config, "python train.py x=y")
    s = json.loads((config.run_dir / SUMMARY).read_text(), parse_constant=pytest.fail)
    modalities = ["image", "audio", "text"] if dataset == "tiny_three" else ["image", "audio"]
    scores = SCORE
    if dataset == "tiny_labels":
        scores = SCORE | {"f1_micro", "f1_macro", "f1_weighted", "f1_samples"}
    assert s["status"] == "done"
    assert s["run_id"] == config.run_id == config.run_dir.name
    assert (s["dataset"], s["fusion"], s["strategy"]) == (dataset, "concat", "miles")
    assert (s["trial"], s["seed"], s["budget"], s["pinned"]) == (0, 0, "mini", ["strategy.tau"])
    assert s["metric"] == ("f1_micro" if dataset == "tiny_labels" else "accuracy")
    assert (s["modalities"], s["strong"], s["weak"]) == (modalities, "image", "audio")
    assert s["config"] == json.loads(json.dumps(config.identity()))
    assert s["data_fingerprint"] == config.data_fingerprint
    for part in ("val", "test"):
        assert list(s[part]) == ["fused", *modalities]
        assert all(set(v) == scores for v in s[part].values())
        assert all(0 <= v["metric"] <= 1 for v in s[part].values())
        assert set(s["utilization"][part]) == {*modalities, "delta"}
    assert s["gap"] == pytest.approx(s["test"]["image"]["metric"] - s["test"]["audio"]["metric"])
    for m in modalities:
        assert {k: set(v) for k, v in s["missing"][m].items()} == {"zero": scores, "mean": scores}
        assert list(s["noise"][m]) == ["0.5", "1.0", "2.0"]
    assert 1 <= s["best_epoch"] <= s["epochs"] == 3
    rows = records.load_rows(config.run_dir)
    assert s["val"] == rows[s["best_epoch"] - 1]["val"]
    assert s["cost"]["wall_s"] > 0
    assert s["cost"]["train_samples_per_s"] > 0
    assert s["environment"]["torch"] == torch.__version__
    assert s["command"] == "python train.py x=y"
    keys = ["epoch", "train", "val", "utilization", "lr", "strategy", "time"]
    assert [list(row) for row in rows] == [keys] * 3
    groups = [f"{g}.{m}" for g in ("encoder", "head") for m in modalities]
    assert set(rows[0]["lr"]) == {*groups, "fusion"}
    assert json.loads((config.run_dir / CONFIG).read_text()) == s["config"]


def test_summary_of_one_modality(tiny_data: Path, tmp_path: Path) -> None:
    summary = finished(
        settings(tiny_data, tmp_path, "strategy=unimodal", "strategy.modality=audio")
    )
    assert summary["strategy"] == "unimodal_audio"
    assert summary["fusion"] == "concat"
    for part in ("val", "test"):
        assert summary[part]["fused"] == summary[part]["audio"]
        assert set(summary[part]) == {"fused", "audio"}
    assert summary["gap"] is None
    assert summary["missing"] == summary["noise"] == {}


@pytest.mark.parametrize("strategy", ["miles", "gblend"])
def test_a_fraction_of_the_data(strategy: str, tiny_data: Path, tmp_path: Path) -> None:
    config = settings(tiny_data, tmp_path, *strategy_overrides(strategy), "budget=smoke")
    assert config.epochs == 2
    summary = finished(config)
    assert summary["budget"] == "smoke"
    whole_numbers = [summary["test"]["fused"]["metric"] * 2, summary["val"]["fused"]["metric"] * 3]
    assert all(x == pytest.approx(round(x)) for x in whole_numbers)  # 0.2 of 12 and 14 rows


def test_damaged_data_is_one_line_and_leaves_no_summary(tmp_path: Path) -> None:
    data = prepare_tiny(tmp_path / "data")
    config = settings(data, tmp_path / "runs", *strategy_overrides("vanilla"))
    path = data / "tiny" / "audio.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"audio\.npy does not match its sha256 .* --force"
    ) as error:
        run(config, "test")
    assert "\n" not in str(error.value)
    assert not (config.run_dir / SUMMARY).exists()
    path.unlink()
    with pytest.raises(UserError, match=r"audio\.npy is missing: prepare it again"):
        run(config, "test")


@pytest.mark.slow
def test_kill_signals_change_nothing(tiny_data: Path, tmp_path: Path) -> None:
    """Three SIGKILLs at whatever the process is doing, states saved as they are by default."""
    overrides = ("strategy=mses", "strategy.patience=1.0", "epochs=200", "optimizer.lr=0.02")

    def start(place: str) -> subprocess.Popen[bytes]:
        ours = (f"hydra.searchpath=[file://{TEST_CONF}]", "tracker=none", "dataset=tiny")
        where = (f"runtime.runs_dir={tmp_path / place}", "runtime.device=cpu")
        return subprocess.Popen(
            [sys.executable, str(REPO / "train.py"), *ours, *overrides, *where],
            env={**os.environ, "MILES_DATA": str(tiny_data)},
            stdout=subprocess.DEVNULL,
        )

    def rows(place: str) -> int:
        found = list((tmp_path / place).rglob(ROWS))
        return len(found[0].read_text().splitlines()) if found else 0

    assert start("whole").wait(300) == 0
    for wanted in (30, 80, 140):
        process = start("cut")
        while process.poll() is None and rows("cut") < wanted:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not list((tmp_path / "cut").rglob(SUMMARY))
    assert start("cut").wait(300) == 0
    whole, cut = (next((tmp_path / p).rglob(SUMMARY)).parent for p in ("whole", "cut"))
    assert rows_without_time(whole) == rows_without_time(cut)
    one, other = read_summary(whole), read_summary(cut)
    assert one is not None
    assert other is not None
    assert lasting(one) == lasting(other)
