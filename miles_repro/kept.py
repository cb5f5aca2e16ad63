"""A finished run read back: its configuration from its record, its test predictions by row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import miles_repro.records as records
from miles_repro import composing
from miles_repro.config import PATHS, Config
from miles_repro.data.manifest import read_manifest
from miles_repro.errors import UserError, one_line
from miles_repro.records import (
    PREDICTIONS,
    WEIGHTS,
    RunRecord,
    Summary,
    printable,
    read_summary,
)

if TYPE_CHECKING:
    import numpy as np

    from miles_repro.context import Teacher


def find(run: str, runs_dir: Path) -> tuple[Path, Summary]:
    """A finished run by its folder or its id below ``runs_dir``. Raises UserError for others."""
    folders = [f for f in records.run_folders(runs_dir) if f.name == run] or [Path(run).resolve()]
    summary = read_summary(folders[0]) if folders[0].is_dir() else None
    if summary is None:
        raise UserError(
            f"{run}: no finished run there, nor one of that id in {runs_dir} (runs_dir/<data set>/"
            "<fusion>/<strategy>/<id>)"
        )
    return folders[0], summary


def config_of(folder: Path, summary: Summary, data_dir: Path, device: str = "cpu") -> Config:
    """The configuration that a record was made of; its id proves it.

    Raises:
        UserError: another version of this suite made the record, or the data set, pretrained
            weights or a teacher's record have changed or gone.
    """
    try:
        config = _restored(folder, summary, data_dir, device)
        if config.run_id == summary["run_id"]:
            return config
        why = "made by another version, or pretrained weights have changed since"
    except (LookupError, TypeError, AttributeError, ValueError) as e:
        why = f"{type(e).__name__}: {one_line(e)}"
    version = summary["config"].get("numbers_version")
    raise UserError(
        f"{folder}: its configuration cannot be restored "
        f"({printable(f'numbers version {version}; {why}')[:300]})"
    )


def _restored(folder: Path, summary: Summary, data_dir: Path, device: str) -> Config:
    settings: dict[str, Any] = dict(summary["config"])
    settings.pop("numbers_version", None)
    dataset = dict(settings["dataset"])
    name, own = dataset["name"], dataset["modalities"]
    today = composing.resolve(composing.compose(["tracker=none"]))
    dataset["modalities"] = {m: _with_paths(name, m, own[m]) for m in dataset.pop("order")}
    runs_dir = folder.parents[3]
    known = {
        **settings,
        "dataset": {**dataset, "strong": summary["strong"], "weak": summary["weak"]},
        "budget": {"encoders": "", "trials": 1, "seeds": 1, **settings["budget"]},
        "tracker": today["tracker"],
        "runtime": {
            **today["runtime"],
            "runs_dir": runs_dir,
            "data_dir": data_dir,
            "device": device,
            "threads": summary["environment"].get("threads") or 1,
        },
        "keep": summary["keep"],
        "teachers": {
            m: _teacher_config(runs_dir / name / "concat" / f"unimodal_{m}" / run, data_dir, device)
            for m, run in settings.pop("teachers", {}).items()
        },
    }
    return Config.model_validate(known)


def _with_paths(dataset: str, modality: str, node: Mapping[str, Any]) -> dict[str, Any]:
    """A record knows pretrained weights by what they hold; the menu knows where they lie."""
    if not PATHS & {k for k, v in node["encoder"].items() if v}:
        return dict(node)
    encoder = composing.resolve(composing.compose([f"dataset={dataset}", "tracker=none"]))[
        "dataset"
    ]["modalities"][modality]["encoder"]
    where = {k: encoder[k] for k in PATHS & encoder.keys()}
    return {**node, "encoder": {**node["encoder"], **where}}


def _teacher_config(folder: Path, data_dir: Path, device: str) -> Config:
    summary = read_summary(folder)
    if summary is None:
        raise UserError(f"{folder}: the record of a teacher of this run is gone")
    return config_of(folder, summary, data_dir, device)


def predictions(
    folder: Path, config: Config, summary: Summary
) -> tuple[dict[str, np.ndarray], str]:
    """Test predictions by row (``fused``, modalities, ``labels``) and where they come from.

    Kept ones are read; from kept weights they are computed again.

    Raises:
        UserError: neither was kept, or the model cannot be built again.
    """
    record = RunRecord(folder)
    if (folder / PREDICTIONS).exists():
        return record.load_predictions(), "kept predictions"
    if not (folder / WEIGHTS).exists():
        raise UserError(
            f"{folder} keeps neither weights nor predictions: repeat its command with "
            f"keep=[predictions] rerun=true ({summary['command']})"
        )
    return _computed(config, record, summary), "predictions computed again from kept weights"


def _computed(config: Config, record: RunRecord, summary: Summary) -> dict[str, np.ndarray]:
    import torch

    from miles_repro.config import build
    from miles_repro.data.reader import PreparedData
    from miles_repro.evaluate import score
    from miles_repro.training import build_fit, usable_device

    torch.set_num_threads(config.runtime.threads)
    strategy = build(config.strategy)
    used = strategy.restrict(list(config.dataset.modalities))
    where = config.runtime.data_dir / config.dataset.name
    if read_manifest(where)["fingerprint"] != config.data_fingerprint:
        raise UserError(f"{where} is not the data that {record.folder} was trained on")
    data = PreparedData(where, config.dataset.scheme, used, config.seed)
    device = usable_device(config.runtime.device)
    part = partial(
        data.part,
        device=device,
        resident_mb=config.runtime.resident_mb,
        fraction=config.budget.data_fraction,
    )
    teachers = {m: _teacher(one) for m, one in config.teachers.items() if m in used}
    fit = build_fit(config, strategy, used, part, device, teachers)
    fit.best = {k: v.to(device) for k, v in record.load_weights().items()}
    try:
        fit.load_best()
    except RuntimeError:
        raise UserError(
            f"{record.folder}: the kept weights hold modules that {config.strategy['name']} made "
            "during training; train it with keep=[predictions]"
        ) from None
    seen = fit.ctx.look(part("test"))
    found = score(fit.task, seen.logits, seen.labels)
    alike = summary["environment"].get("device") == device.type == "cpu"
    for head in found.keys() | summary["test"].keys():
        if not _as_recorded(found.get(head), summary["test"].get(head), alike):
            raise UserError(
                f"{record.folder}: the kept weights do not give the scores on record ({head}); "
                "train it with keep=[predictions]"
            )
    return {k: v.cpu().numpy() for k, v in {**seen.logits, "labels": seen.labels}.items()}


def _as_recorded(found: Mapping[str, Any] | None, known: Any, alike: bool) -> bool:
    """alike: both on a CPU. Another device or processor adds up in another order."""
    if found is None or known is None:
        return False
    near = 1e-6 if alike else 1e-3
    return all(
        math.isclose(found[key], known[key], rel_tol=near, abs_tol=near)
        if known[key] is not None
        else not math.isfinite(found[key])
        for key in (("metric", "loss") if alike else ("metric",))
    )


def _teacher(config: Config) -> Teacher:
    from miles_repro.training import teacher_from

    summary = read_summary(config.run_dir)
    assert summary is not None  # its configuration was read from it
    weights = RunRecord(config.run_dir).load_weights()
    return teacher_from(config, summary, weights, config.runtime.device)
