"""A report page on synthetic records, and the CSV tables it has to agree with."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from record_factory import ablation, epoch_rows, population, record

from miles_repro import report
from miles_repro.report.page import page
from miles_repro.report.provenance import Origin
from miles_repro.selection import studies

Key = tuple[str, ...]


@dataclass(frozen=True)
class Made:
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "report.html"

    @property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    @property
    def data(self) -> dict[str, Any]:
        """The JSON that the page shows."""
        found = re.search(r'<script id="data" type="application/json">(.*?)</script>', self.text)
        assert found
        return dict(json.loads(found[1]))

    def csv(self, name: str, *keys: str) -> dict[Key, dict[str, Any]]:
        """A table's lines by some of their columns; nothing for an empty field."""
        frame = pd.read_csv(self.folder / "tables" / f"{name}.csv", dtype={"setting": str})
        lines = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return {tuple(str(line[key]) for key in keys): dict(line) for line in lines}


def make(folder: Path, records: Sequence[dict[str, Any]], **options: Any) -> Made:
    """As `report.write_all`, without drawing figures."""
    report.write_tables(records, folder, command="make tables", commit="abc1234")
    (folder / "report.html").write_text(html(records, **options), encoding="utf-8")
    return Made(folder)


def html(records: Sequence[dict[str, Any]], **options: Any) -> str:
    found, origin = studies(records), Origin("make tables", "abc1234", report.stand_ins(records))
    rows = {run["run_id"]: epoch_rows(run) for run in report.dynamics_runs(records)}
    return page(found, report.all_sheets(found, origin), origin, rows, **options)


def own_records() -> list[dict[str, Any]]:
    """A data set and a strategy that the suite does not ship; the strategy clearly leads."""
    found = population(("birds",), ["vanilla", "vanilla_aux", "miles"], ["concat"], range(1, 9))
    config = {"name": "mine", "_target_": "my_module.Mine", "k": 3}
    for seed in range(1, 9):
        level = (0.99, 0.9, 0.8)
        run = record("mine", dataset="birds", seed=seed, level=level, noise=0.001, label="My own")
        found.append({**run, "config": {**run["config"], "strategy": config}})
    return found


def mixed() -> list[dict[str, Any]]:
    """The paper's data, stand-in data, the user's own, three modalities, a cell of search only."""
    names = ["vanilla", "vanilla_aux", "miles", "ogm", "unimodal_image", "unimodal_audio"]
    paper = population(("luma",), names, seeds=range(1, 9), budget="paper")
    for name, values in {
        "tau": [0.0, 0.1, 0.2, 0.5],
        "mu": [1.0, 0.5, 0.1],
        "source": ["train"],
    }.items():
        paper += ablation(name, values, dataset="luma", budget="paper")
    stand_in = population(("smnist",), names[:3], ["sum"], stand_in=True)
    three = [
        record(
            strategy,
            dataset="three",
            modalities=("one", "two", "three"),
            seed=seed,
            level=level,
        )
        for strategy, level in {
            "vanilla_aux": (0.8, 0.7, 0.5, 0.6),
            "miles": (0.83, 0.69, 0.52, 0.61),
            "vanilla": (0.79, 0.71, 0.4, 0.5),
        }.items()
        for seed in range(1, 6)
    ]
    searched = [record("mses", dataset="three", modalities=("one", "two", "three"), seed=0,
                       level=(0.8, 0.7, 0.5, 0.6))]  # fmt: skip
    return paper + stand_in + own_records() + three + searched
