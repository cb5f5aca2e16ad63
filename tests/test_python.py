"""The suite in Python: the command line's runs and records, and nothing of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import REPO
from support import TEST_CONF, lasting

import miles_repro as mr
from miles_repro.api import _choices, _text
from miles_repro.errors import UserError
from miles_repro.records import load_rows, load_summaries


@pytest.fixture
def tiny(tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """Overrides that lead to the tiny data set and a folder of runs."""
    return {
        "hydra.searchpath": [f"file://{TEST_CONF}"],
        "runtime.data_dir": tiny_data,
        "runtime.runs_dir": tmp_path / "its runs",
        "runtime.device": "cpu",
        "dataset": "tiny",
        "tracker": "none",
        "epochs": 2,
    }


def test_importing_loads_no_heavy_library() -> None:
    code = (
        "import sys, miles_repro as mr; dir(mr); import miles_repro.api\n"
        "heavy = {'torch', 'pydantic', 'hydra', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert {'run', 'sweep', 'records', 'curves', 'MILES'} <= set(dir(mr))\n"
        "assert all(callable(getattr(mr, name)) for name in ('records', 'run', 'sweep', 'curves'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)


def test_a_run_is_that_of_the_command_line(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"strategy": "miles", "seed": 3, "strategy.tau": 0.05, "keep": ["predictions"]}
    here = mr.run(**tiny, **chosen)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch 1/2  val fused")
    assert printed[-1].startswith("tiny concat miles trial=0 seed=3: test fused")
    folder = next(tiny["runtime.runs_dir"].glob("tiny/concat/miles/*"))
    assert (folder / "predictions.npz").is_file()
    assert json.loads((folder / "summary.json").read_text()) == here
    assert here["config"]["strategy"]["tau"] == 0.05
    assert mr.run(**tiny, **chosen) == here
    assert "already done" in capsys.readouterr().out
    # its `command`, elsewhere
    words = here["command"].removeprefix("python train.py ").split(" runtime.runs_dir=")
    other = tiny["runtime.runs_dir"].parent / "there"
    rest = words[1].split("' ", 1)[1].split()
    train = [sys.executable, REPO / "train.py", *words[0].split(), *rest]
    subprocess.run([*train, f"runtime.runs_dir={other}"], check=True, capture_output=True)
    assert lasting(load_summaries(other)[0]) == lasting(dict(here))  # type: ignore[arg-type]


def test_a_sweep_gives_its_own_records(
    tiny: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mr.run(**tiny, strategy="vanilla", seed=1)
    mr.run(**tiny, strategy="vanilla", seed=9)
    frame = mr.sweep(**tiny, strategy=["vanilla", "miles"], seed=range(1, 3))
    assert "sweep over in" in capsys.readouterr().out
    cells = sorted(zip(frame["strategy"], frame["seed"], strict=True))
    assert cells == [("miles", 1), ("miles", 2), ("vanilla", 1), ("vanilla", 2)]
    everything = mr.records(tiny["runtime.runs_dir"])
    assert sorted(everything["seed"]) == [1, 1, 2, 2, 9]


def test_a_failing_run_ends_a_sweep_with_its_line(tiny: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no strategy 'mils': did you mean miles"):
        mr.sweep(**tiny, strategy="mils")
    with pytest.raises(UserError, match=r"failed: .*mu=7"):
        mr.sweep(**tiny, strategy="miles", **{"strategy.mu": [0.5, 7]})
    assert len(mr.records(tiny["runtime.runs_dir"])) == 1


def test_records_have_a_row_a_run_and_a_column_a_number(tiny: dict[str, Any]) -> None:
    one = mr.run(**tiny, strategy="miles", seed=1)
    two = mr.run(**tiny, strategy="unimodal", **{"strategy.modality": "audio"})
    frame = mr.records(tiny["runtime.runs_dir"]).set_index("run_id")
    assert len(frame) == 2
    row = frame.loc[one["run_id"]]
    assert row["test.fused.metric"] == one["test"]["fused"]["metric"]
    assert (
        row["instruments.probe.val.image.loss"]
        == (one["instruments"]["probe"]["val"]["image"]["loss"])
    )
    assert row["config.strategy.tau"] == one["config"]["strategy"]["tau"]
    assert np.isnan(frame.loc[two["run_id"], "config.strategy.tau"])
    assert frame["test.fused.metric"].dtype == float
    assert not frame.map(lambda value: isinstance(value, (list, dict))).any(axis=None)
    assert not [key for key in frame if key.startswith("code.")]


def test_no_records_are_an_empty_table(tmp_path: Path) -> None:
    assert mr.records(tmp_path).empty
    with pytest.raises(UserError, match=r"no run 'x' in .*: records\(\)"):
        mr.curves("x", tmp_path)


def test_curves_have_a_row_an_epoch(tiny: dict[str, Any]) -> None:
    run_id = mr.run(**tiny, strategy="miles")["run_id"]
    runs = tiny["runtime.runs_dir"]
    frame = mr.curves(run_id, runs)
    rows = load_rows(runs / "tiny/concat/miles" / run_id)
    assert list(frame.index) == [row["epoch"] for row in rows] == [1, 2]
    assert list(frame["val.fused.metric"]) == [row["val"]["fused"]["metric"] for row in rows]
    assert {"lr.encoder.image", "utilization.delta", "train.audio.loss"} <= set(frame)
    assert isinstance(frame, pd.DataFrame)


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "null"),
        (True, "true"),
        (0.1, "0.1"),
        (np.float64(1e-5), "1e-05"),
        ("range(0,8)", "range(0,8)"),
        (["a", 1], "[a,1]"),
        ({"tau": 0.1, "mu": None}, "{tau:0.1,mu:null}"),
        (Path("a b/it's"), r"'a b/it\'s'"),
    ],
)
def test_values_as_hydra_writes_them(value: Any, text: str) -> None:
    assert _text(value) == text


def test_lists_are_choices_but_for_hydra_s_own() -> None:
    assert _choices("seed", range(3)) == "0,1,2"
    assert _choices("keep", [["weights"], []]) == "[weights],[]"
    assert _choices("hydra.searchpath", ["file:///a"]) == "[file:///a]"


def test_a_wrong_key_is_one_line(tiny: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="strateg") as error:
        mr.run(**tiny, strateg="miles")
    assert "\n" not in str(error.value)


def test_hints_of_a_wheel_name_its_commands(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whoever installed the wheel has no scripts/ to call."""
    from miles_repro import hints, places
    from miles_repro.data import command, recipe

    monkeypatch.setattr(places, "CHECKOUT", None)
    manifest = {"modalities": {"a": {}, "b": {}}}
    told = [*recipe.next_commands("mine", manifest, None)]
    with pytest.raises(UserError) as error:
        mr.run(dataset="mfeat", **{"runtime.data_dir": tmp_path})
    told += [str(error.value), hints.explain(Exception("Could not override 'strateg'"))]
    assert not [line for line in told if "python " in line]
    assert [line.split()[0] for line in told[:3]] == ["miles-train"] * 2 + ["miles-reproduce"]
    assert "run miles-prepare dataset=mfeat" in told[3]
    assert "(miles-train --cfg job lists all)" in told[4]
    assert command.USAGE.startswith("{command} dataset=")
